"""Wrong answers to the exercises of chapter 17b, written from the statements alone."""

import itertools
import re
import statistics
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F


# 17b.1
def _line(accuracy, old_loss, level, i):
    """The loss on the line that ends at checkpoint i."""
    part = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return old_loss[i - 1] + part * (old_loss[i] - old_loss[i - 1])


def _first(accuracy, level):
    return next((i for i, value in enumerate(accuracy) if value >= level), None)


def _forgotten(accuracy, old_loss, level):
    i = _first(accuracy, level)
    if i is None:
        return None
    return _line(accuracy, old_loss, level, i) - old_loss[0] if i else 0.0


def _interp_of_all(accuracy, old_loss, level):
    """np.interp wants a rising accuracy."""
    if max(accuracy) < level:
        return None
    return float(np.interp(level, accuracy, old_loss)) - old_loss[0]


def _sorted_by_accuracy(accuracy, old_loss, level):
    pairs = sorted(zip(accuracy, old_loss, strict=True))
    return _forgotten([a for a, _ in pairs], [b for _, b in pairs], level)


def _last_time(accuracy, old_loss, level):
    if accuracy[0] >= level:
        return 0.0
    for i in range(len(accuracy) - 1, 0, -1):
        if accuracy[i - 1] < level <= accuracy[i]:
            return _line(accuracy, old_loss, level, i) - old_loss[0]
    return None


def _above(accuracy, old_loss, level):
    """An accuracy equal to the level has not reached it."""
    if accuracy[0] > level:
        return 0.0
    for i in range(1, len(accuracy)):
        if accuracy[i] > level:
            return _line(accuracy, old_loss, level, i) - old_loss[0]
    return None


def _at_the_checkpoint(accuracy, old_loss, level):
    i = _first(accuracy, level)
    return None if i is None else old_loss[i] - old_loss[0]


def _before_the_checkpoint(accuracy, old_loss, level):
    i = _first(accuracy, level)
    return None if i is None else old_loss[max(i - 1, 0)] - old_loss[0]


def _nearest_checkpoint(accuracy, old_loss, level):
    if max(accuracy) < level:
        return None
    i = min(range(len(accuracy)), key=lambda i: abs(accuracy[i] - level))
    return old_loss[i] - old_loss[0]


def _loss_itself(accuracy, old_loss, level):
    i = _first(accuracy, level)
    return _line(accuracy, old_loss, level, i) if i else i


def _since_the_last_checkpoint(accuracy, old_loss, level):
    i = _first(accuracy, level)
    return _line(accuracy, old_loss, level, i) - old_loss[i - 1] if i else i


def _start_is_not_asked(accuracy, old_loss, level):
    for i in range(1, len(accuracy)):
        if accuracy[i] >= level and accuracy[i] != accuracy[i - 1]:
            return _line(accuracy, old_loss, level, i) - old_loss[0]
    return None


def _none_at_the_start(accuracy, old_loss, level):
    return _forgotten(accuracy, old_loss, level) if accuracy[0] < level else None


def _zero_if_never(accuracy, old_loss, level):
    return _forgotten(accuracy, old_loss, level) or 0.0


def _end_if_never(accuracy, old_loss, level):
    if max(accuracy) < level:
        return old_loss[-1] - old_loss[0]
    return _forgotten(accuracy, old_loss, level)


def _infinity_if_never(accuracy, old_loss, level):
    value = _forgotten(accuracy, old_loss, level)
    return float("inf") if value is None else value


def _nothing_gained(accuracy, old_loss, level):
    """A loss that fell is no forgetting."""
    value = _forgotten(accuracy, old_loss, level)
    return None if value is None else max(0.0, value)


def _wrong_way_round(accuracy, old_loss, level):
    i = _first(accuracy, level)
    if not i:
        return None if i is None else 0.0
    part = (accuracy[i] - level) / (accuracy[i] - accuracy[i - 1])
    return old_loss[i - 1] + part * (old_loss[i] - old_loss[i - 1]) - old_loss[0]


def _from_the_start(accuracy, old_loss, level):
    """The line from the start."""
    i = _first(accuracy, level)
    if not i:
        return None if i is None else 0.0
    part = (level - accuracy[0]) / (accuracy[i] - accuracy[0])
    return part * (old_loss[i] - old_loss[0])


