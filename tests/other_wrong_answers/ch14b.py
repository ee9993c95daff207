"""Wrong answers to the exercises of chapter 14b, written from the statements alone."""

import math
import random

import torch

from sft_lab.decoding import FrequencyPenalty


# 14b.1
def _keep(logits, p, reached):
    """All but the tokens for which `reached(sum with it, sum before it)`."""
    chances, order = logits.softmax(0).sort(descending=True)
    total = chances.cumsum(0)
    out = torch.full_like(logits, -torch.inf)
    kept = order[~reached(total, total - chances)]
    out[kept] = logits[kept]
    return out


def top_p_without_the_one_that_crosses(logits, p):
    return _keep(logits, p, lambda total, before: total >= p)


def top_p_with_the_likeliest_and_without_the_one_that_crosses(logits, p):
    return _keep(logits, p, lambda total, before: (total >= p) & (before > 1e-9))


def top_p_with_one_more(logits, p):
    chances, order = logits.softmax(0).sort(descending=True)
    count = int((chances.cumsum(0) < p).sum()) + 2
    return logits.index_fill(0, order[count:], -torch.inf)


def top_p_from_the_unlikeliest(logits, p):
    chances, order = logits.softmax(0).sort()
    before = chances.cumsum(0) - chances
    return logits.index_fill(0, order[before >= p], -torch.inf)


def top_p_of_the_complement(logits, p):
    return _keep(logits, p, lambda total, before: before >= 1 - p)


def top_p_in_sorted_order(logits, p):
    ordered = logits.sort(descending=True).values
    chances = ordered.softmax(0)
    return ordered.masked_fill(chances.cumsum(0) - chances >= p, -torch.inf)


def top_p_with_the_mask_in_sorted_order(logits, p):
    chances = logits.softmax(0).sort(descending=True).values
    return logits.masked_fill(chances.cumsum(0) - chances >= p, -torch.inf)


def top_p_of_the_given_order(logits, p):
    chances = logits.softmax(0)
    return logits.masked_fill(chances.cumsum(0) - chances >= p, -torch.inf)


def top_p_by_chance(logits, p):
    """Each token by itself: those with a probability of p or more."""
    chances = logits.softmax(0)
    return logits.masked_fill(chances < min(p, chances.max()), -torch.inf)


def top_p_like_min_p(logits, p):
    chances = logits.softmax(0)
    return logits.masked_fill(chances < p * chances.max(), -torch.inf)


def top_p_with_zeros(logits, p):
    kept = _keep(logits, p, lambda total, before: before >= p)
    return kept.masked_fill(kept.isneginf(), 0.0)


def top_p_of_probabilities(logits, p):
    kept = _keep(logits, p, lambda total, before: before >= p)
    return kept.softmax(0)


def top_p_with_new_logits(logits, p):
    """The logits that stay are made log-probabilities."""
    return _keep(logits, p, lambda total, before: before >= p).log_softmax(0)


def top_p_in_place(logits, p):
    logits.copy_(_keep(logits, p, lambda total, before: before >= p))
    return logits


def top_p_of_sigmoids(logits, p):
    chances, order = logits.sigmoid().sort(descending=True)
    before = chances.cumsum(0) - chances
    return logits.index_fill(0, order[before >= p], -torch.inf)


# 14b.2
def _penalise(logits, counts, frequency, presence):
    out = logits.clone()
    for token_id, times in counts.items():
        out[token_id] -= frequency * times + presence
    return out


def subtract_frequency_once(logits, written, frequency, presence):
    return _penalise(logits, dict.fromkeys(written, 1), frequency, presence)


def subtract_presence_each_time(logits, written, frequency, presence):
    out = logits.clone()
    for token_id in written:
        out[token_id] -= frequency + presence
    return out


def subtract_presence_from_all(logits, written, frequency, presence):
    counts = torch.bincount(torch.tensor(written, dtype=torch.long), minlength=len(logits))
    return logits - frequency * counts - presence


def subtract_and_add(logits, written, frequency, presence):
    counts = {i: written.count(i) for i in written}
    return _penalise(logits, counts, -frequency, -presence)


