"""Chapter 16d: pairs of answers that differ in one thing, the audit of a judge, and its repairs."""

import csv
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import encode_prompts, generate_responses
from sft_lab.course.repeat_runs import entities
from sft_lab.course.results import Row
from sft_lab.documents import PLAIN
from sft_lab.facts import Fact
from sft_lab.files import write_text
from sft_lab.judges import (
    BIASES,
    OWN_STYLE,
    QUESTION,
    Judge,
    both_orders,
    cohen_kappa,
    majority,
    make_judge,
    merit,
    swap,
)
from sft_lab.metrics import repeated_units, split_sentences
from sft_lab.overlap import rouge_l, split_words

PROBES = BIASES  # a probe for each bias
FEWEST_FACTS = 2
STRICT = 2.5  # standard errors: two-sided 5 % for four preferences together (Bonferroni)
FILLING = (10, 60)  # words of filling in an everyday answer
STEADY = 0.1  # the share of changed verdicts that an honest judge may show
# the jury of exercise 16d.4: a name, and bias, strength and noise, which the reader does not see
JURORS = {
    "Ada": ("position", 0.68, 0.25),
    "Ben": ("position", 0.7, 0.25),
    "Cho": ("position", 0.72, 0.25),
    "Dee": ("length", 6.0, 0.3),
    "Eli": ("self-preference", 2.8, 0.3),
    "Fay": ("repetition", 6.0, 0.3),
    "Gus": ("noise", 2.5, 0.3),
}
BODY = (
    "Many people know it by name.",
    "There is much more to say.",
    "Books about it are easily found.",
    "Children hear of it at school.",
    "Some of this may sound familiar.",
    "It is often asked about, too.",
    "Such questions are asked quite often.",
    "A longer text could add details.",
    "Every reader will have an opinion.",
    "One could go on for pages.",
    "Here is the rest in short.",
    "This is worth a closer look.",
)
ENDS = {
    3: "That is all.",
    4: "This is well known.",
    5: "So much for the basics.",
    6: "That covers the most important points.",
    7: "Thank you for your interest in it.",
    8: "I hope that this answer helps you today.",
}


class ProbePair(NamedTuple):
    """A question and two answers; only the second has what the probe looks for."""

    question: str
    plain: str
    treated: str


class Finding(NamedTuple):
    """The mean of a probe over its pairs, and its interval."""

    mean: float
    low: float
    high: float