def _half_of_the_way(accuracy, old_loss, level):
    i = _first(accuracy, level)
    if not i:
        return None if i is None else 0.0
    return (old_loss[i - 1] + old_loss[i]) / 2 - old_loss[0]


def _the_end_decides(accuracy, old_loss, level):
    """None if the run ends below the level."""
    return _forgotten(accuracy, old_loss, level) if accuracy[-1] >= level else None


def _sorts_its_argument(accuracy, old_loss, level):
    value = _forgotten(accuracy, old_loss, level)
    accuracy.sort(reverse=True)
    return value


def _rounded(accuracy, old_loss, level):
    value = _forgotten(accuracy, old_loss, level)
    return None if value is None else round(value, 2)


# 17b.2
def _numbers(text):
    return [int(n) for n in re.findall("[0-9]+", text)]


def _graded(question, text, stopped, total=True, tail=r"[0-9][ .]*\Z", allowed=None):
    asked, said = _numbers(question), _numbers(text)
    if not (stopped and said) or (total and said[-1] != sum(asked)):
        return 0.0
    if not re.search(tail, text):
        return 0.0
    if allowed is None:
        return float(Counter(said[:-1]) <= Counter(asked))
    return float(allowed(said, asked))


def _never_mind_the_end(question, text, stopped):
    return _graded(question, text, True)


def _sum_anywhere(question, text, stopped):
    return float(stopped and sum(_numbers(question)) in _numbers(text))


def _sum_within(question, text, stopped):
    """The digits of the sum, not the number."""
    return float(stopped and text.rstrip(" .").endswith(str(sum(_numbers(question)))))


def _any_tail(question, text, stopped):
    return _graded(question, text, stopped, tail="")


def _no_tail(question, text, stopped):
    return _graded(question, text, stopped, tail=r"[0-9]\Z")


def _one_full_stop(question, text, stopped):
    return _graded(question, text, stopped, tail=r"[0-9]\.?\Z")


def _blanks_only(question, text, stopped):
    return _graded(question, text, stopped, tail=r"[0-9] *\Z")


def _any_sign(question, text, stopped):
    return _graded(question, text, stopped, tail=r"[0-9]\W*\Z")


def _one_blank_and_stop(question, text, stopped):
    """Several full stops are cheating."""
    return _graded(question, text, stopped, tail=r"[0-9] ?\.? ?\Z")


def _as_often_as_you_like(question, text, stopped):
    return _graded(
        question, text, stopped, allowed=lambda said, asked: set(said[:-1]) <= set(asked)
    )


def _each_once(question, text, stopped):
    """A number that the question names twice may not come twice."""

    def once(said, asked):
        return set(said[:-1]) <= set(asked) and len(set(said[:-1])) == len(said[:-1])

    return _graded(question, text, stopped, allowed=once)


def _no_numbers_before(question, text, stopped):
    return _graded(question, text, stopped, allowed=lambda said, asked: len(said) == 1)


def _both_must_be_named(question, text, stopped):
    return _graded(
        question, text, stopped, allowed=lambda said, asked: Counter(said[:-1]) == Counter(asked)
    )


def _in_the_same_order(question, text, stopped):
    return _graded(
        question, text, stopped, allowed=lambda said, asked: said[:-1] == asked[: len(said) - 1]
    )


def _two_before(question, text, stopped):
    return _graded(question, text, stopped, allowed=lambda said, asked: len(said) <= 3)


def _sum_counts_too(question, text, stopped):
    """The answer's own number is held against the question's."""
    return _graded(
        question, text, stopped, allowed=lambda said, asked: Counter(said) <= Counter(asked)
    )


def _sum_may_come_before(question, text, stopped):
    return _graded(
        question,
        text,
        stopped,
        allowed=lambda said, asked: Counter(said[:-1]) <= Counter([*asked, sum(asked)]),
    )


def _single_digits(question, text, stopped):
    asked, said = re.findall("[0-9]", question), re.findall("[0-9]", text)
    total = str(sum(map(int, asked)))
    good = stopped and "".join(said).endswith(total) and re.search(r"[0-9][ .]*\Z", text)
    return float(bool(good) and not Counter(said[: -len(total)]) - Counter(asked))


def _by_words(question, text, stopped):
    """Numbers are words."""
    words = [word.strip(".?,") for word in text.split()]
    said = [int(word) for word in words if word.isdigit()]
    asked = _numbers(question)
    good = stopped and said and words[-1] == str(sum(asked))
    return float(bool(good) and Counter(said[:-1]) <= Counter(asked))


