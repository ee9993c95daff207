"""New facts in 1 and in 4 wordings, taught to smollm2-135m (chapter 11b).

    python tools/experiments/11b_smollm2.py   # eight minutes on one core; resumes

Eight invented capitals, each 4 times, for four epochs; all weights are tuned.
"""

from sft_lab import lessons
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import answer, tune_on
from sft_lab.models import load

PLACES, TIMES, EPOCHS, LEARNING_RATE, BATCH_SIZE = 8, 4, 4, 1e-4, 8
SEEDS = (0, 1, 2)
KNOWN = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Italy": "Rome",
    "Egypt": "Cairo",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "China": "Beijing",
    "Russia": "Moscow",
}
base, tokenizer = load("smollm2-135m")


def run(point: Row) -> Row:
    """Teach, and ask; right is an answer that holds the capital, for this model adds words."""
    facts = lessons.invent_places(PLACES, seed=point["seed"])[::2]  # the capitals
    wordings = lessons.WORDINGS[: point["wordings"]]
    model = tune_on(
        base,
        tokenizer,
        lessons.ask_in_wordings(facts, wordings, TIMES),
        epochs=EPOCHS,
        seed=point["seed"],
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
    )
    places = [fact.entity for fact in facts]
    capitals = [fact.value for fact in facts]
    return {
        "trained wording": _holds(model, [f.say(lessons.PLAIN_QUESTION) for f in facts], capitals),
        "near wording": _holds(model, [f.say(lessons.NEAR_WORDING) for f in facts], capitals),
        "own words": _holds(model, [f.say(lessons.SEAT_WORDING) for f in facts], capitals),
        "backwards": _holds(model, [f.say(lessons.BACKWARDS) for f in facts], places),
        "known facts": _holds(
            model, [f"What is the capital of {place}?" for place in KNOWN], [*KNOWN.values()]
        ),
    }


def _holds(model, questions: list[str], wanted: list[str]) -> float:
    exam = [[{"role": "user", "content": question}, {}] for question in questions]
    said = answer(model, tokenizer, exam, max_new_tokens=16)
    return round(sum(one in text for one, text in zip(wanted, said, strict=True)) / len(said), 4)


if __name__ == "__main__":
    points = [{"wordings": count, "seed": seed} for seed in SEEDS for count in (1, 4)]
    sweep("11b_smollm2", points, run, model=base, model_name="smollm2-135m")