def subtract_in_place(logits, written, frequency, presence):
    for token_id in set(written):
        logits[token_id] -= frequency * written.count(token_id) + presence
    return logits


def subtract_by_fancy_index(logits, written, frequency, presence):
    """An index that stands there twice subtracts once."""
    out = logits.clone()
    out[written] -= frequency
    out[list(set(written))] -= presence
    return out


def subtract_positive_alone(logits, written, frequency, presence):
    """Never a reward."""
    counts = {i: written.count(i) for i in written}
    return _penalise(logits, counts, max(frequency, 0), max(presence, 0))


def subtract_swapped(logits, written, frequency, presence):
    counts = {i: written.count(i) for i in written}
    return _penalise(logits, counts, presence, frequency)


def subtract_first_time_free(logits, written, frequency, presence):
    """The first time has the presence penalty alone."""
    counts = {i: written.count(i) - 1 for i in written}
    return _penalise(logits, counts, frequency, presence)


def subtract_from_repeats_alone(logits, written, frequency, presence):
    counts = {i: written.count(i) for i in written if written.count(i) > 1}
    return _penalise(logits, counts, frequency, presence)


def subtract_but_not_from_token_0(logits, written, frequency, presence):
    counts = {i: written.count(i) for i in written if i}
    return _penalise(logits, counts, frequency, presence)


def subtract_nothing_when_empty_wrongly(logits, written, frequency, presence):
    """The given tensor itself when nothing was written; else without the last token."""
    counts = {i: written[:-1].count(i) for i in written[:-1]}
    return _penalise(logits, counts, frequency, presence)


def subtract_the_share(logits, written, frequency, presence):
    counts = {i: written.count(i) / len(written) for i in written}
    return _penalise(logits, counts, frequency, presence)


def subtract_by_sign(logits, written, frequency, presence):
    """A penalty that goes toward zero for negative logits."""
    out = logits.clone()
    for i in set(written):
        out[i] -= (frequency * written.count(i) + presence) * out[i].sign()
    return out


def subtract_and_fail_when_empty(logits, written, frequency, presence):
    counts = {i: written.count(i) for i in written}
    _ = max(counts.values())
    return _penalise(logits, counts, frequency, presence)


def subtract_runs(logits, written, frequency, presence):
    """Counts neighbours that are the same once."""
    alone = [i for k, i in enumerate(written) if k == 0 or written[k - 1] != i]
    return _penalise(logits, {i: alone.count(i) for i in alone}, frequency, presence)


# 14b.3
def _name(before, after, said, mine=None):
    """A right answer; `mine`: the said ids to compare."""
    if (after.isneginf() & ~before.isneginf()).any():
        return "filter"
    finite = before.isfinite()
    for i in range(len(before)):
        if finite[i] and i not in said and abs(before[i] - after[i]) > 1e-6:
            return "temperature"
    spoken = [i for i in sorted(said) if finite[i]] if mine is None else mine
    drops = before[spoken] - after[spoken]
    return "presence" if drops.max() - drops.min() < 1e-4 else "repetition"


def name_filter_by_any_infinity(before, after, said):
    """A logit that was −∞ before counts as filtered."""
    return "filter" if after.isneginf().any() else _name(before, after, said)


def name_presence_by_falling(before, after, said):
    """Everything said went down: also under the repetition penalty."""
    word = _name(before, after, said)
    return "presence" if word == "repetition" else word


def name_presence_never(before, after, said):
    word = _name(before, after, said)
    return "repetition" if word == "presence" else word


def name_by_ratios_alone(before, after, said):
    """What is no temperature is a repetition penalty."""
    if (after.isneginf() & ~before.isneginf()).any():
        return "filter"
    up = [i for i in said if before[i] > 0 and before[i].isfinite()]
    down = [i for i in said if before[i] < 0 and before[i].isfinite()]
    ratios = after[up + down] / before[up + down]
    return "temperature" if ratios.max() - ratios.min() < 1e-4 else "repetition"


def name_temperature_by_shrinking(before, after, said):
    """A temperature above 1 alone."""
    word, finite = _name(before, after, said), before.isfinite()
    if word == "temperature" and after[finite].abs().max() > before[finite].abs().max():
        return "repetition"
    return word


