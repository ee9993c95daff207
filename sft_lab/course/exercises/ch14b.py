"""Chapter 14b: bending the logits. Fresh logits, tokens and beginnings at every check."""

import contextlib
import io
import math
import random
from collections.abc import Callable
from functools import cache

import torch

from sft_lab import atlas
from sft_lab.chat import continue_ids, decode_response, encode_prompts
from sft_lab.course import decoding_runs as runs
from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    named,
    need_number,
    need_tensor,
    need_word,
    normal,
    same_for_all,
    same_in_all,
    unpack,
)
from sft_lab.metrics import is_right
from sft_lab.models import load

NEVER = float("-inf")
MOST_REPEATED, MOST_SURPRISED, LEAST_RIGHT = 0.2, 4, 0.89
OPEN_SEEDS = (0, 1, 2, 3, 4)


def _kept(found: torch.Tensor) -> torch.Tensor:
    """The logits, -inf as a number that can be compared."""
    return need_tensor(found, "the logits").nan_to_num(nan=math.nan, neginf=-1e9)


def _cut_top_p(logits: torch.Tensor, p: float, *, crossing: bool = True) -> torch.Tensor:
    probabilities, order = logits.softmax(0).sort(descending=True)
    before = probabilities.cumsum(0) - (probabilities if crossing else 0)
    dropped = order[before >= p] if crossing else order[before > p]
    return _kept(logits.index_fill(0, dropped, NEVER))


@checks("14b.1")
def keep_top_p(attempt: Callable) -> str:
    # the first crosses p at once, just above and just below a sum, -inf among them, one token left
    known = torch.tensor([0.15, 0.5, 0.05, 0.3], dtype=torch.float64).log()
    inputs = [(known + random.uniform(-3, 3), p) for p in (0.2, 0.49, 0.51, 0.79, 0.81, 0.94, 0.96)]
    inputs.append((torch.tensor([NEVER, 1.0, NEVER, 0.5, NEVER, -2.0], dtype=torch.float64), 0.9))
    inputs.append((torch.tensor([NEVER, 0.0, NEVER], dtype=torch.float64), 0.3))
    for size in (5, 12, 30):
        logits = 2 * normal(size)
        sums = logits.softmax(0).sort(descending=True).values.cumsum(0)
        # between two sums, so that rounding decides nothing
        inputs += [(logits, float(sums[:2].mean())), (logits, float(sums[1:3].mean()))]

    cut = _cut_top_p

    def by_rank(logits: torch.Tensor, p: float) -> torch.Tensor:
        probabilities = logits.softmax(0).sort(descending=True).values
        dropped = probabilities.cumsum(0) - probabilities >= p
        return _kept(logits.masked_fill(dropped, NEVER))

    def as_probabilities(logits: torch.Tensor, p: float) -> torch.Tensor:
        kept = cut(logits, p)
        return torch.where(kept > -1e8, logits, NEVER).softmax(0)

    def as_zero(logits: torch.Tensor, p: float) -> torch.Tensor:
        return torch.where(cut(logits, p) > -1e8, logits, 0.0)

    mistakes = [
        (lambda logits, p: cut(logits, p, crossing=False), "the token that crosses p stays too"),
        (by_rank, "the dropped places are those of the sorted tokens: bring them back in order"),
        (
            lambda logits, p: _kept(logits.masked_fill(logits.softmax(0) < p, NEVER)),
            "p bounds the sum of the kept probabilities, not each of them",
        ),
        (
            lambda logits, p: _kept(
                logits.masked_fill(logits.softmax(0) < p * logits.softmax(0).max(), NEVER)
            ),
            "this compares each token with the likeliest one, as min-p does",
        ),
        (
            lambda logits, p: _kept(logits.masked_fill(cut(logits, 1 - p) > -1e8, NEVER)),
            "this keeps the tail and drops the likeliest",
        ),
        (as_zero, "a dropped logit is -inf: 0 is a logit like any other"),
        (as_probabilities, "return logits, not probabilities"),
    ]
    same_for_all(attempt, inputs, cut, mistakes, form=_kept, what="the logits")
    return "the likeliest tokens until p is reached, the one that crosses it among them"