def _fails_without_numbers(question, text, stopped):
    asked, said = _numbers(question), _numbers(text)
    good = said[-1] == sum(asked) and stopped and re.search(r"[0-9][ .]*\Z", text)
    return float(bool(good) and Counter(said[:-1]) <= Counter(asked))


def _partial_pay(question, text, stopped):
    return 1.0 if _graded(question, text, stopped) else 0.5 * float(bool(_numbers(text)))


def _any_last_number(question, text, stopped):
    return _graded(question, text, stopped, total=False)


def _product(question, text, stopped):
    a, b = _numbers(question)
    return _graded(question, text, stopped, total=False) * float(_numbers(text)[-1:] == [a * b])


def _words_of_a_template(question, text, stopped):
    a, b = _numbers(question)
    return float(stopped and text in (f"The sum of {a} and {b} is {a + b}.", f"{a + b}"))


def _paid_for_shortness(question, text, stopped):
    return _graded(question, text, stopped) / max(1, len(_numbers(text)))


# 17b.3
def _mean(rows, key):
    return statistics.fmean(row[key] for row in rows)


def _diagnosed(rows, order="cbhf", width=5, **own):
    first, last = rows[:width], rows[-width:]
    reward = _mean(last, "reward") - _mean(first, "reward")
    right = _mean(last, "right") - _mean(first, "right")
    highest = max(row["reward"] for row in rows)
    fits = {
        "c": highest == 0,
        "b": _mean(last, "reward") < highest / 2,
        "h": reward >= 0.1 and right <= -0.1,
        "f": _mean(last, "no_spread") >= 0.9,
    } | own
    words = {"c": "cold start", "b": "broken", "h": "hacked", "f": "finished"}
    return next((words[rule] for rule in order if fits[rule]), "learning")


def _ends_only(rows):
    return _diagnosed(rows, width=1)


