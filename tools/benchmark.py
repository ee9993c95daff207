"""`make bench`: training speed of sft_lab beside TRL and a plain loop on the same examples, as
ratios of one run.

Every side runs in a process of its own, in turn, three times; the medians are compared. All start
from the same weights and train in fp32 on the same token ids, labels and batches, and must show the
same training losses, or there is no result: speed that changes what is learned does not count. (The
fixed TRL side draws its batches at random.)

The share of the matrix ceiling is the matrix products that a step needs over the seconds it took,
divided by what a product of two 1024 x 1024 matrices reaches on the same machine in the same run.
Needed are, for every real token, a forward and a backward pass (6 operations a weight) through the
linear layers, causal attention at half of T x T, and the last layer's MLP and the vocabulary head
at graded positions alone; padding counts as nothing.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sft_lab.files import check_writable, write_json

if TYPE_CHECKING:  # the parent process imports neither torch nor transformers
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

    from sft_lab.examples import Example

REPEATS, STEPS, BATCH_SIZE, LEARNING_RATE = 3, 110, 32, 3e-4
SIDES = {
    "sft_lab": "sft_lab.train",
    "trl_best": "TRL SFTTrainer: fp32, no checkpointing, batches of similar length, freed memory "
    "kept",
    "trl_fixed": "TRL SFTTrainer: fp32, no checkpointing, batches in random order",
    "hf_loop": "plain loop on the transformers model with labels=, batches of similar length",
}
WINDOW, LOSS_TOLERANCE = 10, 1e-4  # mean losses of ten steps are compared, in nats per graded token


def run_side(side: str) -> dict:
    """Train STEPS steps; returns tokens/s over the training call and the training losses, a mean
    for each ten steps."""
    import torch
    from gpu_measure import matrix_ceiling

    from sft_lab import atlas
    from sft_lab.labels import encode_conversations
    from sft_lab.models import load

    def ceiling() -> float:
        return matrix_ceiling(torch.device("cpu"), torch.float32, size=1024, repeats=40)

    model, tokenizer = load("atlas-base")
    examples = encode_conversations(
        atlas.training_conversations(seed=0)[: STEPS * BATCH_SIZE], tokenizer
    )
    tokens = sum(len(example.input_ids) for example in examples)
    before = ceiling()
    if side == "sft_lab":
        seconds, losses = train_with_sft_lab(model, tokenizer, examples)
    elif side == "hf_loop":
        seconds, losses = train_with_a_plain_loop(model, examples)
    else:
        seconds, losses = train_with_trl(model, tokenizer, examples, best=side == "trl_best")
    # before and after: other work on the machine slows both
    operations_a_second = statistics.mean((before, ceiling()))
    share = matrix_operations(model, examples) / seconds / operations_a_second
    return {
        "tokens_per_second": tokens / seconds,
        "losses": losses,
        "share_of_matrix_ceiling": share,
    }


def train_with_sft_lab(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", examples: "list[Example]"
) -> tuple[float, list[float]]:
    """Seconds, and mean losses of ten steps each; so with the other sides below."""
    from sft_lab.train import train

    started = time.perf_counter()
    history = train(
        model,
        tokenizer,
        examples,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        progress=False,
    )
    return time.perf_counter() - started, mean_losses(history.losses)


def train_with_a_plain_loop(
    model: "PreTrainedModel", examples: "list[Example]"
) -> tuple[float, list[float]]:
    from sft_lab.batches import pad_batch

    order = batch_order(examples)
    started = time.perf_counter()
    losses = plain_loop(model, [pad_batch([examples[i] for i in batch], 0) for batch in order])
    return time.perf_counter() - started, mean_losses(losses)


def train_with_trl(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: "list[Example]",
    *,
    best: bool,
) -> tuple[float, list[float]]:
    from datasets import Dataset
    from trl import SFTTrainer

    from sft_lab.loop.process import keep_freed_memory

    if best:  # TRL has neither of these two: they are set up for it from outside
        keep_freed_memory()
        examples = [examples[i] for batch in batch_order(examples) for i in batch]
    rows = [
        {"input_ids": e.input_ids, "completion_mask": [int(label >= 0) for label in e.labels]}
        for e in examples
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=trl_settings(folder, "sequential" if best else "random"),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        started = time.perf_counter()
        trainer.train()
    seconds = time.perf_counter() - started
    return seconds, [log["loss"] for log in trainer.state.log_history if "loss" in log]


def trl_settings(folder: str, order: str) -> "SFTConfig":
    from trl import SFTConfig

    return SFTConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        num_train_epochs=1,
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.0,
        logging_steps=WINDOW,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        packing=False,
        completion_only_loss=True,
        seed=0,
        train_sampling_strategy=order,
    )


def batch_order(examples: "list[Example]") -> list[list[int]]:
    """The batches of train(seed=0) in its first epoch."""
    from sft_lab.batches import group_by_length

    return group_by_length([len(e.input_ids) for e in examples], BATCH_SIZE, seed=0)


def mean_losses(losses: list[float]) -> list[float]:
    """The mean of every WINDOW steps; a last part that is shorter is left out, as TRL does."""
    starts = range(0, len(losses) - WINDOW + 1, WINDOW)
    return [sum(losses[start : start + WINDOW]) / WINDOW for start in starts]


def plain_loop(model: "PreTrainedModel", batches: list[dict]) -> list[float]:
    """The loop most people write first: model(**batch).loss, clip, AdamW, cosine schedule; returns
    its losses."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(
        optimizer, math.ceil(0.1 * len(batches)), len(batches)
    )
    losses = []
    model.train()
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def matrix_operations(model: "PreTrainedModel", examples: "list[Example]") -> float:
    """Floating-point operations of the matrix products that one epoch over `examples` needs
    (convention: above)."""
    config = model.config
    mlp = 3 * config.hidden_size * config.intermediate_size
    attention = (
        config.head_dim
        * config.hidden_size
        * 2
        * (config.num_attention_heads + config.num_key_value_heads)
    )
    width = config.num_attention_heads * config.head_dim
    total = 0.0
    for example in examples:
        tokens, graded = len(example.input_ids), sum(label >= 0 for label in example.labels)
        last = tokens * attention + graded * (mlp + config.hidden_size * config.vocab_size)
        weights = (config.num_hidden_layers - 1) * tokens * (attention + mlp) + last
        scores = (
            config.num_hidden_layers * tokens * tokens / 2 * 2 * width
        )  # q k^T, and weights times v
        total += 6 * (weights + scores)
    return total


