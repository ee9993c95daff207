"""Wrong answers to the exercises of chapter 18, written from the statements alone."""

import math
import random
from collections import Counter, defaultdict

import numpy as np


# 18.1
def _graded(rows):
    return [label for row in rows for label in row if label != -100]


def _mean_nll(counts, total, asked, extra=1):
    return sum(-math.log((counts[label] + extra) / total) for label in asked) / len(asked)


def _not_smoothed_below(train, test, vocabulary):
    learned = _graded(train)
    return _mean_nll(Counter(learned), max(1, len(learned)), _graded(test))


def _kinds_seen(train, test, vocabulary):
    """Adds the number of different tokens, not the vocabulary."""
    learned = _graded(train)
    return _mean_nll(Counter(learned), len(learned) + max(1, len(set(learned))), _graded(test))


def _counts_ungraded(train, test, vocabulary):
    learned = [label for row in train for label in row]
    return _mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test))


def _all_but_first(train, test, vocabulary):
    """Takes the first label of a row off, and the rest as graded in the total."""
    learned = _graded(train)
    total = sum(len(row) - 1 for row in train)
    return _mean_nll(Counter(learned), total + vocabulary, _graded(test))


def _no_token_zero(train, test, vocabulary):
    learned = [label for row in train for label in row if label > 0]
    asked = [label for row in test for label in row if label > 0] or [0]
    return _mean_nll(Counter(learned), len(learned) + vocabulary, asked)


def _zero_not_counted(train, test, vocabulary):
    learned = [label for row in train for label in row if label > 0]
    return _mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test))


def _zero_not_asked(train, test, vocabulary):
    learned = _graded(train)
    asked = [label for row in test for label in row if label > 0] or [0]
    return _mean_nll(Counter(learned), len(learned) + vocabulary, asked)


def _mean_of_rows(train, test, vocabulary):
    learned = _graded(train)
    counts, total = Counter(learned), len(learned) + vocabulary
    rows = [_mean_nll(counts, total, _graded([row])) for row in test if _graded([row])]
    return sum(rows) / len(rows)


def _by_all_labels(train, test, vocabulary):
    learned = _graded(train)
    asked = _graded(test)
    loss = _mean_nll(Counter(learned), len(learned) + vocabulary, asked)
    return loss * len(asked) / sum(len(row) - 1 for row in test)


def _total_loss(train, test, vocabulary):
    learned, asked = _graded(train), _graded(test)
    return _mean_nll(Counter(learned), len(learned) + vocabulary, asked) * len(asked)


def _in_bits(train, test, vocabulary):
    learned = _graded(train)
    return _mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test)) / math.log(2)


def _log_of_mean(train, test, vocabulary):
    learned, asked = _graded(train), _graded(test)
    counts, total = Counter(learned), len(learned) + vocabulary
    return -math.log(sum((counts[label] + 1) / total for label in asked) / len(asked))


def _counts_of_test(train, test, vocabulary):
    asked = _graded(test)
    return _mean_nll(Counter(asked), len(asked) + vocabulary, asked)


def _counts_of_both(train, test, vocabulary):
    learned = _graded(train) + _graded(test)
    return _mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test))


def _kinds_once(train, test, vocabulary):
    learned = _graded(train)
    return _mean_nll(Counter(learned), len(learned) + vocabulary, sorted(set(_graded(test))))


def _entropy_of_train(train, test, vocabulary):
    learned = _graded(train)
    return _mean_nll(Counter(learned), len(learned) + vocabulary, learned or [0])


def _nothing_for_empty(train, test, vocabulary):
    learned = _graded(train)
    if not learned:
        return 0.0
    return _mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test))


def _vocabulary_of_example(train, test, vocabulary):
    learned = _graded(train)
    return _mean_nll(Counter(learned), len(learned) + 4, _graded(test))


def _unseen_alone(train, test, vocabulary):
    """One is added only where a token never stood."""
    learned = _graded(train)
    counts = Counter(learned)
    asked = _graded(test)
    total = len(learned) + vocabulary
    return sum(-math.log((counts[label] or 1) / total) for label in asked) / len(asked)


def _negative(train, test, vocabulary):
    learned = _graded(train)
    return -_mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test))