def _halves(rows):
    return _diagnosed(rows, width=len(rows) // 2)


def _three_rows(rows):
    return _diagnosed(rows, width=3)


def _hacked_before_broken(rows):
    return _diagnosed(rows, order="chbf")


def _finished_before_hacked(rows):
    return _diagnosed(rows, order="cbfh")


def _finished_before_all(rows):
    return _diagnosed(rows, order="fcbh")


def _no_cold_start(rows):
    return _diagnosed(rows, order="bhf")


def _cold_at_the_start(rows):
    return _diagnosed(rows, c=all(row["reward"] == 0 for row in rows[:5]))


def _cold_at_the_end(rows):
    return _diagnosed(rows, c=_mean(rows[-5:], "reward") == 0)


def _cold_somewhere(rows):
    return _diagnosed(rows, c=any(row["reward"] == 0 for row in rows))


def _cold_by_right(rows):
    return _diagnosed(rows, c=all(row["right"] == 0 for row in rows))


def _nearly_cold(rows):
    return _diagnosed(rows, c=max(row["reward"] for row in rows) < 0.05)


def _below_half_of_the_first(rows):
    return _diagnosed(rows, b=_mean(rows[-5:], "reward") < _mean(rows[:5], "reward") / 2)


def _highest_of_means(rows):
    means = [_mean(rows[i : i + 5], "reward") for i in range(len(rows) - 4)]
    return _diagnosed(rows, b=means[-1] < max(means) / 2)


def _last_row_broken(rows):
    return _diagnosed(rows, b=rows[-1]["reward"] < max(row["reward"] for row in rows) / 2)


def _below_a_half(rows):
    return _diagnosed(rows, b=_mean(rows[-5:], "reward") < 0.5)


def _broken_by_right(rows):
    return _diagnosed(rows, b=_mean(rows[-5:], "right") < max(row["right"] for row in rows) / 2)


def _below_the_highest(rows):
    return _diagnosed(rows, b=_mean(rows[-5:], "reward") < max(row["reward"] for row in rows))


def _hacked_by_reward(rows):
    return _diagnosed(rows, h=_mean(rows[-5:], "reward") - _mean(rows[:5], "reward") >= 0.1)


def _hacked_by_right(rows):
    return _diagnosed(rows, h=_mean(rows[:5], "right") - _mean(rows[-5:], "right") >= 0.1)


def _hacked_by_little(rows):
    reward = _mean(rows[-5:], "reward") > _mean(rows[:5], "reward")
    return _diagnosed(rows, h=reward and _mean(rows[-5:], "right") < _mean(rows[:5], "right"))


def _hacked_by_the_gap(rows):
    """The reward above the share that is right."""
    return _diagnosed(rows, h=_mean(rows[-5:], "reward") - _mean(rows[-5:], "right") >= 0.1)


def _finished_in_the_last_row(rows):
    return _diagnosed(rows, f=rows[-1]["no_spread"] >= 0.9)


def _finished_if_all(rows):
    return _diagnosed(rows, f=all(row["no_spread"] >= 0.9 for row in rows[-5:]))


def _finished_by_reward(rows):
    return _diagnosed(rows, f=_mean(rows[-5:], "reward") >= 0.9)


def _finished_over_all(rows):
    return _diagnosed(rows, f=_mean(rows, "no_spread") >= 0.9)


def _all_words(rows):
    return [_diagnosed(rows)]


def _capital(rows):
    return _diagnosed(rows).capitalize()


def _sorts_rows(rows):
    word = _diagnosed(rows)
    rows.sort(key=lambda row: -row["reward"])
    return word


# 17b.4
def _scores(rows, summary=statistics.fmean):
    rates = sorted({row["rate"] for row in rows})
    return {rate: summary([r["right"] for r in rows if r["rate"] == rate]) for rate in rates}


def _range(scores, bar, best=None, down=True, up=True):
    rates = list(scores)
    best = max(rates, key=scores.get) if best is None else best
    low = high = rates.index(best)
    while down and low > 0 and scores[rates[low - 1]] >= bar:
        low -= 1
    while up and high + 1 < len(rates) and scores[rates[high + 1]] >= bar:
        high += 1
    return rates[low], rates[high]


def _gap_ignored(rows, share=0.9):
    scores = _scores(rows)
    works = [rate for rate in scores if scores[rate] >= share * max(scores.values())]
    return min(works), max(works)


def _best_seed(rows, share=0.9):
    scores = _scores(rows, max)
    return _range(scores, share * max(scores.values()))


def _worst_seed(rows, share=0.9):
    scores = _scores(rows, min)
    return _range(scores, share * max(scores.values()))


def _median_seed(rows, share=0.9):
    scores = _scores(rows, statistics.median)
    return _range(scores, share * max(scores.values()))


def _last_seed(rows, share=0.9):
    scores = _scores(rows, lambda values: values[-1])
    return _range(scores, share * max(scores.values()))


def _seed_zero(rows, share=0.9):
    seed = min(row["seed"] for row in rows)
    scores = _scores([row for row in rows if row["seed"] == seed])
    return _range(scores, share * max(scores.values()))


def _best_row_is_the_bar(rows, share=0.9):
    scores = _scores(rows)
    return _range(scores, share * max(row["right"] for row in rows))


def _best_row_is_the_best_rate(rows, share=0.9):
    scores = _scores(rows)
    best = max(rows, key=lambda row: row["right"])["rate"]
    return _range(scores, share * scores[best], best)


def _highest_of_several(rows, share=0.9):
    scores = _scores(rows)
    best = max(scores, key=lambda rate: (scores[rate], rate))
    return _range(scores, share * scores[best], best)


def _first_met_of_several(rows, share=0.9):
    scores = _scores(rows)
    top = max(scores.values())
    best = next(row["rate"] for row in rows if scores[row["rate"]] == top)
    return _range(scores, share * top, best)


def _in_the_order_of_rows(rows, share=0.9):
    ordered = _scores(rows)
    scores = {row["rate"]: ordered[row["rate"]] for row in rows}
    best = max(scores.values())
    return _range(scores, share * best, min(rate for rate in scores if scores[rate] == best))


def _share_of_one(rows, share=0.9):
    """The share is taken off."""
    scores = _scores(rows)
    return _range(scores, max(scores.values()) - (1 - share))


def _share_is_the_bar(rows, share=0.9):
    return _range(_scores(rows), share)


def _nine_tenths(rows, share=0.9):
    scores = _scores(rows)
    return _range(scores, 0.9 * max(scores.values()))


def _half_by_default(rows, share=0.5):
    scores = _scores(rows)
    return _range(scores, share * max(scores.values()))


def _down_only(rows, share=0.9):
    scores = _scores(rows)
    return _range(scores, share * max(scores.values()), up=False)


def _up_only(rows, share=0.9):
    scores = _scores(rows)
    return _range(scores, share * max(scores.values()), down=False)


def _failing_ones_too(rows, share=0.9):
    scores = _scores(rows)
    rates = list(scores)
    low, high = _range(scores, share * max(scores.values()))
    return rates[max(rates.index(low) - 1, 0)], rates[min(rates.index(high) + 1, len(rates) - 1)]


def _longest_run(rows, share=0.9):
    scores = _scores(rows)
    bar = share * max(scores.values())
    runs = itertools.groupby(scores, key=lambda rate: scores[rate] >= bar)
    longest = max((list(run) for works, run in runs if works), key=len)
    return longest[0], longest[-1]


def _first_run(rows, share=0.9):
    scores = _scores(rows)
    bar = share * max(scores.values())
    run = list(
        itertools.takewhile(
            lambda rate: scores[rate] >= bar,
            itertools.dropwhile(lambda rate: scores[rate] < bar, scores),
        )
    )
    return run[0], run[-1]


def _each_neighbour_decides(rows, share=0.9):
    """A rate is held against its neighbour, not against the best."""
    scores = _scores(rows)
    rates = list(scores)
    low = high = rates.index(max(rates, key=scores.get))
    while low > 0 and scores[rates[low - 1]] >= share * scores[rates[low]]:
        low -= 1
    while high + 1 < len(rates) and scores[rates[high + 1]] >= share * scores[rates[high]]:
        high += 1
    return rates[low], rates[high]


def _one_neighbour(rows, share=0.9):
    scores = _scores(rows)
    rates = list(scores)
    best = rates.index(max(rates, key=scores.get))
    low, high = _range(scores, share * max(scores.values()))
    return max(low, rates[max(best - 1, 0)]), min(high, rates[min(best + 1, len(rates) - 1)])


def _wrong_way(rows, share=0.9):
    scores = _scores(rows)
    return _range(scores, share * max(scores.values()))[::-1]


def _places(rows, share=0.9):
    scores = _scores(rows)
    low, high = _range(scores, share * max(scores.values()))
    return list(scores).index(low), list(scores).index(high)


def _their_scores(rows, share=0.9):
    scores = _scores(rows)
    low, high = _range(scores, share * max(scores.values()))
    return scores[low], scores[high]


def _sorts_the_sweep(rows, share=0.9):
    rows.sort(key=lambda row: row["rate"])
    scores = _scores(rows)
    return _range(scores, share * max(scores.values()))


# 17b.5
def _summed(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).sum()


def _each_pair(chosen, rejected):
    return -F.logsigmoid(chosen - rejected)


def _one_dimension(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).mean(0, keepdim=True)


def _swapped(chosen, rejected):
    return -F.logsigmoid(rejected - chosen).mean()


def _sign_lost(chosen, rejected):
    return F.logsigmoid(chosen - rejected).mean()


def _overflows(chosen, rejected):
    return torch.log(1 + torch.exp(rejected - chosen)).mean()


def _log_of_sigmoid(chosen, rejected):
    return -torch.log(torch.sigmoid(chosen - rejected)).mean()


def _double_precision(chosen, rejected):
    gap = chosen.double() - rejected.double()
    return -torch.sigmoid(gap).log().mean().to(chosen.dtype)


def _a_little_added(chosen, rejected):
    return -torch.log(torch.sigmoid(chosen - rejected) + 1e-8).mean()


def _clamped_probability(chosen, rejected):
    return -torch.sigmoid(chosen - rejected).clamp(min=1e-12).log().mean()


def _clamped_gap(chosen, rejected):
    return -F.logsigmoid((chosen - rejected).clamp(-50, 50)).mean()


def _infinite_made_finite(chosen, rejected):
    return torch.nan_to_num(torch.log1p(torch.exp(rejected - chosen))).mean()


def _number(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).mean().item()


def _detached(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).mean().detach()


def _chosen_only(chosen, rejected):
    """No gradient for the rejected answers."""
    return -F.logsigmoid(chosen - rejected.detach()).mean()


def _log_of_the_mean(chosen, rejected):
    gap = chosen.double() - rejected.double()
    logs = F.logsigmoid(gap)
    return (np.log(len(gap)) - torch.logsumexp(logs, 0)).to(chosen.dtype)


def _of_the_mean_gap(chosen, rejected):
    return -F.logsigmoid((chosen - rejected).mean())


def _base_two(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).mean() / np.log(2)


def _losing_share(chosen, rejected):
    return (1 - torch.sigmoid(chosen - rejected)).mean()


def _hinge(chosen, rejected):
    return F.relu(1 - (chosen - rejected)).mean()


def _single_scores(chosen, rejected):
    """Each answer is judged alone."""
    return -(F.logsigmoid(chosen) + F.logsigmoid(-rejected)).mean()


def _all_pairs(chosen, rejected):
    return -F.logsigmoid(chosen[:, None] - rejected[None, :]).mean()


def _new_tensor(chosen, rejected):
    return torch.tensor(-F.logsigmoid(chosen - rejected).mean().item(), requires_grad=True)


def _in_place(chosen, rejected):
    with torch.no_grad():
        chosen.sub_(rejected)
    return -F.logsigmoid(chosen).mean()


OTHER_WRONG_ANSWERS = {
    "17b.1": [
        _interp_of_all,
        _sorted_by_accuracy,
        _last_time,
        _above,
        _at_the_checkpoint,
        _before_the_checkpoint,
        _nearest_checkpoint,
        _loss_itself,
        _since_the_last_checkpoint,
        _start_is_not_asked,
        _none_at_the_start,
        _zero_if_never,
        _end_if_never,
        _infinity_if_never,
        _nothing_gained,
        _wrong_way_round,
        _from_the_start,
        _half_of_the_way,
        _the_end_decides,
        _sorts_its_argument,
        _rounded,
    ],
    "17b.2": [
        _never_mind_the_end,
        _sum_anywhere,
        _sum_within,
        _any_tail,
        _no_tail,
        _one_full_stop,
        _blanks_only,
        _any_sign,
        _one_blank_and_stop,
        _as_often_as_you_like,
        _each_once,
        _no_numbers_before,
        _both_must_be_named,
        _in_the_same_order,
        _two_before,
        _sum_counts_too,
        _sum_may_come_before,
        _single_digits,
        _by_words,
        _fails_without_numbers,
        _partial_pay,
        _any_last_number,
        _product,
        _words_of_a_template,
        _paid_for_shortness,
    ],
    "17b.3": [
        _ends_only,
        _halves,
        _three_rows,
        _hacked_before_broken,
        _finished_before_hacked,
        _finished_before_all,
        _no_cold_start,
        _cold_at_the_start,
        _cold_at_the_end,
        _cold_somewhere,
        _cold_by_right,
        _nearly_cold,
        _below_half_of_the_first,
        _highest_of_means,
        _last_row_broken,
        _below_a_half,
        _broken_by_right,
        _below_the_highest,
        _hacked_by_reward,
        _hacked_by_right,
        _hacked_by_little,
        _hacked_by_the_gap,
        _finished_in_the_last_row,
        _finished_if_all,
        _finished_by_reward,
        _finished_over_all,
        _all_words,
        _capital,
        _sorts_rows,
    ],
    "17b.4": [
        _gap_ignored,
        _best_seed,
        _worst_seed,
        _median_seed,
        _last_seed,
        _seed_zero,
        _best_row_is_the_bar,
        _best_row_is_the_best_rate,
        _highest_of_several,
        _first_met_of_several,
        _in_the_order_of_rows,
        _share_of_one,
        _share_is_the_bar,
        _nine_tenths,
        _half_by_default,
        _down_only,
        _up_only,
        _failing_ones_too,
        _longest_run,
        _first_run,
        _each_neighbour_decides,
        _one_neighbour,
        _wrong_way,
        _places,
        _their_scores,
        _sorts_the_sweep,
    ],
    "17b.5": [
        _summed,
        _each_pair,
        _one_dimension,
        _swapped,
        _sign_lost,
        _overflows,
        _log_of_sigmoid,
        _double_precision,
        _a_little_added,
        _clamped_probability,
        _clamped_gap,
        _infinite_made_finite,
        _number,
        _detached,
        _chosen_only,
        _log_of_the_mean,
        _of_the_mean_gap,
        _base_two,
        _losing_share,
        _hinge,
        _single_scores,
        _all_pairs,
        _new_tensor,
        _in_place,
    ],
}
