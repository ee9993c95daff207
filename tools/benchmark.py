"""`make bench`: training speed of sft_lab beside TRL's SFTTrainer on the same examples, as ratios of one run.

Every side runs in a process of its own, in turn, three times; the medians are compared. Both start from the same
weights, train in fp32 on the same token ids and labels, and must end with the same loss on the same examples, or
there is no result: speed that changes what is learned does not count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS, EPOCHS, BATCH_SIZE, LEARNING_RATE = 3, 2, 32, 1e-3
SIDES = {
    "sft_lab": "sft_lab.train",
    "trl_best": "TRL SFTTrainer: fp32, no checkpointing, group_by_length, freed memory kept",
    "trl_fixed": "TRL SFTTrainer: fp32, no checkpointing",
}
LOSS_TOLERANCE = 0.02  # nats per graded token on the training examples at the end; batches meet in another order


def run_side(side: str) -> dict[str, float]:
    """Train once; returns tokens/s over the training call and the losses before and after."""
    from sft_lab import atlas
    from sft_lab.labels import encode_conversations
    from sft_lab.models import load
    from sft_lab.train import evaluate, keep_freed_memory, train

    model, tokenizer = load("atlas-base")
    examples = encode_conversations(atlas.training_conversations(seed=0), tokenizer)
    tokens = EPOCHS * sum(len(example.input_ids) for example in examples)
    before = evaluate(model, tokenizer, examples)["loss"]
    if side == "sft_lab":
        started = time.perf_counter()
        train(model, tokenizer, examples, epochs=EPOCHS, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE,
              warmup_ratio=0.1, progress=False)
    else:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        best = side == "trl_best"
        if best:
            keep_freed_memory()
        rows = [{"input_ids": e.input_ids, "completion_mask": [int(x >= 0) for x in e.labels]} for e in examples]
        with tempfile.TemporaryDirectory() as folder:
            config = SFTConfig(
                output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, num_train_epochs=EPOCHS,
                per_device_train_batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, lr_scheduler_type="cosine",
                warmup_steps=0.1, weight_decay=0.0, logging_steps=1000, save_strategy="no", report_to="none",
                disable_tqdm=True, packing=False, completion_only_loss=True, seed=0,
                train_sampling_strategy="group_by_length" if best else "random",
            )
            trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows),
                                 processing_class=tokenizer)
            started = time.perf_counter()
            trainer.train()
    seconds = time.perf_counter() - started
    after = evaluate(model, tokenizer, examples)["loss"]
    return {"tokens_per_second": tokens / seconds, "loss_before": before, "loss_after": after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="run one side once and print JSON (used by the command itself)")
    parser.add_argument("--output", type=Path, default=Path("reports/bench.json"))
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments.side)))
        return
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for repeat in range(REPEATS):
        for side in SIDES:
            print(f"run {repeat + 1} of {REPEATS}: {SIDES[side]}", file=sys.stderr)
            done = subprocess.run([sys.executable, __file__, "--side", side], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr[-2000:]}")
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    speed = {side: statistics.median(run["tokens_per_second"] for run in results) for side, results in runs.items()}
    losses = {side: results[0]["loss_after"] for side, results in runs.items()}
    if max(losses.values()) - min(losses.values()) > LOSS_TOLERANCE:
        sys.exit(f"the sides did not learn the same, so their speeds are not compared; final losses {losses}")
    report = {
        "ratio_to_trl_best": speed["sft_lab"] / speed["trl_best"],
        "ratio_to_trl_fixed": speed["sft_lab"] / speed["trl_fixed"],
        "tokens_per_second": speed, "loss_before": runs["sft_lab"][0]["loss_before"], "loss_after": losses,
        "settings": {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "repeats": REPEATS},
        "runs": runs,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    new = arguments.output.with_name(arguments.output.name + ".new")
    new.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(new, arguments.output)
    for side, label in SIDES.items():
        times = speed["sft_lab"] / speed[side]
        print(f"{label:76} {speed[side]:8,.0f} tokens/s   loss {losses[side]:.3f}   sft_lab is {times:.2f} × this")


if __name__ == "__main__":
    main()