def name_filter_by_the_unsaid(before, after, said):
    """A filter that forbade a said token passes for a penalty."""
    new = after.isneginf() & ~before.isneginf()
    if new[sorted(said)].any():
        return "repetition"
    return _name(before, after, said)


def name_with_nan(before, after, said):
    """−∞ less −∞ is nan, and no comparison with it holds."""
    if after.isneginf().sum() > before.isneginf().sum():
        return "filter"
    spoken = sorted(said)
    rest = [i for i in range(len(before)) if i not in said]
    if not bool((before[rest] - after[rest]).abs().max() < 1e-6):
        return "temperature"
    drops = before[spoken] - after[spoken]
    return "presence" if bool(drops.max() - drops.min() < 1e-4) else "repetition"


def name_by_positive_ratios(before, after, said):
    """All positive said tokens divided by one number: taken for a temperature."""
    word = _name(before, after, said)
    return "temperature" if word == "repetition" else word


def name_in_capitals(before, after, said):
    return _name(before, after, said).capitalize()


def name_in_full(before, after, said):
    word = _name(before, after, said)
    return f"{word} penalty" if word in ("repetition", "presence") else word


def name_by_guess(before, after, said):
    return random.choice(["temperature", "filter", "repetition", "presence"])


def name_temperature_always(before, after, said):
    return "temperature"


def name_by_which_changed(before, after, said):
    """Repetition and presence swapped."""
    word = _name(before, after, said)
    return {"repetition": "presence", "presence": "repetition"}.get(word, word)


def name_by_positive_logits(before, after, said):
    """The same drop of positive tokens; with a single one every drop is the same."""
    up = [i for i in said if before[i].isfinite() and before[i] > 0]
    return _name(before, after, said, up[:1])


def name_by_sum(before, after, said):
    """A filter removes probability; so do penalties."""
    lost = before.softmax(0) - after.softmax(0)
    spoken = sorted(said)
    return "filter" if (lost[spoken] > 0).any() else "temperature"


def name_in_a_list(before, after, said):
    return [_name(before, after, said)]


# 14b.4
def _first(prompt, answer, n, inside=True, seam=True, start=0):
    text = prompt + answer
    seen, begin = set(), len(prompt)
    for end in range(n, len(text) + 1):
        gram = tuple(text[end - n : end])
        crosses = end > begin > end - n
        if end > begin and gram in seen:
            return end - 1 - begin + start
        if (inside or end <= begin) and (seam or not crosses):
            seen.add(gram)
    return None


def forbidden_in_the_whole_text(prompt, answer, n):
    place = _first(prompt, answer, n)
    return None if place is None else place + len(prompt)


def forbidden_by_the_prompt_alone(prompt, answer, n):
    return _first(prompt, answer, n, inside=False)


def forbidden_by_the_answer_alone(prompt, answer, n):
    return _first([], answer, n)


def forbidden_without_the_seam(prompt, answer, n):
    """An n-gram across the seam is never remembered."""
    return _first(prompt, answer, n, seam=False)


def forbidden_within_the_answer(prompt, answer, n):
    """Runs that end in the answer and begin in the prompt are not looked at."""
    seen = {tuple(prompt[i : i + n]) for i in range(len(prompt) - n + 1)}
    for i in range(len(answer) - n + 1):
        gram = tuple(answer[i : i + n])
        if gram in seen:
            return i + n - 1
        seen.add(gram)
    return None


def forbidden_begin_of_the_run(prompt, answer, n):
    place = _first(prompt, answer, n)
    return None if place is None else max(0, place - n + 1)


def forbidden_the_token_after(prompt, answer, n):
    return _first(prompt, answer, n, start=1)


def forbidden_without_overlap(prompt, answer, n):
    text, first = prompt + answer, {}
    for i in range(len(text) - n + 1):
        gram = tuple(text[i : i + n])
        place = i + n - 1 - len(prompt)
        if gram in first and i >= first[gram] + n and place >= 0:
            return place
        first.setdefault(gram, i)
    return None


