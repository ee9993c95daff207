"""The main job, `make demo`: five steps of SFT on the embedded base model, then the same questions
to both models.

python -m sft_lab.demo                         # the small world Atlas
python -m sft_lab.demo --data my_file.jsonl    # your own questions and answers
"""

import argparse
import copy
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sft_lab.examples import Example
    from sft_lab.records import Conversation
    from sft_lab.train import History

from sft_lab.arguments import LARGEST_SEED, SettingError, option, real_number, whole_number
from sft_lab.files import OutputError, check_files, check_folder, check_writable, write_json
from sft_lab.formats import format_number_of, format_percent

REPORTS = Path("reports")
# What every version's reports hold, and nobody else's. Here, because a page of an earlier version
# has no other mark.
JSON_KEYS = {"base", "tuned", "changes", "answers", "resamples", "steps", "tokens_per_second"}
PAGE_PARTS = ('<p class="kicker">base against tuned</p>', 'name="show" id="show-improved"')
BATCH_SIZE = 16
MOST_TOKENS = 1024  # of a conversation
MOST_QUESTIONS = 2000  # about Atlas, asked after tuning
MOST_MEASURED = 200  # of what is learned and of the questions: their loss before and after
LITTLE = 0.05  # a loss that changed by less than this share of the base's has hardly moved
LEAST_LOSS = 0.1  # nats; of a base that knew the answers before, no share is taken


class Material(NamedTuple):
    """What the demo learns and asks."""

    conversations: list["Conversation"]  # to learn
    examples: list["Example"]  # the same, encoded
    questions: list["Conversation"]  # to ask afterwards; none of them is learned
    held_out: list["Example"]  # some of the questions, encoded
    words: str  # what the questions are


def main(arguments: list[str] | None = None) -> None:
    """The command; arguments: those of the process where none are given."""
    parser = argparse.ArgumentParser(prog="sft-lab demo", description=__doc__.split("\n\n")[0])
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
    options = parser.parse_args(arguments)

    # Imports take seconds: --help and a wrong option answer before them.
    from sft_lab.models import ModelError

    epochs = options.epochs
    if epochs is None:
        epochs = 3 if options.data else 1
    try:
        run(options.seed, options.data, epochs, options.learning_rate)
    except OutputError as error:
        instead = ": put that right, or run the demo in another folder" if error.advice else ""
        sys.exit(f"{error.what}{instead}")
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
    check_steps(material, epochs, data)
    limit = answer_limit(material.questions, base, tokenizer)
    check_reports()  # now, and not after training

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
        told = error.what if isinstance(error, OutputError) else error
        sys.exit(
            f"\nThe comparison was not finished: {type(error).__name__}: {told}\n"
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
    told = [f"{count} of the rows drawn {agree(note, count)}" for note, count in notes.items()]
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


def agree(note: str, count: int) -> str:
    """A note of `keep_back`, which begins with a verb in the plural, about so many rows."""
    verb, _, rest = note.partition(" ")
    if count == 1:
        verb = "has" if verb == "have" else f"{verb}s"
    return f"{verb} {rest}"


def check_steps(material: Material, epochs: int, data: Path | None) -> None:
    """SettingError for a run of one step, whose learning rate is the first of the warm-up: 0."""
    count = len(material.examples)
    if epochs == 1 and count <= BATCH_SIZE:
        raise SettingError(
            f"{data}: one epoch of {format_number_of(count, 'row')} to learn is one step, which a "
            f"warm-up takes at learning rate 0: give more rows (over {BATCH_SIZE} to learn) or "
            "more epochs (--epochs 2)"
        )


def check_reports() -> None:
    """OutputError where a report could not be written, or would replace what no demo wrote."""
    from sft_lab.loop.output import RESULT_FILES

    for report in (REPORTS / "demo.json", REPORTS / "demo.html"):
        check_writable(report)
        if report.is_symlink() or (report.exists() and not is_ours(report)):
            raise OutputError(
                f"{report} was not written by the demo, which would replace it: move it away, or "
                "run the demo in another folder"
            )
    tuned = REPORTS / "tuned"
    try:
        check_folder(tuned / "checkpoint")
        check_files(tuned, RESULT_FILES)
    except OutputError as error:
        raise OutputError(
            f"{error.what}. If an earlier version of the demo wrote it: move {tuned} away, or "
            "delete it"
        ) from error


def is_ours(report: Path) -> bool:
    """Whether a demo of this version or an earlier one wrote the file, by what it holds."""
    try:
        text = report.read_text(encoding="utf-8")
        if report.suffix == ".html":
            return all(part in text for part in PAGE_PARTS)
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):  # not to be read, no text, no JSON
        return False
    return isinstance(content, dict) and content.keys() >= JSON_KEYS


