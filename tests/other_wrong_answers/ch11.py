"""Wrong answers to the exercises of chapter 11, written from the statements alone."""

import itertools
import random
from collections import defaultdict
from statistics import mean, median

import numpy as np
import torch
import torch.nn.functional as F

from sft_lab.course.data_runs import plant_leaks
from sft_lab.duplicates import jaccard, near_duplicates, shingles, words


# 11.1
def _designs(rows):
    scores = defaultdict(list)
    for row in rows:
        scores[row["distinct"], row["wrong"]].append(row["facts"])
    return scores


def _cheapest(passes=None, cost=None, tie=None, give=None):
    """The right way, but for one part."""
    passes = passes or (lambda scores, bar: min(scores) >= bar)
    cost = cost or (lambda d, w, prices: d * prices[w])
    tie = tie or (lambda d, w: d)
    give = give or (lambda design, prices: design)

    def choose(rows, prices, bar):
        passing = [design for design, scores in _designs(rows).items() if passes(scores, bar)]
        if not passing:
            return None
        best = min(passing, key=lambda d: (cost(*d, prices), tie(*d)))
        return give(best, prices)

    return choose


def _nothing_passes_raises(rows, prices, bar):
    passing = [design for design, scores in _designs(rows).items() if min(scores) >= bar]
    return min(passing, key=lambda d: (d[0] * prices[d[1]], d[0]))


def _best_when_none_passes(rows, prices, bar):
    scores = _designs(rows)
    return _cheapest()(rows, prices, bar) or max(scores, key=lambda d: min(scores[d]))


def _empty_when_none_passes(rows, prices, bar):
    return _cheapest()(rows, prices, bar) or ()


def _all_combinations(rows, prices, bar):
    """Designs that nobody ran pass, since all() of nothing is true."""
    passing = [
        (d, w)
        for d in {row["distinct"] for row in rows}
        for w in prices
        if all(row["facts"] >= bar for row in rows if (row["distinct"], row["wrong"]) == (d, w))
    ]
    return min(passing, key=lambda d: (d[0] * prices[d[1]], d[0]), default=None)


def _neighbours_grouped(rows, prices, bar):
    """groupby without sorting."""
    passing = [
        design
        for design, runs in itertools.groupby(rows, key=lambda r: (r["distinct"], r["wrong"]))
        if all(run["facts"] >= bar for run in runs)
    ]
    return min(passing, key=lambda d: (d[0] * prices[d[1]], d[0]), default=None)


def _single_runs(rows, prices, bar):
    passing = [(r["distinct"], r["wrong"]) for r in rows if r["facts"] >= bar]
    return min(passing, key=lambda d: (d[0] * prices[d[1]], d[0]), default=None)


def _grouped_by(name):
    def choose(rows, prices, bar):
        failed = {row[name] for row in rows if row["facts"] < bar}
        passing = [(r["distinct"], r["wrong"]) for r in rows if r[name] not in failed]
        return min(passing, key=lambda d: (d[0] * prices[d[1]], d[0]), default=None)

    return choose


def _first_of_equal_cost(rows, prices, bar):
    passing = [design for design, scores in _designs(rows).items() if min(scores) >= bar]
    return min(passing, key=lambda d: d[0] * prices[d[1]], default=None)


def _last_of_equal_cost(rows, prices, bar):
    passing = [design for design, scores in _designs(rows).items() if min(scores) >= bar]
    return min(passing[::-1], key=lambda d: d[0] * prices[d[1]], default=None)


def _of_one_seed(rows, prices, bar):
    return _cheapest()([row for row in rows if row["seed"] == 0], prices, bar)


def _sorts_the_rows(rows, prices, bar):
    rows.sort(key=lambda row: (row["distinct"] * prices[row["wrong"]], row["distinct"]))
    return _cheapest()(rows, prices, bar)


def _writes_costs(rows, prices, bar):
    for row in rows:
        row["cost"] = row["distinct"] * prices[row["wrong"]]
    return _cheapest()(rows, prices, bar)


def _price_by_place(rows, prices, bar):
    """The prices taken in their order, not by their key."""
    listed = sorted({row["wrong"] for row in rows})
    by_place = dict(zip(listed, prices.values(), strict=False))
    return _cheapest(cost=lambda d, w, _: d * by_place.get(w, 0))(rows, prices, bar)


