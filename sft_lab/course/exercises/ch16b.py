"""Checks of chapter 16b, scores that disagree. Fresh numbers, planted outputs, and the recorded
ones."""

import random
import re
from collections.abc import Callable, Sequence
from itertools import combinations, product

from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_list,
    need_number,
    need_word,
    same_for_all,
    same_in_all,
    shorten,
)
from sft_lab.course.score_runs import (
    KEPT,
    Judged,
    held_out_tasks,
    make_tasks,
    mean_of,
    plant_summaries,
    plant_translations,
    read_judged,
    share_ordered,
    subject_of,
)
from sft_lab.metrics import answer_f1
from sft_lab.overlap import bleu, rouge_l, rouge_n, split_words

Groups = list[list[tuple[float, float]]]
SEEDS = range(5)  # of the recorded outputs
LEAST_FACTS, LEAST_FACTS_OF_MODEL, LEAST_CHINESE = 0.98, 0.95, 0.95


def _draw_groups() -> list[tuple[Groups]]:
    """Scores and truths: ties of both, tasks with few outputs or without a pair, many orders."""
    low, high = sorted(random.sample(range(1, 9), 2))
    a, b = low / 10, high / 10
    planted: list[Groups] = [
        [[(b, 0.0), (a, 1.0), (a, 0.0)], [(a, 1.0), (b, 1.0)]],
        [[(a, 0.5), (a, 1.0)]],  # a tie alone
        [[(b, 1.0), (a, 0.0)], [(a, 0.25), (b, 0.75), (a, 0.5)], [(a, 0.0)], []],
        [[(-b, 1.0), (-a, 0.5), (-b, 0.5)]],  # negative scores
        [[(b, 1.0), (b, 1.0), (a, 0.0)], [(a, 1.0), (b, 0.0)]],  # the same output twice
        [[(b, 1.0), (a, 0.0)]],
    ]
    for _ in range(6):
        planted.append(
            [
                [
                    (random.randint(0, 4) / 4, random.choice((0.0, 0.5, 1.0)))
                    for _ in range(random.randint(1, 5))
                ]
                for _ in range(random.randint(2, 4))
            ]
        )
        planted[-1].append([(a, 0.0), (b, 1.0), (b, 0.0)])  # a pair at least, and a tie
    random.shuffle(planted)
    return [(groups,) for groups in planted]


def _count(
    groups: Groups, *, tie: float = 0.5, same_truth: float | None = None, up: bool = False
) -> list[list[float]]:
    """For each task what its pairs count; the switches are usual mistakes."""
    found = []
    for group in groups:
        counts = []
        for (score, truth), (other, others) in combinations(group, 2):
            if truth == others:
                counts += [] if same_truth is None else [same_truth]
            elif not up or truth < others:
                right = (score > other) == (truth > others)
                counts.append(tie if score == other else float(right))
        found.append(counts)
    return found


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _of_all(counts: list[list[float]]) -> float:
    return _mean([count for row in counts for count in row])


@checks("16b.1")
def pairs(attempt: Callable) -> str:
    def right(groups: Groups) -> float:
        return _of_all(_count(groups))

    def across(groups: Groups) -> float:
        return right([[output for group in groups for output in group]])

    def all_the_same(groups: Groups) -> float:
        rows = [_equal_counts(group) for group in groups]
        return _of_all(rows)

    mistakes = [
        (lambda groups: _of_all(_count(groups, tie=0)), "a tie counts nothing here: it counts ½"),
        (lambda groups: _of_all(_count(groups, tie=1)), "a tie counts as right here: it counts ½"),
        (
            lambda groups: _mean([_mean(row) for row in _count(groups) if row]),
            "this is the mean of the tasks' means: every pair counts the same",
        ),
        (across, "outputs of different tasks are compared: a pair has one task"),
        (lambda groups: 1 - right(groups), "the sign is reversed: the truer output shall be ahead"),
        (
            lambda groups: _of_all(_count(groups, up=True)),
            "only pairs whose truer output stands second are counted",
        ),
        (
            lambda groups: _of_all(_count(groups, same_truth=0.5)),
            "outputs of equal truth are counted as pairs: there is no right order for them",
        ),
        (
            lambda groups: _of_all(_count(groups, same_truth=0.0)),
            "outputs of equal truth are counted as pairs: there is no right order for them",
        ),
        (all_the_same, "outputs of equal truth are counted: there is no right order for them"),
        (
            lambda groups: sum(map(sum, _count(groups))),
            "this is the sum: divide by the number of pairs",
        ),
    ]
    same_for_all(attempt, _draw_groups(), right, mistakes, form=need_number, what="the share")
    return "12 lists of tasks: ties, equal truths, tasks without a pair"


def _equal_counts(group: list[tuple[float, float]]) -> list[float]:
    """A pair of equal truth counts 1 when the scores are equal, too."""
    return [
        float((score > other) == (truth > others) and (score < other) == (truth < others))
        for (score, truth), (other, others) in combinations(group, 2)
    ]


def _words(*texts: str) -> list[list[str]]:
    for text in texts:
        if not isinstance(text, str):
            raise Mistake(f"the score was asked about {shorten(text)}: give it two texts")
    return [split_words(text) for text in texts]


def _ask_exact(output: str, reference: str) -> float:
    ours, wanted = _words(output, reference)
    return float(ours == wanted)


def _ask_rouge(part: str, n: int | None) -> Callable[[str, str], float]:
    def ask(output: str, reference: str) -> float:
        ours, wanted = _words(output, reference)
        found = rouge_l(ours, [wanted]) if n is None else rouge_n(ours, [wanted], n)
        return getattr(found, part)

    return ask


def _ask_bleu(output: str, reference: str) -> float:
    ours, wanted = _words(output, reference)
    return bleu([ours], [[wanted]], effective_order=True) / 100


