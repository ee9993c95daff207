"""Checks of chapter 18b, a battery of probes."""

import contextlib
import io
import random
from collections.abc import Callable, Sequence
from functools import cache

import torch

from sft_lab import diagnostics
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_list,
    need_number,
    need_whole,
    need_word,
    normal,
    same_for_all,
)
from sft_lab.course.probe_runs import asked, hidden_run
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.models import load

Conversation = list[dict[str, str]]


# 18b.1 runs of graded tokens


def _runs(labels: Sequence[int], ignored: Callable[[int], bool]) -> list[tuple[int, int]]:
    graded = [t for t, label in enumerate(labels) if not ignored(label)]
    starts = [t for t in graded if t - 1 not in graded]
    ends = [t + 1 for t in graded if t + 1 not in graded]
    return list(zip(starts, ends, strict=True))


def _graded_runs(labels: Sequence[int]) -> list[tuple[int, int]]:
    return _runs(labels, lambda label: label == IGNORE_INDEX)


def _need_pairs(found: object) -> list[list[int]]:
    pairs = need_list(found, (tuple, list), "pairs (first, last + 1)")
    if not all(len(pair) == 2 for pair in pairs):
        raise Mistake(f"a run is a pair (first, last + 1), not {pairs!r:.60}")
    return [[need_whole(end, "an end of a run", low=0) for end in pair] for pair in pairs]


@checks("18b.1")
def runs(attempt: Callable) -> str:
    def ids(count: int) -> list[int]:
        return [random.randrange(1, 500) for _ in range(count)]

    def hidden(low: int = 1, high: int = 4) -> list[int]:
        return [IGNORE_INDEX] * random.randint(low, high)

    inputs = [
        (hidden(2) + ids(4) + hidden(),),
        (hidden() + ids(3) + hidden() + ids(2),),  # ends with a graded token
        (ids(2) + hidden() + ids(1) + hidden(),),  # begins with one
        (hidden() + [*ids(2), 0, *ids(2)] + hidden(1, 1) + [0] + hidden(),),  # id 0 is a token
        (hidden() + [7, 7, 7] + hidden(1, 1) + [7] + hidden(),),
        (hidden(3, 6),),
        (ids(5),),
        ([],),
    ]

    def right(labels: list[int]) -> list[list[int]]:
        return [[first, last] for first, last in _graded_runs(labels)]

    def inclusive(labels: list[int]) -> list[list[int]]:
        return [[first, last - 1] for first, last in _graded_runs(labels)]

    def lengths(labels: list[int]) -> list[list[int]]:
        return [[first, last - first] for first, last in _graded_runs(labels)]

    def shifted(labels: list[int]) -> list[list[int]]:
        return [[first + 1, last + 1] for first, last in _graded_runs(labels)]

    def without_last(labels: list[int]) -> list[list[int]]:
        return [run for run in right(labels) if run[1] < len(labels)]

    def one_run(labels: list[int]) -> list[list[int]]:
        found = right(labels)
        return [[found[0][0], found[-1][1]]] if found else []

    def zero_hidden(labels: list[int]) -> list[list[int]]:
        return [[*run] for run in _runs(labels, lambda label: label in (0, IGNORE_INDEX))]

    def of_ignored(labels: list[int]) -> list[list[int]]:
        return [[*run] for run in _runs(labels, lambda label: label != IGNORE_INDEX)]

    mistakes = [
        (inclusive, "the second number is the last position: give the one behind it"),
        (lengths, "the second number is a length: give the position behind the run"),
        (shifted, "moved by one: positions are counted from 0"),
        (without_last, "a run that reaches to the end of the row is lost"),
        (one_run, "one run from the first graded token to the last: the gap between is not graded"),
        (zero_hidden, "token id 0 is graded like any other: only -100 is not"),
        (of_ignored, "these are the runs that are not graded"),
    ]
    same_for_all(attempt, inputs, right, mistakes, form=_need_pairs, what="the list of runs")
    return "every run with its two ends, also at the ends of a row"


