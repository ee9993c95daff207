"""Checks of chapter 18c, the bug zoo."""

import contextlib
import io
import random
from collections.abc import Callable
from functools import cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.course import zoo
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_list,
    need_whole,
    same_for_all,
    shorten,
    unpack,
)
from sft_lab.course.results import Results, read_results
from sft_lab.course.zoo import Pipeline, Run, draw_talks, run_pipeline
from sft_lab.course.zoo_files import CASES, CLINIC, judge_diagnosis
from sft_lab.course.zoo_table import STOP, curve_of, fits
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.metrics import is_right
from sft_lab.models import load

NAMED = ("H", "I", "T", "X")  # of the clinic, exercise 18c.1
SMALL = {"steps": 24, "rows": 8, "parts": 1}  # a run of two seconds


@cache
def _load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with contextlib.redirect_stdout(io.StringIO()):
        return load("atlas-base")


@cache
def _results() -> Results:
    return read_results("18c_zoo")


@checks("18c.1")
def name_cases(attempt: object) -> str:
    if not isinstance(attempt, dict) or set(attempt) != set(NAMED):
        raise Mistake(
            f"expected a dict with the letters {', '.join(NAMED)}, got {shorten(attempt)}"
        )
    for letter in NAMED:
        cause = attempt[letter]
        if cause not in CASES:
            raise Mistake(f"{letter}: {cause!r} is no name of the list of causes")
        right, words = judge_diagnosis(_results(), CLINIC[letter], cause)
        if not right:
            raise Mistake(f"{letter} is not {cause!r}. {words}")
    return "four causes, named from their files"


# 18c.2