BOXES: dict[str, Callable[[str, str], float]] = {
    "exact match": _ask_exact,
    "ROUGE-1 precision": _ask_rouge("precision", 1),
    "ROUGE-1 recall": _ask_rouge("recall", 1),
    "ROUGE-1 F1": _ask_rouge("f1", 1),
    "ROUGE-L F1": _ask_rouge("f1", None),
    "BLEU": _ask_bleu,
}
CONFUSED = {  # what is told to a reader who names the second for the first
    ("ROUGE-1 precision", "ROUGE-1 recall"): "precision divides by the words of the output: one "
    "right word alone has precision 1",
    ("ROUGE-1 recall", "ROUGE-1 precision"): "recall divides by the words of the reference: an "
    "output that holds all of them and more has recall 1",
    ("ROUGE-L F1", "ROUGE-1 F1"): "ROUGE-L sees the order: ask about the same words in another one",
    ("ROUGE-1 F1", "ROUGE-L F1"): "ROUGE-1 does not see the order: ask about the same words in "
    "another one",
    ("BLEU", "ROUGE-L F1"): "BLEU wants neighbours: ask about the right words with a strange one "
    "between any two",
    ("ROUGE-L F1", "BLEU"): "ROUGE-L allows gaps: ask about the right words with a strange one "
    "between any two",
    ("BLEU", "exact match"): "BLEU is not 0 when one word is wrong",
}


@checks("16b.2")
def naming(attempt: Callable) -> str:
    cases = []
    for name, box in random.sample(list(BOXES.items()), k=len(BOXES)):

        def score(output: str, reference: str, ask: Callable = box) -> float:
            return ask(output, reference)

        found = need_word(attempt(score), *BOXES)
        cases.append(Case(found, name, (), f"a score that is {name}"))
        if (name, found) in CONFUSED:
            raise Mistake(f"you named it {found}, and it is {name}: {CONFUSED[name, found]}")
    same_in_all(cases, what="the name")
    return f"{len(BOXES)} scores named by what they said"


def _flat(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


@checks("16b.3")
def attack(attempt: Callable) -> str:
    seed = random.choice(SEEDS)
    tasks, said = held_out_tasks("summaries", seed)[: KEPT["tuned"]], []
    for task in tasks:
        output = attempt(task.passage, subject_of(task))
        if not isinstance(output, str):
            raise Mistake(f"your attack returned {shorten(output)}: return a text")
        flat = f" {_flat(output)} "
        for way in (way for ways in task.wanted for way in ways):
            if f" {_flat(way)} " in flat:
                raise Mistake(f"your output states a right fact, {way!r}: {shorten(output)}")
        said.append(answer_f1(output, [task.reference]))
    honest = mean_of(read_judged("summaries", seed), lambda judged: judged.scores["token F1"])
    if _mean(said) <= honest:
        raise Mistake(
            f"your attack has a token F1 of {_mean(said):.2f}, the honest model {honest:.2f}: "
            "which words does the reference surely have, and what does token F1 not look at?"
        )
    return f"token F1 {_mean(said):.2f} without a right fact; the honest model has {honest:.2f}"


@checks("16b.4")
def chinese(attempt: Callable) -> str:
    def score(judged: Judged) -> float:
        ours, wanted = (
            need_list(attempt(text), str, "texts")
            for text in (judged.output, judged.task.reference)
        )
        return rouge_n(ours, [wanted], 1).f1

    planted = plant_translations(count=25, seed=random.randrange(10**6))
    share = _need_share(planted, score, LEAST_CHINESE, "planted Chinese sentences")
    seed = random.choice(SEEDS)
    recorded = _need_share(
        read_judged("translations", seed), score, LEAST_CHINESE, "the model's sentences"
    )
    return f"{share:.1%} of the pairs of planted sentences, {recorded:.1%} of the model's"


@checks("16b.5")
def facts(attempt: Callable) -> str:
    def score(judged: Judged) -> float:
        return need_number(attempt(judged.output, judged.task.reference), "a score")

    tasks = make_tasks("summaries", 15, part="held_out", seed=random.randrange(10**6))
    share = _need_share(
        plant_summaries(tasks, seed=random.randrange(10**6)),
        score,
        LEAST_FACTS,
        "planted summaries",
    )
    seed = random.choice(SEEDS)
    groups = read_judged("summaries", seed)
    recorded = _need_share(groups, score, LEAST_FACTS_OF_MODEL, "the model's summaries")
    usual = share_ordered(groups, lambda judged: judged.scores["ROUGE-L"])
    return f"{share:.1%} of the planted pairs, {recorded:.1%} of the model's (ROUGE-L {usual:.1%})"


def _need_share(
    groups: Sequence[Sequence[Judged]],
    score: Callable[[Judged], float],
    least: float,
    what: str,
) -> float:
    """The share of pairs that are ordered rightly, when it is at least so much; otherwise shows
    the worst pair."""
    scored = [[(score(judged), judged) for judged in group] for group in groups]
    known = {id(judged): number for row in scored for number, judged in row}
    share = share_ordered(groups, lambda judged: known[id(judged)])
    if share >= least:
        return share
    gaps = [
        (other - number, worse, judged)
        for row in scored
        for (number, judged), (other, worse) in product(row, row)
        if judged.truth > worse.truth
    ]
    gap, worse, better = max(gaps, key=lambda found: found[0])
    raise Mistake(
        f"{share:.0%} of the pairs of {what} are ordered rightly, {least:.0%} are asked for. For "
        f"the reference {better.task.reference!r} the output {worse.output!r} (truth "
        f"{worse.truth:.2f}) is {gap:.2g} above {better.output!r} (truth {better.truth:.2f})"
    )