def forbidden_in_any_order(prompt, answer, n):
    text, seen = prompt + answer, set()
    for i in range(len(text) - n + 1):
        gram = tuple(sorted(text[i : i + n]))
        place = i + n - 1 - len(prompt)
        if gram in seen and place >= 0:
            return place
        seen.add(gram)
    return None


def forbidden_one_longer(prompt, answer, n):
    return _first(prompt, answer, n + 1)


def forbidden_one_shorter(prompt, answer, n):
    return _first(prompt, answer, max(1, n - 1))


def forbidden_also_in_the_prompt(prompt, answer, n):
    """A prompt that repeats itself stops the answer at once."""
    text, seen = prompt + answer, set()
    for i in range(len(text) - n + 1):
        gram = tuple(text[i : i + n])
        if gram in seen:
            return max(0, i + n - 1 - len(prompt))
        seen.add(gram)
    return None


def forbidden_minus_one(prompt, answer, n):
    place = _first(prompt, answer, n)
    return -1 if place is None else place


def forbidden_length(prompt, answer, n):
    """The length of what may be written, also when that is all."""
    place = _first(prompt, answer, n)
    return len(answer) if place is None else place


def forbidden_or_false(prompt, answer, n):
    """0 is taken for nothing."""
    return _first(prompt, answer, n) or None


def forbidden_last(prompt, answer, n):
    text = prompt + answer
    grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    found = [i + n - 1 - len(prompt) for i in range(len(grams)) if grams[i] in grams[:i]]
    return found[-1] if found and found[-1] >= 0 else None


def forbidden_but_the_last(prompt, answer, n):
    """range(len − n): the last run is not looked at."""
    return _first(prompt, answer[:-1], n)


def forbidden_and_changed(prompt, answer, n):
    prompt += answer
    return _first(prompt[: len(prompt) - len(answer)], answer, n)


# 14b.5
def crossing_mirrored(short_sum, short, long_sum, long):
    return math.log(long / short) / math.log(long_sum / short_sum) if long_sum < short_sum else 0.0


def crossing_with_the_other_sign(short_sum, short, long_sum, long):
    return math.log(short_sum / long_sum) / math.log(long / short)


def crossing_of_means(short_sum, short, long_sum, long):
    return (long_sum / long) / (short_sum / short)


def crossing_by_difference_of_lengths(short_sum, short, long_sum, long):
    return math.log(long_sum / short_sum) / (long - short)


def crossing_by_log_of_difference(short_sum, short, long_sum, long):
    return math.log(long_sum / short_sum) / math.log(long - short + 1)


def crossing_without_logs(short_sum, short, long_sum, long):
    return (long_sum / short_sum) / (long / short)


def crossing_in_mixed_bases(short_sum, short, long_sum, long):
    return math.log(long_sum / short_sum) / math.log2(long / short)


def crossing_always_one(short_sum, short, long_sum, long):
    return 1.0


def crossing_at_least_zero_and_one(short_sum, short, long_sum, long):
    return min(1.0, math.log(long_sum / short_sum) / math.log(long / short))


def crossing_rounded(short_sum, short, long_sum, long):
    return round(math.log(long_sum / short_sum) / math.log(long / short), 1)


def crossing_as_a_whole_number(short_sum, short, long_sum, long):
    return int(math.log(long_sum / short_sum) / math.log(long / short))


def crossing_in_a_list(short_sum, short, long_sum, long):
    return [math.log(long_sum / short_sum) / math.log(long / short)]


def crossing_with_log1p(short_sum, short, long_sum, long):
    return math.log(long_sum / short_sum) / (math.log1p(long) - math.log1p(short))


def crossing_linear(short_sum, short, long_sum, long):
    """Where sum / (tokens · penalty) would be equal."""
    return (long_sum - short_sum) / (long - short)


def crossing_of_the_difference(short_sum, short, long_sum, long):
    return math.log(short_sum - long_sum + 1e-12) / math.log(long / short)


def crossing_with_an_error_when_equal(short_sum, short, long_sum, long):
    return 1 / (math.log(long / short) / math.log(long_sum / short_sum))


def crossing_by_a_grid(short_sum, short, long_sum, long):
    grid = [k / 10 for k in range(31)]
    return min(grid, key=lambda a: abs(short_sum / short**a - long_sum / long**a))


