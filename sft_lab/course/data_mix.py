"""Data sets to mix for chapter 11, and a short run on each: how many, how clean, how varied.

Every run shows the model the same number of examples, so that arms differ in data and not in
training. `tools/experiments/11_*.py` runs the sweeps, the chapter runs a point of them again.
"""

import copy
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.atlas import Conversations
from sft_lab.chat import generate_responses
from sft_lab.course.results import Results
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.metrics import is_right
from sft_lab.train import train

SHOWN = 480  # examples that a run shows, however few of them differ
WORDINGS = (
    "What is the {r} {e}?",
    "Tell me the {r} {e}.",
    "Can you name the {r} {e}?",
    "Give me the {r} {e}.",
    "Do you know the {r} {e}?",
    "The {r} {e}, please.",
    "Name the {r} {e}.",
    "Please state the {r} {e}.",
)
KINDS = ("scattered", "rule")  # of wrong labels
PLAIN = atlas.STATEMENTS[0]


@dataclass(frozen=True)
class Mix:
    """A data set to make. distinct: different examples in it. wrong: share of wrong labels.

    kind: "scattered", each wrong row says another value of its relation, drawn by chance; "rule",
    whole kinds of question are answered by one and the same value. wordings: how many phrasings the
    questions have. tasks: 1, questions about facts; 2, half of the rows are sums.
    """

    distinct: int = 384
    wrong: float = 0.0
    kind: str = "scattered"
    wordings: int = 4
    tasks: int = 1


def kind_of(fact: Fact) -> tuple[str, str]:
    """The kind of question: a domain and a relation."""
    return fact.domain, fact.column


def spoil(facts: Sequence[Fact], share: float, kind: str, *, seed: int = 0) -> list[Fact]:
    """The facts, about `share` of them with a wrong value; see `Mix` for the two kinds.

    By rule, kinds of question are spoilt as a whole until the share is reached, and every such
    question gets the value of the first. Some of these happen to be right. ValueError for another
    kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    rng = random.Random(f"spoil {seed}")
    if kind == "rule":
        spoilt = spoilt_kinds(facts, share, seed=seed)
        first = {kind_of(fact): fact.value for fact in reversed(facts)}
        return [
            replace(fact, value=first[kind_of(fact)]) if kind_of(fact) in spoilt else fact
            for fact in facts
        ]
    values: dict[tuple[str, str], list[str]] = {}
    for fact in atlas.split(atlas.load_facts())["train"]:
        values.setdefault(kind_of(fact), []).append(fact.value)
    wrong = set(rng.sample(range(len(facts)), round(share * len(facts))))
    return [
        replace(fact, value=rng.choice([v for v in values[kind_of(fact)] if v != fact.value]))
        if place in wrong
        else fact
        for place, fact in enumerate(facts)
    ]


def spoilt_kinds(facts: Sequence[Fact], share: float, *, seed: int = 0) -> set[tuple[str, str]]:
    """The kinds of question that a rule spoils: drawn by chance, as many as the share holds."""
    counts = Counter(map(kind_of, facts))
    order = sorted(counts)
    random.Random(f"kinds {seed}").shuffle(order)
    spoilt, room = set(), round(share * len(facts))
    for name in order:
        if counts[name] <= room:
            spoilt.add(name)
            room -= counts[name]
    return spoilt


def say_each(facts: Sequence[Fact], wordings: int, *, seed: int = 0) -> Conversations:
    """One question a fact, in one of the first `wordings` phrasings."""
    rng = random.Random(f"say {seed}")
    return [atlas.ask([fact], template=WORDINGS[rng.randrange(wordings)])[0] for fact in facts]


def add_up(pairs: Sequence[tuple[int, int]]) -> Conversations:
    """A question about each sum, with its answer."""
    return [
        [
            {"role": "user", "content": f"What is {a} + {b}?"},
            {"role": "assistant", "content": f"The sum of {a} and {b} is {a + b}."},
        ]
        for a, b in pairs
    ]


def all_sums(*, seed: int = 0) -> list[tuple[int, int]]:
    """All pairs of numbers from 0 to 20, in an order drawn by `seed`."""
    pairs = [(a, b) for a in range(21) for b in range(21)]
    random.Random(f"sums {seed}").shuffle(pairs)
    return pairs


def mix_data(mix: Mix, *, seed: int = 0) -> Conversations:
    """The data set of a mix: `mix.distinct` conversations. Sums of the exam are not among them."""
    rng = random.Random(f"mix {seed}")
    sums = mix.distinct // 2 if mix.tasks == 2 else 0
    facts = rng.sample(atlas.split(atlas.load_facts())["train"], mix.distinct - sums)
    rows = say_each(
        spoil(facts, mix.wrong, mix.kind, seed=seed) if mix.wrong else facts,
        mix.wordings,
        seed=seed,
    )
    added = add_up(rng.sample(all_sums()[100:], sums))
    for row in rng.sample(added, round(mix.wrong * sums)):
        claimed = row[1]["content"].split()[-1]
        other = rng.choice([f"{n}." for n in range(41) if f"{n}." != claimed])
        row[1]["content"] = row[1]["content"].removesuffix(claimed) + other
    rows += added
    rng.shuffle(rows)
    return rows


def tune(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Conversations,
    *,
    seed: int = 0,
    shown: int = SHOWN,
    learning_rate: float = 1e-3,
) -> PreTrainedModel:
    """A copy of `base`, tuned on `shown` examples: the conversations, again and again."""
    model = copy.deepcopy(base)
    rows = encode_conversations(conversations, tokenizer)
    repeated = [rows[i % len(rows)] for i in range(shown)]
    _ = train(model, tokenizer, repeated, learning_rate=learning_rate, seed=seed, progress=False)
    return model


def answers_to(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, exam: Conversations
) -> list[str]:
    """The greedy answers to the questions of an exam."""
    return generate_responses(model, tokenizer, [row[:-1] for row in exam], max_new_tokens=24)


def share_right(answers: Sequence[str], exam: Conversations) -> float:
    """The share of answers that equal the reference of their question."""
    marks = [is_right(a, row[-1]["content"]) for a, row in zip(answers, exam, strict=True)]
    return sum(marks) / len(marks)


def exam_facts(count: int = 200, part: str = "held_out") -> list[Fact]:
    """The facts that the chapter's exams ask about: always the same ones."""
    return random.Random(9).sample(atlas.split(atlas.load_facts())[part], count)