@checks("14b.2")
def subtract_penalties(attempt: Callable) -> str:
    inputs = [
        (normal(6), [], 0.7, 0.4),
        (normal(5), [0, 0, 3], 0.5, 0.0),
        (normal(5), [0, 4, 4, 4], 0.0, 1.5),
        (normal(7), [2, 2, 2, 0, 6], 0.3, 0.2),
        (normal(4), [1, 1], -0.5, 0.25),
    ]
    for size in (9, 14):
        written = random.choices(range(size), k=2 * size) + [0, 0]
        inputs.append((3 * normal(size), written, random.uniform(0.2, 0.9), random.uniform(1, 2)))

    def count(logits: torch.Tensor, written: list[int]) -> torch.Tensor:
        return torch.tensor([float(written.count(i)) for i in range(len(logits))]).to(logits)

    def right(logits, written, frequency, presence):
        times = count(logits, written)
        return logits - frequency * times - presence * (times > 0)

    mistakes = [
        (
            lambda x, w, f, p: x - (f + p) * (count(x, w) > 0),
            "the frequency penalty is taken once for each time, not once for each token",
        ),
        (
            lambda x, w, f, p: x - (f + p) * count(x, w),
            "the presence penalty is taken once, however often a token was written",
        ),
        (
            lambda x, w, f, p: x + f * count(x, w) + p * (count(x, w) > 0),
            "a penalty lowers the logit: subtract it",
        ),
        (lambda x, w, f, p: right(x, w, p, f), "frequency and presence are exchanged"),
        (lambda x, w, f, p: right(x, w, f, 0.0), "the presence penalty is missing"),
        (lambda x, w, f, p: right(x, w, 0.0, p), "the frequency penalty is missing"),
        (
            lambda x, w, f, p: right(x, [i for i in w if i], f, p),
            "token id 0 is a token like any other",
        ),
        (
            lambda x, w, f, p: x - p * (count(x, w) > 0) - f * count(x, w) / max(1, len(w)),
            "count the times; a share of the text is another measure",
        ),
    ]
    same_for_all(
        attempt, inputs, right, mistakes, form=lambda found: need_tensor(found, "the logits"),
        what="the logits",
    )  # fmt: skip
    return "once for each time, and once at all; nothing where nothing was written"


BENDERS = ("temperature", "filter", "repetition", "presence")


@checks("14b.3")
def name_the_bender(attempt: Callable) -> str:
    cases = []
    for kind in (*BENDERS, *BENDERS, *BENDERS):
        for strong in (True, False):
            before, said, after = _bend(kind, strong)
            given = f"before = {before.tolist()}, after = {after.tolist()}, said = {sorted(said)}"
            found = need_word(attempt(before.clone(), after.clone(), set(said)), *BENDERS)
            cases.append(Case(found, kind, (), given[:300]))
    constant = {case.actual for case in cases}
    if len(constant) == 1:
        raise Mistake(f'"{constant.pop()}" is the answer to every case: look at the numbers')
    for wrong, name in (
        (("repetition", "presence"), "some repetition penalty is taken for a presence penalty: "
         "compare differences and ratios of the said tokens"),
        (("presence", "repetition"), "some presence penalty is taken for a repetition penalty: "
         "its difference is the same for every said token"),
        (("temperature", "repetition"), "some temperature is taken for a repetition penalty: it "
         "changes tokens that were never said"),
        (("filter", None), "some filter goes unseen: it alone makes new -inf"),
    ):  # fmt: skip
        kind, taken_for = wrong
        if any(
            case.expected == kind and case.actual != kind and taken_for in (None, case.actual)
            for case in cases
        ):
            raise Mistake(name)
    same_in_all(cases, what="the name")
    return "four processors told apart by what they leave as it was"


def _bend(kind: str, strong: bool) -> tuple[torch.Tensor, set[int], torch.Tensor]:
    """Logits before, ids that were said (both signs, id 0 among them), logits after."""
    size = random.randint(8, 12)
    before = (1 + 2 * torch.rand(size, dtype=torch.float64)) * torch.tensor(
        [(-1.0) ** place for place in range(size)], dtype=torch.float64
    )
    before[random.randrange(6, size)] = NEVER  # forbidden before: every processor leaves it
    said = {0, 1, *random.sample(range(2, 6), 2)}
    is_said = torch.tensor([place in said for place in range(size)])
    if kind == "temperature":
        return before, said, before / random.choice([2.0, 1.5] if strong else [0.8, 0.5])
    if kind == "filter":
        best = before.topk(2 if strong else size - 2).values[-1]
        return before, said, before.masked_fill(before < best, NEVER)
    if kind == "repetition":
        penalty = random.uniform(1.5, 2) if strong else random.uniform(1.05, 1.2)
        punished = torch.where(before > 0, before / penalty, before * penalty)
        return before, said, torch.where(is_said, punished, before)
    amount = random.uniform(1, 2) if strong else random.uniform(0.1, 0.3)
    return before, said, before - amount * is_said