# 18b.2 prompts that are taught otherwise than they are asked

Renderer = Callable[[Conversation, bool], str]


def _write(turns: Conversation, asking: bool, *, opening: str = "", head: str = "") -> str:
    text = head + "".join(f"<{turn['role']}>{turn['content']}</>\n" for turn in turns)
    return text + f"<assistant>{opening}" if asking else text


def _healthy(turns: Conversation, asking: bool) -> str:
    return _write(turns, asking)


def _thinks_last(turns: Conversation, asking: bool) -> str:
    """Qwen3's way: an empty think block in a prompt, and in an answer that is the last turn. It is
    gone from earlier answers, which are then asked otherwise than they are taught."""
    last = len(turns) - 1
    marked = [
        {**turn, "content": "[]" + turn["content"]}
        if turn["role"] == "assistant" and place == last and not asking
        else turn
        for place, turn in enumerate(turns)
    ]
    return _write(marked, asking, opening="[]")


def _opens_thoughts(turns: Conversation, asking: bool) -> str:
    """An empty think block in the prompt alone."""
    return _write(turns, asking, opening="[]")


def _breaks_line(turns: Conversation, asking: bool) -> str:
    """A line break ends the prompt alone."""
    return _write(turns, asking, opening="\n")


def _dates(turns: Conversation, asking: bool) -> str:
    """Something stands before the taught text alone: the prompt is in it, and not at its start."""
    return _write(turns, asking, head="" if asking or len(turns) < 4 else "<bos>")


def _needs_no_system(turns: Conversation, asking: bool) -> str:
    """A default system turn, where the conversation has none, in the prompt alone."""
    head = "" if turns[0]["role"] == "system" or not asking else "<system>Help.</>\n"
    return _write(turns, asking, head=head)


def _first_otherwise(turns: Conversation, asking: bool) -> str:
    """A prompt of one turn is written otherwise: the first answer alone is asked otherwise."""
    head = "<short>\n" if asking and len(turns) == 1 else ""
    return _write(turns, asking, head=head)


def _later_otherwise(turns: Conversation, asking: bool) -> str:
    """A prompt with an answer in it is written otherwise: a first answer is asked as taught."""
    return _write(turns, asking, head="<again>\n" if asking and len(turns) > 2 else "")


def _talks(number: int) -> list[Conversation]:
    """One answer, two, three, none, some behind a system turn or before a question; shuffled."""
    said = iter(f"{word}{number}" for word in random.sample(range(100, 999), 40))

    def turns(*roles: str) -> Conversation:
        return [{"role": role, "content": next(said)} for role in roles]

    one, user = ("user", "assistant"), "user"
    talks = [
        turns(*one),
        turns(*one, *one),
        turns(*one, *one, *one),
        turns("system", *one),
        turns("system", *one, *one),
        turns(*one, user),
        turns(user),
    ]
    random.shuffle(talks)
    return talks


def _changed(
    talks: list[Conversation],
    render: Renderer,
    *,
    answers: slice = slice(None),
    whole: bool = True,
    asking: bool = True,
    inside: bool = False,
    every: bool = False,
    repeat: bool = False,
) -> list[int]:
    found = []
    for number, turns in enumerate(talks):
        places = [k for k, turn in enumerate(turns) if turn["role"] == "assistant"][answers]
        wrong = []
        for k in places:
            prompt = render(turns[:k], asking)
            taught = render(turns if whole else turns[: k + 1], False)
            wrong.append(prompt not in taught if inside else not taught.startswith(prompt))
        if repeat:
            found += [number] * sum(wrong)
        elif (all(wrong) and wrong) if every else any(wrong):
            found.append(number)
    return found


def _no_opening(talks: list[Conversation], render: Renderer) -> list[int]:
    return _changed(talks, render, asking=False)


