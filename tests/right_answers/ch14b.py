"""Right answers to the exercises of chapter 14b, each in another style; written from the statements
alone."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import torch

from sft_lab.decoding import (
    FrequencyPenalty,
    NoRepeatNgram,
    PresencePenalty,
    RepetitionPenalty,
    TopP,
)


# 14b.1
def top_p_by_what_stands_before(logits, p):
    ordered, order = logits.sort(descending=True)
    chances = ordered.softmax(0)
    before = torch.cat([chances.new_zeros(1), chances.cumsum(0)[:-1]])
    out = torch.full_like(logits, -torch.inf)
    kept = order[before < p]
    out[kept] = logits[kept]
    return out


def top_p_by_loop(logits, p):
    chances = torch.softmax(logits, dim=0).tolist()
    total, kept = 0.0, set()
    for place in sorted(range(len(chances)), key=lambda i: -chances[i]):
        if total >= p:
            break
        kept.add(place)
        total += chances[place]
    return torch.tensor(
        [x if i in kept else -math.inf for i, x in enumerate(logits.tolist())], dtype=logits.dtype
    )


def top_p_by_numpy(logits, p):
    x = logits.numpy().astype(np.float64)
    chances = np.exp(x - x.max())
    chances /= chances.sum()
    order = np.argsort(-chances, kind="stable")
    count = np.searchsorted(np.cumsum(chances[order]), p) + 1
    out = logits.clone()
    out[torch.from_numpy(order[count:].copy())] = float("-inf")
    return out


def top_p_by_a_threshold(logits, p):
    chances = logits.softmax(-1)
    ordered = chances.sort(descending=True).values
    first = int((ordered.cumsum(-1) >= p).nonzero()[0])
    return torch.where(chances >= ordered[first], logits, -torch.inf)


def top_p_by_the_mass_above(logits, p):
    """A token stays if all that are likelier do not yet reach p."""
    chances = logits.double().softmax(0)
    likelier = chances[None, :] > chances[:, None]
    above = (likelier * chances[None, :]).sum(1)
    return logits.masked_fill((above >= p) | logits.isneginf(), -torch.inf)


def top_p_by_the_library(logits, p):
    return TopP(p)(torch.zeros(1, 1, dtype=torch.long), logits[None])[0]


# 14b.2
def subtract_by_counter(logits, written, frequency, presence):
    out = logits.clone()
    for token_id, times in Counter(written).items():
        out[token_id] -= frequency * times + presence
    return out


def subtract_by_bincount(logits, written, frequency, presence):
    counts = torch.bincount(torch.tensor(written, dtype=torch.long), minlength=len(logits))
    return logits - frequency * counts - presence * (counts > 0)


def subtract_by_lists(logits, written, frequency, presence):
    out = []
    for token_id, logit in enumerate(logits.tolist()):
        times = written.count(token_id)
        out.append(logit - (frequency * times + presence if times else 0))
    return torch.tensor(out)


def subtract_by_numpy(logits, written, frequency, presence):
    out = logits.numpy().copy()
    np.subtract.at(out, np.array(written, dtype=int), frequency)
    out[sorted(set(written))] -= presence
    return torch.from_numpy(out)


def subtract_by_one_hot(logits, written, frequency, presence):
    rows = torch.eye(len(logits), dtype=logits.dtype)[torch.tensor(written, dtype=torch.long)]
    counts = rows.sum(0)
    return logits.sub(counts, alpha=frequency).sub(counts.clamp(max=1), alpha=presence)


def subtract_by_recursion(logits, written, frequency, presence):
    if not written:
        return logits.clone()
    *before, last = written
    out = subtract_by_recursion(logits, before, frequency, presence)
    out[last] -= frequency if last in before else frequency + presence
    return out


def subtract_by_the_library(logits, written, frequency, presence):
    ids, scores = torch.tensor([written], dtype=torch.long), logits[None]
    for processor in (
        FrequencyPenalty(frequency, prompt=True),
        PresencePenalty(presence, prompt=True),
    ):
        scores = processor(ids, scores)
    return scores[0]


# 14b.3
def name_by_who_changed(before, after, said):
    if (after.isneginf() & ~before.isneginf()).any():
        return "filter"
    finite = before.isfinite()
    spoken = torch.zeros_like(finite)
    spoken[list(said)] = True
    if not torch.allclose(before[finite & ~spoken], after[finite & ~spoken]):
        return "temperature"
    less = (before - after)[finite & spoken]
    return "presence" if torch.allclose(less, less[:1], atol=1e-4) else "repetition"


def name_by_lists(before, after, said):
    pairs = {
        i: (b, a)
        for i, (b, a) in enumerate(zip(before.tolist(), after.tolist(), strict=True))
        if b != -math.inf
    }
    if any(a == -math.inf for _, a in pairs.values()):
        return "filter"
    if any(abs(b - a) > 1e-6 for i, (b, a) in pairs.items() if i not in said):
        return "temperature"
    drops = [b - a for i, (b, a) in pairs.items() if i in said]
    return "presence" if max(drops) - min(drops) < 1e-4 else "repetition"


def name_by_ratios(before, after, said):
    finite = [i for i in range(len(before)) if math.isfinite(before[i])]
    if any(not math.isfinite(after[i]) for i in finite):
        return "filter"
    ratios = {i: float(after[i] / before[i]) for i in finite}
    if max(ratios.values()) - min(ratios.values()) < 1e-4:
        return "temperature"
    factors = [r if before[i] < 0 else 1 / r for i, r in ratios.items() if i in said and r != 0]
    return "repetition" if max(factors) - min(factors) < 1e-3 else "presence"


def name_by_trying_each(before, after, said):
    """Works out the number of each processor from one token, and applies it to all."""
    spoken = [i for i in sorted(said) if before[i].isfinite()]
    one = spoken[0]
    if after[one].isneginf():
        return "filter"
    tried = {"temperature": before * (after[one] / before[one])}
    less = before.clone()
    less[spoken] -= before[one] - after[one]
    tried["presence"] = less
    factor = before[one] / after[one] if before[one] > 0 else after[one] / before[one]
    bent = before.clone()
    for i in spoken:
        bent[i] = before[i] / factor if before[i] > 0 else before[i] * factor
    tried["repetition"] = bent
    for name, guess in tried.items():
        if torch.allclose(guess, after, rtol=1e-4, atol=1e-4):
            return name
    return "filter"


def name_by_numpy(before, after, said):
    old, new = before.numpy(), after.numpy()
    seen = np.isfinite(old)
    if np.isfinite(new).sum() < seen.sum():
        return "filter"
    moved = {int(i) for i in np.flatnonzero(seen & ~np.isclose(old, new))}
    if moved - said:
        return "temperature"
    places = sorted(i for i in said if seen[i])
    return ["repetition", "presence"][int(np.ptp(old[places] - new[places]) < 1e-4)]


def name_by_match(before, after, said):
    finite = before.isfinite()
    forbidden = bool((finite != after.isfinite()).any())
    others = [i for i in range(len(before)) if i not in said and finite[i]]
    elsewhere = bool((before[others] != after[others]).any())
    mine = [i for i in said if finite[i]]
    spread = (before[mine] - after[mine]).std().item()
    match forbidden, elsewhere, spread < 1e-4:
        case True, _, _:
            return "filter"
        case _, True, _:
            return "temperature"
        case _, _, True:
            return "presence"
    return "repetition"


# 14b.4
def forbidden_by_a_set(prompt, answer, n):
    text = prompt + answer
    seen = set()
    for end in range(n, len(text) + 1):
        gram = tuple(text[end - n : end])
        if gram in seen and end > len(prompt):
            return end - 1 - len(prompt)
        seen.add(gram)
    return None


def forbidden_by_slices(prompt, answer, n):
    for place in range(len(answer)):
        text = [*prompt, *answer[: place + 1]]
        if len(text) < n:
            continue
        last = text[-n:]
        if any(text[i : i + n] == last for i in range(len(text) - n)):
            return place
    return None


def forbidden_by_next(prompt, answer, n):
    text = prompt + answer
    grams = list(zip(*(text[i:] for i in range(n)), strict=False))
    ends = range(max(0, len(prompt) - n + 1), len(grams))
    return next((i + n - 1 - len(prompt) for i in ends if grams[i] in grams[:i]), None)


def forbidden_by_recursion(prompt, answer, n, place=0):
    if not answer:
        return None
    beginning = prompt[len(prompt) - n + 1 :] if n > 1 else []
    if len(prompt) >= n - 1:
        gram = beginning + answer[:1]
        if gram in [prompt[i : i + n] for i in range(len(prompt) - n + 1)]:
            return place
    return forbidden_by_recursion(prompt + answer[:1], answer[1:], n, place + 1)


def forbidden_by_the_library(prompt, answer, n):
    text, block = list(prompt), NoRepeatNgram(n)
    scores = torch.zeros(1, max([0, *prompt, *answer]) + 1)
    for place, token_id in enumerate(answer):
        ids = torch.tensor([text], dtype=torch.long)
        if text and block(ids, scores)[0, token_id] == -torch.inf:
            return place
        text.append(token_id)
    return None


def forbidden_by_followers(prompt, answer, n):
    """What followed each beginning of n - 1 tokens so far."""
    followers, text = {}, []
    for place, token_id in enumerate(prompt + answer, -len(prompt)):
        if len(text) >= n - 1:
            begun = tuple(text[len(text) - n + 1 :])
            if place >= 0 and token_id in followers.get(begun, ()):
                return place
            followers.setdefault(begun, set()).add(token_id)
        text.append(token_id)


# 14b.5
def crossing_by_logs(short_sum, short, long_sum, long):
    return math.log(long_sum / short_sum) / math.log(long / short)


def crossing_by_differences(short_sum, short, long_sum, long):
    return (math.log(-long_sum) - math.log(-short_sum)) / (math.log(long) - math.log(short))


def crossing_by_base(short_sum, short, long_sum, long):
    return math.log(long_sum / short_sum, long / short)


def crossing_by_numpy(short_sum, short, long_sum, long):
    sums, lengths = np.abs([short_sum, long_sum]), np.array([short, long])
    return float(np.diff(np.log2(sums))[0] / np.diff(np.log2(lengths))[0])


def crossing_by_torch(short_sum, short, long_sum, long):
    pairs = torch.tensor([[short_sum, long_sum], [-short, -long]], dtype=torch.float64)
    slopes = pairs.neg().log().diff(dim=1).squeeze(1)
    return (slopes[0] / slopes[1]).item()


def crossing_by_halving(short_sum, short, long_sum, long):
    def long_wins(penalty):
        return math.log(-long_sum) - penalty * math.log(long) < math.log(
            -short_sum
        ) - penalty * math.log(short)

    low, high = 0.0, 1.0
    while not long_wins(high):
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if long_wins(middle) else (middle, high)
    return high


def crossing_by_fractions(short_sum, short, long_sum, long):
    ratio = Fraction(long_sum) / Fraction(short_sum)
    return np.log10(float(ratio)).item() / math.log10(Fraction(long, short))


# 14b.6
def setting_frequency():
    return [FrequencyPenalty(0.5)], False


def setting_presence():
    return ([PresencePenalty(1.0)], False)


def setting_repetition_of_the_answer():
    processors = [RepetitionPenalty(1.2, prompt=False)]
    return processors, False


def setting_block_of_the_answer():
    """In a list of two."""
    return [[NoRepeatNgram(3, prompt=False)], False]


def setting_with_a_function():
    def nothing(input_ids, scores):
        return scores.clone()

    return [nothing, FrequencyPenalty(0.5)], False


RIGHT_ANSWERS = {
    "14b.1": [
        top_p_by_what_stands_before,
        top_p_by_loop,
        top_p_by_numpy,
        top_p_by_a_threshold,
        top_p_by_the_mass_above,
        top_p_by_the_library,
    ],
    "14b.2": [
        subtract_by_counter,
        subtract_by_bincount,
        subtract_by_lists,
        subtract_by_numpy,
        subtract_by_one_hot,
        subtract_by_recursion,
        subtract_by_the_library,
    ],
    "14b.3": [
        name_by_who_changed,
        name_by_lists,
        name_by_ratios,
        name_by_trying_each,
        name_by_numpy,
        name_by_match,
    ],
    "14b.4": [
        forbidden_by_a_set,
        forbidden_by_slices,
        forbidden_by_next,
        forbidden_by_recursion,
        forbidden_by_the_library,
        forbidden_by_followers,
    ],
    "14b.5": [
        crossing_by_logs,
        crossing_by_differences,
        crossing_by_base,
        crossing_by_numpy,
        crossing_by_torch,
        crossing_by_halving,
        crossing_by_fractions,
    ],
    "14b.6": [
        setting_frequency,
        setting_presence,
        setting_repetition_of_the_answer,
        setting_block_of_the_answer,
        setting_with_a_function,
    ],
}