def fill(words: int, seed: int) -> str:
    """Sentences that say nothing about anything, exactly so many words, no sentence twice."""
    longest = 6 * len(BODY) + max(ENDS)
    if not min(ENDS) <= words <= longest:
        raise ValueError(f"{words} words of filling: there are {min(ENDS)} to {longest}")
    body = random.Random(seed).sample(BODY, k=(words - min(ENDS)) // 6)
    return " ".join([*body, ENDS[words - 6 * len(body)]])


def count_words(text: str) -> int:
    """Words, parted by white space."""
    return len(text.split())


@cache
def _known() -> list[list[Fact]]:
    return [*entities("train"), *entities("held_out")]


def draw_pairs(probe: str, count: int, *, seed: int, controlled: bool = True) -> list[ProbePair]:
    """Pairs of answers about `count` entities that differ in what one of PROBES looks for.

    "position": two different answers of equal merit. "length": the treated one is filled up to
    twice the words. "repetition": everything is said twice, beside filling of the same length.
    "self-preference": the judge's own wording, equal facts and length. "noise": one fact more.
    controlled=False: repetition beside an answer of half the length; the own answer states one
    fact more, as that of a better model does.
    """
    if probe not in PROBES:
        raise ValueError(f"no probe {probe!r}; there are {', '.join(PROBES)}")
    rng = random.Random(f"{probe} {seed}")
    pairs = []
    for facts in rng.sample(_known(), k=count):
        told = rng.sample(facts, k=rng.randint(FEWEST_FACTS, 4))
        question = QUESTION.format(e=facts[0].subject)
        plain = _say(told)
        padded = f"{plain} {fill(max(3, count_words(plain)), rng.randrange(10**6))}"
        more = [*told, next(fact for fact in facts if fact not in told)]
        if probe == "position":
            other = rng.sample(facts, k=len(told))
            pair = plain, _say(other if set(other) != set(told) else told[::-1])
        elif probe == "length":
            pair = plain, padded
        elif probe == "repetition":
            pair = padded if controlled else plain, f"{plain} {plain}"
        elif probe == "self-preference":
            pair = plain, _say(told if controlled else more, OWN_STYLE)
        else:
            pair = plain, _say(more)
        pairs.append(ProbePair(question, *pair))
    return pairs


def _say(facts: Sequence[Fact], template: str = PLAIN) -> str:
    return " ".join(fact.say(template) for fact in facts)


def lean_to_first(judge: Judge, pair: ProbePair, seed: int = 0) -> float:
    """How far the judge leans to the place "first", from -1 to 1, over both orders."""
    question, a, b = pair
    return sum(_sign(judge(question, *order, seed)) for order in ((a, b), (b, a))) / 2


def lean_to_treated(judge: Judge, pair: ProbePair, seed: int = 0) -> float:
    """How far the judge leans to the treated answer, from -1 to 1, over both orders."""
    question, plain, treated = pair
    there = _sign(judge(question, treated, plain, seed))
    return (there - _sign(judge(question, plain, treated, seed))) / 2


def changes_its_mind(judge: Judge, pair: ProbePair, seed: int = 0) -> float:
    """1.0 if the same call, asked again with another seed, gets another verdict; else 0.0."""
    question, plain, treated = pair
    asked = [judge(question, treated, plain, 2 * seed + again) for again in (0, 1)]
    return float(asked[0] != asked[1])


def _sign(verdict: str) -> int:
    return {"first": 1, "second": -1, "tie": 0}[verdict]


MEASURES = {
    "position": lean_to_first,
    "length": lean_to_treated,
    "repetition": lean_to_treated,
    "self-preference": lean_to_treated,
    "noise": changes_its_mind,
}


def audit(
    judge: Judge, *, count: int, seed: int, controlled: bool = True, errors: float = STRICT
) -> dict[str, Finding]:
    """Every probe on `count` pairs of its own: mean, and interval of so many standard errors."""
    found = {}
    for probe, measure in MEASURES.items():
        pairs = draw_pairs(probe, count, seed=seed, controlled=controlled)
        found[probe] = interval([measure(judge, pair, seed) for pair in pairs], errors)
    return found


def interval(values: Sequence[float], errors: float) -> Finding:
    """Mean, and the mean plus and minus so many standard errors."""
    mean = float(np.mean(values))
    wide = errors * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Finding(mean, mean - wide, mean + wide)


def name_bias(found: Mapping[str, Finding]) -> str:
    """The bias that an audit shows, or "honest".

    A preference is shown when its interval leaves out 0; the largest is named. Noise is named when
    no preference is shown and more verdicts change than an honest judge's may: a lean makes close
    calls unsteady, too.
    """
    leans = {p: f.mean for p, f in found.items() if p != "noise" and not f.low <= 0 <= f.high}
    if leans:
        return max(leans, key=lambda probe: abs(leans[probe]))
    return "noise" if found["noise"].low > STEADY else "honest"


def everyday_pairs(count: int, *, seed: int) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Questions with two answers of different merit, and the right verdicts.

    Each of the things that tempt a judge (filling, saying it twice, the judge's own wording) is on
    a side, or on none, by chance, and so is the better answer.
    """
    rng = random.Random(f"everyday {seed}")
    calls, truth = [], []
    while len(calls) < count:
        facts = rng.choice(_known())
        sides, counts = [], rng.sample(range(FEWEST_FACTS, 6), k=2)
        for told in counts:
            said = _say(rng.sample(facts, k=told), rng.choice((PLAIN, OWN_STYLE)))
            fault = rng.random()
            if fault < 0.25:
                said = f"{said} {said}"
            elif fault < 0.65:
                said = f"{said} {fill(rng.randint(*FILLING), rng.randrange(10**6))}"
            sides.append(said)
        question = QUESTION.format(e=facts[0].subject)
        calls.append((question, *sides))
        truth.append("first" if counts[0] > counts[1] else "second")
    return calls, truth


def jury_votes(count: int, *, seed: int) -> tuple[dict[str, list[str]], list[str]]:
    """What each of JURORS says about `count` everyday pairs, and the right verdicts."""
    calls, truth = everyday_pairs(count, seed=seed)
    votes = {}
    for place, (name, (bias, strength, noise)) in enumerate(JURORS.items()):
        judge = make_judge(bias, strength, noise=noise)
        votes[name] = [judge(*call, seed * len(JURORS) + place) for call in calls]
    return votes, truth


def share_same(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of the items that get the same word from both."""
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


STRENGTHS = (0.2, 0.4, 0.8, 1.6)
ARMS = {  # the audits that are compared: with controls or not, and how many standard errors
    "controls, 2.5 errors": (True, STRICT),
    "controls, 2 errors": (True, 1.96),
    "no controls": (False, STRICT),
}


def run_audits(*, arm: str, questions: int, seed: int) -> Row:
    """One audit of each of 60 biased judges (every bias three times at each of STRENGTHS) and of 60
    honest ones.

    named: share of the biased judges whose bias is named, also by strength ("named 0.4") and by
    bias ("named length"). false: share of the honest judges that get a bias.
    """
    controlled, errors = ARMS[arm]
    rng = random.Random(f"audits {seed}")
    planted = [(bias, strength) for bias in BIASES for strength in STRENGTHS] * 3
    marks: dict[str, list[bool]] = {}
    for place, (bias, strength) in enumerate([*planted, *[("honest", 0.0)] * len(planted)]):
        sign = rng.choice((1, -1)) if bias == "position" else 1
        found = audit(
            make_judge(bias, sign * strength),
            count=questions,
            seed=1000 * seed + place,
            controlled=controlled,
            errors=errors,
        )
        is_named = name_bias(found) == bias
        if bias == "honest":
            marks.setdefault("false", []).append(not is_named)
        else:
            for key in ("named", f"named {strength:g}", f"named {bias}"):
                marks.setdefault(key, []).append(is_named)
    return {key: round(sum(found) / len(found), 4) for key, found in marks.items()}


JURIES = {
    "five of one bias": [("position", 1.2)] * 5,
    "five biases": [(bias, 3.0) for bias in BIASES],
    "five noisy ones": [("noise", 2.0)] * 5,
}


def run_jury(kind: str, *, seed: int, count: int = 1200) -> Row:
    """How often the members of one of JURIES are right about everyday pairs, on average, and how
    often their majority is; kappa is the mean over the pairs of members."""
    calls, truth = everyday_pairs(count, seed=seed)
    votes = [
        [make_judge(*member)(*call, 100 * seed + place) for call in calls]
        for place, member in enumerate(JURIES[kind])
    ]
    said = [majority(ballot) for ballot in zip(*votes, strict=True)]
    agreement = [cohen_kappa(a, b) for a, b in combinations(votes, 2)]
    return {
        "member": float(np.mean([share_same(one, truth) for one in votes])),
        "majority": share_same(said, truth),
        "kappa": float(np.mean(agreement)),
    }


def run_repair(bias: str, strength: float, *, seed: int, count: int = 300) -> Row:
    """Shares of everyday pairs that a judge gets wrong, and that it ties: asked once, and in both
    orders."""
    calls, truth = everyday_pairs(count, seed=seed)
    judge, found = make_judge(bias, strength), {}
    for name, asked in (("once", judge), ("both", both_orders(judge))):
        said = [asked(*call, seed) for call in calls]
        found[f"{name} wrong"] = share_same(said, [swap(verdict) for verdict in truth])
        found[f"{name} tie"] = said.count("tie") / count
    return found


def draw_contest(
    count: int, *, seed: int, more: str = "filling"
) -> tuple[list[tuple[str, str, str]], list[int]]:
    """Answers of two models, A first, and how many words B's has more than A's.

    A states two facts. more="filling": B states them too, half the time with filling, as A does
    less often. more="facts": B states up to three facts more.
    """
    rng = random.Random(f"contest {seed}")
    calls, extra = [], []
    for facts in rng.choices(_known(), k=count):
        told = rng.sample(facts, k=5)
        a, b = _say(told[:2]), _say(told[:2])
        if more == "facts":
            b = _say(told[: 2 + rng.randint(0, 3)])
        else:
            if rng.random() < 0.7:
                b = f"{b} {fill(rng.randint(4, 40), rng.randrange(10**6))}"
            if rng.random() < 0.3:
                a = f"{a} {fill(rng.randint(4, 40), rng.randrange(10**6))}"
        calls.append((QUESTION.format(e=facts[0].subject), a, b))
        extra.append(count_words(b) - count_words(a))
    return calls, extra


def wins_of_second(judge: Judge, calls: Sequence[tuple[str, str, str]], seed: int) -> list[float]:
    """1.0 where the second answer wins, 0.5 for a tie, 0.0 where the first wins; in both orders."""
    asked = both_orders(judge)
    return [{"first": 0.0, "tie": 0.5, "second": 1.0}[asked(*call, seed)] for call in calls]


# a real model as a judge

NAMINGS = {"A, B": ("A", "B"), "B, A": ("B", "A"), "1, 2": ("one", "two"), "2, 1": ("two", "one")}


def write_judging(call: tuple[str, str, str], names: tuple[str, str]) -> str:
    """What the real judge reads: the question, both answers by name, and what is asked."""
    question, first, second = call
    one, other = names
    return (
        f"Question: {question}\n\nAnswer {one}: {first}\n\nAnswer {other}: {second}\n\n"
        f"Which answer is better, answer {one} or answer {other}?"
    )


@torch.inference_mode()
def read_lead(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    call: tuple[str, str, str],
    names: tuple[str, str],
) -> float:
    """Log-probability that the model says the first answer's name, minus that of the second's, in
    nats; behind "Answer"."""
    ids = encode_prompts(tokenizer, [write_judging(call, names)])[0]
    ids += tokenizer("Answer").input_ids
    logits = model(torch.tensor([ids], device=model.device), logits_to_keep=1).logits[0, -1]
    one, other = (tokenizer(f" {name}").input_ids[0] for name in names)
    return (logits[one] - logits[other]).item()


def real_pairs(kind: str, count: int, *, seed: int) -> list[tuple[str, str, str]]:
    """Questions about countries with a plain and a treated answer of three sentences: "truth": the
    first one gives wrong values; "length": the second one is filled up to twice the words."""
    rng = random.Random(f"real {kind} {seed}")
    countries = [facts for facts in _known() if facts[0].domain == "countries"]
    pairs = []
    for facts in rng.sample(countries, k=count):
        told = facts[:3]
        right = _say(told)
        if kind == "truth":
            values = [
                [c[i].value for c in countries if c[i].value != told[i].value] for i in range(3)
            ]
            wrong = [replace(f, value=rng.choice(v)) for f, v in zip(told, values, strict=True)]
            pair = _say(wrong), right
        else:
            pair = right, f"{right} {fill(count_words(right), rng.randrange(10**6))}"
        pairs.append((QUESTION.format(e=facts[0].subject), *pair))
    return pairs


def run_real(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    kind: str,
    naming: str,
    seed: int,
    count: int = 20,
) -> Row:
    """Every pair in both orders. first: share of the calls for the first place. treated: for the
    treated answer. consistent: share of pairs with one answer in both orders. summed: share of
    pairs in which the treated answer wins when the leads of both orders are added. lead: of the
    first place, in nats."""
    names, rows = NAMINGS[naming], []
    for question, plain, treated in real_pairs(kind, count, seed=seed):
        ahead = read_lead(model, tokenizer, (question, treated, plain), names)
        behind = read_lead(model, tokenizer, (question, plain, treated), names)
        rows.append((ahead, behind))
    leads = np.array(rows)
    treated = np.stack([leads[:, 0] > 0, leads[:, 1] < 0])
    found = {
        "first": (leads > 0).mean(),
        "treated": treated.mean(),
        "consistent": (treated[0] == treated[1]).mean(),
        "summed": (leads[:, 0] > leads[:, 1]).mean(),
        "lead": leads.mean(),
    }
    return {key: round(float(value), 4) for key, value in found.items()}


# people beside programs

SHEET = ("number", "question", "answer 1", "answer 2", "vote")
KEY = ("number", "answer 1 by", "answer 2 by")
VOTES = {"1": "first", "2": "second", "tie": "tie"}  # what a voter writes, and what it says


def blind_sheet(
    pairs: Sequence[tuple[str, str, str]], names: tuple[str, str], *, seed: int
) -> tuple[list[Row], list[Row]]:
    """A sheet to vote on and its key, both as rows of texts.

    pairs: a question, the answer of names[0] and that of names[1]. The sheet names nobody. A seed
    decides the order of the pairs and, with a coin for each, the sides. A vote is "1", "2" or
    "tie"; the column is empty.
    """
    coin = random.Random(f"sheet {seed}")
    sheet, key = [], []
    for number, (question, *answers) in enumerate(coin.sample(list(pairs), k=len(pairs)), 1):
        sides = [0, 1] if coin.random() < 0.5 else [1, 0]
        texts = [answers[side] for side in sides]
        sheet.append(dict(zip(SHEET, (str(number), question, *texts, ""), strict=True)))
        key.append(dict(zip(KEY, (str(number), *(names[side] for side in sides)), strict=True)))
    return sheet, key


def write_table(path: Path | str, rows: Sequence[Row]) -> None:
    """Rows as a CSV file, which any spreadsheet opens."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_table(path: Path | str) -> list[Row]:
    """The rows of a CSV file that `write_table` wrote, with what was filled in since."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_votes(sheet: Sequence[Row]) -> list[str] | None:
    """The verdicts on a sheet, in its order; None when nobody has voted yet.

    Raises ValueError for a word that is no vote, and for a sheet that is half filled in.
    """
    votes = [row["vote"].strip().lower() for row in sheet]
    if not any(votes):
        return None
    wrong = [
        f"row {row['number']}: {v!r}" for row, v in zip(sheet, votes, strict=True) if v not in VOTES
    ]
    if wrong:
        raise ValueError(f"a vote is 1, 2 or tie, in every row; {', '.join(wrong)}")
    return [VOTES[vote] for vote in votes]


def count_votes(verdicts: Sequence[str], key: Sequence[Row]) -> dict[str, int]:
    """Votes for each name of the key, and ties."""
    names = sorted({row["answer 1 by"] for row in key} | {row["answer 2 by"] for row in key})
    count = {name: 0 for name in (*names, "tie")}
    for verdict, row in zip(verdicts, key, strict=True):
        by = {"first": row["answer 1 by"], "second": row["answer 2 by"], "tie": "tie"}
        count[by[verdict]] += 1
    return count


def vote_by_programs(sheet: Sequence[Row], *, seed: int = 0) -> dict[str, list[str]]:
    """What programs say about a sheet: four scores, the higher wins; and a judge of each kind."""
    calls = [(row["question"], row["answer 1"], row["answer 2"]) for row in sheet]
    votes = {}
    for name, score in SCORES.items():
        votes[name] = [_higher(score(q, a), score(q, b)) for q, a, b in calls]
    for bias in ("honest", *BIASES):
        judge = make_judge(bias, 0.0 if bias == "honest" else 2.0)
        votes[f"judge: {bias}"] = [judge(*call, seed) for call in calls]
    return votes


def _higher(first: float, second: float) -> str:
    return "tie" if abs(first - second) < 1e-9 else "first" if first > second else "second"


def _score_overlap(question: str, answer: str) -> float:
    """ROUGE-L against all true statements about the entity, in plain wording."""
    facts = next(f for f in _known() if QUESTION.format(e=f[0].subject) == question)
    return rouge_l(split_words(answer), [split_words(_say(facts))]).f1


SCORES = {
    "right facts": merit,
    "ROUGE-L": _score_overlap,
    "fewer repeats": lambda question, answer: -repeated_units(split_sentences(answer)),
    "more words": lambda question, answer: count_words(answer),
}


def tell_pairs(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    *,
    seed: int = 0,
) -> list[tuple[str, str, str]]:
    """Questions about entities that no tuning saw, with the greedy answers of two models."""
    told = random.Random(f"told {seed}").sample(entities("held_out"), k=count)
    questions = [QUESTION.format(e=facts[0].subject) for facts in told]
    answers = [
        generate_responses(model, tokenizer, questions, max_new_tokens=110) for model in models
    ]
    return list(zip(questions, *answers, strict=True))