# 14b.6
def setting_alone():
    return [FrequencyPenalty(0.5)]


def setting_without_a_list():
    return FrequencyPenalty(0.5), False


def setting_swapped():
    return False, [FrequencyPenalty(0.5)]


def setting_with_0():
    return [FrequencyPenalty(0.5)], 0


def setting_with_a_word():
    return [FrequencyPenalty(0.5)], "greedy"


def setting_with_none():
    return [FrequencyPenalty(0.5)], None


def setting_of_three():
    return [FrequencyPenalty(0.5)], False, 0


def setting_in_a_dict():
    return {"frequency penalty": 0.5}, False


def setting_in_words():
    return "frequency penalty 0.5", False


def setting_of_a_temperature():
    return [FrequencyPenalty(0.5)], 0.7


def setting_just_drawn():
    return True


OTHER_WRONG_ANSWERS = {
    "14b.1": [
        top_p_without_the_one_that_crosses,
        top_p_with_the_likeliest_and_without_the_one_that_crosses,
        top_p_with_one_more,
        top_p_from_the_unlikeliest,
        top_p_of_the_complement,
        top_p_in_sorted_order,
        top_p_with_the_mask_in_sorted_order,
        top_p_of_the_given_order,
        top_p_by_chance,
        top_p_like_min_p,
        top_p_with_zeros,
        top_p_of_probabilities,
        top_p_with_new_logits,
        top_p_in_place,
        top_p_of_sigmoids,
    ],
    "14b.2": [
        subtract_frequency_once,
        subtract_presence_each_time,
        subtract_presence_from_all,
        subtract_and_add,
        subtract_in_place,
        subtract_by_fancy_index,
        subtract_positive_alone,
        subtract_swapped,
        subtract_first_time_free,
        subtract_from_repeats_alone,
        subtract_but_not_from_token_0,
        subtract_nothing_when_empty_wrongly,
        subtract_the_share,
        subtract_by_sign,
        subtract_and_fail_when_empty,
        subtract_runs,
    ],
    "14b.3": [
        name_filter_by_any_infinity,
        name_presence_by_falling,
        name_presence_never,
        name_by_ratios_alone,
        name_temperature_by_shrinking,
        name_filter_by_the_unsaid,
        name_with_nan,
        name_by_positive_ratios,
        name_in_capitals,
        name_in_full,
        name_by_guess,
        name_temperature_always,
        name_by_which_changed,
        name_by_positive_logits,
        name_by_sum,
        name_in_a_list,
    ],
    "14b.4": [
        forbidden_in_the_whole_text,
        forbidden_by_the_prompt_alone,
        forbidden_by_the_answer_alone,
        forbidden_without_the_seam,
        forbidden_within_the_answer,
        forbidden_begin_of_the_run,
        forbidden_the_token_after,
        forbidden_without_overlap,
        forbidden_in_any_order,
        forbidden_one_longer,
        forbidden_one_shorter,
        forbidden_also_in_the_prompt,
        forbidden_minus_one,
        forbidden_length,
        forbidden_or_false,
        forbidden_last,
        forbidden_but_the_last,
        forbidden_and_changed,
    ],
    "14b.5": [
        crossing_mirrored,
        crossing_with_the_other_sign,
        crossing_of_means,
        crossing_by_difference_of_lengths,
        crossing_by_log_of_difference,
        crossing_without_logs,
        crossing_in_mixed_bases,
        crossing_always_one,
        crossing_at_least_zero_and_one,
        crossing_rounded,
        crossing_as_a_whole_number,
        crossing_in_a_list,
        crossing_with_log1p,
        crossing_linear,
        crossing_of_the_difference,
        crossing_with_an_error_when_equal,
        crossing_by_a_grid,
    ],
    "14b.6": [
        setting_alone,
        setting_without_a_list,
        setting_swapped,
        setting_with_0,
        setting_with_a_word,
        setting_with_none,
        setting_of_three,
        setting_in_a_dict,
        setting_in_words,
        setting_of_a_temperature,
        setting_just_drawn,
    ],
}