def _perplexity(train, test, vocabulary):
    learned = _graded(train)
    return math.exp(_mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test)))


def _as_text(train, test, vocabulary):
    learned = _graded(train)
    return f"{_mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test)):.3f}"


def _rounded(train, test, vocabulary):
    learned = _graded(train)
    return round(_mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test)), 1)


def _unmasked_in_place(train, test, vocabulary):
    for row in train:
        row[:] = [label for label in row if label != -100]
    learned = _graded(train)
    return _mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test))


def _last_of_rows_lost(train, test, vocabulary):
    learned = _graded([row[:-1] for row in train])
    return _mean_nll(Counter(learned), len(learned) + vocabulary, _graded(test))


# 18.2
def _mean(values):
    return sum(values) / len(values)


def _judge(
    losses,
    epoch,
    *,
    broken=lambda loss: not math.isfinite(loss),
    zero=lambda losses: all(loss == 0.0 for loss in losses),
    last=5,
    flat=0.8,
    steps=lambda size: range(3, size - 2),
    width=3,
    borders=lambda size, epoch: range(epoch, size - 2, epoch),
    share=0.5,
    first=lambda losses: losses[0],
    end=None,
    together=sum,
    shapes=("saw-tooth", "staircase"),
):
    checks = {
        "nan": lambda: any(broken(loss) for loss in losses),
        "zero": lambda: zero(losses),
    }
    for word in checks:
        if checks[word]():
            return word
    start = first(losses)
    finish = _mean(losses[-last:]) if end is None else end(losses)
    fall = start - finish
    if finish > start:
        return "diverged"
    if finish > flat * start:
        return "flat"

    def rise(t):
        return _mean(losses[t : t + width]) - _mean(losses[t - width : t])

    tests = {
        "saw-tooth": lambda: any(rise(t) > share * fall for t in steps(len(losses))),
        "staircase": lambda: (
            together([0.0, *(-rise(b) for b in borders(len(losses), epoch))]) > share * fall
        ),
    }
    return next((word for word in shapes if tests[word]()), "healthy")


def _variant(**changes):
    return lambda losses, epoch: _judge(losses, epoch, **changes)


def _first_nan_alone(losses, epoch):
    return "nan" if math.isnan(losses[0]) else _judge(losses, epoch, broken=lambda loss: False)


def _last_nan_alone(losses, epoch):
    word = "nan" if not math.isfinite(losses[-1]) else None
    return word or _judge(losses, epoch, broken=lambda loss: False)


def _compared_with_nan(losses, epoch):
    return _judge(losses, epoch, broken=lambda loss: loss == math.nan or loss == math.inf)


def _diverged_by_maximum(losses, epoch):
    word = _judge(losses, epoch)
    fine = word not in ("nan", "zero")
    return "diverged" if fine and max(losses) > losses[0] * 1.05 else word


def _neighbours(losses, epoch):
    """A saw-tooth from one step to the next."""
    word = _judge(losses, epoch)
    if word not in ("saw-tooth", "staircase", "healthy"):
        return word
    fall = losses[0] - _mean(losses[-5:])
    if any(after - before > fall / 2 for before, after in zip(losses, losses[1:], strict=False)):
        return "saw-tooth"
    return _judge(losses, epoch, shapes=("staircase",))


def _border_steps(losses, epoch):
    """A staircase from the one loss before a border to the one behind it."""
    return _judge_borders(losses, epoch, lambda b: losses[b - 1] - losses[b])


def _judge_borders(losses, epoch, drop):
    word = _judge(losses, epoch, shapes=("saw-tooth",))
    if word != "healthy":
        return word
    fall = losses[0] - _mean(losses[-5:])
    total = sum(drop(b) for b in range(epoch, len(losses) - 2, epoch))
    return "staircase" if total > fall / 2 else "healthy"


def _falls_alone(losses, epoch):
    """Borders at which the curve rises are left out of the sum."""
    return _judge_borders(
        losses, epoch, lambda b: max(0.0, _mean(losses[b - 3 : b]) - _mean(losses[b : b + 3]))
    )


def _size_alone(losses, epoch):
    return _judge_borders(
        losses, epoch, lambda b: abs(_mean(losses[b - 3 : b]) - _mean(losses[b : b + 3]))
    )