def run_all() -> dict[str, list[dict]]:
    """Every side REPEATS times, in turn, each in a process of its own."""
    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    for repeat in range(REPEATS):
        for side in SIDES:
            print(f"run {repeat + 1} of {REPEATS}: {SIDES[side]}", file=sys.stderr)
            done = subprocess.run(
                [sys.executable, __file__, "--side", side], capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr[-2000:]}")
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    return runs


def compare_losses(runs: dict[str, list[dict]]) -> dict[str, float]:
    """The largest difference from the losses of sft_lab, by side; ends the program where it is
    above LOSS_TOLERANCE."""
    ours, apart = runs["sft_lab"][0]["losses"], {}
    for side in ("trl_best", "hf_loop"):  # trl_fixed draws other batches
        theirs = runs[side][0]["losses"]
        apart[side] = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
        if apart[side] > LOSS_TOLERANCE:
            sys.exit(
                f"the losses of {side} differ by up to {apart[side]:.1e} nats, so the speeds are "
                "not compared"
            )
    return apart


def make_report(runs: dict[str, list[dict]]) -> dict:
    def median(side: str, figure: str) -> float:
        return statistics.median(run[figure] for run in runs[side])

    apart = compare_losses(runs)
    speed = {side: median(side, "tokens_per_second") for side in SIDES}
    settings = {"steps": STEPS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE}
    return {
        "ratio_to_trl_best": speed["sft_lab"] / speed["trl_best"],
        "ratio_to_trl_fixed": speed["sft_lab"] / speed["trl_fixed"],
        "ratio_to_hf_loop": speed["sft_lab"] / speed["hf_loop"],
        "share_of_matrix_ceiling": median("sft_lab", "share_of_matrix_ceiling"),
        "tokens_per_second": speed,
        "largest_loss_difference": apart,
        "settings": {**settings, "repeats": REPEATS},
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--side",
        choices=SIDES,
        help="run one side once and print JSON (used by the command itself)",
    )
    parser.add_argument("--output", type=Path, default=Path("reports/bench.json"))
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments.side)))
        return
    check_writable(arguments.output)
    report = make_report(run_all())
    write_json(arguments.output, report)
    speed, apart = report["tokens_per_second"], report["largest_loss_difference"]
    for side, label in SIDES.items():
        times = speed["sft_lab"] / speed[side]
        print(f"{label:86} {speed[side]:8,.0f} tokens/s   sft_lab is {times:.2f} × this")
    print(
        f"sft_lab reaches {report['share_of_matrix_ceiling']:.0%} of this machine's matrix ceiling"
    )
    print(
        f"largest difference of the training losses: {max(apart.values()):.1e} nats per graded "
        "token"
    )


if __name__ == "__main__":
    main()