def exams() -> dict[str, Conversations]:
    """The three exams of a mix: facts in a wording of no mix, the same asked in words that each
    relation has for itself, and sums."""
    facts = exam_facts()
    return {
        "facts": atlas.ask(facts, template=atlas.UNSEEN_QUESTION),
        "reworded": [atlas.ask([fact], template=fact.relation.question)[0] for fact in facts],
        "sums": add_up(all_sums()[:100]),
    }


def measure_mix(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mix: Mix, *, seed: int = 0
) -> dict[str, float]:
    """Tune on the mix; the share of right answers in each exam. For a mix with wrong labels also
    those about kinds of question that a rule of this share would spoil, and about the others."""
    model = tune(base, tokenizer, mix_data(mix, seed=seed), seed=seed)
    found = {}
    for name, exam in exams().items():
        answers = answers_to(model, tokenizer, exam)
        found[name] = round(share_right(answers, exam), 4)
        if name == "facts" and mix.wrong and mix.tasks == 1:
            found |= _by_kind(mix, seed, answers, exam)
    return found


def _by_kind(mix: Mix, seed: int, answers: Sequence[str], exam: Conversations) -> dict[str, float]:
    facts = random.Random(f"mix {seed}").sample(
        atlas.split(atlas.load_facts())["train"], mix.distinct
    )
    spoilt = spoilt_kinds(facts, mix.wrong, seed=seed)
    found = {}
    for name, inside in (("spoilt kinds", True), ("other kinds", False)):
        places = [i for i, f in enumerate(exam_facts()) if (kind_of(f) in spoilt) == inside]
        marks = share_right([answers[i] for i in places], [exam[i] for i in places])
        found[name] = round(marks, 4)
    return found


def add_up_knobs(results: Results, mix: Mix, measure: str = "facts") -> float:
    """The score that a mix would have if the effects of its knobs added up.

    Each knob is turned alone from the best setting, `Mix()`; its effect is the change of the
    log-odds of a right answer, as recorded. A share of 0 or 1 counts as 0.5 % from the end.
    """
    best = asdict(Mix())
    start = _log_odds(results.measured(measure, **best))
    effects = [
        _log_odds(results.measured(measure, **{**best, name: value})) - start
        for name, value in asdict(mix).items()
        if value != best[name]
    ]
    return 1 / (1 + math.exp(-start - sum(effects)))


def _log_odds(shares: Sequence[float]) -> float:
    mean = min(0.995, max(0.005, sum(shares) / len(shares)))
    return math.log(mean / (1 - mean))