def _saw_of_any_sign(losses, epoch):
    word = _judge(losses, epoch)
    if word not in ("saw-tooth", "staircase", "healthy"):
        return word
    fall = losses[0] - _mean(losses[-5:])
    moves = [
        abs(_mean(losses[t : t + 3]) - _mean(losses[t - 3 : t])) for t in range(3, len(losses) - 2)
    ]
    return "saw-tooth" if max(moves) > fall / 2 else _judge(losses, epoch, shapes=("staircase",))


def _in_capitals(losses, epoch):
    return _judge(losses, epoch).capitalize()


def _sawtooth(losses, epoch):
    return _judge(losses, epoch).replace("-", "")


def _judge_in_place(losses, epoch):
    word = _judge(losses, epoch)
    losses.sort()
    return word


def _none_for_healthy(losses, epoch):
    word = _judge(losses, epoch)
    return None if word == "healthy" else word


def _last_word(losses, epoch):
    """The last rule that holds instead of the first."""
    return _judge(losses, epoch, shapes=("staircase", "saw-tooth"))


# 18.3
def _smooth(
    losses,
    graded,
    beta,
    *,
    weigh=lambda n: n,
    keep=lambda beta: beta,
    skip=lambda n: n == 0,
    fade_when_empty=True,
):
    above = below = 0.0
    smoothed = []
    for loss, n in zip(losses, graded, strict=True):
        if fade_when_empty or n:
            above, below = keep(beta) * above, keep(beta) * below
        if not skip(n):
            above += weigh(n) * loss
            below += weigh(n)
        smoothed.append(above / below)
    return smoothed


def _known(losses, graded):
    return [loss if n else 0.0 for loss, n in zip(losses, graded, strict=True)]


def _from_zero(losses, graded, beta):
    value, smoothed = 0.0, []
    for loss in _known(losses, graded):
        value = beta * value + (1 - beta) * loss
        smoothed.append(value)
    return smoothed


def _from_first(losses, graded, beta):
    value, smoothed = losses[0], []
    for loss, n in zip(losses, graded, strict=True):
        if n:
            value = beta * value + (1 - beta) * loss
        smoothed.append(value)
    return smoothed


def _bias_corrected_without_tokens(losses, graded, beta):
    return _smooth(losses, graded, beta, weigh=lambda n: 1)


def _every_step_alike(losses, graded, beta):
    """Empty steps count, with a loss of 0."""
    return _smooth(_known(losses, graded), [1] * len(graded), beta)


def _beta_turned(losses, graded, beta):
    return _smooth(losses, graded, beta, keep=lambda beta: 1 - beta)


def _empty_steps_skipped(losses, graded, beta):
    """An empty step is no step: what was before does not fade."""
    above = below = 0.0
    smoothed = []
    for loss, n in zip(losses, graded, strict=True):
        if n:
            above, below = beta * above + n * loss, beta * below + n
        smoothed.append(above / below)
    return smoothed


def _empty_steps_left_out(losses, graded, beta):
    some = [i for i, n in enumerate(graded) if n]
    return _smooth([losses[i] for i in some], [graded[i] for i in some], beta)


def _nan_kept(losses, graded, beta):
    return _smooth(losses, graded, beta, skip=lambda n: False)


def _nan_for_empty(losses, graded, beta):
    smoothed = _smooth(losses, graded, beta)
    return [value if n else math.nan for value, n in zip(smoothed, graded, strict=True)]


def _empty_counts_in_weights(losses, graded, beta):
    return _smooth(_known(losses, graded), [n or 1 for n in graded], beta)


def _no_fading(losses, graded, beta):
    return _smooth(losses, graded, 1.0)


def _last_value(losses, graded, beta):
    return _smooth(losses, graded, beta)[-1]


def _fixed_beta(losses, graded, beta):
    return _smooth(losses, graded, 0.9)


def _weights_not_faded(losses, graded, beta):
    """The numerator fades, the denominator does not."""
    above = below = 0.0
    smoothed = []
    for loss, n in zip(_known(losses, graded), graded, strict=True):
        above, below = beta * above + n * loss, below + n
        smoothed.append(above / below)
    return smoothed