def _forbidden(prompt: list[int], answer: list[int], n: int) -> int | None:
    whole = [*prompt, *answer]
    for place in range(len(prompt), len(whole)):
        grams = [tuple(whole[i : i + n]) for i in range(place - n + 1)]
        if place + 1 >= n and tuple(whole[place + 1 - n : place + 1]) in grams:
            return place - len(prompt)
    return None


def _whole_grams(
    prompt: list[int], answer: list[int], n: int
) -> int | None:  # those of the answer alone, compared with both
    for place in range(n - 1, len(answer)):
        gram = answer[place + 1 - n : place + 1]
        before = [*prompt, *answer[:place]]
        if gram in [before[i : i + n] for i in range(len(before) - n + 1)]:
            return place
    return None


def _begins(prompt: list[int], answer: list[int], n: int) -> int | None:
    found = _forbidden(prompt, answer, n)
    return found if found is None else found - n + 1


def _apart(prompt: list[int], answer: list[int], n: int) -> int | None:
    said = {tuple(prompt[i : i + n]) for i in range(len(prompt) - n + 1)}
    whole = [*prompt, *answer]
    for place in range(len(prompt), len(whole)):
        if place + 1 >= n and tuple(whole[place + 1 - n : place + 1]) in said:
            return place - len(prompt)
    return None


@checks("14b.4", may_return_none=True)
def first_forbidden(attempt: Callable) -> str:
    a, b, c, d = random.sample(range(1, 50), 4)
    draws = [
        ([a, b, c], [a, b, c, d], 3),  # word for word from the prompt
        ([a, b], [c, a, d, b], 2),  # the tokens return, the pair does not
        ([], [a, a, a], 2),  # overlapping
        ([a, b, c, a], [b, c, d], 3),  # begins in the prompt
        ([a], [b, c, a], 1),
        ([a, b], [], 2),
        ([0], [0, 0, a], 3),
        ([a], [b], 5),
        ([0, a], [b, 0, a, c], 2),
        ([d], [a, b, a, b], 2),
        ([a, b, c], [c, b, a], 2),
        ([a, b, a, b, c], [d, a, c, b, c], 2),  # at its end
        ([a, a], [b, b, c], 2),
        ([a, b, a], [b, c], 2),  # at its first token
        ([a, c], [c, b], 1),
        ([0, 0], [0, a], 2),
        ([a, b], [c, b, c], 2),  # the earlier run stands across the seam
        ([a, b, c], [d, b, c, d], 3),
        ([a, 0], [b, c, a, 0, b], 3),
        ([a, b, c], [a, b, c, d], 2),  # two tokens are forbidden: the first counts
    ]
    for _ in range(4):
        text = random.choices((0, a, b, c), k=random.randint(12, 20))
        cut = random.randint(2, 6)
        draws.append((text[:cut], text[cut:], random.choice((2, 3))))
    right = _forbidden
    mistakes = [
        (lambda p, x, n: right([], x, n), "the n-grams of the prompt count as well"),
        (_apart, "the n-grams of the answer itself count as well"),
        (_whole_grams, "an n-gram may begin in the prompt and end in the answer"),
        (_begins, "this is where the n-gram begins: the block forbids its last token"),
        (
            lambda p, x, n: None if right(p, x, n) is None else right(p, x, n) + len(p),
            "count from the first token of the answer, not of the prompt",
        ),
        (lambda p, x, n: right(p, x, 1), "this forbids every token that was said: look at n"),
        (lambda p, x, n: right(p, x, n + 1), "this is a block of n + 1 tokens"),
        (
            lambda p, x, n: -1 if right(p, x, n) is None else right(p, x, n),
            "return None where nothing is forbidden",
        ),
        (lambda p, x, n: right(p, x, n) is not None, "return the place, not whether there is one"),
    ]

    def form(found):
        if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
            raise Mistake(
                f"return the place as an int or None, not {found!r}"
                + (": which token is it?" if isinstance(found, bool) else "")
            )
        return found

    same_for_all(
        attempt, [(list(p), list(x), n) for p, x, n in draws], right, mistakes, form=form,
        what="the place",
    )  # fmt: skip
    return "the first token of a right answer that the block would not let through"