@checks("18b.2")
def prompts(attempt: Callable) -> str:
    renderers = (
        *(_healthy, _thinks_last, _opens_thoughts, _dates, _needs_no_system),
        *(_first_otherwise, _later_otherwise, _breaks_line),
    )
    inputs = [(_talks(number), render) for number, render in enumerate(renderers)]
    inputs += [([], _healthy), ([*_talks(8), *_talks(9)], _thinks_last)]
    mistakes = [
        (
            lambda talks, render: _changed(talks, render, answers=slice(-1, None)),
            "only the last answer of a conversation is looked at",
        ),
        (
            lambda talks, render: _changed(talks, render, answers=slice(1)),
            "only the first answer of a conversation is looked at",
        ),
        (
            lambda talks, render: _changed(talks, render, whole=False),
            "each prompt is compared with the conversation up to its answer: a template may write "
            "an earlier answer otherwise once another turn follows, so compare with the whole",
        ),
        (
            _no_opening,
            "a prompt ends with the opening of an answer: render(turns, True)",
        ),
        (
            lambda talks, render: _changed(talks, render, inside=True),
            "the prompt stands somewhere in the text: it must stand at its beginning",
        ),
        (
            lambda talks, render: _changed(talks, render, every=True),
            "one answer that is asked otherwise is enough",
        ),
        (
            lambda talks, render: _changed(talks, render, repeat=True),
            "a conversation is listed once for every such answer: list it once",
        ),
        (
            lambda talks, render: [
                n for n in range(len(talks)) if n not in _changed(talks, render)
            ],
            "these are the conversations that are asked as they are taught",
        ),
        (
            lambda talks, render: [n + 1 for n in _changed(talks, render)],
            "conversations are counted from 0",
        ),
    ]

    def form(found: object) -> list[int]:
        return need_list(found, int, "numbers of conversations")

    same_for_all(attempt, inputs, _changed, mistakes, form=form, what="the list of conversations")
    return "every answer's prompt is compared with the beginning of the whole conversation"


# 18b.4 accuracy by position


def _by_position(
    best: torch.Tensor,
    labels: torch.Tensor,
    *,
    shift: int = 1,
    from_end: bool = False,
    of_all: bool = False,
    stop: str = "last",
) -> list[float]:
    places: dict[int, list[bool]] = {}
    stops = []
    for row, wanted in enumerate(labels.tolist()):
        graded = [t for t, label in enumerate(wanted) if label != IGNORE_INDEX]
        hits = [best[row, t - shift].item() == wanted[t] for t in graded]
        if stop == "last":
            stops.append(hits.pop())
        elif stop == "dropped":
            hits.pop()
        for place, hit in enumerate(reversed(hits) if from_end else hits):
            places.setdefault(place, []).append(hit)
    shares = [
        sum(hits) / (len(labels) if of_all else len(hits)) for _, hits in sorted(places.items())
    ]
    return shares + ([sum(stops) / len(stops)] if stops else [])