def _tokens_before(losses, graded, beta):
    """Weighs a loss with the tokens of the step before."""
    return _smooth(_known(losses, graded), [graded[0], *graded[:-1]], beta)


def _faded_from_the_start(losses, graded, beta):
    """β to the power s: the young steps fade."""
    known, smoothed = _known(losses, graded), []
    for t in range(len(losses)):
        weights = [beta**s * graded[s] for s in range(t + 1)]
        total = sum(w * loss for w, loss in zip(weights, known, strict=False))
        smoothed.append(total / sum(weights))
    return smoothed


def _without_this_step(losses, graded, beta):
    return [losses[0], *_smooth(losses, graded, beta)[:-1]]


def _token_share_of_maximum(losses, graded, beta):
    value, smoothed = losses[0], []
    for loss, n in zip(_known(losses, graded), graded, strict=True):
        weight = (1 - beta) * n / max(graded)
        value = (1 - weight) * value + weight * loss
        smoothed.append(value)
    return smoothed


def _holes_filled_in_place(losses, graded, beta):
    for i, n in enumerate(graded):
        if n == 0:
            losses[i] = 0.0
    smoothed = _smooth(losses, graded, beta)
    losses[:] = smoothed
    return smoothed


def _nan_for_an_empty_step_alone(losses, graded, beta):
    """Asks the loss, not the tokens; an empty step of loss 0.0 has a weight of one."""
    return _smooth(
        [0.0 if math.isnan(loss) else loss for loss in losses], [max(1, n) for n in graded], beta
    )


def _smoothed_to_the_right(losses, graded, beta):
    return _smooth(losses[::-1], graded[::-1], beta)[::-1] if graded[-1] else [losses[0]]


def _roots(losses, graded, beta):
    return _smooth(losses, graded, beta, weigh=math.sqrt)


def _rounded_to_two(losses, graded, beta):
    return [round(value, 2) for value in _smooth(losses, graded, beta)]


# 18.5
def _facts_of(rows):
    facts = defaultdict(list)
    for row in rows:
        if row["fact"] not in facts[row["topic"]]:
            facts[row["topic"]].append(row["fact"])
    return facts


def _split(rows, held):
    """`held` is a set of facts."""
    return (
        [i for i, row in enumerate(rows) if row["fact"] not in held],
        [i for i, row in enumerate(rows) if row["fact"] in held],
    )


def _choose(
    rows,
    share,
    seed,
    *,
    number=lambda share, facts: max(1, round(share * facts)),
    begin=lambda seed: random.Random(seed),
):
    rng, held = begin(seed), set()
    for facts in _facts_of(rows).values():
        held.update(rng.sample(facts, min(len(facts), number(share, len(facts)))))
    return _split(rows, held)


def _rows_at_random(rows, share, seed):
    places = list(range(len(rows)))
    random.Random(seed).shuffle(places)
    size = max(1, round(share * len(rows)))
    return places[size:], places[:size]


def _rows_of_topics_at_random(rows, share, seed):
    rng, held = random.Random(seed), []
    for topic in _facts_of(rows):
        places = [i for i, row in enumerate(rows) if row["topic"] == topic]
        held += rng.sample(places, max(1, round(share * len(places))))
    return [i for i in range(len(rows)) if i not in held], held


def _facts_of_all_topics(rows, share, seed):
    """The share of all facts, whatever their topic."""
    facts = sorted({row["fact"] for row in rows})
    held = set(random.Random(seed).sample(facts, max(1, round(share * len(facts)))))
    return _split(rows, held)


def _number_from_rows(rows, share, seed):
    """The number of facts from the topic's rows."""
    rng, held = random.Random(seed), set()
    for topic, facts in _facts_of(rows).items():
        count = sum(row["topic"] == topic for row in rows)
        held.update(rng.sample(facts, min(len(facts), max(1, round(share * count)))))
    return _split(rows, held)


def _weighted_by_rows(rows, share, seed):
    """Facts are drawn until the share of the topic's rows is reached."""
    rng, held = random.Random(seed), set()
    for topic, facts in _facts_of(rows).items():
        of_topic = [row["fact"] for row in rows if row["topic"] == topic]
        order, taken = rng.sample(facts, len(facts)), 0
        for fact in order:
            if taken and taken + of_topic.count(fact) > share * len(of_topic):
                break
            held.add(fact)
            taken += of_topic.count(fact)
    return _split(rows, held)


