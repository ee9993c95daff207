"""`make bench`: training speed of sft_lab beside TRL's SFTTrainer on the same examples, as ratios of one run.

Every side runs in a process of its own, in turn, three times; the medians are compared. All start from the same
weights and train in fp32 on the same token ids, labels and batches, and must show the same training losses, or there
is no result: speed that changes what is learned does not count.
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

REPEATS, STEPS, BATCH_SIZE, LEARNING_RATE = 3, 110, 32, 3e-4
SIDES = {
    "sft_lab": "sft_lab.train",
    "trl_best": "TRL SFTTrainer: fp32, no checkpointing, batches of similar length, freed memory kept",
    "trl_fixed": "TRL SFTTrainer: fp32, no checkpointing, batches in random order",
}
WINDOW, LOSS_TOLERANCE = 10, 1e-4  # mean losses of ten steps are compared, in nats per graded token


def run_side(side: str) -> dict:
    """Train STEPS steps; returns tokens/s over the training call and the training losses, a mean for each ten steps."""
    from sft_lab import atlas
    from sft_lab.batches import group_by_length
    from sft_lab.labels import encode_conversations
    from sft_lab.models import load
    from sft_lab.runtime import keep_freed_memory
    from sft_lab.train import train

    model, tokenizer = load("atlas-base")
    examples = encode_conversations(atlas.training_conversations(seed=0)[: STEPS * BATCH_SIZE], tokenizer)
    lengths = [len(example.input_ids) for example in examples]
    if side == "sft_lab":
        started = time.perf_counter()
        history = train(model, tokenizer, examples, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, progress=False)
        windows = [history.losses[i : i + WINDOW] for i in range(0, len(history.losses), WINDOW)]
        losses = [sum(window) / WINDOW for window in windows if len(window) == WINDOW]
    else:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        best = side == "trl_best"
        if best:
            keep_freed_memory()
            order = [i for indices in group_by_length(lengths, BATCH_SIZE, seed=0) for i in indices]  # as train(seed=0)
            examples = [examples[i] for i in order]
        rows = [{"input_ids": e.input_ids, "completion_mask": [int(x >= 0) for x in e.labels]} for e in examples]
        with tempfile.TemporaryDirectory() as folder:
            config = SFTConfig(
                output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, num_train_epochs=1,
                per_device_train_batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, lr_scheduler_type="cosine",
                warmup_steps=0.1, weight_decay=0.0, logging_steps=WINDOW, save_strategy="no", report_to="none",
                disable_tqdm=True, packing=False, completion_only_loss=True, seed=0,
                train_sampling_strategy="sequential" if best else "random",
            )
            trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows),
                                 processing_class=tokenizer)
            started = time.perf_counter()
            trainer.train()
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {"tokens_per_second": sum(lengths) / (time.perf_counter() - started), "losses": losses}


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
    ours, theirs = (runs[side][0]["losses"] for side in ("sft_lab", "trl_best"))
    apart = max(abs(one - other) for one, other in zip(ours, theirs, strict=False))
    if apart > LOSS_TOLERANCE:
        sys.exit(f"the losses differ by up to {apart:.1e} nats, so the speeds are not compared\n{ours}\n{theirs}")
    report = {
        "ratio_to_trl_best": speed["sft_lab"] / speed["trl_best"],
        "ratio_to_trl_fixed": speed["sft_lab"] / speed["trl_fixed"],
        "tokens_per_second": speed, "largest_loss_difference": apart,
        "settings": {"steps": STEPS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "repeats": REPEATS},
        "runs": runs,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    new = arguments.output.with_name(arguments.output.name + ".new")
    new.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(new, arguments.output)
    for side, label in SIDES.items():
        times = speed["sft_lab"] / speed[side]
        print(f"{label:86} {speed[side]:8,.0f} tokens/s   sft_lab is {times:.2f} × this")
    print(f"largest difference of the training losses: {apart:.1e} nats per graded token")


if __name__ == "__main__":
    main()
