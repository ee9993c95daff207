"""The command `sft-lab compare`: the same questions to two models, from a shell.

python -m sft_lab.compare_command BASE TUNED --data exam.jsonl
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sft_lab.compare import Comparison
    from sft_lab.records import Conversation

from sft_lab.arguments import LARGEST_SEED, option, whole_number
from sft_lab.files import OutputError, check_writable, write_json

EXAMPLES = """examples:
  sft-lab compare atlas-base reports/tuned --data exam.jsonl
  sft-lab compare atlas-base atlas-base+adapter --data exam.jsonl --html reports/compare.html
  sft-lab compare A B --data exam.jsonl --measures rouge_l bleu --json reports/compare.json

A model is a name (atlas-base, smollm2-135m, qwen3-0.6b), a hub id, a folder, or BASE+FOLDER for a
LoRA adapter on a base. The answer of each row of the file is the reference."""


def main(arguments: list[str] | None = None) -> None:
    """The command; arguments: those of the process where none are given."""
    options = read_options(arguments)

    # Imports take seconds: --help and a wrong option answer before them.
    from sft_lab.measures import MEASURES
    from sft_lab.models import ModelError
    from sft_lab.records import load_conversations

    unknown = [name for name in options.measures if name not in MEASURES]
    if unknown:
        sys.exit(f"--measures {unknown[0]}: there is no such measure; there are {[*MEASURES]}")
    try:
        for path in (options.html, options.json):
            if path:
                check_writable(path)  # now, and not after the models answered
        questions = load_conversations(options.data)
        comparison = ask_both(options, questions)
        print(comparison.table())
        write_reports(comparison, options.html, options.json)
    # what is wrong with rows, settings and templates is a ValueError
    except (ValueError, ModelError, OutputError, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was written")


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line; exits with 2 for what is none."""
    parser = argparse.ArgumentParser(
        prog="sft-lab compare",
        description="Ask two models the same questions and say what the difference is worth.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", help="the model before")
    parser.add_argument("tuned", help="the model after")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="questions with reference answers: JSON, JSONL or CSV, as for training",
    )
    parser.add_argument("--html", type=Path, help="write every answer side by side to this page")
    parser.add_argument("--json", type=Path, help="write numbers and answers to this file")
    parser.add_argument("--measures", nargs="+", default=[], help="such as rouge_l, bleu, chrf")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of the measures")
    parser.add_argument(
        "--max-new-tokens", type=option(whole_number), default=64, help="of an answer (64)"
    )
    parser.add_argument(
        "--seed",
        type=option(whole_number, least=0, most=LARGEST_SEED),
        default=0,
        help="of the bootstrap (0)",
    )
    return parser.parse_args(arguments)


def ask_both(options: argparse.Namespace, questions: list["Conversation"]) -> "Comparison":
    """Load both models and compare them."""
    from sft_lab.compare import compare

    return compare(
        load_with_adapter(options.base),
        load_with_adapter(options.tuned),
        questions,
        seed=options.seed,
        max_new_tokens=options.max_new_tokens,
        names=(options.base, options.tuned),
        measures=options.measures,
        language=options.language,
    )


def load_with_adapter(name: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A model by name or folder, or BASE+FOLDER: a base with the LoRA adapter in a folder."""
    from sft_lab.lora import load_adapter
    from sft_lab.models import load

    base, plus, folder = name.partition("+")
    if not plus or Path(name).exists():  # a folder may have a plus in its name
        return load(name)
    model, tokenizer = load(base)
    return load_adapter(model, folder), tokenizer


def write_reports(comparison: "Comparison", html: Path | None, numbers: Path | None) -> None:
    """Write what was asked for, each file whole or not at all."""
    if numbers:
        write_json(numbers, comparison.to_dict())
        print(f"Numbers and answers: {numbers}")
    if html:
        print(f"Every answer side by side: {comparison.to_html(html)}")


if __name__ == "__main__":
    main()
