"""Ask a real model open questions before and after the course's own SFT, and record the answers.

    python tools/record_answers.py --model smollm2-135m        # minutes on a CPU

The model is tuned with LoRA on English rows of data/instructions (chapter 08). The record,
docs/recorded/MODEL.json, says when, where and how it was made; chapter 09 shows it where the model
is missing.
"""

import argparse
import datetime
import platform
import random
import sys
import time
from pathlib import Path

import torch
import transformers

from sft_lab.files import check_writable, write_json
from sft_lab.instructions import load_instructions
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.models import ROOT, load
from sft_lab.open_answers import OPEN_QUESTIONS, as_rows, ask_three_ways, side_by_side
from sft_lab.train import evaluate, train

RECIPE = {"learning_rate": 2e-4, "batch_size": 16, "epochs": 1, "seed": 0}
RANK, ALPHA = 16, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="smollm2-135m", help="a name that sft_lab.models knows")
    parser.add_argument("--rows", type=int, default=160, help="rows to train on")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "recorded")
    arguments = parser.parse_args()
    path = arguments.folder / f"{arguments.model.replace('/', '--')}.json"
    check_writable(path)
    started = time.perf_counter()
    model, tokenizer = load(arguments.model)
    lessons = random.Random(0).sample(load_instructions("english", "train"), arguments.rows)
    examples = encode_conversations(lessons, tokenizer)
    held_out = encode_conversations(load_instructions("english", "held_out")[:32], tokenizer)
    answers = {"as shipped": ask_three_ways(model, tokenizer)}
    losses = [evaluate(model, tokenizer, held_out, batch_size=16)["loss"]]
    torch.manual_seed(0)
    add_lora(model, rank=RANK, alpha=ALPHA)
    history = train(model, tokenizer, examples, **RECIPE)
    losses.append(evaluate(model, tokenizer, held_out, batch_size=16)["loss"])
    answers["after our SFT"] = ask_three_ways(model, tokenizer)
    print(side_by_side(answers))
    record = {
        "model": arguments.model,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python tools/record_answers.py", *sys.argv[1:]]),
        "device": describe_device(model),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "tuning": {"rows": arguments.rows, "steps": len(history.steps), "rank": RANK, **RECIPE},
        "held_out_loss": [round(loss, 4) for loss in losses],
        "questions": [question.text for question in OPEN_QUESTIONS],
        "answers": {name: as_rows(given) for name, given in answers.items()},
    }
    write_json(path, record)
    print(f"recorded in {path}")


def describe_device(model: torch.nn.Module) -> str:
    """The card's name, or the processor's with the instructions that torch uses and its threads."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{processor} ({capability}), {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