def _without_the_free(rows, prices, bar):
    """Only clean rows are looked at."""
    return _cheapest()([row for row in rows if row["wrong"] == 0], prices, bar)


# 11.2
def _share(of, n_of=None):
    def share(question, rows, n):
        n = n if n_of is None else n_of
        asked = shingles(question, n)
        if not asked or not rows:
            return 0.0
        return of(asked, [shingles(row, n) for row in rows])

    return share


def _of_all_rows(asked, held):
    return len(asked & frozenset().union(*held)) / len(asked)


def _rows_joined(question, rows, n):
    asked = shingles(question, n)
    return len(asked & shingles(" ".join(rows), n)) / len(asked) if asked else 0.0


def _no_rows_raise(question, rows, n):
    asked = shingles(question, n)
    return max(len(asked & shingles(row, n)) for row in rows) / len(asked) if asked else 0.0


def _no_shingles_raise(question, rows, n):
    asked = shingles(question, n)
    return max((len(asked & shingles(row, n)) / len(asked) for row in rows), default=0.0)


def _no_shingles_are_held(question, rows, n):
    asked = shingles(question, n)
    return max(
        (len(asked & shingles(r, n)) / len(asked) if asked else 1.0 for r in rows), default=0.0
    )


def _runs(found, n):
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def _with_repetitions(question, rows, n):
    asked = _runs(words(question), n)
    if not asked or not rows:
        return 0.0
    return max(sum(run in shingles(row, n) for run in asked) for row in rows) / len(asked)


def _split_at_spaces(question, rows, n):
    asked = set(_runs(question.split(), n))
    if not asked:
        return 0.0
    return max((len(asked & set(_runs(row.split(), n))) / len(asked) for row in rows), default=0.0)


def _lower_case_alone(question, rows, n):
    return _split_at_spaces(question.lower(), [row.lower() for row in rows], n)


def _as_pieces_of_text(question, rows, n):
    """A run of words is looked for as a piece of text: "a cat" stands in "a catalogue"."""
    asked = [" ".join(shingle) for shingle in shingles(question, n)]
    texts = [" ".join(words(row)) for row in rows]
    return max((sum(a in t for a in asked) / len(asked) for t in texts if asked), default=0.0)


def _verbatim(question, rows, n):
    return float(any(question in row for row in rows))


def _first_that_shares(question, rows, n):
    asked = shingles(question, n)
    for row in rows:
        if asked & shingles(row, n):
            return len(asked & shingles(row, n)) / len(asked)
    return 0.0


def _empties_the_rows(question, rows, n):
    asked, best = shingles(question, n), 0.0
    while rows:
        found = shingles(rows.pop(), n)
        best = max(best, len(asked & found) / len(asked) if asked else 0.0)
    return best


def _row_with_highest_jaccard(question, rows, n):
    asked = shingles(question, n)
    if not asked or not rows:
        return 0.0
    best = max((shingles(row, n) for row in rows), key=lambda held: jaccard(asked, held))
    return len(asked & best) / len(asked)


def _of_the_longest_row(question, rows, n):
    asked = shingles(question, n)
    if not asked or not rows:
        return 0.0
    return len(asked & shingles(max(rows, key=len), n)) / len(asked)


# 11.3
def _right_places(exam, rows):
    answers = {row[1]["content"] for row in rows}
    return [place for place, asked in enumerate(exam) if asked[1]["content"] in answers]


def _questions(threshold):
    def audit(exam, rows):
        pairs = near_duplicates(
            [row[0]["content"] for row in exam],
            [row[0]["content"] for row in rows],
            threshold=threshold,
        )
        return sorted({pair.first for pair in pairs})

    return audit


def _both(threshold, side=0):
    def audit(exam, rows):
        texts = [[" ".join(turn["content"] for turn in row) for row in x] for x in (exam, rows)]
        return sorted({pair[side] for pair in near_duplicates(*texts, threshold=threshold)})

    return audit


def _both_with_repetitions(exam, rows):
    texts = [[" ".join(turn["content"] for turn in row) for row in x] for x in (exam, rows)]
    return [pair.first for pair in near_duplicates(*texts, threshold=0.2)]


