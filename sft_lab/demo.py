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

    from sft_lab.labels import (
        LabelError,  # imports take seconds: --help and a wrong option answer at once
    )
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
    from transformers.utils import logging

    from sft_lab import atlas
    from sft_lab.chat import generate_responses
    from sft_lab.compare import compare
    from sft_lab.labels import encode_conversations
    from sft_lab.models import load
    from sft_lab.records import load_conversations
    from sft_lab.train import train

    logging.disable_progress_bar()  # of saving weights; training shows its own
    print("1  Load a base model: it has read plain text and nothing else")
    base, tokenizer = load()

    print("\n2  Data: questions with the answers we want")
    if data is None:
        conversations = atlas.training_conversations(seed=seed)
        questions = atlas.exam("held_out", MOST_QUESTIONS, seed=seed)
        held_out = "about entities that no training question names"
        source = "atlas"
    else:
        conversations = load_conversations(data)
        random.Random(seed).shuffle(conversations)
        count = min(MOST_QUESTIONS, max(1, len(conversations) // 10))
        if len(conversations) < 2:
            sys.exit(
                f"{data} has one conversation; at least two are needed: one to learn, one to be "
                "asked"
            )
        questions, conversations = conversations[:count], conversations[count:]
        held_out = f"a tenth of {data}, kept back"
        source = str(data)
    examples = encode_conversations(conversations, tokenizer, source=source)
    graded = sum(label >= 0 for example in examples for label in example.labels)
    total = sum(len(example.input_ids) for example in examples)
    print(
        f"{len(examples)} conversations, {total} tokens, {graded} of them graded: the answers "
        "and their stop tokens"
    )
    print(f"{len(questions)} questions to ask afterwards, {held_out}")
    first = conversations[0]
    print(f"one of them: {first[-2]['content']!r} → {first[-1]['content']!r}")

    print("\n3  Ask the base through the chat template")
    asked = questions[0][:-1]
    before = generate_responses(base, tokenizer, [asked], max_new_tokens=30)[0]
    print(f"{asked[-1]['content']!r} → {before!r} …")

    print("\n4  Train")
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
    start, end = (sum(part) / len(part) for part in (history.losses[:10], history.losses[-10:]))
    print(
        f"{len(history.steps)} steps in {history.seconds:.0f} s, "
        f"{history.tokens_per_second:,.0f} tokens/s; loss {start:.2f} → {end:.2f} nats per "
        "graded token"
    )
    after = generate_responses(tuned, tokenizer, [asked], max_new_tokens=30)[0]
    print(f"{asked[-1]['content']!r} → {after!r}")

    print("\n5  Compare on the questions kept back")
    comparison = compare(
        (base, tokenizer), (tuned, tokenizer), questions, seed=seed, max_new_tokens=40
    )
    print(comparison.table())
    report = {
        **comparison.to_dict(),
        "seed": seed,
        "examples": len(examples),
        "steps": len(history.steps),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "data": source,
        "seconds_training": history.seconds,
        "tokens_per_second": history.tokens_per_second,
        "loss_first": start,
        "loss_last": end,
    }
    write_json(REPORTS / "demo.json", report)
    comparison.to_html(REPORTS / "demo.html")
    print(
        "\n"
        f"Every answer side by side: {REPORTS / 'demo.html'} · numbers: {REPORTS / 'demo.json'} "
        f"· the tuned model: {REPORTS / 'tuned'}"
    )


if __name__ == "__main__":
    main()