def _whole_topics(rows, share, seed):
    topics = sorted({row["topic"] for row in rows})
    held = set(random.Random(seed).sample(topics, max(1, round(share * len(topics)))))
    return (
        [i for i, row in enumerate(rows) if row["topic"] not in held],
        [i for i, row in enumerate(rows) if row["topic"] in held],
    )


def _first_facts(rows, share, seed):
    """No seed: the first facts of each topic."""
    held = set()
    for facts in _facts_of(rows).values():
        held.update(facts[: max(1, round(share * len(facts)))])
    return _split(rows, held)


def _one_row_a_fact(rows, share, seed):
    """Other words of a held fact are dropped."""
    train, held = _choose(rows, share, seed)
    seen, once = set(), []
    for i in held:
        if rows[i]["fact"] not in seen:
            seen.add(rows[i]["fact"])
            once.append(i)
    return train, once


def _other_words_in_train(rows, share, seed):
    train, held = _one_row_a_fact(rows, share, seed)
    return [i for i in range(len(rows)) if i not in held], held


def _all_in_train(rows, share, seed):
    return list(range(len(rows))), _choose(rows, share, seed)[1]


def _places_from_one(rows, share, seed):
    train, held = _choose(rows, share, seed)
    return [i + 1 for i in train], [i + 1 for i in held]


def _the_rows(rows, share, seed):
    train, held = _choose(rows, share, seed)
    return [rows[i] for i in train], [rows[i] for i in held]


def _the_facts(rows, share, seed):
    held = {rows[i]["fact"] for i in _choose(rows, share, seed)[1]}
    return sorted({row["fact"] for row in rows} - held), sorted(held)


def _shuffled_in_place(rows, share, seed):
    random.Random(seed).shuffle(rows)
    return _choose(rows, share, seed)


def _by_text(rows, share, seed):
    """A row with other words counts as another fact."""
    rng, held = random.Random(seed), set()
    texts = defaultdict(list)
    for row in rows:
        texts[row["topic"]].append(row["text"])
    for some in texts.values():
        held.update(rng.sample(some, max(1, round(share * len(some)))))
    return (
        [i for i, row in enumerate(rows) if row["text"] not in held],
        [i for i, row in enumerate(rows) if row["text"] in held],
    )


def _one_seed_a_process(rows, share, seed):
    """Draws from the common generator, whatever the seed."""
    return _choose(rows, share, seed, begin=lambda seed: random.Random())


def _as_sets_of_names(rows, share, seed):
    train, held = _choose(rows, share, seed)
    return {"train": train, "eval": held}