@checks("14b.5")
def find_crossing(attempt: Callable) -> str:
    inputs = [(-3.0, 4, -4.5, 9), (-2.0, 3, -2.0, 8), (-1.0, 2, -6.0, 3), (-5.0, 10, -7.0, 11)]
    for _ in range(4):
        short, long = sorted(random.sample(range(2, 30), 2))
        total = random.uniform(-6, -1)
        inputs.append((total, short, total * random.uniform(1.2, 4), long))

    def right(short_sum, short, long_sum, long):
        return math.log(long_sum / short_sum) / math.log(long / short)

    mistakes = [
        (lambda a, m, b, n: -right(a, m, b, n), "the sign is reversed"),
        (lambda a, m, b, n: 1 / right(a, m, b, n), "the two logarithms are exchanged"),
        (lambda a, m, b, n: (b / a) / (n / m), "the length stands to a power: take logarithms"),
        (
            lambda a, m, b, n: (b - a) / math.log(n / m),
            "the sums are divided, not subtracted: both sides are sum / length ** penalty",
        ),
        (lambda a, m, b, n: math.log(b / a), "the lengths are missing"),
    ]
    same_for_all(
        attempt, inputs, right, mistakes, form=lambda found: need_number(found, "the penalty"),
        what="the penalty",
    )  # fmt: skip
    return "where sum / length ** penalty of both answers is equal"


@checks("14b.6")
def choose_one_setting(attempt: Callable) -> str:
    processors, draw = unpack(attempt(), "the list of processors", "whether to draw")
    if not isinstance(draw, bool):
        raise Mistake(f"whether to draw is True or False, not {draw!r}")
    if not isinstance(processors, list | tuple):
        raise Mistake("the processors stand in a list")
    base, tuned, tokenizer, facts = _models()
    how = {"do_sample": True, "top_k": 0} if draw else {}
    openings = []
    for seed in random.sample(OPEN_SEEDS, 2):
        openings += runs.draw_openings(tokenizer, facts, seed)[0]
    with named(ValueError, "the processors do not run: see the error of generate_responses"):
        written = continue_ids(
            base, tokenizer, openings, max_new_tokens=runs.OPEN_TOKENS, processors=processors, **how
        )
    open_text = runs.describe_texts(base, openings, written)
    talks = runs.make_exam(facts)["facts"] + runs.make_exam(facts)["list"]
    prompts = encode_prompts(tokenizer, [talk[:-1] for talk in talks])
    answered = continue_ids(
        tuned, tokenizer, prompts, max_new_tokens=60, processors=processors, **how
    )
    right = [
        is_right(decode_response(ids, tokenizer), talk[-1]["content"])
        for ids, talk in zip(answered, talks, strict=True)
    ]
    share = sum(right) / len(right)
    found = f"{open_text['rep-4']:.0%} repeated 4-grams"
    wrong = []
    if open_text["rep-4"] > MOST_REPEATED:
        wrong.append(f"open text has {found}, at most {MOST_REPEATED:.0%} are allowed")
    if open_text["perplexity"] > MOST_SURPRISED:
        wrong.append(
            f"open text has a perplexity of {open_text['perplexity']:.1f}, at most "
            f"{MOST_SURPRISED} is allowed: unlikely tokens are written"
        )
    if share < LEAST_RIGHT:
        wrong.append(f"{share:.0%} of the answers are right, at least {LEAST_RIGHT:.0%} are needed")
    if wrong:
        raise Mistake("; ".join(wrong))
    return (
        f"open text: {open_text['rep-4']:.0%} repeats, perplexity {open_text['perplexity']:.1f}; "
        f"answers: {share:.0%} right"
    )


@cache
def _models() -> tuple:
    """The base, a tuned copy, the tokenizer and the facts; five seconds, once."""
    with contextlib.redirect_stdout(io.StringIO()):  # one line says what was shown, no more
        base, tokenizer = load("atlas-base")
    facts = atlas.split(atlas.load_facts())
    return base, runs.tune(base, tokenizer, facts, 0), tokenizer, facts
