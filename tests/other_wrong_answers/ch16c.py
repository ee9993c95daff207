"""Wrong answers to the exercises of chapter 16c, as a learner may write them; written from the
statements alone."""

import math
import random

import numpy as np

LN2 = math.log(2)
NAMES = ("right", "mean of means", "mean of perplexities", "padding scored")


# 16c.1
def _split(nats, size):
    return [nats[start : start + size] for start in range(0, len(nats), size)]


def _shown(nats, pad_nats, size, batches=None):
    """What the four evaluators print for one size, rightly."""
    batches = batches or _split(nats, size)
    sums = [sum(map(sum, batch)) for batch in batches]
    counts = [sum(map(len, batch)) for batch in batches]
    room = [len(batch) * max(map(len, batch)) for batch in batches]
    means = [a / b for a, b in zip(sums, counts, strict=True)]
    padded = sum(sums) + pad_nats * (sum(room) - sum(counts))
    return {
        "right": math.exp(sum(sums) / sum(counts)),
        "mean of means": math.exp(sum(means) / len(means)),
        "mean of perplexities": sum(map(math.exp, means)) / len(means),
        "padding scored": math.exp(padded / sum(room)),
    }


def _first_fit(tables, reported, names=NAMES, near=1e-6, every=all):
    for name in names:
        if every(abs(tables[k][name] - value) <= near for k, value in reported.items()):
            return name
    return names[-1]


def diagnose_always_right(nats, pad_nats, reported):
    return "right"