def describe(material: Material) -> dict[str, float]:
    """Say how much there is to learn and to ask, and one conversation of it; returns what a model
    would reach that never reads the question, for the report."""
    from sft_lab.kept_back import commonest_answer

    examples = material.examples
    graded = sum(label >= 0 for example in examples for label in example.labels)
    total = sum(len(example.input_ids) for example in examples)
    print(
        f"{format_number_of(len(examples), 'conversation')}, {total} tokens, {graded} of them "
        "graded: the answers and their stop tokens"
    )
    asked = format_number_of(len(material.questions), "question")
    print(f"{asked} to ask afterwards, {material.words}")
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
        batch_size=BATCH_SIZE,
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
    """Say what the run did to the loss, on some of what it learned and on what was kept back;
    returns its numbers, for the report.

    The losses of the steps are not compared: each is of other rows.
    """
    from sft_lab.train import evaluate

    every = math.ceil(len(material.examples) / MOST_MEASURED)
    learned, held_out = (
        [evaluate(model, tokenizer, some)["loss"] for model in (base, tuned)]
        for some in (material.examples[::every], material.held_out)
    )
    steps = format_number_of(len(history.steps), "step")
    print(
        f"{steps} in {history.seconds:.0f} s, {history.tokens_per_second:,.0f} tokens/s; nats per "
        f"graded token: on answers learned {learned[0]:.2f} → {learned[1]:.2f}, on answers kept "
        f"back {held_out[0]:.2f} → {held_out[1]:.2f}"
    )
    if verdict := judge_losses(learned, held_out):
        print(verdict)
    return {
        "examples": len(material.examples),
        "steps": len(history.steps),
        "seconds_training": history.seconds,
        "tokens_per_second": history.tokens_per_second,
        "learned_loss": learned,
        "held_out_loss": held_out,
    }


def judge_losses(learned: list[float], held_out: list[float]) -> str:
    """What went wrong in a run that took the loss on learned answers, and on others, from the first
    to the second number; "" where others fell."""
    fall, fall_held_out = (
        (before - after) / max(before, LEAST_LOSS) for before, after in (learned, held_out)
    )
    if not fall >= -LITTLE:  # nor if it is nan
        return "The training diverged: the loss rose. Lower the learning rate"
    if fall_held_out >= LITTLE:
        return ""
    if fall >= LITTLE and fall > 2 * fall_held_out:
        return (
            "Learned by heart: the loss fell, but not on the answers kept back. More rows help, or "
            "fewer epochs"
        )
    if fall_held_out < -LITTLE:
        return "The loss on the answers kept back rose. Lower the learning rate, or give more rows"
    return "Next to nothing was learned. More rows help, more epochs, or another learning rate"


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
    check_reports()  # somebody may have put a file there since
    write_json(REPORTS / "demo.json", comparison.to_dict() | made)
    comparison.to_html(REPORTS / "demo.html")
    print(
        f"\nEvery answer side by side: {REPORTS / 'demo.html'} · numbers: {REPORTS / 'demo.json'} "
        f"· the tuned model: {REPORTS / 'tuned'}"
    )


if __name__ == "__main__":
    main()