def _verbatim_questions(exam, rows):
    asked = {row[0]["content"] for row in rows}
    return [place for place, row in enumerate(exam) if row[0]["content"] in asked]


def _same_entity(exam, rows):
    ends = {words(row[0]["content"])[-1] for row in rows}
    return [place for place, row in enumerate(exam) if words(row[0]["content"])[-1] in ends]


def _places_in_rows(exam, rows):
    answers = {row[1]["content"] for row in exam}
    return [place for place, row in enumerate(rows) if row[1]["content"] in answers]


def _takes_out_of_the_exam(exam, rows):
    found = _right_places(exam, rows)
    for place in reversed(found):
        del exam[place]
    return found


def _mends_the_rows(exam, rows):
    found = _right_places(exam, rows)
    answers = {row[1]["content"] for row in exam}
    rows[:] = [row for row in rows if row[1]["content"] not in answers]
    return found


def _changes_the_words(exam, rows):
    for row in (*exam, *rows):
        for turn in row:
            turn["content"] = turn["content"].lower()
    return _right_places(exam, rows)


# 11.4
def _logs(student_logits, teacher_logits, temperature):
    log_q = (student_logits / temperature).log_softmax(-1)
    with torch.no_grad():
        p = (teacher_logits / temperature).softmax(-1)
    return log_q, p


def _kd(of):
    """The right way up to the last step."""

    def loss(student_logits, teacher_logits, temperature):
        log_q, p = _logs(student_logits, teacher_logits, temperature)
        return of(log_q, p, temperature)

    return loss


def _each(log_q, p):
    return torch.xlogy(p, p) - p * log_q


def _softened(student, teacher):
    """Each side at a temperature of its own."""

    def loss(student_logits, teacher_logits, temperature):
        log_q = (student_logits * student(temperature)).log_softmax(-1)
        p = (teacher_logits.detach() * teacher(temperature)).softmax(-1)
        return temperature**2 * _each(log_q, p).sum(-1).mean()

    return loss


