"""The main job, `make demo`: five steps of SFT on the embedded base model, then the same questions
to both models.

python -m sft_lab.demo                         # the small world Atlas
python -m sft_lab.demo --data my_file.jsonl    # your own questions and answers
"""

import argparse
import copy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sft_lab.examples import Example
    from sft_lab.records import Conversation
    from sft_lab.train import History

from sft_lab.arguments import LARGEST_SEED, SettingError, option, real_number, whole_number
from sft_lab.files import check_writable, write_json
from sft_lab.formats import format_percent

REPORTS = Path("reports")
MOST_TOKENS = 1024  # of a conversation
MOST_QUESTIONS = 2000  # about Atlas, asked after tuning
MOST_MEASURED = 200  # of the questions, on which the loss is measured before and after
LITTLE = 0.95  # a loss on kept-back answers above this share of the base's has hardly moved


class Material(NamedTuple):
    """What the demo learns and asks."""

    conversations: list["Conversation"]  # to learn
    examples: list["Example"]  # the same, encoded
    questions: list["Conversation"]  # to ask afterwards; none of them is learned
    held_out: list["Example"]  # some of the questions, encoded
    words: str  # what the questions are


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--seed",
        type=option(whole_number, least=0, most=LARGEST_SEED),
        default=0,
        help="of data order, phrasing and the bootstrap",
    )
    parser.add_argument(
        "--data", type=Path, help="JSON, JSONL or CSV: Alpaca rows, pairs or messages"
    )
    parser.add_argument(
        "--epochs", type=option(whole_number), help="default: 1 for Atlas, 3 for your own file"
    )
    parser.add_argument("--learning-rate", type=option(real_number, above=0), default=5e-4)
    arguments = parser.parse_args()

    # Imports take seconds: --help and a wrong option answer before them.
    from sft_lab.models import ModelError

    epochs = arguments.epochs
    if epochs is None:
        epochs = 3 if arguments.data else 1
    try:
        run(arguments.seed, arguments.data, epochs, arguments.learning_rate)
    # what is wrong with rows, labels, settings and templates is a ValueError
    except (ValueError, ModelError, FloatingPointError, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"\nInterrupted: {stop or 'before training began'}")


def run(seed: int, data: Path | None, epochs: int, learning_rate: float) -> None:
    """All five steps, told as they happen; leaves the tuned model and both reports in REPORTS."""
    from transformers.utils import logging

    from sft_lab.chat import generate_responses
    from sft_lab.kept_back import answer_limit
    from sft_lab.models import load

    logging.disable_progress_bar()  # of saving weights; training shows its own
    print("1  Load a base model: it has read plain text and nothing else")
    base, tokenizer = load()

    print("\n2  Data: questions with the answers we want")
    material = split_file(data, base, tokenizer, seed) if data else ask_atlas(tokenizer, seed)
    made = {"seed": seed, "epochs": epochs, "learning_rate": learning_rate}
    made |= {"data": str(data) if data else "atlas"} | describe(material)
    limit = answer_limit(material.questions, base, tokenizer)
    for report in ("demo.json", "demo.html"):
        check_writable(REPORTS / report)  # now, and not after training

    print("\n3  Ask the base through the chat template")
    question = material.questions[0][:-1]
    [before] = generate_responses(base, tokenizer, [question], max_new_tokens=min(30, limit))
    print(f"{question[-1]['content']!r} → {before!r} …")

    print("\n4  Train")
    tuned, history = tune(base, tokenizer, material, epochs, learning_rate, seed)
    try:
        made |= describe_training(base, tuned, tokenizer, material, history)
        [after] = generate_responses(tuned, tokenizer, [question], max_new_tokens=min(30, limit))
        print(f"{question[-1]['content']!r} → {after!r}")

        print("\n5  Compare on the questions kept back")
        both = (base, tokenizer), (tuned, tokenizer)
        compare_and_report(both, material.questions, limit, made)
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(
            f"\nThe comparison was not finished: {type(error).__name__}: {error}\n"
            f"The tuned model is whole: {REPORTS / 'tuned'}"
        )


def ask_atlas(tokenizer: "PreTrainedTokenizerBase", seed: int) -> Material:
    """The small world: the questions are about other entities than the conversations."""
    from sft_lab import atlas
    from sft_lab.labels import encode_conversations

    questions = atlas.exam("held_out", MOST_QUESTIONS, seed=seed)
    learned = atlas.training_conversations(seed=seed)
    examples = encode_conversations(learned, tokenizer, source="atlas")
    held_out = encode_conversations(questions[:MOST_MEASURED], tokenizer, source="atlas")
    words = "about entities that no training question names"
    return Material(learned, examples, questions, held_out, words)


