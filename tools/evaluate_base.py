"""What atlas-base knows, and what it answers before and after tuning: the table of its model card.

    python tools/evaluate_base.py        # three tuning seeds, about four minutes on two cores

Writes evaluation.json beside the weights. Right means: the whole answer equals the statement. For
the base, which does not stop, we also count answers whose first sentence is right, so that it is
not failed for rambling alone.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

from sft_lab import atlas
from sft_lab.chat import complete, generate_ids, stop_token_id
from sft_lab.labels import encode_conversations
from sft_lab.models import ATLAS_FOLDER, load
from sft_lab.train import train

SEEDS = (0, 1, 2)
EPOCHS, LEARNING_RATE, BATCH_SIZE = 1, 5e-4, 16  # the recipe of `make demo`


def share(outcomes: list[bool]) -> float:
    return sum(outcomes) / len(outcomes)


def cloze_accuracy(model, tokenizer, facts: list[atlas.Fact]) -> float:
    prompts, endings = zip(*[atlas.cloze(fact) for fact in facts], strict=True)
    written = complete(model, tokenizer, prompts, max_new_tokens=20)
    return share([text.startswith(ending) for text, ending in zip(written, endings, strict=True)])


def examine(
    model, tokenizer, exam: list[list[dict[str, str]]], max_new_tokens: int = 60
) -> dict[str, float]:
    """Right answers, answers whose first sentence is right, and stops, as shares of the
    questions."""
    rows = generate_ids(
        model, tokenizer, [turns[:-1] for turns in exam], max_new_tokens=max_new_tokens
    )
    answers = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
    wanted = [turns[-1]["content"] for turns in exam]
    return {
        "right": share([answer == right for answer, right in zip(answers, wanted, strict=True)]),
        "begins_right": share(
            [a.strip().startswith(right) for a, right in zip(answers, wanted, strict=True)]
        ),
        "stops": share([ids[-1:] == [stop_token_id(tokenizer)] for ids in rows]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=ATLAS_FOLDER)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument(
        "--questions", type=int, default=10_000, help="at most so many of each part; default all"
    )
    arguments = parser.parse_args()
    base, tokenizer = load(arguments.folder)
    parts = atlas.split(atlas.load_facts())
    known = parts["train"] + parts["held_out"]
    held_out = atlas.exam("held_out", arguments.questions)
    results: dict = {"facts_known": len(known), "facts_unknown": len(parts["unknown"])}
    results["base_cloze"] = cloze_accuracy(base, tokenizer, known)
    results["base_cloze_unknown"] = cloze_accuracy(base, tokenizer, parts["unknown"])
    results["base_chat"] = examine(base, tokenizer, held_out)
    print(json.dumps(results, indent=1))
    runs = []
    for seed in arguments.seeds:
        conversations = atlas.training_conversations(seed=seed)
        tuned = copy.deepcopy(base)
        started = time.perf_counter()
        history = train(
            tuned,
            tokenizer,
            encode_conversations(conversations, tokenizer),
            epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            batch_size=BATCH_SIZE,
            seed=seed,
        )
        run = {
            "seed": seed,
            "seconds": round(time.perf_counter() - started, 1),
            "steps": len(history.steps),
        }
        for part in ("train", "held_out", "unknown"):
            run |= {
                f"{part}_{name}": x
                for name, x in examine(
                    tuned, tokenizer, atlas.exam(part, arguments.questions, seed=seed)
                ).items()
            }
        unseen = atlas.ask(
            parts["held_out"][:: max(1, len(parts["held_out"]) // 300)],
            template=atlas.UNSEEN_QUESTION,
        )
        run["unseen_phrasing_right"] = examine(tuned, tokenizer, unseen)["right"]
        for skill in atlas.SKILLS:
            conversations = atlas.ask_skill(skill, parts["held_out"], 100, seed=seed + 1000)
            run[f"{skill}_right"] = examine(tuned, tokenizer, conversations)["right"]
        run["cloze_after"] = cloze_accuracy(tuned, tokenizer, known)
        print(json.dumps(run))
        runs.append(run)
    measured = [name for name in runs[0] if name not in ("seed", "seconds", "steps")]
    results["tuned"] = {
        name: {
            "mean": statistics.mean(run[name] for run in runs),
            "lowest": min(run[name] for run in runs),
            "highest": max(run[name] for run in runs),
        }
        for name in measured
    }
    results |= {
        "seeds": list(arguments.seeds),
        "epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
    }
    for name, value in results["tuned"].items():
        print(f"{name:28} {value['mean']:7.1%}   {value['lowest']:.1%} to {value['highest']:.1%}")
    new = arguments.folder / "evaluation.json.new"
    new.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    new.replace(arguments.folder / "evaluation.json")


if __name__ == "__main__":
    main()