def diagnose_any_size(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    return _first_fit(tables, reported, every=any)


def diagnose_any_size_from_the_end(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    return _first_fit(tables, reported, names=NAMES[::-1], every=any)


def diagnose_first_size(nats, pad_nats, reported):
    size, value = next(iter(reported.items()))
    return _first_fit({size: _shown(nats, pad_nats, size)}, {size: value})


def diagnose_last_size(nats, pad_nats, reported):
    size, value = list(reported.items())[-1]
    return _first_fit({size: _shown(nats, pad_nats, size)}, {size: value})


def diagnose_largest_size(nats, pad_nats, reported):
    size = max(reported)
    return _first_fit({size: _shown(nats, pad_nats, size)}, {size: reported[size]})


def diagnose_drops_the_last(nats, pad_nats, reported):
    tables = {}
    for size in reported:
        whole = [batch for batch in _split(nats, size) if len(batch) == size]
        tables[size] = _shown(nats, pad_nats, size, whole)
    return _first_fit(tables, reported)


def diagnose_sorts_by_length(nats, pad_nats, reported):
    rows = sorted(nats, key=len)
    return _first_fit({size: _shown(rows, pad_nats, size) for size in reported}, reported)


def diagnose_pads_to_the_longest_of_all(nats, pad_nats, reported):
    longest = max(map(len, nats))
    pads = sum(longest - len(row) for row in nats)
    own = sum(map(sum, nats)) + pads * pad_nats
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    for table in tables.values():
        table["padding scored"] = math.exp(own / (longest * len(nats)))
    return _first_fit(tables, reported, names=("padding scored", *NAMES[:3]))


def diagnose_padding_without_tokens(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    tokens, own = sum(map(len, nats)), sum(map(sum, nats))
    for size, table in tables.items():
        pads = sum(len(b) * max(map(len, b)) for b in _split(nats, size)) - tokens
        table["padding scored"] = math.exp((own + pads * pad_nats) / tokens)
    return _first_fit(tables, reported, names=("padding scored", *NAMES[:3]))


def diagnose_free_padding(nats, pad_nats, reported):
    tables = {size: _shown(nats, 0.0, size) for size in reported}
    return _first_fit(tables, reported, names=("padding scored", *NAMES[:3]))


def diagnose_means_of_texts(nats, pad_nats, reported):
    texts = [sum(row) / len(row) for row in nats]
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    for table in tables.values():
        table["mean of means"] = math.exp(sum(texts) / len(texts))
        table["mean of perplexities"] = sum(map(math.exp, texts)) / len(texts)
    return _first_fit(tables, reported)


def diagnose_last_batch_as_a_part(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    for size, table in tables.items():
        batches = _split(nats, size)
        means = [sum(map(sum, b)) / sum(map(len, b)) for b in batches]
        table["mean of means"] = math.exp(sum(means) * size / len(nats))
        table["mean of perplexities"] = sum(map(math.exp, means)) * size / len(nats)
    return _first_fit(tables, reported)


def diagnose_in_bits(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    for table in tables.values():
        for name in ("right", "mean of means", "padding scored"):
            table[name] = 2 ** math.log(table[name])
    return _first_fit(tables, reported)


def diagnose_two_names_swapped(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    for table in tables.values():
        table["mean of means"], table["mean of perplexities"] = (
            table["mean of perplexities"],
            table["mean of means"],
        )
    return _first_fit(tables, reported)


def diagnose_loosely(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    return _first_fit(tables, reported, near=0.5)


def diagnose_without_padding(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    return _first_fit(tables, reported, names=NAMES[:3])


def diagnose_by_the_trend(nats, pad_nats, reported):
    values = [reported[size] for size in sorted(reported)]
    if max(values) - min(values) < 1e-6:
        return "right"
    if values == sorted(values):
        return "padding scored"
    return "mean of means"


def diagnose_pads_in_place(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    longest = max(map(len, nats))
    for row in nats:
        row.extend([pad_nats] * (longest - len(row)))
    return _first_fit(tables, reported)


def diagnose_all_that_fit(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    return [_first_fit(tables, reported)]


def diagnose_a_place(nats, pad_nats, reported):
    tables = {size: _shown(nats, pad_nats, size) for size in reported}
    return NAMES.index(_first_fit(tables, reported))


# 16c.2
def _scored(spans, first):
    return [i for i, (start, _) in enumerate(spans) if start >= first]


def _bytes(text, spans, places):
    return sum(len(text[spans[i][0] : spans[i][1]].encode()) for i in places)


def _rate(text, spans, nats, some, of=None, base=LN2):
    return sum(nats[i] for i in some) / base / _bytes(text, spans, some if of is None else of)


def bits_by_letters(text, spans, nats, first):
    some = _scored(spans, first)
    return sum(nats[i] for i in some) / math.log(2) / sum(spans[i][1] - spans[i][0] for i in some)


def bits_as_nats(text, spans, nats, first):
    return _rate(text, spans, nats, _scored(spans, first), base=1)


def bits_times_log(text, spans, nats, first):
    return _rate(text, spans, nats, _scored(spans, first), base=1 / math.log(2))


def bits_in_tens(text, spans, nats, first):
    return _rate(text, spans, nats, _scored(spans, first), base=math.log(10))


def bits_behind_first(text, spans, nats, first):
    some = [i for i, (start, _) in enumerate(spans) if start > first] or [len(spans) - 1]
    return _rate(text, spans, nats, some)


def bits_with_the_straddling(text, spans, nats, first):
    return _rate(text, spans, nats, [i for i, (_, end) in enumerate(spans) if end > first])


def bits_over_text_from_first(text, spans, nats, first):
    some = _scored(spans, first)
    return sum(nats[i] for i in some) / math.log(2) / len(text[first:].encode())


def bits_over_the_whole_text(text, spans, nats, first):
    some = _scored(spans, first)
    return sum(nats[i] for i in some) / math.log(2) / len(text.encode())


def bits_of_all_over_scored(text, spans, nats, first):
    return sum(nats) / math.log(2) / _bytes(text, spans, _scored(spans, first))


def bits_without_mask(text, spans, nats, first):
    return _rate(text, spans, nats, range(len(spans)))


def bits_by_token(text, spans, nats, first):
    some = _scored(spans, first)
    return sum(nats[i] for i in some) / math.log(2) / len(some)


def bits_mean_of_rates(text, spans, nats, first):
    some = _scored(spans, first)
    return sum(_rate(text, spans, nats, [i]) for i in some) / len(some)


def bits_first_is_a_token(text, spans, nats, first):
    some = list(range(first, len(spans))) or [len(spans) - 1]
    return _rate(text, spans, nats, some)


def bits_first_is_a_byte(text, spans, nats, first):
    some = [i for i, (a, _) in enumerate(spans) if len(text[:a].encode()) >= first]
    return _rate(text, spans, nats, some)


def bits_in_sixteens(text, spans, nats, first):
    some = _scored(spans, first)
    size = sum(len(text[spans[i][0] : spans[i][1]].encode("utf-16-le")) for i in some)
    return sum(nats[i] for i in some) / math.log(2) / size


def bits_without_spaces(text, spans, nats, first):
    some = _scored(spans, first)
    size = sum(len(text[spans[i][0] : spans[i][1]].strip().encode()) for i in some)
    return sum(nats[i] for i in some) / math.log(2) / max(size, 1)


def bits_of_inclusive_spans(text, spans, nats, first):
    some = _scored(spans, first)
    size = sum(len(text[spans[i][0] : spans[i][1] + 1].encode()) for i in some)
    return sum(nats[i] for i in some) / math.log(2) / size


def bits_of_ascii(text, spans, nats, first):
    some = _scored(spans, first)
    size = sum(len(text[spans[i][0] : spans[i][1]].encode("ascii", "ignore")) for i in some)
    return sum(nats[i] for i in some) / math.log(2) / max(size, 1)


def bits_as_perplexity(text, spans, nats, first):
    return 2 ** _rate(text, spans, nats, _scored(spans, first))


def bits_popped(text, spans, nats, first):
    while spans[0][0] < first:
        spans.pop(0)
        nats.pop(0)
    return _rate(text, spans, nats, range(len(spans)))


# 16c.3
def _scores(nats, sizes, alone, rule):
    if rule == "sum":
        return list(nats)
    if rule == "byte":
        return [n / s for n, s in zip(nats, sizes, strict=True)]
    return [n - a for n, a in zip(nats, alone, strict=True)]


def pick_always_sum(nats, sizes, alone, rule):
    return nats.index(min(nats))


def pick_most(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    return scores.index(max(scores))


def pick_last_of_equals(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    return max(i for i, score in enumerate(scores) if score == min(scores))


def pick_any_of_equals(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    return random.choice([i for i, score in enumerate(scores) if score == min(scores)])


def pick_shortest_of_equals(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    return min(range(len(nats)), key=lambda i: (scores[i], sizes[i]))


def pick_prior_the_other_way(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    return scores.index(max(scores) if rule == "prior" else min(scores))


def pick_prior_as_a_quotient(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "prior":
        scores = [n / a for n, a in zip(nats, alone, strict=True)]
    return scores.index(min(scores))


def pick_prior_of_probability(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "prior":
        scores = [math.exp(-a) - math.exp(-n) for n, a in zip(nats, alone, strict=True)]
    return scores.index(min(scores))


def pick_prior_by_byte(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "prior":
        scores = [x / s for x, s in zip(scores, sizes, strict=True)]
    return scores.index(min(scores))


def pick_prior_alone(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "prior":
        scores = list(alone)
    return scores.index(min(scores))


def pick_prior_most_changed(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "prior":
        scores = [-abs(x) for x in scores]
    return scores.index(min(scores))


def pick_prior_never_below_zero(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "prior":
        scores = [min(x, 0) for x in scores]
    return scores.index(min(scores))


def pick_prior_sum(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "prior":
        scores = [n + a for n, a in zip(nats, alone, strict=True)]
    return scores.index(min(scores))


def pick_byte_times(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "byte":
        scores = [n * s for n, s in zip(nats, sizes, strict=True)]
    return scores.index(min(scores))


def pick_byte_upside_down(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "byte":
        scores = [s / n for n, s in zip(nats, sizes, strict=True)]
    return scores.index(min(scores))


def pick_byte_whole(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "byte":
        scores = [n // s for n, s in zip(nats, sizes, strict=True)]
    return scores.index(min(scores))


def pick_byte_longest(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    if rule == "byte":
        scores = [-size for size in sizes]
    return scores.index(min(scores))


def pick_from_one(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    return scores.index(min(scores)) + 1


def pick_the_cost(nats, sizes, alone, rule):
    return min(_scores(nats, sizes, alone, rule))


def pick_sorted_in_place(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    place = scores.index(min(scores))
    nats.sort()
    return place


def pick_two_only(nats, sizes, alone, rule):
    scores = _scores(nats, sizes, alone, rule)
    return int(scores[1] < scores[0])


# 16c.4
def _alone(d, delta, z=1.96 + 0.84):
    return z**2 * (d - delta**2) / delta**2


def _design(m, rho):
    return 1 + (m - 1) * rho


def plan_rounded(disagree, difference, per_entity, correlation):
    return round(_alone(disagree, difference) * _design(per_entity, correlation) / per_entity)


def plan_down(disagree, difference, per_entity, correlation):
    return int(_alone(disagree, difference) * _design(per_entity, correlation) / per_entity)


def plan_rounds_first(disagree, difference, per_entity, correlation):
    questions = math.ceil(_alone(disagree, difference)) * _design(per_entity, correlation)
    return math.ceil(questions / per_entity)


def plan_rounds_entities_first(disagree, difference, per_entity, correlation):
    entities = math.ceil(_alone(disagree, difference) / per_entity)
    return math.ceil(entities * _design(per_entity, correlation))


def plan_without_square(disagree, difference, per_entity, correlation):
    alone = 2.8**2 * disagree / difference**2
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_by_difference(disagree, difference, per_entity, correlation):
    alone = 2.8**2 * (disagree - difference**2) / difference
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_minus_difference(disagree, difference, per_entity, correlation):
    alone = 2.8**2 * (disagree - difference) / difference**2
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_m_for_m_less_one(disagree, difference, per_entity, correlation):
    alone = _alone(disagree, difference)
    return math.ceil(alone * (1 + per_entity * correlation) / per_entity)


def plan_without_one(disagree, difference, per_entity, correlation):
    alone = _alone(disagree, difference)
    return math.ceil(alone * (per_entity - 1) * correlation / per_entity)


def plan_in_questions(disagree, difference, per_entity, correlation):
    return math.ceil(_alone(disagree, difference) * _design(per_entity, correlation))


def plan_as_float(disagree, difference, per_entity, correlation):
    return _alone(disagree, difference) * _design(per_entity, correlation) / per_entity


def plan_without_power(disagree, difference, per_entity, correlation):
    alone = _alone(disagree, difference, z=1.96)
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_one_sided(disagree, difference, per_entity, correlation):
    alone = _alone(disagree, difference, z=1.645 + 0.84)
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_for_ninety(disagree, difference, per_entity, correlation):
    alone = _alone(disagree, difference, z=1.96 + 1.28)
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_squares_apart(disagree, difference, per_entity, correlation):
    alone = _alone(disagree, difference, z=(1.96**2 + 0.84**2) ** 0.5)
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_without_correlation(disagree, difference, per_entity, correlation):
    return math.ceil(_alone(disagree, difference) / per_entity)


def plan_an_entity_a_question(disagree, difference, per_entity, correlation):
    return math.ceil(_alone(disagree, difference))


def plan_root_of_design(disagree, difference, per_entity, correlation):
    questions = _alone(disagree, difference) * _design(per_entity, correlation) ** 0.5
    return math.ceil(questions / per_entity)


def plan_divides_by_design(disagree, difference, per_entity, correlation):
    return math.ceil(_alone(disagree, difference) / _design(per_entity, correlation) / per_entity)


def plan_without_pairs(disagree, difference, per_entity, correlation):
    alone = 2.8**2 * 2 * disagree * (1 - disagree) / difference**2
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_share_of_a_coin(disagree, difference, per_entity, correlation):
    alone = 2.8**2 * disagree * (1 - disagree) / difference**2
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


def plan_other_constants(disagree, difference, per_entity, correlation):
    alone = _alone(disagree, difference, z=1.959964 + 0.841621)
    return math.ceil(alone * _design(per_entity, correlation) / per_entity)


# 16c.5
def _halves(outcomes):
    table = np.array(outcomes, dtype=float)
    return table[:, ::2], table[:, 1::2]


def score_on_the_same(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return float((even.max() + odd.max()) / 2)


def score_best_of_all(outcomes):
    return float(np.array(outcomes).mean(1).max())


def score_one_choice_for_both(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    best = int(np.array(outcomes).mean(1).argmax())
    return float((even[best] + odd[best]) / 2)


def score_pooled(outcomes):
    even, odd = _halves(outcomes)
    first, second = even.sum(1).argmax(), odd.sum(1).argmax()
    return float((odd[first].sum() + even[second].sum()) / len(outcomes[0]))


def score_last_of_equals(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    last = len(even) - 1
    return float((odd[last - even[::-1].argmax()] + even[last - odd[::-1].argmax()]) / 2)


def score_best_of_equals(outcomes):
    pairs = list(zip(*(half.mean(1).tolist() for half in _halves(outcomes)), strict=True))
    return (max(pairs)[1] + max((odd, even) for even, odd in pairs)[1]) / 2


def score_mean_of_equals(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return float((odd[even == even.max()].mean() + even[odd == odd.max()].mean()) / 2)


def score_any_of_equals(outcomes):
    order = list(outcomes)
    random.shuffle(order)
    even, odd = (half.mean(1) for half in _halves(order))
    return float((odd[even.argmax()] + even[odd.argmax()]) / 2)


def score_one_way(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return float(odd[even.argmax()])


def score_other_way(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return float(even[odd.argmax()])


def score_first_and_second_half(outcomes):
    table = np.array(outcomes, dtype=float)
    middle = (table.shape[1] + 1) // 2
    left, right = table[:, :middle].mean(1), table[:, middle:].mean(1)
    return float((right[left.argmax()] + left[right.argmax()]) / 2)


def score_every_other_run(outcomes):
    even, odd = np.array(outcomes[::2]), np.array(outcomes[1::2] or outcomes)
    return float((even.mean(1).max() + odd.mean(1).max()) / 2)


def score_least_chosen(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return float((odd[even.argmin()] + even[odd.argmin()]) / 2)


def score_least(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return float(min(odd[even.argmax()], even[odd.argmax()]))


def score_most(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return float(max(odd[even.argmax()], even[odd.argmax()]))


def score_mean_of_runs(outcomes):
    return float(np.mean(outcomes))


def score_counts(outcomes):
    even, odd = _halves(outcomes)
    first, second = even.sum(1).argmax(), odd.sum(1).argmax()
    return float((odd[first].sum() + even[second].sum()) / 2)


def score_whole_numbers(outcomes):
    even, odd = _halves(outcomes)
    first, second = even.sum(1).argmax(), odd.sum(1).argmax()
    return (int(odd[first].sum()) // odd.shape[1] + int(even[second].sum()) // even.shape[1]) / 2


def score_by_half_the_questions(outcomes):
    even, odd = _halves(outcomes)
    first, second = even.sum(1).argmax(), odd.sum(1).argmax()
    half = len(outcomes[0]) // 2
    return float((odd[first].sum() / half + even[second].sum() / half) / 2)


def score_on_all_questions(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    whole = np.array(outcomes).mean(1)
    return float((whole[even.argmax()] + whole[odd.argmax()]) / 2)


def score_sorted_in_place(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    outcomes.sort(key=sum)
    return float((odd[even.argmax()] + even[odd.argmax()]) / 2)


def score_both(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return [float(odd[even.argmax()]), float(even[odd.argmax()])]


def score_in_percent(outcomes):
    even, odd = (half.mean(1) for half in _halves(outcomes))
    return float((odd[even.argmax()] + even[odd.argmax()]) * 50)


OTHER_WRONG_ANSWERS = {
    "16c.1": [
        diagnose_always_right,
        diagnose_any_size,
        diagnose_any_size_from_the_end,
        diagnose_first_size,
        diagnose_last_size,
        diagnose_largest_size,
        diagnose_drops_the_last,
        diagnose_sorts_by_length,
        diagnose_pads_to_the_longest_of_all,
        diagnose_padding_without_tokens,
        diagnose_free_padding,
        diagnose_means_of_texts,
        diagnose_last_batch_as_a_part,
        diagnose_in_bits,
        diagnose_two_names_swapped,
        diagnose_loosely,
        diagnose_without_padding,
        diagnose_by_the_trend,
        diagnose_pads_in_place,
        diagnose_all_that_fit,
        diagnose_a_place,
    ],
    "16c.2": [
        bits_by_letters,
        bits_as_nats,
        bits_times_log,
        bits_in_tens,
        bits_behind_first,
        bits_with_the_straddling,
        bits_over_text_from_first,
        bits_over_the_whole_text,
        bits_of_all_over_scored,
        bits_without_mask,
        bits_by_token,
        bits_mean_of_rates,
        bits_first_is_a_token,
        bits_first_is_a_byte,
        bits_in_sixteens,
        bits_without_spaces,
        bits_of_inclusive_spans,
        bits_of_ascii,
        bits_as_perplexity,
        bits_popped,
    ],
    "16c.3": [
        pick_always_sum,
        pick_most,
        pick_last_of_equals,
        pick_any_of_equals,
        pick_shortest_of_equals,
        pick_prior_the_other_way,
        pick_prior_as_a_quotient,
        pick_prior_of_probability,
        pick_prior_by_byte,
        pick_prior_alone,
        pick_prior_most_changed,
        pick_prior_never_below_zero,
        pick_prior_sum,
        pick_byte_times,
        pick_byte_upside_down,
        pick_byte_whole,
        pick_byte_longest,
        pick_from_one,
        pick_the_cost,
        pick_sorted_in_place,
        pick_two_only,
    ],
    "16c.4": [
        plan_rounded,
        plan_down,
        plan_rounds_first,
        plan_rounds_entities_first,
        plan_without_square,
        plan_by_difference,
        plan_minus_difference,
        plan_m_for_m_less_one,
        plan_without_one,
        plan_in_questions,
        plan_as_float,
        plan_without_power,
        plan_one_sided,
        plan_for_ninety,
        plan_squares_apart,
        plan_without_correlation,
        plan_an_entity_a_question,
        plan_root_of_design,
        plan_divides_by_design,
        plan_without_pairs,
        plan_share_of_a_coin,
        plan_other_constants,
    ],
    "16c.5": [
        score_on_the_same,
        score_best_of_all,
        score_one_choice_for_both,
        score_pooled,
        score_last_of_equals,
        score_best_of_equals,
        score_mean_of_equals,
        score_any_of_equals,
        score_one_way,
        score_other_way,
        score_first_and_second_half,
        score_every_other_run,
        score_least_chosen,
        score_least,
        score_most,
        score_mean_of_runs,
        score_counts,
        score_whole_numbers,
        score_by_half_the_questions,
        score_on_all_questions,
        score_sorted_in_place,
        score_both,
        score_in_percent,
    ],
    "16c.6": [
        {"facts": 350, "list": 250, "json": 100},  # JSON is forgotten
        {"facts": 700},
        {"facts": 20, "list": 20, "json": 20},
        {"facts": 701},
        {"facts": 300, "list": 200, "json": 201},
        {"facts": 1200, "list": 600, "json": 600},
        {"facts": 300, "list": 200, "json": 200, "notes": 50},
        {"facts": 400, "list": 300, "json": 300, "sum": -300},
        {"fact": 250, "list": 200, "json": 250},
        {"facts": 250.5, "list": 199.5, "json": 250.0},
        {"facts": 0.4, "list": 0.3, "json": 0.3},
        {"facts": "250", "list": "200", "json": "250"},
        {},
        [250, 0, 200, 250, 0, 0],
        700,
        "facts 250, list 200, json 250",
    ],
}