OTHER_WRONG_ANSWERS = {
    "18.1": [
        _not_smoothed_below,
        _kinds_seen,
        _counts_ungraded,
        _all_but_first,
        _no_token_zero,
        _zero_not_counted,
        _zero_not_asked,
        _mean_of_rows,
        _by_all_labels,
        _total_loss,
        _in_bits,
        _log_of_mean,
        _counts_of_test,
        _counts_of_both,
        _kinds_once,
        _entropy_of_train,
        _nothing_for_empty,
        _vocabulary_of_example,
        _unseen_alone,
        _negative,
        _perplexity,
        _as_text,
        _rounded,
        _unmasked_in_place,
        _last_of_rows_lost,
        lambda train, test, vocabulary: math.log(vocabulary),
        lambda train, test, vocabulary: 1.397,
        lambda train, test, vocabulary: None,
    ],
    "18.2": [
        _variant(broken=math.isnan),
        _variant(broken=math.isinf),
        _variant(broken=lambda loss: False),
        _first_nan_alone,
        _last_nan_alone,
        _compared_with_nan,
        _variant(broken=lambda loss: math.isnan(loss) or loss == math.inf),  # but for -inf
        _variant(zero=lambda losses: False),
        _variant(zero=lambda losses: 0.0 in losses),
        _variant(zero=lambda losses: losses[0] == 0.0),
        _variant(zero=lambda losses: not any(losses[-5:])),
        _variant(zero=lambda losses: max(losses) < 0.05),
        _variant(last=1),
        _variant(last=3),
        _variant(last=10),
        _variant(end=min),
        _variant(first=max),
        _variant(first=lambda losses: _mean(losses[:5])),
        _variant(flat=0.5),
        _variant(flat=0.2),
        _variant(flat=0.95),
        _variant(flat=1.0),
        _variant(share=0.25),
        _variant(share=1.0),
        _variant(width=1, steps=lambda size: range(1, size)),
        _variant(steps=lambda size: range(3, size - 3)),
        _variant(steps=lambda size: range(4, size - 2)),
        _variant(steps=lambda size: range(3, size - 2, 3)),
        _variant(borders=lambda size, epoch: range(epoch, size - 2, epoch)[:1]),
        _variant(borders=lambda size, epoch: range(2 * epoch, size - 2, epoch)),
        _variant(borders=lambda size, epoch: range(epoch, size - 3, epoch)),
        _variant(borders=lambda size, epoch: range(epoch - 1, size - 2, epoch)),
        _variant(borders=lambda size, epoch: range(epoch + 1, size - 2, epoch)),
        _variant(borders=lambda size, epoch: range(3, size - 2)),
        _variant(together=max),
        _variant(shapes=("saw-tooth",)),
        _variant(shapes=("staircase",)),
        _variant(shapes=()),
        _last_word,
        _diverged_by_maximum,
        _neighbours,
        _border_steps,
        _falls_alone,
        _size_alone,
        _saw_of_any_sign,
        _in_capitals,
        _sawtooth,
        _judge_in_place,
        _none_for_healthy,
        lambda losses, epoch: _judge(losses, 6),
        lambda losses, epoch: _judge(losses, len(losses) // 2),
        lambda losses, epoch: "healthy",
    ],
    "18.3": [
        _from_zero,
        _from_first,
        _bias_corrected_without_tokens,
        _every_step_alike,
        _beta_turned,
        _empty_steps_skipped,
        _empty_steps_left_out,
        _nan_kept,
        _nan_for_empty,
        _empty_counts_in_weights,
        _no_fading,
        _last_value,
        _fixed_beta,
        _weights_not_faded,
        _tokens_before,
        _faded_from_the_start,
        _without_this_step,
        _token_share_of_maximum,
        _holes_filled_in_place,
        _nan_for_an_empty_step_alone,
        _smoothed_to_the_right,
        _roots,
        _rounded_to_two,
        lambda losses, graded, beta: losses,
        lambda losses, graded, beta: _smooth(losses, graded, 0.5),
        lambda losses, graded, beta: np.mean(losses),
    ],
    "18.4": [
        1e-4,
        1e-3,
        2e-3,
        # three times the right answers, whose runs are kept
        0.012,
        0.015,
        0.018,
        0.0,
        -0.005,
        math.nan,
        math.inf,
        "0.005",
        [0.005, 0.015],
    ],
    "18.5": [
        _rows_at_random,
        _rows_of_topics_at_random,
        _facts_of_all_topics,
        _number_from_rows,
        _weighted_by_rows,
        _whole_topics,
        _first_facts,
        _one_row_a_fact,
        _other_words_in_train,
        _all_in_train,
        _places_from_one,
        _the_rows,
        _the_facts,
        _shuffled_in_place,
        _by_text,
        _one_seed_a_process,
        _as_sets_of_names,
        lambda rows, share, seed: _choose(rows, share, seed)[::-1],
        lambda rows, share, seed: _choose(rows, share, 0),
        lambda rows, share, seed: _choose(rows, share, seed % 2),
        lambda rows, share, seed: _choose(rows, 0.2, seed),
        lambda rows, share, seed: _choose(rows, 1 - share, seed),
        lambda rows, share, seed: _choose(
            rows, share, seed, number=lambda share, facts: round(share * facts)
        ),
        lambda rows, share, seed: _choose(
            rows, share, seed, number=lambda share, facts: max(1, int(share * facts))
        ),
        lambda rows, share, seed: _choose(
            rows, share, seed, number=lambda share, facts: math.ceil(share * facts)
        ),
        lambda rows, share, seed: _choose(rows, share, seed, number=lambda share, facts: 1),
        lambda rows, share, seed: _choose(rows, share, seed)[1],
        lambda rows, share, seed: ([], list(range(len(rows)))),
    ],
}
