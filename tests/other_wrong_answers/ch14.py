"""Wrong answers to the exercises of chapter 14, written from the statements alone."""

import math

import torch
import torch.nn.functional as F


# 14.1
def _loop(ids, times, *, first=1, last=None, back=True):
    last = len(ids) // times if last is None else last
    for period in range(first, last + 1):
        start = len(ids) - period
        while start > 0 and ids[start - 1] == ids[start - 1 + period]:
            start -= 1
        if len(ids) - start >= times * period:
            return (start if back else len(ids) - times * period), period
    return None


def loop_without_going_back(ids, times):
    """The start of the last `times` pieces."""
    return _loop(ids, times, back=False)


def loop_going_back_by_pieces(ids, times):
    """Whole pieces alone: the circle may begin inside one."""
    found = _loop(ids, times)
    if found is None:
        return None
    start, period = found
    return len(ids) - (len(ids) - start) // period * period, period


def loop_of_three(ids, times):
    return _loop(ids, 3)


def loop_of_one_time_more(ids, times):
    return _loop(ids, times + 1)


def loop_of_one_time_less(ids, times):
    return _loop(ids, times - 1) if times > 2 else _loop(ids, 2, last=len(ids) // 3)


def loop_of_two_or_more(ids, times):
    """A piece of one token is no loop."""
    return _loop(ids, times, first=2)


def loop_of_the_largest_period(ids, times):
    for period in range(len(ids) // times, 0, -1):
        found = _loop(ids, times, first=period, last=period)
        if found:
            return found
    return None


def loop_swapped(ids, times):
    found = _loop(ids, times)
    return found and found[::-1]


def loop_anywhere(ids, times):
    """Also a loop that ended before the text did."""
    for end in range(len(ids), 0, -1):
        found = _loop(ids[:end], times)
        if found:
            return found
    return None


def loop_at_the_beginning(ids, times):
    for period in range(1, len(ids) // times + 1):
        if ids[: times * period] == ids[:period] * times:
            return 0, period
    return None


def loop_without_the_whole_text(ids, times):
    """range(1, len // times): a text that is all loop is missed."""
    return _loop(ids, times, last=len(ids) // times - 1)


def loop_never_from_place_0(ids, times):
    found = _loop(ids, times)
    return (max(1, found[0]), found[1]) if found else None


def loop_as_minus_one(ids, times):
    return _loop(ids, times) or (-1, -1)


def loop_as_empty(ids, times):
    return _loop(ids, times) or ()


def loop_and_its_end(ids, times):
    found = _loop(ids, times)
    return found and (found[0], len(ids))


def loop_and_its_times(ids, times):
    """How often it is said, in the place of how long it is."""
    found = _loop(ids, times)
    return found and (found[0], (len(ids) - found[0]) // found[1])


def loop_by_the_last_token(ids, times):
    """The period is how long ago the last token was said before."""
    for period in range(1, len(ids)):
        if ids[-1] == ids[-1 - period]:
            found = _loop(ids, times, first=period, last=min(period, len(ids) // times))
            return found
    return None


def loop_one_place_early(ids, times):
    found = _loop(ids, times)
    return found and (max(found[0] - 1, 0), found[1])


def loop_of_sets(ids, times):
    """Pieces with the same tokens, in whatever order."""
    for period in range(1, len(ids) // times + 1):
        pieces = [ids[len(ids) - (k + 1) * period :][:period] for k in range(times)]
        if all(sorted(piece) == sorted(pieces[0]) for piece in pieces):
            found = _loop(ids, times)
            return found or (len(ids) - times * period, period)
    return None


# 14.2
def _right(logits, ids, start):
    return logits[start - 1 : -1].log_softmax(-1).gather(1, ids[start:, None]).squeeze(1)


def copies_without_shift(logits, ids, start, length):
    log_p = logits[start:].log_softmax(-1).gather(1, ids[start:, None]).squeeze(1)
    return log_p.view(-1, length).mean(1)


def copies_shifted_twice(logits, ids, start, length):
    log_p = logits.log_softmax(-1).roll(2, 0)[start:]
    return log_p.gather(1, ids[start:, None]).view(-1, length).mean(1)


def copies_summed(logits, ids, start, length):
    return _right(logits, ids, start).view(-1, length).sum(1)


def copies_as_losses(logits, ids, start, length):
    return -_right(logits, ids, start).view(-1, length).mean(1)


def copies_as_probabilities(logits, ids, start, length):
    return _right(logits, ids, start).exp().view(-1, length).mean(1)


def copies_log_of_mean(logits, ids, start, length):
    return _right(logits, ids, start).exp().view(-1, length).mean(1).log()


def copies_by_place(logits, ids, start, length):
    """The mean over the copies, for each place of the sentence."""
    return _right(logits, ids, start).view(-1, length).mean(0)


def copies_in_columns(logits, ids, start, length):
    return _right(logits, ids, start).view(length, -1).mean(0)


def copies_in_bits(logits, ids, start, length):
    return _right(logits, ids, start).view(-1, length).mean(1) / math.log(2)


def copies_of_logits(logits, ids, start, length):
    return logits[start - 1 : -1].gather(1, ids[start:, None]).view(-1, length).mean(1)


def copies_softmax_over_places(logits, ids, start, length):
    log_p = logits.log_softmax(0)[start - 1 : -1]
    return log_p.gather(1, ids[start:, None]).view(-1, length).mean(1)


def copies_from_the_beginning(logits, ids, start, length):
    """`start` left out: from place 1 on, as many copies as fit."""
    right = _right(logits, ids, 1)
    return right[: len(right) // length * length].view(-1, length).mean(1)


def copies_without_the_first(logits, ids, start, length):
    return _right(logits, ids, start).view(-1, length).mean(1)[1:]


def copies_without_the_seam(logits, ids, start, length):
    return _right(logits, ids, start).view(-1, length)[:, 1:].mean(1)


def copies_by_length_less_one(logits, ids, start, length):
    return _right(logits, ids, start).view(-1, length).sum(1) / (length - 1 or 2)


def copies_running(logits, ids, start, length):
    means = _right(logits, ids, start).view(-1, length).mean(1)
    return means.cumsum(0) / torch.arange(1, len(means) + 1)


def copies_backwards(logits, ids, start, length):
    return _right(logits, ids, start).view(-1, length).mean(1).flip(0)


def copies_of_the_likeliest(logits, ids, start, length):
    best = logits[start - 1 : -1].log_softmax(-1).amax(-1)
    return best.view(-1, length).mean(1)


# 14.3
def score_at_the_same_token(attention, length):
    return attention[:, length:].diagonal(offset=0, dim1=1, dim2=2).mean(-1)


def score_before_the_same_token(attention, length):
    places = torch.arange(length + 1, 2 * length)
    return attention[:, places, places - length - 1].mean(1)


def score_two_behind(attention, length):
    places = torch.arange(length, 2 * length - 1)
    return attention[:, places, places - length + 2].mean(1)


def score_without_the_last(attention, length):
    places = torch.arange(length, 2 * length - 1)
    return attention[:, places, places - length + 1].mean(1)


def score_without_the_last_by_length(attention, length):
    places = torch.arange(length, 2 * length - 1)
    return attention[:, places, places - length + 1].sum(1) / length


def score_without_the_first(attention, length):
    places = torch.arange(length + 1, 2 * length)
    return attention[:, places, places - length + 1].mean(1)


def score_whole_diagonal(attention, length):
    """One more, of the last token of the first copy."""
    return attention.diagonal(offset=1 - length, dim1=1, dim2=2).mean(-1)


def score_transposed(attention, length):
    return attention[:, :, length:].diagonal(offset=-1, dim1=1, dim2=2).mean(-1)


def score_summed(attention, length):
    return attention[:, length:].diagonal(offset=1, dim1=1, dim2=2).sum(-1)


def score_by_both_copies(attention, length):
    return attention[:, length:].diagonal(offset=1, dim1=1, dim2=2).sum(-1) / (2 * length)


def score_of_all_heads(attention, length):
    return attention[:, length:].diagonal(offset=1, dim1=1, dim2=2).mean()


def score_by_place(attention, length):
    return attention[:, length:].diagonal(offset=1, dim1=1, dim2=2).mean(0)


def score_wrapped(attention, length):
    """The last token looks at the first of the first copy."""
    t = torch.arange(length)
    return attention[:, length + t, (t + 1) % length].mean(1)


def score_of_the_first_copy(attention, length):
    t = torch.arange(1, length)
    return attention[:, t, t - 1].mean(1)


def score_largest(attention, length):
    return attention[:, length:].diagonal(offset=1, dim1=1, dim2=2).amax(-1)


def score_of_the_whole_first_copy(attention, length):
    return attention[:, length:, :length].sum(-1).mean(-1)


def score_median(attention, length):
    return attention[:, length:].diagonal(offset=1, dim1=1, dim2=2).median(-1).values


# 14.4
def _doctor(signs, p_end=0.01, border=0.3):
    if signs["p_end"] < p_end:
        return "no stop token"
    if signs["sampled_again"] >= border:
        return "learned to repeat"
    return "decoding" if signs["greedy_again"] >= border else "healthy"


def diagnose_by_ends(signs):
    """A loop that cannot end passes for a missing stop token."""
    return "no stop token" if signs["ends"] < 0.5 else _doctor(signs)


def diagnose_by_both_ends(signs):
    """Without a stop token no text ends, and none that ends lacks it."""
    return "no stop token" if signs["ends"] < 0.1 else _doctor(signs)


def diagnose_repeats_first(signs):
    if signs["sampled_again"] >= 0.3:
        return "learned to repeat"
    if signs["greedy_again"] >= 0.3:
        return "decoding"
    return "no stop token" if signs["p_end"] < 0.01 else "healthy"


def diagnose_sampled_first(signs):
    return "learned to repeat" if signs["sampled_again"] >= 0.3 else _doctor(signs)


def diagnose_with_a_low_border(signs):
    return _doctor(signs, border=0.05)


def diagnose_with_a_half(signs):
    return _doctor(signs, border=0.5)


def diagnose_with_a_half_at_the_end(signs):
    return _doctor(signs, p_end=0.5)


def diagnose_with_a_tiny_end(signs):
    return _doctor(signs, p_end=1e-6)


def diagnose_greedy_as_learned(signs):
    if signs["p_end"] < 0.01:
        return "no stop token"
    return "learned to repeat" if signs["greedy_again"] >= 0.3 else "healthy"


def diagnose_swapped(signs):
    word = _doctor(signs)
    return {"decoding": "learned to repeat", "learned to repeat": "decoding"}.get(word, word)


def diagnose_stop_only_without_repeats(signs):
    if signs["p_end"] < 0.01 and signs["greedy_again"] < 0.3:
        return "no stop token"
    return _doctor(signs, p_end=-1)


def diagnose_by_ratio(signs):
    """Greedy repeats far more than sampled: decoding."""
    if signs["p_end"] < 0.01:
        return "no stop token"
    if signs["greedy_again"] < 0.3:
        return "healthy"
    more = signs["greedy_again"] - signs["sampled_again"]
    return "decoding" if more > 0.3 else "learned to repeat"


def diagnose_healthy_by_ends(signs):
    """What ends is healthy."""
    return "healthy" if signs["ends"] > 0.9 else _doctor(signs)


def diagnose_in_capitals(signs):
    return _doctor(signs).capitalize()


def diagnose_in_other_words(signs):
    return _doctor(signs).replace("no stop token", "no end token")


def diagnose_by_number(signs):
    return ("no stop token", "learned to repeat", "decoding", "healthy").index(_doctor(signs))


def diagnose_always_decoding(signs):
    return "decoding"


def diagnose_the_mean(signs):
    """One share of both ways."""
    if signs["p_end"] < 0.01:
        return "no stop token"
    mean = (signs["greedy_again"] + signs["sampled_again"]) / 2
    return "learned to repeat" if mean >= 0.4 else "decoding" if mean >= 0.2 else "healthy"


# 14.5
def _unlikelihood(
    logits,
    labels,
    *,
    cost=lambda p: -torch.log1p(-p),
    own=False,
    twice=False,
    drop=(-100,),
    shift=1,
    reach=None,
    first=0,
    whole=False,
    later=False,
    divide="graded",
):
    """A right answer, and one thing changed."""
    sums, candidates_seen = [], 0
    for scores, row in zip(logits.softmax(-1), labels.tolist(), strict=True):
        for t in range(1, len(row)):
            if row[t] == -100:
                continue
            begin = first if reach is None else max(first, t - reach)
            earlier = row[begin:t] if not whole else row
            if later:
                earlier = row[t + 1 :]
            found = earlier if twice else set(earlier)
            found = [c for c in found if c not in drop and (own or c != row[t])]
            candidates_seen += len(found)
            sums.append(cost(scores[t - shift][found]).sum())
    total = sum(sums, start=logits.new_zeros(()))
    count = {
        "graded": len(sums),
        "all": labels[:, 1:].numel(),
        "labels": int((labels != -100).sum()),
        "candidates": max(1, candidates_seen),
        "rows": len(labels),
        "one": 1,
    }[divide]
    return total / count


def unlikelihood_with_the_token_itself(logits, labels):
    return _unlikelihood(logits, labels, own=True)


def unlikelihood_counted_twice(logits, labels):
    return _unlikelihood(logits, labels, twice=True)


def unlikelihood_without_shift(logits, labels):
    return _unlikelihood(logits, labels, shift=0)


def unlikelihood_of_log_p(logits, labels):
    return _unlikelihood(logits, labels, cost=lambda p: -p.log())


def unlikelihood_with_its_sign(logits, labels):
    return _unlikelihood(logits, labels, cost=lambda p: torch.log1p(-p))


def unlikelihood_in_bits(logits, labels):
    return _unlikelihood(logits, labels, cost=lambda p: -torch.log2(1 - p))


def unlikelihood_of_p(logits, labels):
    return _unlikelihood(logits, labels, cost=lambda p: p)


def unlikelihood_by_all_places(logits, labels):
    return _unlikelihood(logits, labels, divide="all")


def unlikelihood_by_all_labels(logits, labels):
    return _unlikelihood(logits, labels, divide="labels")


def unlikelihood_by_candidates(logits, labels):
    return _unlikelihood(logits, labels, divide="candidates")


def unlikelihood_by_rows(logits, labels):
    return _unlikelihood(logits, labels, divide="rows")


def unlikelihood_summed(logits, labels):
    return _unlikelihood(logits, labels, divide="one")


def unlikelihood_without_token_0(logits, labels):
    return _unlikelihood(logits, labels, drop=(-100, 0))


def unlikelihood_with_the_ungraded(logits, labels):
    """−100 taken as an index: the token that far from the end, or token 0."""
    whole = labels.masked_fill(labels == -100, 0)
    sums = []
    for scores, row, target in zip(
        logits.softmax(-1), whole.tolist(), labels.tolist(), strict=True
    ):
        for t in range(1, len(row)):
            if target[t] != -100:
                found = [c for c in set(row[:t]) if c != target[t]]
                sums.append(-torch.log1p(-scores[t - 1][found]).sum())
    return torch.stack(sums).mean()


def unlikelihood_without_the_first_label(logits, labels):
    """The label at place 0 is no candidate."""
    return _unlikelihood(logits, labels, first=1)


def unlikelihood_of_the_last_token(logits, labels):
    return _unlikelihood(logits, labels, reach=1)


def unlikelihood_of_later_tokens(logits, labels):
    return _unlikelihood(logits, labels, whole=True)


def unlikelihood_of_what_comes(logits, labels):
    return _unlikelihood(logits, labels, later=True)


def unlikelihood_by_row_means(logits, labels):
    """The mean of the rows' means."""
    means = [
        _unlikelihood(logits[b : b + 1], labels[b : b + 1])
        for b in range(len(labels))
        if (labels[b, 1:] != -100).any()
    ]
    return torch.stack(means).mean()


def unlikelihood_across_rows(logits, labels):
    """What stood in an earlier row counts as earlier."""
    log_rest = torch.log1p(-logits.softmax(-1))
    said, sums = set(), []
    for scores, row in zip(log_rest, labels.tolist(), strict=True):
        for t, token_id in enumerate(row):
            if token_id != -100 and t > 0:
                sums.append(-scores[t - 1][sorted(said - {token_id})].sum())
            if token_id != -100:
                said.add(token_id)
    return torch.stack(sums).mean()


def unlikelihood_of_the_mean(logits, labels):
    """-ln(1 - sum p): the candidates together."""
    sums = []
    for scores, row in zip(logits.softmax(-1), labels.tolist(), strict=True):
        for t in range(1, len(row)):
            if row[t] != -100:
                found = list(set(row[:t]) - {-100, row[t]})
                sums.append(-torch.log1p(-scores[t - 1][found].sum()))
    return torch.stack(sums).mean()


def unlikelihood_and_likelihood(logits, labels):
    """The first term stands there, too."""
    nll = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    return nll + _unlikelihood(logits, labels)


def unlikelihood_as_a_number(logits, labels):
    return _unlikelihood(logits, labels).item()


def unlikelihood_of_each_row(logits, labels):
    return torch.stack(
        [_unlikelihood(logits[b : b + 1], labels[b : b + 1]) for b in range(len(labels))]
    )


OTHER_WRONG_ANSWERS = {
    "14.1": [
        loop_without_going_back,
        loop_going_back_by_pieces,
        loop_of_three,
        loop_of_one_time_more,
        loop_of_one_time_less,
        loop_of_two_or_more,
        loop_of_the_largest_period,
        loop_swapped,
        loop_anywhere,
        loop_at_the_beginning,
        loop_without_the_whole_text,
        loop_never_from_place_0,
        loop_as_minus_one,
        loop_as_empty,
        loop_and_its_end,
        loop_and_its_times,
        loop_by_the_last_token,
        loop_one_place_early,
        loop_of_sets,
    ],
    "14.2": [
        copies_without_shift,
        copies_shifted_twice,
        copies_summed,
        copies_as_losses,
        copies_as_probabilities,
        copies_log_of_mean,
        copies_by_place,
        copies_in_columns,
        copies_in_bits,
        copies_of_logits,
        copies_softmax_over_places,
        copies_from_the_beginning,
        copies_without_the_first,
        copies_without_the_seam,
        copies_by_length_less_one,
        copies_running,
        copies_backwards,
        copies_of_the_likeliest,
    ],
    "14.3": [
        score_at_the_same_token,
        score_before_the_same_token,
        score_two_behind,
        score_without_the_last,
        score_without_the_last_by_length,
        score_without_the_first,
        score_whole_diagonal,
        score_transposed,
        score_summed,
        score_by_both_copies,
        score_of_all_heads,
        score_by_place,
        score_wrapped,
        score_of_the_first_copy,
        score_largest,
        score_of_the_whole_first_copy,
        score_median,
    ],
    "14.4": [
        diagnose_by_ends,
        diagnose_by_both_ends,
        diagnose_repeats_first,
        diagnose_sampled_first,
        diagnose_with_a_low_border,
        diagnose_with_a_half,
        diagnose_with_a_half_at_the_end,
        diagnose_with_a_tiny_end,
        diagnose_greedy_as_learned,
        diagnose_swapped,
        diagnose_stop_only_without_repeats,
        diagnose_by_ratio,
        diagnose_healthy_by_ends,
        diagnose_in_capitals,
        diagnose_in_other_words,
        diagnose_by_number,
        diagnose_always_decoding,
        diagnose_the_mean,
    ],
    "14.5": [
        unlikelihood_with_the_token_itself,
        unlikelihood_counted_twice,
        unlikelihood_without_shift,
        unlikelihood_of_log_p,
        unlikelihood_with_its_sign,
        unlikelihood_in_bits,
        unlikelihood_of_p,
        unlikelihood_by_all_places,
        unlikelihood_by_all_labels,
        unlikelihood_by_candidates,
        unlikelihood_by_rows,
        unlikelihood_summed,
        unlikelihood_without_token_0,
        unlikelihood_with_the_ungraded,
        unlikelihood_without_the_first_label,
        unlikelihood_of_the_last_token,
        unlikelihood_of_later_tokens,
        unlikelihood_of_what_comes,
        unlikelihood_by_row_means,
        unlikelihood_across_rows,
        unlikelihood_of_the_mean,
        unlikelihood_and_likelihood,
        unlikelihood_as_a_number,
        unlikelihood_of_each_row,
    ],
    "14.6": [
        "The capital of Kenya is Nairobi. " * 4,  # on one line
        "\n- 12" * 10,
        "The capital of Kenya is Nairobi.\n" * 40,  # too long
        "ha " * 200,
        ["The capital of Kenya is Nairobi."] * 5,
        ("The capital of Kenya is Nairobi.", 5),
        b"The capital of Kenya is Nairobi.\n" * 5,
        [464, 1200, 30, 464, 1200, 30],
        {"beginning": "The capital of Kenya is Nairobi."},
        0.25,
        True,
    ],
}