def _teacher_learns(student_logits, teacher_logits, temperature):
    log_q = (student_logits / temperature).log_softmax(-1)
    p = (teacher_logits / temperature).softmax(-1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


def _student_detached(student_logits, teacher_logits, temperature):
    return _kd(lambda log_q, p, T: T**2 * _each(log_q, p).sum(-1).mean())(
        student_logits.detach(), teacher_logits, temperature
    )


@torch.no_grad()
def _nothing_learns(student_logits, teacher_logits, temperature):
    return _kd(lambda log_q, p, T: T**2 * _each(log_q, p).sum(-1).mean())(
        student_logits, teacher_logits, temperature
    )


def _along_rows(student_logits, teacher_logits, temperature):
    log_q = (student_logits / temperature).log_softmax(0)
    p = (teacher_logits.detach() / temperature).softmax(0)
    return temperature**2 * _each(log_q, p).sum(-1).mean()


def _backwards(student_logits, teacher_logits, temperature):
    log_q, p = _logs(student_logits, teacher_logits, temperature)
    log_p = p.clamp_min(1e-30).log()
    return temperature**2 * (log_q.exp() * (log_q - log_p)).sum(-1).mean()


def _swapped(student_logits, teacher_logits, temperature):
    return _teacher_learns(teacher_logits, student_logits.detach(), temperature)


def _symmetric(student_logits, teacher_logits, temperature):
    log_q, p = _logs(student_logits, teacher_logits, temperature)
    q = log_q.exp()
    middle = ((p + q) / 2).log()
    both = _each(middle, p) + _each(middle, q)
    return temperature**2 * (both / 2).sum(-1).mean()


def _logits_squared(student_logits, teacher_logits, temperature):
    return ((student_logits - teacher_logits.detach()) ** 2).mean()


def _hard_labels(student_logits, teacher_logits, temperature):
    return temperature**2 * F.cross_entropy(student_logits / temperature, teacher_logits.argmax(-1))


def _rows_with_zero_left_out(student_logits, teacher_logits, temperature):
    log_q, p = _logs(student_logits, teacher_logits, temperature)
    kept = (p > 0).all(-1)
    return temperature**2 * _each(log_q, p)[kept].sum(-1).mean()


def _mean_of_what_is_not_zero(student_logits, teacher_logits, temperature):
    log_q, p = _logs(student_logits, teacher_logits, temperature)
    return temperature**2 * _each(log_q, p)[p > 0].mean()


def _teacher_in_place(student_logits, teacher_logits, temperature):
    with torch.no_grad():
        teacher_logits /= temperature
    log_q = (student_logits / temperature).log_softmax(-1)
    p = teacher_logits.detach().softmax(-1)
    return temperature**2 * _each(log_q, p).sum(-1).mean()


def _student_in_place(student_logits, teacher_logits, temperature):
    with torch.no_grad():
        student_logits /= temperature
    p = (teacher_logits.detach() / temperature).softmax(-1)
    return temperature**2 * _each(student_logits.log_softmax(-1), p).sum(-1).mean()


def _clamped(student_logits, teacher_logits, temperature):
    log_q, p = _logs(student_logits, teacher_logits, temperature)
    p = p.clamp_min(1e-3)
    return temperature**2 * _each(log_q, p).sum(-1).mean()


# 11.5
def _choose(keep=None, top=None, draw=None, pair=None):
    """The right way, but for one part."""
    keep = keep or (lambda row: max(row) > min(row))
    top = top or (lambda row: row.index(max(row)))
    draw = draw or (lambda rng, row: rng.randrange(len(row)))
    pair = pair or (lambda i, k: (i, k))

    def choose(rewards, seed):
        rng = random.Random(seed)
        kept = [(i, row) for i, row in enumerate(rewards) if keep(row)]
        tops = [pair(i, top(row)) for i, row in kept]
        return tops, [pair(i, draw(rng, row)) for i, row in kept]

    return choose


def _another_than_top(rng, row):
    return rng.choice([k for k in range(len(row)) if k != row.index(max(row))])


def _a_wrong_one(rng, row):
    return rng.choice([k for k, reward in enumerate(row) if reward < max(row)])


def _by_reward(rng, row):
    least = min(row)
    return rng.choices(range(len(row)), weights=[reward - least for reward in row])[0]


def _drawn_once(rewards, seed):
    k = random.Random(seed).randrange(len(rewards[0])) if rewards else 0
    tops, _ = _choose()(rewards, seed)
    return tops, [(i, k) for i, _ in tops]


def _new_generator_for_each(rewards, seed):
    tops, _ = _choose()(rewards, seed)
    return tops, [(i, random.Random(seed).randrange(len(rewards[i]))) for i, _ in tops]


def _without_the_seed(rewards, seed):
    tops, _ = _choose()(rewards, seed)
    rng = random.Random()
    return tops, [(i, rng.randrange(len(rewards[i]))) for i, _ in tops]


def _from_the_global_generator(rewards, seed):
    random.seed(seed)
    tops, _ = _choose()(rewards, seed)
    return tops, [(i, random.randrange(len(rewards[i]))) for i, _ in tops]


def _same_seed_always(rewards, seed):
    return _choose()(rewards, 0)


def _control_of_all_prompts(rewards, seed):
    rng = random.Random(seed)
    tops, _ = _choose()(rewards, seed)
    return tops, [(i, rng.randrange(len(row))) for i, row in enumerate(rewards)]


def _control_of_other_prompts(rewards, seed):
    """As many pairs, drawn from all prompts."""
    rng = random.Random(seed)
    tops, _ = _choose()(rewards, seed)
    pairs = [(i, k) for i, row in enumerate(rewards) for k in range(len(row))]
    return tops, rng.sample(pairs, len(tops))


def _control_in_another_order(rewards, seed):
    rng = random.Random(seed)
    tops, control = _choose()(rewards, seed)
    rng.shuffle(control)
    return tops, control


def _counted_among_the_kept(rewards, seed):
    kept = [row for row in rewards if max(row) > min(row)]
    return _choose()(kept, seed)


def _tops_sorted_by_reward(rewards, seed):
    tops, control = _choose()(rewards, seed)
    return sorted(tops, key=lambda pair: -rewards[pair[0]][pair[1]]), control


def _all_equal_best(rewards, seed):
    tops, control = _choose()(rewards, seed)
    return [
        (i, k) for i, _ in tops for k, reward in enumerate(rewards[i]) if reward == max(rewards[i])
    ], control


def _best_above_zero(row):
    best, at = 0, 0
    for k, reward in enumerate(row):
        if reward > best:
            best, at = reward, k
    return at


def _sorts_the_rewards(rewards, seed):
    chosen = _choose()(rewards, seed)
    for row in rewards:
        row.sort()
    return chosen


def _takes_out_the_undecided(rewards, seed):
    chosen = _choose()(rewards, seed)
    rewards[:] = [row for row in rewards if max(row) > min(row)]
    return chosen


def _each_sample_once(rewards, seed):
    """Drawn without putting back: a permutation of the samples, over and over."""
    rng = random.Random(seed)
    tops, _ = _choose()(rewards, seed)
    places = list(range(len(rewards[0]))) if rewards else [0]
    rng.shuffle(places)
    return tops, [(i, places[number % len(places)]) for number, (i, _) in enumerate(tops)]


OTHER_WRONG_ANSWERS = {
    "11.1": [
        _cheapest(passes=lambda scores, bar: mean(scores) >= bar),
        _cheapest(passes=lambda scores, bar: median(scores) >= bar),
        _cheapest(passes=lambda scores, bar: max(scores) >= bar),
        _cheapest(passes=lambda scores, bar: min(scores) > bar),
        _cheapest(passes=lambda scores, bar: scores[-1] >= bar),
        _cheapest(passes=lambda scores, bar: scores[0] >= bar),
        _cheapest(passes=lambda scores, bar: sum(s >= bar for s in scores) > len(scores) / 2),
        _cheapest(passes=lambda scores, bar: sum(s >= bar for s in scores) >= 3),
        _cheapest(passes=lambda scores, bar: sum(s >= bar for s in scores) >= len(scores) - 1),
        _cheapest(passes=lambda scores, bar: min(scores) <= bar),
        _cheapest(passes=lambda scores, bar: True),
        _cheapest(passes=lambda scores, bar: min(scores) >= 0.75),
        _cheapest(cost=lambda d, w, prices: d),
        _cheapest(cost=lambda d, w, prices: prices[w]),
        _cheapest(cost=lambda d, w, prices: d + prices[w]),
        _cheapest(cost=lambda d, w, prices: d / prices[w]),
        _cheapest(cost=lambda d, w, prices: d * (1 - w)),
        _cheapest(cost=lambda d, w, prices: d * prices[w] * (1 - w)),
        _cheapest(cost=lambda d, w, prices: -d * prices[w]),
        _cheapest(cost=lambda d, w, prices: w),
        _cheapest(tie=lambda d, w: -d),
        _cheapest(give=lambda design, prices: design[::-1]),
        _cheapest(give=lambda design, prices: design[0]),
        _cheapest(give=lambda design, prices: (*design, design[0] * prices[design[1]])),
        _cheapest(give=lambda design, prices: design[0] * prices[design[1]]),
        _cheapest(give=lambda design, prices: (design[0], prices[design[1]])),
        _cheapest(
            give=lambda design, prices: dict(zip(("distinct", "wrong"), design, strict=True))
        ),
        _nothing_passes_raises,
        _best_when_none_passes,
        _empty_when_none_passes,
        _all_combinations,
        _neighbours_grouped,
        _single_runs,
        _grouped_by("distinct"),
        _grouped_by("wrong"),
        _grouped_by("seed"),
        _first_of_equal_cost,
        _last_of_equal_cost,
        _of_one_seed,
        _sorts_the_rows,
        _writes_costs,
        _price_by_place,
        _without_the_free,
    ],
    "11.2": [
        _share(lambda asked, held: max(jaccard(asked, some) for some in held)),
        _share(_of_all_rows),
        _share(lambda asked, held: max(len(asked & h) / max(1, len(h)) for h in held)),
        _share(
            lambda asked, held: max(len(asked & h) / min(len(asked), len(h) or 1) for h in held)
        ),
        _share(lambda asked, held: max(2 * len(asked & h) / (len(asked) + len(h)) for h in held)),
        _share(lambda asked, held: min(len(asked & h) for h in held) / len(asked)),
        _share(lambda asked, held: mean(len(asked & h) for h in held) / len(asked)),
        _share(lambda asked, held: sum(len(asked & h) for h in held) / len(asked)),
        _share(lambda asked, held: min(1.0, sum(len(asked & h) for h in held) / len(asked))),
        _share(lambda asked, held: len(asked & held[0]) / len(asked)),
        _share(lambda asked, held: len(asked & held[-1]) / len(asked)),
        _share(lambda asked, held: max(len(asked & h) for h in held)),
        _share(lambda asked, held: 100 * max(len(asked & h) for h in held) / len(asked)),
        _share(lambda asked, held: max(len(asked & h) for h in held) // len(asked)),
        _share(lambda asked, held: float(any(asked & h for h in held))),
        _share(lambda asked, held: float(any(asked <= h for h in held))),
        _share(lambda asked, held: 1 - max(len(asked & h) for h in held) / len(asked)),
        _share(lambda asked, held: mean(asked <= h for h in held)),
        _share(lambda asked, held: mean(bool(asked & h) for h in held)),
        _share(lambda asked, held: max(len(asked & h) for h in held) / (len(asked) + 1)),
        _share(lambda asked, held: round(max(len(asked & h) for h in held) / len(asked), 1)),
        _share(lambda asked, held: [len(asked & h) / len(asked) for h in held]),
        _share(lambda asked, held: max(len(asked & h) / len(asked) for h in held), n_of=3),
        _share(lambda asked, held: max(len(asked & h) / len(asked) for h in held), n_of=1),
        _share(lambda asked, held: max(len(asked & h) / len(asked) for h in held), n_of=2),
        lambda question, rows, n: _share(_of_all_rows)(question, rows[:1], n),
        _rows_joined,
        _no_rows_raise,
        _no_shingles_raise,
        _no_shingles_are_held,
        _with_repetitions,
        _split_at_spaces,
        _lower_case_alone,
        _as_pieces_of_text,
        _verbatim,
        _first_that_shares,
        _empties_the_rows,
        _row_with_highest_jaccard,
        _of_the_longest_row,
    ],
    "11.3": [
        _questions(0.5),
        _both(0.15),
        _both(0.9),
        _both(0.4, side=1),
        _both_with_repetitions,
        _verbatim_questions,
        _same_entity,
        _places_in_rows,
        _takes_out_of_the_exam,
        _mends_the_rows,
        _changes_the_words,
        lambda exam, rows: sorted(plant_leaks(0)[2]),
        lambda exam, rows: [place + 1 for place in _right_places(exam, rows)],
        lambda exam, rows: _right_places(exam, rows) * 2,
        lambda exam, rows: _right_places(exam, rows)[:9],
        lambda exam, rows: len(_right_places(exam, rows)),
        lambda exam, rows: set(_right_places(exam, rows)),
        lambda exam, rows: [exam[place] for place in _right_places(exam, rows)],
        lambda exam, rows: [exam[place][0]["content"] for place in _right_places(exam, rows)],
        lambda exam, rows: [place in _right_places(exam, rows) for place in range(len(exam))],
        lambda exam, rows: [str(place) for place in _right_places(exam, rows)],
    ],
    "11.4": [
        _kd(lambda log_q, p, T: _each(log_q, p).sum(-1).mean()),
        _kd(lambda log_q, p, T: T * _each(log_q, p).sum(-1).mean()),
        _kd(lambda log_q, p, T: _each(log_q, p).sum(-1).mean() / T**2),
        _kd(lambda log_q, p, T: T**3 * _each(log_q, p).sum(-1).mean()),
        _kd(lambda log_q, p, T: T**2 * _each(log_q, p).mean()),
        _kd(lambda log_q, p, T: T**2 * _each(log_q, p).sum()),
        _kd(lambda log_q, p, T: T**2 * _each(log_q, p).sum(0).mean()),
        _kd(lambda log_q, p, T: T**2 * _each(log_q, p).sum(-1)),
        _kd(lambda log_q, p, T: T**2 * _each(log_q, p).sum(-1).mean(0, keepdim=True)),
        _kd(lambda log_q, p, T: (T**2 * _each(log_q, p).sum(-1).mean()).item()),
        _kd(lambda log_q, p, T: -(T**2) * _each(log_q, p).sum(-1).mean()),
        _kd(lambda log_q, p, T: T**2 * -(p * log_q).sum(-1).mean()),
        _kd(lambda log_q, p, T: T**2 * (p * (p.log() - log_q)).sum(-1).mean()),
        _kd(lambda log_q, p, T: T**2 * _each(log_q, p).sum(-1).mean() / np.log(2)),
        _kd(lambda log_q, p, T: T**2 * _each(log_q, p).sum(-1).median()),
        _kd(lambda log_q, p, T: T**2 * _each(log_q, p).abs().sum(-1).mean()),
        _kd(lambda log_q, p, T: T**2 * F.kl_div(log_q.exp(), p, reduction="batchmean")),
        _kd(lambda log_q, p, T: T**2 * F.mse_loss(log_q.exp(), p, reduction="sum") / len(p)),
        _softened(lambda T: 1, lambda T: 1),
        _softened(lambda T: 1, lambda T: 1 / T),
        _softened(lambda T: 1 / T, lambda T: 1),
        _softened(lambda T: T, lambda T: T),
        _softened(lambda T: 1 / T**2, lambda T: 1 / T**2),
        _softened(lambda T: 1 / 2, lambda T: 1 / 2),
        _teacher_learns,
        _student_detached,
        _nothing_learns,
        _along_rows,
        _backwards,
        _swapped,
        _symmetric,
        _logits_squared,
        _hard_labels,
        _rows_with_zero_left_out,
        _mean_of_what_is_not_zero,
        _teacher_in_place,
        _student_in_place,
        _clamped,
    ],
    "11.5": [
        _choose(keep=lambda row: True),
        _choose(keep=lambda row: 0 < sum(row) < len(row)),
        _choose(keep=lambda row: max(row) > 0),
        _choose(keep=lambda row: any(row) and not all(row)),
        _choose(keep=lambda row: max(row) == min(row)),
        _choose(keep=lambda row: len(set(row)) == len(row)),
        _choose(keep=lambda row: row.count(max(row)) == 1),
        _choose(keep=lambda row: row[0] != row[1] if len(row) > 1 else False),
        _choose(top=lambda row: row.index(min(row))),
        _choose(top=lambda row: len(row) - 1 - row[::-1].index(max(row))),
        _choose(top=lambda row: int(np.argsort(row)[-1])),
        _choose(top=_best_above_zero),
        _choose(top=lambda row: row.index(max(row, key=abs))),
        _choose(top=lambda row: row.index(max(row[:-1]))),
        _choose(top=lambda row: row.index(max(row)) + 1),
        _choose(top=max),
        _choose(top=lambda row: 0),
        _choose(draw=lambda rng, row: rng.randrange(len(row) - 1)),
        _choose(draw=lambda rng, row: rng.randrange(1, len(row))),
        _choose(draw=lambda rng, row: rng.randint(0, len(row))),
        _choose(draw=lambda rng, row: rng.randint(1, len(row))),
        _choose(draw=lambda rng, row: 0),
        _choose(draw=lambda rng, row: len(row) - 1),
        _choose(draw=lambda rng, row: rng.choice(row)),
        _choose(draw=lambda rng, row: row.index(max(row))),
        _choose(draw=lambda rng, row: row.index(min(row))),
        _choose(draw=lambda rng, row: row.index(rng.choice(row))),
        _choose(draw=lambda rng, row: rng.randrange(2)),
        _choose(draw=_another_than_top),
        _choose(draw=_a_wrong_one),
        _choose(draw=_by_reward),
        _choose(pair=lambda i, k: (k, i)),
        _choose(pair=lambda i, k: k),
        _choose(pair=lambda i, k: i),
        _choose(pair=lambda i, k: (i + 1, k + 1)),
        lambda rewards, seed: _choose()(rewards, seed)[::-1],
        lambda rewards, seed: _choose()(rewards, seed)[0],
        lambda rewards, seed: [*zip(*_choose()(rewards, seed), strict=True)],
        lambda rewards, seed: tuple(
            [rewards[i][k] for i, k in some] for some in _choose()(rewards, seed)
        ),
        _drawn_once,
        _new_generator_for_each,
        _without_the_seed,
        _same_seed_always,
        _from_the_global_generator,
        _control_of_all_prompts,
        _control_of_other_prompts,
        _control_in_another_order,
        _counted_among_the_kept,
        _tops_sorted_by_reward,
        _all_equal_best,
        _sorts_the_rewards,
        _takes_out_the_undecided,
        _each_sample_once,
    ],
}
