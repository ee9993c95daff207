"""The main job, `make demo`: five steps of SFT on the embedded base model, then the same questions
to both models.

python -m sft_lab.demo                         # the small world Atlas
python -m sft_lab.demo --data my_file.jsonl    # your own questions and answers
"""

import argparse
import copy
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sft_lab.examples import Example
    from sft_lab.records import Conversation

from sft_lab.files import write_json

REPORTS = Path("reports")
MOST_QUESTIONS = 2000  # asked after tuning, about what the tuning never saw


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--seed", type=int, default=0, help="of data order, phrasing and the bootstrap"
    )
    parser.add_argument(
        "--data", type=Path, help="JSON, JSONL or CSV: Alpaca rows, pairs or messages"
    )
    parser.add_argument("--epochs", type=int, help="default: 1 for Atlas, 3 for your own file")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    arguments = parser.parse_args()

    # Imports take seconds: --help and a wrong option answer before them.
    from sft_lab.labels import LabelError
    from sft_lab.models import ModelError
    from sft_lab.records import RecordError

    try:
        epochs = arguments.epochs or (3 if arguments.data else 1)
        run(arguments.seed, arguments.data, epochs, arguments.learning_rate)
    except (RecordError, LabelError, ModelError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"\nInterrupted: {stop or 'before training began'}")


def run(seed: int, data: Path | None, epochs: int, learning_rate: float) -> None:
    """All five steps, told as they happen; leaves the tuned model and both reports in REPORTS."""
    from transformers.utils import logging

    from sft_lab.chat import generate_responses
    from sft_lab.labels import encode_conversations
    from sft_lab.models import load

    logging.disable_progress_bar()  # of saving weights; training shows its own
    print("1  Load a base model: it has read plain text and nothing else")
    base, tokenizer = load()

    print("\n2  Data: questions with the answers we want")
    conversations, questions, held_out = split_data(seed, data)
    source = str(data) if data else "atlas"
    examples = encode_conversations(conversations, tokenizer, source=source)
    describe_data(examples, conversations, questions, held_out)

    print("\n3  Ask the base through the chat template")
    question = questions[0][:-1]
    [before] = generate_responses(base, tokenizer, [question], max_new_tokens=30)
    print(f"{question[-1]['content']!r} → {before!r} …")

    print("\n4  Train")
    tuned, numbers = tune(base, tokenizer, examples, epochs, learning_rate, seed)
    [after] = generate_responses(tuned, tokenizer, [question], max_new_tokens=30)
    print(f"{question[-1]['content']!r} → {after!r}")

    print("\n5  Compare on the questions kept back")
    settings = {"seed": seed, "epochs": epochs, "learning_rate": learning_rate, "data": source}
    compare_and_report((base, tokenizer), (tuned, tokenizer), questions, settings | numbers)


def split_data(
    seed: int, data: Path | None
) -> tuple[list["Conversation"], list["Conversation"], str]:
    """Conversations to learn, conversations to ask afterwards, and what the latter are, in words.

    Atlas asks about other entities than it teaches; of a reader's own file a tenth is kept back.
    """
    from sft_lab import atlas
    from sft_lab.records import load_conversations

    if data is None:
        questions = atlas.exam("held_out", MOST_QUESTIONS, seed=seed)
        learned = atlas.training_conversations(seed=seed)
        return learned, questions, "about entities that no training question names"
    conversations = load_conversations(data)
    if len(conversations) < 2:
        sys.exit(
            f"{data} has one conversation; at least two are needed: one to learn, one to be asked"
        )
    random.Random(seed).shuffle(conversations)
    count = min(MOST_QUESTIONS, max(1, len(conversations) // 10))
    return conversations[count:], conversations[:count], f"a tenth of {data}, kept back"


def describe_data(
    examples: list["Example"],
    conversations: list["Conversation"],
    questions: list["Conversation"],
    held_out: str,
) -> None:
    """How much there is to learn and to ask, and one conversation of it."""
    graded = sum(label >= 0 for example in examples for label in example.labels)
    total = sum(len(example.input_ids) for example in examples)
    print(
        f"{len(examples)} conversations, {total} tokens, {graded} of them graded: the answers "
        "and their stop tokens"
    )
    print(f"{len(questions)} questions to ask afterwards, {held_out}")
    *_, question, answer = conversations[0]
    print(f"one of them: {question['content']!r} → {answer['content']!r}")


def tune(
    base: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: list["Example"],
    epochs: int,
    learning_rate: float,
    seed: int,
) -> tuple["PreTrainedModel", dict[str, float]]:
    """A tuned copy of the base, and the numbers of the run for the report."""
    from sft_lab.train import train

    tuned = copy.deepcopy(base)
    history = train(
        tuned,
        tokenizer,
        examples,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=16,
        seed=seed,
        output_dir=REPORTS / "tuned",
    )
    # ten steps: the loss of one depends on which examples it drew
    first, last = (sum(part) / len(part) for part in (history.losses[:10], history.losses[-10:]))
    print(
        f"{len(history.steps)} steps in {history.seconds:.0f} s, "
        f"{history.tokens_per_second:,.0f} tokens/s; loss {first:.2f} → {last:.2f} nats per "
        "graded token"
    )
    return tuned, {
        "examples": len(examples),
        "steps": len(history.steps),
        "seconds_training": history.seconds,
        "tokens_per_second": history.tokens_per_second,
        "loss_first": first,
        "loss_last": last,
    }


def compare_and_report(
    base: tuple["PreTrainedModel", "PreTrainedTokenizerBase"],
    tuned: tuple["PreTrainedModel", "PreTrainedTokenizerBase"],
    questions: list["Conversation"],
    made: dict[str, Any],
) -> None:
    """Print base against tuned, and write it with how it was `made`: numbers, and every answer."""
    from sft_lab.compare import compare

    comparison = compare(base, tuned, questions, seed=made["seed"], max_new_tokens=40)
    print(comparison.table())
    write_json(REPORTS / "demo.json", comparison.to_dict() | made)
    comparison.to_html(REPORTS / "demo.html")
    print(
        f"\nEvery answer side by side: {REPORTS / 'demo.html'} · numbers: {REPORTS / 'demo.json'} "
        f"· the tuned model: {REPORTS / 'tuned'}"
    )


if __name__ == "__main__":
    main()