def _draw_batch(rows: int) -> tuple[list[Example], torch.Tensor]:
    """Examples of different lengths, and labels of a batch with mistakes of both kinds. Token 0 is
    graded, the first place too, padding behind an example, and another token than the example's."""
    examples, width = [], 14
    labels = torch.full((rows, width), IGNORE_INDEX)
    for row in range(rows):
        size = random.randint(7, width - 2)
        ids = [random.randrange(1, 50) for _ in range(size)]
        ids[size - 3] = 0
        graded = [t >= size // 2 for t in range(size)]
        graded[0] = row % 2 == 0
        example = [i if on else IGNORE_INDEX for i, on in zip(ids, graded, strict=True)]
        examples.append(Example(ids, example))
        kept = torch.tensor(example)
        flips = {0, size - 3, *random.sample(range(1, size - 3), 2 + row % 2)}
        for place in flips:
            kept[place] = IGNORE_INDEX if graded[place] else ids[place]
        kept[size - 1] += 1  # another token, and graded as before
        labels[row, :size] = kept
        if row % 3 != 2:
            labels[row, size : size + 1 + row % 2] = 7
    return examples, labels


def _places(examples: list[Example], labels: torch.Tensor) -> list[tuple[bool, bool, bool]]:
    """(graded in the example, graded in the batch, behind the example) of every place."""
    found = []
    for example, row in zip(examples, labels.tolist(), strict=True):
        for t, label in enumerate(row):
            inside = t < len(example.labels)
            found.append(
                (inside and example.labels[t] != IGNORE_INDEX, label != IGNORE_INDEX, not inside)
            )
    return found


def _count(lost: Callable, added: Callable, places: Callable = _places) -> Callable:
    return lambda examples, labels: tuple(
        sum(form(*place) for place in places(examples, labels)) for form in (lost, added)
    )


def _inside_only(examples: list[Example], labels: torch.Tensor) -> list[tuple[bool, bool, bool]]:
    return [place for place in _places(examples, labels) if not place[2]]


def _without_first(examples: list[Example], labels: torch.Tensor) -> list[tuple[bool, bool, bool]]:
    width = labels.shape[1]
    return [place for t, place in enumerate(_places(examples, labels)) if t % width]


def _zero_is_nothing(
    examples: list[Example], labels: torch.Tensor
) -> list[tuple[bool, bool, bool]]:
    rows = [Example(e.input_ids, [label or IGNORE_INDEX for label in e.labels]) for e in examples]
    return _places(rows, torch.where(labels == 0, IGNORE_INDEX, labels))


@checks("18c.2")
def compare_labels(attempt: Callable) -> str:
    examples, labels = _draw_batch(3)
    whole = torch.full_like(labels, IGNORE_INDEX)
    for row, example in enumerate(examples):
        whole[row, : len(example.labels)] = torch.tensor(example.labels)
    nothing = torch.full_like(labels, IGNORE_INDEX)
    inputs = [_draw_batch(rows) for rows in (1, 2, 4, 5)]
    inputs += [(examples, labels), (examples, whole), (examples, nothing)]
    longest = max(len(example.labels) for example in examples)
    inputs.append((examples, labels[:, :longest].clone()))  # no padding behind the longest

    def lost(a: bool, b: bool, _: bool) -> bool:
        return a and not b

    def added(a: bool, b: bool, _: bool) -> bool:
        return b and not a

    right = _count(lost, added)

    def net(examples: list[Example], labels: torch.Tensor) -> tuple[int, int]:
        less, more = right(examples, labels)
        return max(0, less - more), max(0, more - less)

    mistakes = [
        (_count(added, lost), "the two are exchanged: first what is lost, then what is added"),
        (net, "lost and added cancel: count each place for itself, not the totals"),
        (
            _count(lost, added, _inside_only),
            "padding behind an example that is graded is not counted",
        ),
        (
            _count(lost, added, _without_first),
            "the first place is left out: it counts as any other",
        ),
        (
            _count(lost, added, _zero_is_nothing),
            "token 0 is taken for nothing: only -100 is not graded",
        ),
        (_count(lambda a, b, _: a, lambda a, b, _: b), "this is what is graded, not what differs"),
        (_count(lost, lambda a, b, behind: b and behind), "only padding is counted as added"),
    ]

    def form(found: object) -> tuple[int, int]:
        parts = unpack(found, "lost", "added")
        return tuple(need_whole(part, "a count", low=0) for part in parts)

    same_for_all(attempt, inputs, right, mistakes, form=form, what="(lost, added)")
    return "every place counted: lost by the collator, added by it, padding too"


# 18c.3

Table = dict[str, set[str]]


def _cover(table: Table, cost: dict[str, int], gain: Callable, *, last: bool = False) -> list[str]:
    chosen, seen = [], set()
    while True:
        names = reversed(table) if last else table
        open_ = {name: table[name] - seen for name in names if name not in chosen}
        worth = {name: gain(len(new), len(table[name]), cost[name]) for name, new in open_.items()}
        best = max((n for n in worth if open_[n]), key=worth.get, default=None)
        if best is None:
            return chosen
        chosen.append(best)
        seen |= table[best]


def _sorted_once(table: Table, cost: dict[str, int]) -> list[str]:
    order = sorted(table, key=lambda name: -len(table[name]) / cost[name])
    chosen, seen = [], set()
    for name in order:
        if table[name] - seen:
            chosen.append(name)
            seen |= table[name]
    return chosen


def _draw_table(probes: int, bugs: int) -> tuple[Table, dict[str, int]]:
    names = [f"probe {k}" for k in range(probes)]
    random.shuffle(names)
    table = {
        n: {f"bug {k}" for k in random.sample(range(bugs), random.randint(1, 5))} for n in names
    }
    return table, {name: random.randint(1, 6) for name in names}


def _planted_tables() -> list[tuple[Table, dict[str, int]]]:
    """What decides: costs, bugs that were seen, ties, probes that see nothing, an empty table."""
    costly: Table = {"dear": set("abcdef"), "cheap": set("abc"), "rest": set("def")}
    stale: Table = {"wide": set("abcd"), "same": set("abc"), "other": set("ef"), "one": {"g"}}
    tied: Table = {"z": set("ab"), "y": set("cd"), "x": set("bc"), "w": set()}
    often: Table = {"wide": set("abcd"), "mostly": set("abce"), "other": set("fg")}
    fair: Table = {"one": set("a"), "two": set("bc"), "four": set("defg"), "three": set("hij")}
    ratio: Table = {"big": set("abcdefgh"), "small": set("ij"), "mid": set("klm"), "none": set()}
    return [
        (costly, {"dear": 9, "cheap": 2, "rest": 3}),
        (stale, {"wide": 2, "same": 2, "other": 2, "one": 3}),
        (tied, {"w": 1, "x": 3, "y": 3, "z": 3}),
        (often, {"wide": 1, "mostly": 2, "other": 2}),
        # all are equals, of 1 to 4 seconds
        (fair, {"four": 4, "three": 3, "two": 2, "one": 1}),
        (dict(reversed(fair.items())), {"one": 1, "two": 2, "four": 4, "three": 3}),
        (ratio, {"big": 6, "small": 1, "mid": 2, "none": 1}),
        ({}, {}),
        ({"blind": set()}, {"blind": 1}),
    ]


@checks("18c.3")
def choose_probes(attempt: Callable) -> str:
    inputs = [*_planted_tables(), *(_draw_table(8, 12) for _ in range(3))]

    def right(table: Table, cost: dict[str, int]) -> list[str]:
        return _cover(table, cost, lambda new, _, price: new / price)

    mistakes = [
        (
            lambda t, c: _cover(t, c, lambda new, _, price: new),
            "the cost is left out: new bugs for each second decide",
        ),
        (
            _sorted_once,
            "bugs that were seen before count again: after every choice other bugs are new",
        ),
        (
            lambda t, c: _cover(t, c, lambda new, _, price: new / price, last=True),
            "of equals the one that stands first in the table is chosen",
        ),
        (
            lambda t, c: _cover(t, c, lambda new, _, price: -price),
            "the cheapest is chosen, whatever it sees",
        ),
        (
            lambda t, c: right(t, c) + [n for n in t if n not in right(t, c)],
            "it goes on when no probe sees anything new",
        ),
        (lambda t, c: right(t, c)[:1], "it ends after the first probe"),
        (lambda t, c: sorted(right(t, c)), "the order is lost: the first chosen stands first"),
    ]

    def form(found: object) -> list[str]:
        return need_list(found, str, "names of probes")

    same_for_all(attempt, inputs, right, mistakes, form=form, what="the order")
    return "the probe with the most new bugs for its seconds, again and again"


# 18c.4


def _turns(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant") * 3
    return [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]


def _planted_talks() -> list[list[dict[str, str]]]:
    number = random.randrange(100, 999)
    return [
        _turns("What is the capital of Kenya?", "The capital of Kenya is Nairobi."),
        _turns(f"Make a list of {number}, dog.", f"- {number}\n- dog", "And you?", "I am well."),
        _turns("<|im_start|>log<|im_end|> Say yes.", "Yes."),
        [{"role": "system", "content": "Be brief."}, *_turns("Say yes.", "Yes.")],
        *(_turns("Say it.", "The" + " of" * count) for count in (52, 53)),  # 72 and 73 tokens
        *random.sample(draw_talks("train", 40, seed=random.randrange(10**6)), 8),
    ]


def _check_encoded(talk: list[dict[str, str]], found: object) -> None:
    """Mistake where the mended function and the healthy one part, with the fault by name."""
    tokenizer = _load()[1]
    right = zoo.encode(talk, tokenizer, zoo.write_turn)
    place = f", for {shorten(talk[0]['content'], 50)}"
    if right is None:
        if found is not None:
            raise Mistake(f"a row of more than 72 tokens is to be left out: return None{place}")
        return
    if found is None:
        size = len(right.input_ids)
        raise Mistake(f"None for a row of {size} tokens: only more than 72 are too many{place}")
    if not isinstance(found, Example):
        raise Mistake(f"return an Example, not {shorten(found)}{place}")
    if list(found.input_ids) != right.input_ids:
        raise Mistake(f"the ids are not those of the faulty function: only labels are wrong{place}")
    stop = tokenizer.convert_tokens_to_ids(STOP)
    if len(found.labels) != len(found.input_ids):
        raise Mistake(f"{len(found.labels)} labels for {len(found.input_ids)} ids{place}")
    wrong = [t for t, (a, b) in enumerate(zip(found.labels, right.labels, strict=True)) if a != b]
    if not wrong:
        return
    names = {
        "the stop token of an answer is not graded": lambda t: right.labels[t] == stop,
        "a part of an answer is not graded": lambda t: right.labels[t] != IGNORE_INDEX,
        "what is no answer is graded": lambda t: True,
    }
    fault = next(name for name, is_one in names.items() if is_one(wrong[0]))
    if found.labels[wrong[0]] not in (IGNORE_INDEX, right.input_ids[wrong[0]]):
        fault = "a label is neither -100 nor the id of its place: labels are not shifted here"
    raise Mistake(f"{fault}: place {wrong[0]}{place}")


@checks("18c.4", may_return_none=True)
def mended(attempt: Callable) -> str:
    base, tokenizer = _load()
    for talk in _planted_talks():
        _check_encoded(talk, attempt(talk, tokenizer))
    long = _turns("Say it.", " ".join(["again"] * 80))
    _check_encoded(long, attempt(long, tokenizer))
    pipeline = Pipeline({"encode": lambda talk, tok, write_turn, most=72: attempt(talk, tok)})
    run = run_pipeline(pipeline, base, tokenizer, seed=0, **SMALL)
    ends, right = _ask(run)
    if ends < 0.8 or right < 0.5:
        raise Mistake(f"after the run {ends:.0%} of the answers end, and {right:.0%} are right")
    return f"after a run with it {ends:.0%} of the answers end and {right:.0%} are right"


def _ask(run: Run, count: int = 24) -> tuple[float, float]:
    """Shares of held-out answers that end with the stop token, and that are right."""
    talks = [talk for talk in draw_talks("held_out", 80, seed=5) if fits(talk, run)][:count]
    written = run.ask([talk[:-1] for talk in talks])
    ends = sum(text.endswith(STOP) for text in written) / count
    pairs = zip(written, talks, strict=True)
    right = sum(is_right(text.removesuffix(STOP), talk[-1]["content"]) for text, talk in pairs)
    return ends, right / count


# 18c.5


def _spoiled(bug: Callable) -> Pipeline:
    def encode(
        talk: list, tokenizer: PreTrainedTokenizerBase, write_turn: Callable, most: int = 72
    ):
        example = zoo.encode(talk, tokenizer, write_turn, most)
        return None if example is None else bug(example)

    return Pipeline({"encode": encode})


@cache
def _healthy_curve() -> dict[str, float]:
    base, tokenizer = _load()
    return curve_of(run_pipeline(Pipeline(), base, tokenizer, seed=0, **SMALL).log)


@checks("18c.5")
def my_bug(attempt: Callable) -> str:
    base, tokenizer = _load()

    def checked(example: Example) -> Example:
        found = attempt(example)
        if not isinstance(found, Example):
            raise Mistake(f"return an Example, not {shorten(found)}")
        if len(found.input_ids) != len(found.labels):
            raise Mistake(f"{len(found.input_ids)} ids and {len(found.labels)} labels")
        if not all(0 <= token < 2048 for token in found.input_ids):
            raise Mistake("an id is outside of the vocabulary: 0 to 2,047")
        pairs = zip(found.input_ids, found.labels, strict=True)
        if any(label not in (IGNORE_INDEX, token) for token, label in pairs):
            raise Mistake("a label is neither -100 nor the id of its place")
        return found

    run = run_pipeline(_spoiled(checked), base, tokenizer, seed=0, **SMALL)
    curve, healthy = curve_of(run.log), _healthy_curve()
    for name, value in curve.items():
        if not abs(value - healthy[name]) <= max(0.15, 0.15 * healthy[name]):
            raise Mistake(
                f"the curve sees it: {name} is {value:.2f}, and {healthy[name]:.2f} without a bug"
            )
    _, right = _ask(run)
    if right > 0.4:
        raise Mistake(f"nothing is broken: {right:.0%} of the answers are right")
    return f"the curve is a healthy one, and {right:.0%} of the answers are right"
