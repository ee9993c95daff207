"""Wrong answers to the exercises of chapter 14b, each with what its reader is told."""

import math

import torch

from sft_lab.decoding import NoRepeatNgram, RepetitionPenalty, Temperature

NEVER = -torch.inf


def _top_p(logits, p, *, crossing=True, reorder=True):
    probabilities, order = logits.softmax(0).sort(descending=True)
    reached = probabilities.cumsum(0)
    dropped = reached - probabilities >= p if crossing else reached > p
    if reorder:
        return logits.index_fill(0, order[dropped], NEVER)
    return logits.masked_fill(dropped, NEVER)


def _each_above_p(logits, p):
    return logits.masked_fill(logits.softmax(0) < p, NEVER)


def _min_p(logits, p):
    chances = logits.softmax(0)
    return logits.masked_fill(chances < p * chances.max(), NEVER)


def _zeros(logits, p):
    return torch.where(_top_p(logits, p).isfinite(), logits, 0.0)


def _in_place(logits, p):
    logits[:] = _top_p(logits, p)
    return logits


def _subtract(logits, written, frequency, presence, *, skip_zero=False, sign=1):
    bent = logits.clone()
    for token_id in set(written):
        if token_id or not skip_zero:
            bent[token_id] -= sign * (frequency * written.count(token_id) + presence)
    return bent


def _once(logits, written, frequency, presence):
    bent = logits.clone()
    for token_id in set(written):
        bent[token_id] -= frequency + presence
    return bent


def _every_time(logits, written, frequency, presence):
    bent = logits.clone()
    for token_id in written:
        bent[token_id] -= frequency + presence
    return bent


def _indexed(logits, written, frequency, presence):
    bent = logits.clone()
    bent[written] -= frequency + presence  # repeated places are subtracted once
    return bent


def _change_given(logits, written, frequency, presence):
    for token_id in written:
        logits[token_id] -= frequency
    for token_id in set(written):
        logits[token_id] -= presence
    return logits


def _name(before, after, said, *, see_filter=True, see_others=True, see_presence=True):
    finite = before.isfinite() & after.isfinite()
    if see_filter and (after[before.isfinite()] == NEVER).any():
        return "filter"
    is_said = torch.tensor([i in said for i in range(len(before))])
    change = after - before
    if see_others and change[finite & ~is_said].abs().sum() > 1e-6:
        return "temperature"
    lowered = change[finite & is_said]
    is_one = not len(lowered) or lowered.max() - lowered.min() < 1e-6
    return "presence" if see_presence and is_one else "repetition"


def _forbidden(prompt, answer, n, *, seen_before=True, seam=True):
    whole, seen = prompt + answer, set()
    for end in range(n, len(whole) + 1):
        gram = tuple(whole[end - n : end])
        crosses = end - n < len(prompt) < end
        if gram in seen and end > len(prompt) and (seam or not crosses):
            return end - 1 - len(prompt)
        if seen_before or end <= len(prompt):
            seen.add(gram)
    return None


def _inside_the_prompt_too(prompt, answer, n):
    whole, seen = prompt + answer, set()
    for end in range(n, len(whole) + 1):
        gram = tuple(whole[end - n : end])
        if gram in seen:
            return end - 1 - len(prompt)
        seen.add(gram)
    return None


def _from_the_prompt(prompt, answer, n):
    place = _forbidden(prompt, answer, n)
    return None if place is None else place + len(prompt)


WRONG_ANSWERS = {
    "14b.1": [
        (lambda logits, p: _top_p(logits, p, crossing=False), "the token that crosses p stays too"),
        (lambda logits, p: _top_p(logits, p, reorder=False), "bring them back in order"),
        (_each_above_p, "not each of them"),
        (_min_p, "as min-p does"),
        (_zeros, "a dropped logit is -inf"),
        (lambda logits, p: _top_p(logits, p).softmax(0), "return logits, not probabilities"),
        (_in_place, "changed `logits` in place"),
    ],
    "14b.2": [
        (_once, "once for each time"),
        (_every_time, "the presence penalty is taken once"),
        (_indexed, "once for each time"),
        (lambda *given: _subtract(*given, sign=-1), "a penalty lowers the logit"),
        (lambda *given: _subtract(*given, skip_zero=True), "token id 0 is a token"),
        (lambda x, w, f, p: _subtract(x, w, p, f), "are exchanged"),
        (_change_given, "changed `logits` in place"),
    ],
    "14b.3": [
        (lambda *given: _name(*given, see_presence=False), "its difference is the same"),
        (lambda *given: _name(*given, see_filter=False), "some filter goes unseen"),
        (lambda *given: _name(*given, see_others=False), "tokens that were never said"),
        (lambda before, after, said: "filter", "to every case"),
    ],
    "14b.4": [
        (lambda p, x, n: _forbidden([], x, n), "the n-grams of the prompt count as well"),
        (lambda p, x, n: _forbidden(p, x, n, seen_before=False), "of the answer itself count"),
        (lambda p, x, n: _forbidden(p, x, n, seam=False), "may begin in the prompt"),
        (_inside_the_prompt_too, "the place is"),
        (_from_the_prompt, "not of the prompt"),
        (lambda p, x, n: _forbidden(p, x, n) is not None, "return the place as an int or None"),
    ],
    "14b.5": [
        (lambda a, m, b, n: -math.log(b / a) / math.log(n / m), "the sign is reversed"),
        (lambda a, m, b, n: math.log(n / m) / math.log(b / a), "are exchanged"),
        (lambda a, m, b, n: (b / a) / (n / m), "take logarithms"),
        (lambda a, m, b, n: math.log(b / a), "the lengths are missing"),
    ],
    "14b.6": [
        (lambda: ([], False), "repeated 4-grams, at most 20%"),
        (lambda: ([Temperature(1.8)], True), "has a perplexity of"),
        (lambda: ([NoRepeatNgram(3)], False), "of the answers are right, at least 89%"),
        (lambda: ([RepetitionPenalty(1.6)], False), "of the answers are right, at least 89%"),
        (lambda: ([Temperature], False), "the processors do not run"),
        (lambda: RepetitionPenalty(1.2), "return two things"),
    ],
}  # fmt: skip