def split_file(
    data: Path, base: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", seed: int
) -> Material:
    """A reader's own file: a tenth of its questions is kept back.

    Every row is encoded before any is chosen, in the order of the file, so that an error names the
    row as it is counted there.
    """
    from sft_lab.kept_back import keep_back, positions_of, why_not_asked
    from sft_lab.labels import encode_conversations
    from sft_lab.records import load_conversations

    conversations = load_conversations(data)
    most_tokens = min(MOST_TOKENS, positions_of(base))
    examples = encode_conversations(
        conversations, tokenizer, max_tokens=most_tokens, source=str(data)
    )
    asked, learned, notes = keep_back(
        conversations, lambda turns: why_not_asked(turns, base, tokenizer), seed
    )
    told = [f"{count} of the rows drawn {note}" for note, count in notes.items()]
    if not asked:
        raise SettingError(
            f"{data}: nothing can be kept back to be asked after training; at least two questions "
            f"are needed, one to learn and one to ask. {'. '.join(told)}".rstrip()
        )
    print("\n".join(told), end="\n" if told else "")
    return Material(
        [conversations[index] for index in learned],
        [examples[index] for index in learned],
        [conversations[index] for index in asked],
        [examples[index] for index in asked[:MOST_MEASURED]],
        f"a tenth of {data}, kept back",
    )


def describe(material: Material) -> dict[str, float]:
    """Say how much there is to learn and to ask, and one conversation of it; returns what a model
    would reach that never reads the question, for the report."""
    from sft_lab.kept_back import commonest_answer

    examples = material.examples
    graded = sum(label >= 0 for example in examples for label in example.labels)
    total = sum(len(example.input_ids) for example in examples)
    print(
        f"{len(examples)} conversations, {total} tokens, {graded} of them graded: the answers "
        "and their stop tokens"
    )
    print(f"{len(material.questions)} questions to ask afterwards, {material.words}")
    *_, question, answer = material.conversations[0]
    print(f"one of them: {question['content']!r} → {answer['content']!r}")
    commonest, share = commonest_answer(material.conversations, material.questions)
    if share > 0.5:
        print(
            f"{commonest!r:.60} is the commonest answer to learn and the right one to "
            f"{format_percent(share)} of the questions: so many a model gets right that reads none"
        )
    return {"commonest_answer_right": share}


def tune(
    base: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    material: Material,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> tuple["PreTrainedModel", "History"]:
    """A tuned copy of the base, which lies in REPORTS as well, and what its run measured."""
    from sft_lab.train import train

    tuned = copy.deepcopy(base)
    history = train(
        tuned,
        tokenizer,
        material.examples,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=16,
        seed=seed,
        output_dir=REPORTS / "tuned",
    )
    return tuned, history


def describe_training(
    base: "PreTrainedModel",
    tuned: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    material: Material,
    history: "History",
) -> dict[str, Any]:
    """Say what the run did to the loss, on what it learned and on what was kept back; returns its
    numbers, for the report."""
    from sft_lab.train import evaluate

    steps = len(history.steps)
    # several steps, for the loss of one depends on which examples it drew; none of them twice
    part = min(10, steps // 2)
    first, last = (sum(some) / part for some in (history.losses[:part], history.losses[-part:]))
    before, after = (
        evaluate(model, tokenizer, material.held_out)["loss"] for model in (base, tuned)
    )
    print(
        f"{steps} steps in {history.seconds:.0f} s, {history.tokens_per_second:,.0f} tokens/s; "
        f"loss {first:.2f} → {last:.2f} nats per graded token (mean of the first {part} steps and "
        f"of the last {part}); on answers kept back {before:.2f} → {after:.2f}"
    )
    if after > LITTLE * before:
        print(
            "Learned by heart: the loss fell, but not on the answers kept back. More rows help, or "
            "fewer epochs"
            if last < LITTLE * first
            else f"Next to nothing was learned in {steps} steps. More rows help, more epochs, or "
            "another learning rate"
        )
    return {
        "examples": len(material.examples),
        "steps": steps,
        "seconds_training": history.seconds,
        "tokens_per_second": history.tokens_per_second,
        "loss_first": first,
        "loss_last": last,
        "held_out_loss": [before, after],
    }


def compare_and_report(
    both: tuple[tuple["PreTrainedModel", "PreTrainedTokenizerBase"], ...],
    questions: list["Conversation"],
    max_new_tokens: int,
    made: dict[str, Any],
) -> None:
    """Print base against tuned, and write it with how it was `made`: numbers, and every answer."""
    from sft_lab.compare import compare

    comparison = compare(*both, questions, seed=made["seed"], max_new_tokens=max_new_tokens)
    print(comparison.table())
    write_json(REPORTS / "demo.json", comparison.to_dict() | made)
    comparison.to_html(REPORTS / "demo.html")
    print(
        f"\nEvery answer side by side: {REPORTS / 'demo.html'} · numbers: {REPORTS / 'demo.json'} "
        f"· the tuned model: {REPORTS / 'tuned'}"
    )


if __name__ == "__main__":
    main()
