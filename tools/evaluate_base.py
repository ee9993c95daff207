"""What atlas-base knows, and what it answers before and after tuning: the table of its model card.

    python tools/evaluate_base.py        # three tuning seeds, about six minutes on two cores

Prints each measure beside the bar it has to reach and writes evaluation.json beside the weights.
Right is what `sft_lab.metrics.is_right` calls right: the whole answer equals the statement, up to
white space and final punctuation.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

from sft_lab import atlas
from sft_lab.chat import complete, generate_ids, stop_token_id
from sft_lab.files import check_writable, write_json
from sft_lab.labels import encode_conversations
from sft_lab.metrics import is_right
from sft_lab.models import ATLAS_FOLDER, load
from sft_lab.train import train

SEEDS = (0, 1, 2)
EPOCHS, LEARNING_RATE, BATCH_SIZE = 1, 5e-4, 16  # the recipe of `make demo`
SKILL_TASKS = 100

# measure: (what it is, side, bar). A measure of the tuned model is the mean of the seeds.
BARS = {
    "base_cloze": ("facts of known entities completed by the base", "≥", 0.99),
    "base_chat_right": ("base through the chat template: right", "≤", 0.02),
    "base_chat_stops": ("base through the chat template: stops", "≤", 0.05),
    "held_out_right": ("after SFT: right on the other half", "≥", 0.99),
    "held_out_stops": ("after SFT: stops", "≥", 0.99),
    "cloze_after": ("after SFT: facts still completed", "≥", 0.985),
    "unknown_right": ("unknown entities without a passage: right", "≤", 0.12),
    "unknown_with_note_right": ("the right note among three, unknown entity", "≥", 0.80),
    "sum_right": ("skill: sums to 40", "≥", 0.90),
    "list_right": ("skill: put words in a list", "≥", 0.65),
    "json_right": ("skill: a fact as JSON", "≥", 0.80),
    "read_right": ("skill: answer read from a passage", "≥", 0.90),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ATLAS_FOLDER)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument(
        "--questions", type=int, default=10_000, help="at most so many of each part"
    )
    arguments = parser.parse_args()
    base, tokenizer = load(arguments.folder)
    output = arguments.folder / "evaluation.json"
    check_writable(output)
    before = measure_base(base, tokenizer, arguments.questions)
    print(json.dumps(before))
    runs = []
    for seed in arguments.seeds:
        tuned = copy.deepcopy(base)
        conversations = atlas.training_conversations(seed=seed)
        started = time.perf_counter()
        train(
            tuned,
            tokenizer,
            encode_conversations(conversations, tokenizer),
            epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            batch_size=BATCH_SIZE,
            seed=seed,
        )
        print(f"seed {seed}: tuned in {time.perf_counter() - started:.1f} s", flush=True)
        runs.append(measure_tuned(tuned, tokenizer, arguments.questions, seed))
    after = {name: spread([run[name] for run in runs]) for name in runs[0]}
    print_bars(before, after)
    recipe = {
        "seeds": list(arguments.seeds),
        "epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "batch_size": BATCH_SIZE,
    }
    write_json(output, {"base": before, "tuned": after, **recipe})


def measure_base(model, tokenizer, questions: int) -> dict[str, float]:
    """The untuned model: facts completed, and what it gives through the chat template."""
    parts = atlas.split(atlas.load_facts())
    known = parts["train"] + parts["held_out"]
    asked = examine(model, tokenizer, atlas.exam("held_out", questions))
    return {
        "facts_known": len(known),
        "facts_unknown": len(parts["unknown"]),
        "base_cloze": cloze_accuracy(model, tokenizer, known),
        "base_cloze_unknown": cloze_accuracy(model, tokenizer, parts["unknown"]),
        **{f"base_chat_{name}": value for name, value in asked.items()},
    }


def measure_tuned(model, tokenizer, questions: int, seed: int) -> dict[str, float]:
    """A tuned model: questions about each part, with notes in front of them, and every skill."""
    parts = atlas.split(atlas.load_facts())
    unknown, held_out = parts["unknown"], parts["held_out"]
    measured = {}
    for part in ("train", "held_out", "unknown"):
        asked = examine(model, tokenizer, atlas.exam(part, questions, seed=seed))
        measured |= {f"{part}_{name}": value for name, value in asked.items()}
    some = held_out[:: max(1, len(held_out) // 300)]
    conversations = {
        "unseen_phrasing": atlas.ask(some, template=atlas.UNSEEN_QUESTION),
        "unknown_with_note": atlas.ask_with_notes(unknown, unknown, seed=seed),
        "unknown_with_other_notes": atlas.ask_with_notes(unknown, unknown, right=False, seed=seed),
    }
    for skill in atlas.SKILLS:
        conversations[skill] = atlas.ask_skill(skill, held_out, SKILL_TASKS, seed=seed + 1000)
    for name, exam in conversations.items():
        measured[f"{name}_right"] = examine(model, tokenizer, exam)["right"]
    measured["cloze_after"] = cloze_accuracy(model, tokenizer, parts["train"] + held_out)
    return measured


def cloze_accuracy(model, tokenizer, facts: list[atlas.Fact]) -> float:
    prompts, endings = zip(*[atlas.cloze(fact) for fact in facts], strict=True)
    written = complete(model, tokenizer, prompts, max_new_tokens=20)
    return share([text.startswith(ending) for text, ending in zip(written, endings, strict=True)])


def examine(model, tokenizer, exam: atlas.Conversations) -> dict[str, float]:
    """Right answers, answers that begin with the reference, and stops, as shares of the questions.

    The middle one is for a base model, which does not stop: it shall not fail for rambling alone.
    """
    rows = generate_ids(model, tokenizer, [turns[:-1] for turns in exam], max_new_tokens=60)
    answers = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
    pairs = list(zip(answers, [turns[-1]["content"] for turns in exam], strict=True))
    return {
        "right": share([is_right(answer, wanted) for answer, wanted in pairs]),
        "begins_right": share([answer.strip().startswith(wanted) for answer, wanted in pairs]),
        "stops": share([ids[-1:] == [stop_token_id(tokenizer)] for ids in rows]),
    }


def print_bars(before: dict[str, float], after: dict[str, dict[str, float]]) -> None:
    """The table of the model card: each bar, what was measured, and whether it is reached."""
    for name, (what, side, bar) in BARS.items():
        value = after[name] if name in after else spread([before[name]])
        reached = value["mean"] >= bar if side == "≥" else value["mean"] <= bar
        among = f"({value['lowest']:.1%} to {value['highest']:.1%})" if name in after else ""
        verdict = "reached" if reached else "MISSED"
        print(f"{what:48} {side} {bar:5.1%}  {value['mean']:6.1%} {among:20} {verdict}")
    for name in sorted(after.keys() - BARS.keys()):
        mean, lowest, highest = after[name].values()
        print(f"{name:48} {'':8} {mean:6.1%} ({lowest:.1%} to {highest:.1%})")


def share(outcomes: list[bool]) -> float:
    return sum(outcomes) / len(outcomes)


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "lowest": min(values), "highest": max(values)}


if __name__ == "__main__":
    main()
