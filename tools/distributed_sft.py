r"""SFT with TRL in one process or in many: FSDP or DeepSpeed split the model, the losses stay the
same.

    accelerate launch --config_file configs/fsdp.yaml tools/distributed_sft.py \
        --model qwen3-0.6b-base --data my.jsonl
    accelerate launch --config_file configs/zero2.yaml tools/distributed_sft.py \
        --model qwen3-0.6b-base --data my.jsonl
    python tools/distributed_sft.py --steps 40  # one process: atlas-base on Atlas, on a CPU

Step k takes the rows k·B to (k + 1)·B in any number of processes, and every graded token of them
weighs the same: N processes repeat the run of one, up to rounding. OUTPUT/run.json has the losses,
and what each process did and held.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sft_lab.files import check_folder_writable, write_json

if TYPE_CHECKING:  # imports take seconds: --help and a wrong option answer at once
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--model", default="atlas-base", help="a name of sft_lab.models, a hub id or a folder"
    )
    parser.add_argument(
        "--data", type=Path, help="JSON, JSONL or CSV, as for make demo; default: Atlas"
    )
    parser.add_argument(
        "--lora", action="store_true", help="train adapters of rank 16 on all linear layers only"
    )
    parser.add_argument(
        "--steps", type=int, help="stop after so many; default: one pass over the data"
    )
    parser.add_argument(
        "--batch-size", type=int, default=16, help="rows a step, all processes together"
    )
    parser.add_argument(
        "--rows-at-once", type=int, help="rows a process holds at once; default: its part of a step"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=1024, help="longer conversations lose their last turns"
    )
    parser.add_argument(
        "--checkpointing", action="store_true", help="compute activations twice, keep few"
    )
    parser.add_argument("--learning-rate", type=float, help="default: 1e-5, with --lora 2e-4")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("reports/distributed"),
        help="folder of model and run.json",
    )
    arguments = parser.parse_args()

    from sft_lab.labels import LabelError
    from sft_lab.models import ModelError
    from sft_lab.records import RecordError

    try:
        check_folder_writable(arguments.output)
        run(arguments)
    except (RecordError, LabelError, ModelError, OSError) as error:  # OSError: the hub, or a file
        sys.exit(f"{error}")


def run(arguments: argparse.Namespace) -> None:
    """Train, save model and run.json. Every process runs this; they meet in SFTConfig, at each
    step, and to save."""
    import datasets
    from accelerate.utils import gather_object
    from peft import LoraConfig
    from trl import SFTTrainer

    datasets.disable_progress_bars()
    # before the model: it joins the processes, and only then does one of them read for all
    config = make_config(arguments)
    model, tokenizer = load_float32(arguments.model)
    rows = read_rows(arguments, tokenizer)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if arguments.lora else None
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
    )
    collate, lengths = trainer.data_collator, []  # tokens of each row that came to this process

    def collate_and_count(rows: list[dict]) -> "dict[str, torch.Tensor]":
        lengths.extend(len(row["input_ids"]) for row in rows)
        return collate(rows)

    trainer.data_collator = collate_and_count
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    here = {"rows": len(lengths), "tokens": sum(lengths), **count_held(trainer)}
    report = {
        "engine": trainer.accelerator.distributed_type.value,
        "seconds": seconds,
        "losses": [log["loss"] for log in trainer.state.log_history if "loss" in log],
        "processes": gather_object([here]),
    }
    trainer.save_model()  # every process takes part: the weights are gathered from all
    if trainer.is_world_process_zero():
        write_report(report, arguments.output)


def make_config(arguments: argparse.Namespace) -> "SFTConfig":
    """The settings of a run, the same in any number of processes but for the rows of each."""
    import torch
    from trl import SFTConfig

    from sft_lab.models import local_device

    dtype = local_device()[1]
    config = SFTConfig(
        output_dir=str(arguments.output),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        learning_rate=arguments.learning_rate or (2e-4 if arguments.lora else 1e-5),
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.0,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        activation_checkpointing=arguments.checkpointing,
        max_length=arguments.max_tokens,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    batch_size, processes = arguments.batch_size, config.world_size
    rows_at_once = arguments.rows_at_once or max(1, batch_size // processes)
    if batch_size % (rows_at_once * processes):
        sys.exit(
            f"--batch-size {batch_size}: no multiple of {processes} processes x {rows_at_once} "
            "rows at once"
        )
    config.per_device_train_batch_size = rows_at_once
    config.gradient_accumulation_steps = batch_size // (rows_at_once * processes)
    return config


def load_float32(name: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Model and tokenizer by name, the weights in float32, whatever the products are computed in,
    and on no device yet: that is the engine's business."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sft_lab.models import find_source, set_pad_token

    source, _ = find_source(name)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    set_pad_token(model, tokenizer)
    return model, tokenizer


def read_rows(arguments: argparse.Namespace, tokenizer: "PreTrainedTokenizerBase") -> list[dict]:
    """Encoded rows for TRL, as many as fill whole steps."""
    from sft_lab import atlas
    from sft_lab.labels import encode_conversations
    from sft_lab.records import load_conversations

    conversations = (
        load_conversations(arguments.data)
        if arguments.data
        else atlas.training_conversations(seed=0)
    )
    steps = min(arguments.steps or sys.maxsize, len(conversations) // arguments.batch_size)
    if steps < 1:
        sys.exit(
            f"{len(conversations)} conversations do not fill one step of --batch-size "
            f"{arguments.batch_size}"
        )
    examples = encode_conversations(
        conversations[: steps * arguments.batch_size],
        tokenizer,
        max_tokens=arguments.max_tokens,
        source=str(arguments.data),
    )
    return [
        {"input_ids": e.input_ids, "completion_mask": [int(label >= 0) for label in e.labels]}
        for e in examples
    ]


def write_report(report: dict, folder: Path) -> None:
    """Write run.json, and say what each process did."""
    write_json(folder / "run.json", report)
    for rank, process in enumerate(report["processes"]):
        print(
            f"process {rank} of {len(report['processes'])}:",
            ", ".join(f"{value:,} {name}" for name, value in process.items()),
        )
    print(
        f"{len(report['losses'])} steps in {report['seconds']:.1f} s; the model and run.json are "
        f"in {folder}"
    )


def count_held(trainer: "SFTTrainer") -> dict[str, int]:
    """What this process holds when a step is done: numbers of weights, numbers of Adam's averages
    (two a trained weight), and on a GPU the peak memory in bytes since the start."""
    import torch

    def count(tensors: list[torch.Tensor]) -> int:
        # FSDP: this shard only
        return sum((x.to_local() if hasattr(x, "to_local") else x).numel() for x in tensors)

    state = [x for values in trainer.optimizer.state.values() for x in values.values()]
    # beside them Adam counts its steps, in a number without dimensions
    averages = [x for x in state if torch.is_tensor(x) and x.ndim]
    held = {"weights": count(list(trainer.model_wrapped.parameters())), "averages": count(averages)}
    return held | (
        {"peak_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
    )


if __name__ == "__main__":
    main()
