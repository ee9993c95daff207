"""Wrong answers to the exercises of chapter 14, each with what its reader is told."""

import torch


def _back(ids, period):
    start = len(ids) - period
    while start > 0 and ids[start - 1] == ids[start - 1 + period]:
        start -= 1
    return start


def _find(ids, times, *, periods=None):
    for period in periods or range(1, len(ids) // times + 1):
        start = _back(ids, period)
        if len(ids) - start >= times * period:
            return start, period
    return None


def _largest(ids, times):
    return _find(ids, times, periods=range(len(ids) // times, 0, -1))


def _last_pieces(ids, times):
    found = _find(ids, times)
    return found and (len(ids) - times * found[1], found[1])


def _one_too_few(ids, times):
    return _find(ids, times - 1)


def _anywhere(ids, times):
    for end in range(len(ids), 0, -1):
        if found := _find(ids[:end], times):
            return found
    return None


def _period_first(ids, times):
    found = _find(ids, times)
    return found and found[::-1]


def _minus_one(ids, times):
    return _find(ids, times) or (-1, 0)


def _targets(logits, ids, start, length, shift=1):
    log_p = logits.log_softmax(-1)
    rows = torch.arange(start, len(ids))
    return log_p[rows - shift, ids[rows]].view(-1, length)


def _unshifted(logits, ids, start, length):
    return _targets(logits, ids, start, length, 0).mean(1)


def _summed(logits, ids, start, length):
    return _targets(logits, ids, start, length).sum(1)


def _by_token(logits, ids, start, length):
    return _targets(logits, ids, start, length).mean(0)


def _without_first(logits, ids, start, length):
    return _targets(logits, ids, start, length).mean(1)[1:]


def _log_of_mean(logits, ids, start, length):
    return _targets(logits, ids, start, length).exp().mean(1).log()


def _nll_of_copies(logits, ids, start, length):
    return -_targets(logits, ids, start, length).mean(1)


def _look(attention, length, back, first=0):
    places = torch.arange(length + first, 2 * length)
    return attention[:, places, places - back].mean(-1)


def _same_token(attention, length):
    return _look(attention, length, length)


def _swapped(attention, length):
    return _look(attention.transpose(1, 2), length, length - 1)


def _whole_diagonal(attention, length):
    return attention.diagonal(1 - length, dim1=1, dim2=2).mean(-1)


def _without_last(attention, length):
    places = torch.arange(length, 2 * length - 1)
    return attention[:, places, places - length + 1].mean(-1)


def _all_heads(attention, length):
    return _look(attention, length, length - 1).mean()


def _unlikely(logits, labels, *, keep=False, clamp=False, twice=False, shift=1, mean=True):
    cost = -torch.log1p(-logits.softmax(-1))
    total, graded, seen = 0, 0, []
    for row, line in enumerate(labels.tolist()):
        seen = []
        for t, target in enumerate(line):
            if target == -100:
                seen += [0] * clamp
                continue
            if t > 0:
                graded += 1
                some = seen if twice else sorted(set(seen))
                some = [c for c in some if keep or c != target]
                total = total + cost[row, t - shift, some].sum()
            seen.append(target)
    return total / graded if mean else total


def _kept(logits, labels):
    return _unlikely(logits, labels, keep=True)


def _clamped(logits, labels):
    return _unlikely(logits, labels, clamp=True)


def _twice(logits, labels):
    return _unlikely(logits, labels, twice=True)


def _not_shifted(logits, labels):
    return _unlikely(logits, labels, shift=0)


def _sum(logits, labels):
    return _unlikely(logits, labels, mean=False)


def _by_all_places(logits, labels):
    return _unlikely(logits, labels, mean=False) / labels[:, 1:].numel()


def _by_ends(signs):
    if signs["ends"] < 0.5:
        return "no stop token"
    if signs["sampled_again"] > 0.3:
        return "learned to repeat"
    return "decoding" if signs["greedy_again"] > 0.3 else "healthy"


def _by_greedy(signs):
    if signs["p_end"] < 0.01:
        return "no stop token"
    return "learned to repeat" if signs["greedy_again"] > 0.3 else "healthy"


def _repeats_first(signs):
    if signs["sampled_again"] > 0.3:
        return "learned to repeat"
    if signs["greedy_again"] > 0.3:
        return "decoding"
    return "no stop token" if signs["p_end"] < 0.01 else "healthy"


def _own_words(signs):
    return "stop token" if signs["p_end"] < 0.01 else "repeats"


KENYA = "The capital of Kenya is Nairobi."

WRONG_ANSWERS = {
    "14.1": [
        (_largest, "the smallest"),
        (_last_pieces, "go back as far as it holds"),
        (_one_too_few, "one piece too few"),
        (_anywhere, "a loop reaches to the last token"),
        (_period_first, "start comes first"),
        (_minus_one, "your answer is (-1, 0)"),
    ],
    "14.2": [
        (_unshifted, "not shifted"),
        (_summed, "divide by its tokens"),
        (_by_token, "one for each copy"),
        (_without_first, "the first copy is missing"),
        (_log_of_mean, "the mean of the logarithms"),
        (_nll_of_copies, "the sign is reversed"),
    ],
    "14.3": [
        (_same_token, "take the one behind it"),
        (_swapped, "rows and columns are swapped"),
        (_whole_diagonal, "it has no copy before it"),
        (_without_last, "the last token of the second copy is missing"),
        (_all_heads, "one score for each head"),
    ],
    "14.4": [
        (_by_ends, "look at p_end"),
        (_by_greedy, "when sampled, too"),
        (_repeats_first, "look at p_end first"),
        (_own_words, "one of no stop token"),
    ],
    "14.5": [
        (_kept, "the target itself"),
        (_clamped, "-100 has become token 0"),
        (_twice, "each candidate counts once"),
        (_not_shifted, "not shifted"),
        (_sum, "this is the sum"),
        (_by_all_places, "divided by all positions"),
    ],
    "14.6": [
        (KENYA, "at least 25% are asked for"),
        (" ".join([KENYA] * 6), "at least 25% are asked for"),
        ("\n".join([KENYA] * 20), "at most 60 are allowed"),
        ("", "give the beginning of a text"),
        (5, "give the beginning of a text"),
    ],
}
