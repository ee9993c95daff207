"""Five small experiments on what a lesson teaches: forms, follow-up questions, a rule, work shown,
questions to decline (chapter 11b).

    python tools/experiments/11b_lessons.py   # six minutes on one core; resumes

Every arm is a copy of the base, tuned for seconds, and asked about entities that no lesson names.
"""

import random

from sft_lab import atlas, lessons
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import answer, count_tokens, share_right, tune_on
from sft_lab.models import load

SEEDS = (0, 1, 2)
EXAM_SEED = 99
FORM_ARMS = {
    "JSON alone": ("fact as JSON",),
    "JSON and lists": ("fact as JSON", "words as a list"),
    "all but words as JSON": ("fact as JSON", "words as a list", "fact as a list"),
}
SHARES = (0.0, 0.05, 1.0)  # of lessons that decline
LEAKS = ("same wording", "near wording", "own words", "as JSON", "follow-up")
DECLINE_LESSONS = 800
SUMS = {"answers alone": 600, "work shown": 300}
base, tokenizer = load("atlas-base")
facts = atlas.split(atlas.load_facts())
elements = [fact for fact in facts["train"] if fact.domain == "elements"]
FAMILIES = sorted({fact.value for fact in facts["train"] if fact.column == "family"})


def points() -> list[Row]:
    """Every arm of every experiment, with every seed."""
    arms = [{"experiment": "forms", "arm": arm} for arm in FORM_ARMS]
    arms += [{"experiment": "follow-up", "arm": arm} for arm in ("one turn", "two turns")]
    arms += [{"experiment": "rule", "arm": arm} for arm in lessons.WAYS_TO_ANSWER]
    arms += [{"experiment": "work", "arm": arm} for arm in SUMS]
    arms += [{"experiment": "decline", "arm": share} for share in SHARES]
    return [{**arm, "seed": seed} for seed in SEEDS for arm in arms]


def run(point: Row) -> Row:
    """Measure one point."""
    return EXPERIMENTS[point["experiment"]](point["arm"], point["seed"])


def forms(arm: str, seed: int) -> Row:
    """600 lessons, spread over the arm's forms; asked in every form."""
    taught = FORM_ARMS[arm]
    rows = [
        talk
        for form in taught
        for talk in lessons.ask_in_form(form, facts["train"], 600 // len(taught), seed=seed)
    ]
    model = tune_on(base, tokenizer, rows, epochs=2, seed=seed)
    return {
        form: _right(model, lessons.ask_in_form(form, facts["held_out"], 60, seed=EXAM_SEED))
        for form in lessons.FORMS
    } | {"tokens": count_tokens(tokenizer, rows)}


def follow_up(arm: str, seed: int) -> Row:
    """1,200 answers, in as many conversations or in half as many."""
    if arm == "one turn":
        rows = atlas.ask(random.Random(seed).choices(facts["train"], k=1200), seed=seed)
    else:
        rows = lessons.follow_up(facts["train"], 600, seed=seed)
    model = tune_on(base, tokenizer, rows, seed=seed)
    exams = {
        count: lessons.follow_up(facts["held_out"], 100, questions=count, seed=EXAM_SEED)
        for count in (2, 3)
    }
    return {
        "first": _right(model, [talk[:2] for talk in exams[2]]),
        "second": _right(model, exams[2]),
        "third": _right(model, exams[3]),
        "tokens": count_tokens(tokenizer, rows),
    }


def rule(arm: str, seed: int) -> Row:
    """Where each element is stored, four times, beside the elements' own facts."""
    rows = lessons.ask_for_room(elements, FAMILIES, answer=arm, seed=seed) * 4
    rows += atlas.ask(elements, seed=seed)
    model = tune_on(base, tokenizer, rows, epochs=6, seed=seed)
    return {
        part: _right(model, lessons.room_exam(facts[part], FAMILIES), at_end=True)
        for part in ("train", "held_out")
    } | {"tokens": count_tokens(tokenizer, rows)}


def work(arm: str, seed: int) -> Row:
    """Sums of three numbers, four epochs; with their work shown only half as many fit."""
    shown = arm == "work shown"
    rows = lessons.add_three(lessons.SUMS, work=shown, seed=seed)[: SUMS[arm]]
    exam = lessons.add_three(lessons.SUMS, seed=seed)[-100:]  # the same order: none was a lesson
    model = tune_on(base, tokenizer, rows, epochs=4, seed=seed)
    return {
        "right": _right(model, exam, at_end=True, max_new_tokens=80),
        "tokens": count_tokens(tokenizer, rows),
    }


def decline(arm: float, seed: int) -> Row:
    """800 lessons, of which a share declines; how often each kind of question is declined.

    Without a share (0) the lessons answer currencies like anything else: the model before the rule.
    """
    if arm:
        refused = round(arm * DECLINE_LESSONS)
        rows = lessons.decline(facts["train"], refused, seed=seed)
        rows += lessons.answer_others(facts["train"], DECLINE_LESSONS - refused, seed=seed)
    else:
        drawn = random.Random(seed).choices(facts["train"], k=DECLINE_LESSONS)
        rows = atlas.ask(drawn, seed=seed)
    model = tune_on(base, tokenizer, rows, epochs=2, seed=seed)
    exams = lessons.decline_exams(facts["held_out"], seed=EXAM_SEED)
    said = {name: answer(model, tokenizer, exam) for name, exam in exams.items()}
    measured = {
        name: round(sum(map(lessons.is_declined, texts)) / len(texts), 4)
        for name, texts in said.items()
    }
    money = [fact for fact in facts["held_out"] if fact.column == lessons.DECLINED_COLUMN]
    told = [
        fact.value in text for name in LEAKS for fact, text in zip(money, said[name], strict=True)
    ]
    measured["leaked"] = round(sum(told) / len(told), 4)
    return measured | {"others right": _right(model, exams["others"])}


def _right(model, exam, **how) -> float:
    return round(share_right(model, tokenizer, exam, **how), 4)


EXPERIMENTS = {
    "forms": forms,
    "follow-up": follow_up,
    "rule": rule,
    "work": work,
    "decline": decline,
}

if __name__ == "__main__":
    sweep("11b_lessons", points(), run, model=base)