def _mean_position(best: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """By the place in the row, not in the answer."""
    found = []
    for t in range(1, labels.shape[1]):
        on = labels[:, t] != IGNORE_INDEX
        if on.any():
            found.append((best[:, t - 1] == labels[:, t])[on].double().mean().item())
    return found


def _draw_answers(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Answers of these lengths, the stop token included, behind prompts of any length. The longest
    reaches to the end of the row, and has a token of id 0."""
    width = max(lengths) + 4
    labels = torch.full((len(lengths), width), IGNORE_INDEX)
    for row, length in enumerate(lengths):
        longest = length == max(lengths)
        start = 4 if longest else random.randint(1, 4)
        labels[row, start : start + length] = torch.randint(0, 30, (length,))
        if longest:
            labels[row, random.randrange(start, start + length)] = 0
        labels[row, start + length - 1] = 31
    best = labels.roll(-1, 1).clamp(min=0)
    wrong = torch.rand(best.shape) < 0.4
    best = torch.where(wrong, torch.randint(32, 60, best.shape), best)
    graded = labels != IGNORE_INDEX  # a guess that is right where nothing is asked
    return torch.where(graded.roll(-1, 1), best, torch.randint(0, 32, best.shape)), labels


@checks("18b.4")
def positions(attempt: Callable) -> str:
    inputs = [
        _draw_answers(random.sample(range(2, 9), 5)),
        _draw_answers([1, 4, 4, 7, 3]),
        _draw_answers([1, 1, 1]),
        _draw_answers([5]),
        _draw_answers([random.randint(2, 6) for _ in range(12)]),
    ]
    mistakes = [
        (
            lambda best, labels: _by_position(best, labels, shift=0),
            "not shifted: best[:, t] is the guess for token t + 1",
        ),
        (
            lambda best, labels: _by_position(best, labels, stop="kept"),
            "the stop tokens count at their positions: leave them out there, and add their share "
            "as the last entry",
        ),
        (
            lambda best, labels: [
                *_by_position(best, labels, stop="kept"),
                _by_position(best, labels)[-1],
            ],
            "the stop tokens count twice: in the last entry, and at their positions",
        ),
        (
            lambda best, labels: _by_position(best, labels, stop="dropped"),
            "the share of the stop tokens is missing: it is the last entry",
        ),
        (
            lambda best, labels: _by_position(best, labels, of_all=True),
            "divided by all rows: a position counts only in answers that are so long",
        ),
        (
            lambda best, labels: _by_position(best, labels, from_end=True),
            "counted from the end of the answer: position 0 is its first token",
        ),
        (_mean_position, "by the place in the row: count from the first token of the answer"),
    ]

    def form(found: object) -> list[float]:
        if torch.is_tensor(found):
            found = found.tolist()
        return [need_number(share, "a share") for share in need_list(found, (int, float), "shares")]

    same_for_all(attempt, inputs, _by_position, mistakes, form=form, what="the list of shares")
    return "by the position in the answer, over the answers that reach it; the stop token last"


# 18b.3 a step's gradient, accumulated and at once


class _Step:
    """A step over rows of numbers, whose gradient is a wrong or right mean. It works in the same
    tensors at each call, as a model's .grad does."""

    def __init__(self, kind: str, scale: float, large: int) -> None:
        self.kind, self.scale, self.large = kind, scale, large
        self.grads = [torch.zeros(3, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)]

    def __call__(self, batches: list[list[list[float]]]) -> list[torch.Tensor]:
        if not all(isinstance(batch, list) and batch for batch in batches):
            raise Mistake("batches is a list of lists of rows; no batch is empty")
        tokens = sum(len(row) for batch in batches for row in batch)
        for number, grad in enumerate(self.grads):
            grad.zero_()
            for batch in batches:
                total = sum(self._of(row, grad.shape, number) for row in batch)
                count = sum(len(row) for row in batch)
                if self.kind == "right":
                    grad += total / tokens
                elif self.kind == "mean of means":
                    grad += total / count / len(batches)
                else:  # the sum is not divided
                    grad += total / count
        return self.grads

    def _of(self, row: list[float], shape: torch.Size, number: int) -> torch.Tensor:
        values = torch.tensor(row, dtype=torch.float64)
        waves = torch.arange(shape.numel(), dtype=torch.float64).view(shape) + 1 + 10 * number
        # one parameter far larger than the other: neither speaks for both in every step
        scale = self.scale * (20 if number == self.large else 1)
        return scale * torch.stack([torch.cos(waves * value) for value in values]).sum(0)


def _gradients(step: _Step, rows: list[list[float]]) -> tuple[list, list]:
    whole = [grad.clone() for grad in step([rows])]
    parts = [grad.clone() for grad in step([[row] for row in rows])]
    return whole, parts


def _flat(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten() for part in parts])


def _of_step(form: Callable) -> Callable:
    def answer(step: _Step, rows: list[list[float]]) -> float:
        whole, parts = _gradients(step, rows)
        return float(form(whole, parts))

    return answer


def _relative(whole: list[torch.Tensor], parts: list[torch.Tensor]) -> torch.Tensor:
    return (_flat(parts) - _flat(whole)).norm() / _flat(whole).norm()


def _first_example_only(step: _Step, rows: list[list[float]]) -> float:
    whole = [grad.clone() for grad in step([rows])]
    return float(_relative(whole, [grad.clone() for grad in step([rows[:1]])]))


@checks("18b.3")
def accumulation(attempt: Callable) -> str:
    inputs = []
    kinds = ("right", "mean of means", "not divided", "mean of means", "not divided")
    for number, kind in enumerate(kinds):
        lengths = random.sample(range(1, 12), 8)
        rows = [normal(length).tolist() for length in lengths]
        inputs.append((_Step(kind, random.choice([1e-3, 1.0, 50.0]), number // 2 % 2), rows))
    rows = [normal(4).tolist() for _ in range(5)]  # equal lengths: both means are the same
    inputs.append((_Step("mean of means", 1.0, 0), rows))
    mistakes = [
        (
            lambda step, rows: 0.0,
            "always 0: the second call overwrites the tensors that the first returned. Keep copies",
        ),
        (
            _of_step(lambda whole, parts: (_flat(parts) - _flat(whole)).norm()),
            "an absolute difference: divide by the norm of the gradient that came at once",
        ),
        (
            _of_step(
                lambda whole, parts: (_flat(parts) - _flat(whole)).norm() / _flat(parts).norm()
            ),
            "divided by the norm of the accumulated gradient: the reference is the other one",
        ),
        (
            _of_step(
                lambda whole, parts: (
                    sum(_relative([a], [b]) for a, b in zip(whole, parts, strict=True)) / len(whole)
                )
            ),
            "a mean over the parameters: the norm goes over all numbers of all parameters",
        ),
        (
            _of_step(lambda whole, parts: _relative(whole[:1], parts[:1])),
            "only the first parameter is looked at",
        ),
        (
            _of_step(lambda whole, parts: (_relative(whole, parts)) ** 2),
            "this is the square: take the root",
        ),
        (
            _of_step(
                lambda whole, parts: (
                    (_flat(parts) - _flat(whole)).abs().max() / _flat(whole).abs().max()
                )
            ),
            "this compares the largest entries: take norms",
        ),
        (
            _of_step(lambda whole, parts: (_flat(parts).norm() / _flat(whole).norm() - 1).abs()),
            "a difference of two lengths: two gradients of one length can point elsewhere",
        ),
        (_first_example_only, "only the first row is taken alone: every row is a batch"),
    ]
    same_for_all(
        attempt, inputs, _of_step(_relative), mistakes, form=need_number, what="the difference"
    )
    return "one norm over all parameters, relative to the step in one batch"


# 18b.5 how few examples tell broken from healthy

Values = dict[int, list[float]]


def _apart(
    healthy: Values,
    broken: Values,
    *,
    from_there_on: bool = True,
    means: bool = False,
    ties: bool = False,
    paired: bool = False,
) -> int | None:
    def told(count: int) -> bool:
        good, bad = healthy[count], broken[count]
        if means:
            return sum(good) / len(good) > sum(bad) / len(bad)
        if paired:
            return all(g > b for g, b in zip(good, bad, strict=True))
        return min(good) >= max(bad) if ties else min(good) > max(bad)

    counts = sorted(healthy)
    for place, count in enumerate(counts):
        if all(map(told, counts[place:] if from_there_on else [count])):
            return count
    return None


def _draw_values(told: Sequence[str]) -> tuple[Values, Values]:
    """Counts with values of three seeds: "yes", "no" (they overlap in the means as well), "mean"
    (told apart by the means and not by the single runs), "pair" (seed by seed alone), "tie"."""
    counts = sorted(random.sample([1, 2, 3, 4, 8, 12, 16, 24, 32, 64, 100, 128], len(told)))
    healthy, broken = {}, {}
    for count, how in zip(counts, told, strict=True):
        cut = random.uniform(0.4, 0.6)
        low = [cut - random.uniform(0.1, 0.3) for _ in range(3)]
        high = [cut + random.uniform(0.1, 0.3) for _ in range(3)]
        if how == "no":
            low, high = high, low
        elif how == "mean":
            low[0], high[0] = cut + 0.05, cut + 0.01
        elif how == "pair":
            low, high = [cut - 0.3, cut, cut + 0.2], [cut - 0.2, cut + 0.1, cut + 0.3]
        elif how == "tie":
            low[1] = high[2] = cut
        healthy[count], broken[count] = high, low
    order = random.sample(counts, len(counts))
    return {n: healthy[n] for n in order}, {n: broken[n] for n in reversed(order)}


@checks("18b.5", may_return_none=True)
def fewest(attempt: Callable) -> str:
    cases = (
        ("no", "yes", "yes", "yes"),
        ("yes", "no", "yes", "yes"),  # luck at the fewest
        ("yes", "yes", "no", "yes"),  # and at the next
        ("yes", "yes", "no"),
        ("no", "yes", "yes", "no", "yes"),
        ("yes", "yes", "yes"),
        ("no", "mean", "yes"),
        ("pair", "pair", "yes"),
        ("tie", "yes"),
        ("yes", "no"),
        ("no", "yes", "tie"),
        ("yes",),
        ("mean",),
    )
    inputs = [_draw_values(told) for told in cases]
    mistakes = [
        (
            lambda healthy, broken: _apart(healthy, broken, from_there_on=False),
            "told apart at that number by luck: with more examples they overlap again",
        ),
        (
            lambda healthy, broken: _apart(healthy, broken, means=True),
            "the means are compared: every healthy run must lie above every broken one",
        ),
        (
            lambda healthy, broken: _apart(healthy, broken, paired=True),
            "compared seed by seed: a run of yours is no partner of any other, so compare the "
            "lowest healthy with the highest broken one",
        ),
        (
            lambda healthy, broken: _apart(healthy, broken, ties=True),
            "equal values are not told apart",
        ),
        (
            lambda healthy, broken: _apart(broken, healthy),
            "the healthy values are the higher ones",
        ),
        (
            lambda healthy, broken: _apart(healthy, broken) or max(healthy),
            "where no number tells them apart, return None",
        ),
    ]

    def form(found: object) -> int | None:
        return found if found is None else need_whole(found, "the number of examples", low=0)

    same_for_all(attempt, inputs, _apart, mistakes, form=form, what="the number of examples")
    return "from that number on, every healthy run lies above every broken one"


# 18b.6 five runs

WORDS = ("healthy", "no stop", "late start", "two ahead", "unchanged")
ROWS = 24  # of the examples that a diagnosis gets


@cache
def _base() -> tuple:
    with contextlib.redirect_stdout(io.StringIO()):  # a check prints one line
        return load("atlas-base")


@checks("18b.6")
def diagnosis(attempt: Callable) -> str:
    base, tokenizer = _base()
    examples = encode_conversations(asked(ROWS, seed=random.randrange(1000, 9999)), tokenizer)
    wrong = {}
    for word in random.sample(WORDS, len(WORDS)):
        model = hidden_run(word)
        found = need_word(attempt(model, base, tokenizer, examples), *WORDS)
        if found != word:
            wrong[word] = found
    for word in wrong:
        signs = _describe(hidden_run(word), base, tokenizer, examples)
        others = len(wrong) - 1
        more = f" ({others} more of the five are wrong)" if others else ""
        raise Mistake(f"a run with {signs} is {word!r}, not {wrong[word]!r}{more}")
    return "all five runs named, by probes that cost some forward passes"


def _describe(model, base, tokenizer, examples: Sequence[Example]) -> str:
    """What the probes say of a model, in words."""
    positions = diagnostics.accuracy_by_position(model, examples)
    shifted = diagnostics.shifted_accuracy(model, examples)
    stop = diagnostics.stop_probability(model, tokenizer, examples)
    moved = diagnostics.logit_difference(model, base)
    return (
        f"P(stop) {stop:.2f}, {positions[0]:.0%} of the first tokens right, "
        f"{shifted[1]:.0%} one ahead and {shifted[2]:.0%} two ahead, and logits that moved by "
        f"{moved:.1f} from the base's"
    )
