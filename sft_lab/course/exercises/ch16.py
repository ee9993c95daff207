"""Checks of chapter 16, scores by hand."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_list,
    need_number,
    need_whole,
    need_word,
    same_for_all,
    shorten,
    unpack,
)

Words = list[str]
Pairs = list[tuple[int, int]]


def _divide(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _f1(precision: float, recall: float) -> float:
    return _divide(2 * precision * recall, precision + recall)


# 16.1


def _by_class(predicted: Words, true: Words, classes: Sequence[str]) -> list[tuple[float, float]]:
    """Precision and recall of each class."""
    pairs = list(zip(predicted, true, strict=True))
    found = []
    for name in classes:
        hits = sum(p == t == name for p, t in pairs)
        found.append((_divide(hits, predicted.count(name)), _divide(hits, true.count(name))))
    return found


def _mean_f1(predicted: Words, true: Words, classes: Sequence[str]) -> float:
    return sum(_f1(*pair) for pair in _by_class(predicted, true, classes)) / len(classes)


def _classes(predicted: Words, true: Words) -> Words:
    return sorted({*predicted, *true})


def _f1_of_means(predicted: Words, true: Words) -> float:
    pairs = _by_class(predicted, true, _classes(predicted, true))
    return _f1(*(sum(column) / len(pairs) for column in zip(*pairs, strict=True)))


def _mean_of(column: int) -> Callable[[Words, Words], float]:
    def mean(predicted: Words, true: Words) -> float:
        pairs = _by_class(predicted, true, _classes(predicted, true))
        return sum(pair[column] for pair in pairs) / len(pairs)

    return mean


def _support_f1(predicted: Words, true: Words) -> float:
    return sum(_mean_f1(predicted, true, [name]) for name in true) / len(true)


def _share_right(predicted: Words, true: Words) -> float:
    return sum(p == t for p, t in zip(predicted, true, strict=True)) / len(true)


@checks("16.1")
def macro_f1(attempt: Callable) -> str:
    # uneven classes; one that is only predicted, one that is only true; all right; all wrong;
    # classes that stand in both lists and are never right
    def draw(count: int) -> tuple[Words, Words]:
        true = ["Asia"] * (count + random.randint(0, 2)) + ["Africa"] * 2 + ["Oceania"]
        predicted = [random.choice(["Asia", "Asia", "Africa", "Europe"]) for _ in true]
        predicted[0], predicted[1], predicted[-3], predicted[-1] = (
            "Asia",
            "Europe",
            "Africa",
            "Asia",
        )
        order = random.sample(range(len(true)), len(true))
        return [predicted[i] for i in order], [true[i] for i in order]

    inputs = [
        draw(3),
        draw(5),
        draw(8),
        (["x", "y", "x"], ["x", "y", "x"]),
        (["x", "x"], ["y", "y"]),
        (["a", "a", "a", "a", "b"], ["a", "a", "a", "b", "b"]),
        (["x", "y", "z", "z"], ["y", "x", "z", "x"]),
    ]

    def right(predicted: Words, true: Words) -> float:
        return _mean_f1(predicted, true, _classes(predicted, true))

    mistakes = [
        (_share_right, "this is the accuracy, which is also the micro-F1: average over classes"),
        (
            lambda predicted, true: _mean_f1(predicted, true, sorted(set(true))),
            "a class that was predicted and is never true is missing: its F1 is 0 and it counts",
        ),
        (
            lambda predicted, true: _mean_f1(predicted, true, sorted(set(predicted))),
            "a class that was never predicted is missing: its F1 is 0 and it counts",
        ),
        (
            lambda predicted, true: _mean_f1(predicted, true, sorted({*predicted} & {*true})),
            "classes that stand in one of the lists only are missing: their F1 is 0 and they count",
        ),
        (
            _support_f1,
            "the classes are weighted by how often they are true: in the macro-F1 each counts once",
        ),
        (
            _f1_of_means,
            "this is the F1 of the mean precision and the mean recall: take the F1 of each class "
            "first",
        ),
        (_mean_of(0), "this is the mean precision"),
        (_mean_of(1), "this is the mean recall"),
    ]
    same_for_all(attempt, inputs, right, mistakes, form=need_number, what="the macro-F1")
    return "each class counts once, those of one list too; a division by 0 gives 0"


# 16.2


def _ngrams(words: Sequence[str], n: int) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _most(references: list[Words], n: int) -> Counter:
    most: Counter = Counter()
    for reference in references:
        most |= _ngrams(reference, n)
    return most


def _clip(hypothesis: Words, references: list[Words], n: int) -> tuple[int, int]:
    counts = _ngrams(hypothesis, n)
    return (counts & _most(references, n)).total(), counts.total()


def _clip_by(bound: Callable[[list[Counter]], Counter]) -> Callable:
    def answer(hypothesis: Words, references: list[Words], n: int) -> tuple[int, int]:
        counts = _ngrams(hypothesis, n)
        return (counts & bound([_ngrams(r, n) for r in references])).total(), counts.total()

    return answer


def _fewest(all_counts: list[Counter]) -> Counter:
    fewest = all_counts[0]
    for counts in all_counts[1:]:
        fewest = fewest & counts
    return fewest


def _sum(all_counts: list[Counter]) -> Counter:
    return sum(all_counts, Counter())


def _unclipped(hypothesis: Words, references: list[Words], n: int) -> tuple[int, int]:
    counts, most = _ngrams(hypothesis, n), _most(references, n)
    return sum(counts[ngram] for ngram in counts if ngram in most), counts.total()


def _best_single(hypothesis: Words, references: list[Words], n: int) -> tuple[int, int]:
    return max(_clip(hypothesis, [reference], n) for reference in references)


def _different(hypothesis: Words, references: list[Words], n: int) -> tuple[int, int]:
    counts = _ngrams(hypothesis, n)
    return len(counts.keys() & _most(references, n).keys()), len(counts)


def _with_total(total: Callable[[Words, list[Words], int], int]) -> Callable:
    return lambda h, r, n: (_clip(h, r, n)[0], total(h, r, n))


def _two_counts(found: object) -> tuple[int, int]:
    matches, total = unpack(found, "the matches", "the total")
    return need_whole(matches, "the number of matches", low=0), need_whole(
        total, "the total", low=0
    )


CLIP_MISTAKES = [
    (
        _unclipped,
        "an n-gram counts however often it is said: count it at most as often as the "
        "reference that has it most often",
    ),
    (
        _clip_by(_sum),
        "the counts of the references are added up: take the largest of them for each n-gram",
    ),
    (_clip_by(_fewest), "the smallest count among the references is taken, not the largest"),
    (
        _best_single,
        "one reference is chosen for all n-grams: take the largest count for each n-gram alone",
    ),
    (_different, "different n-grams are counted: an n-gram said twice counts twice"),
    (
        lambda h, r, n: (_different(h, r, n)[0], _clip(h, r, n)[1]),
        "a matched n-gram counts once: it counts as often as it is said, up to the limit",
    ),
    (
        _with_total(lambda h, r, n: len(h)),
        "the total is the number of words: n words have fewer n-grams",
    ),
    (
        _with_total(lambda h, r, n: max(1, _clip(h, r, n)[1])),
        "a text shorter than n has no n-grams: the total is 0",
    ),
    (
        _with_total(lambda h, r, n: len(h) - n + 1),
        "the total is negative for a text that is shorter than n: it is 0",
    ),
    (
        _with_total(lambda h, r, n: _most(r, n).total()),
        "the total is that of the references: divided by it, the matches give a recall",
    ),
    (
        lambda h, r, n: _clip(h[:-1], r, n) if len(h) >= n else (0, 0),
        "the last n-gram is missing: there are len - n + 1 of them",
    ),
]


@checks("16.2")
def clipped_matches(attempt: Callable) -> str:
    # a word that one reference has most often and another has, too; a bigram likewise; a text that
    # is shorter than n, by more than one word, too; empty ones; bigrams in the other order; words
    # that are alike when written without a blank
    filler = random.sample(["boat", "sea", "wind", "gull", "rope", "sail"], 4)

    def repeat(*spans: tuple[str, int]) -> Words:
        return [word for word, count in spans for _ in range(count)]

    a, b, c, d = filler
    twice = random.randint(2, 3)
    inputs = [
        (
            repeat(("the", twice + 3), (a, 2), (b, 1), (d, 1)),
            [repeat(("the", twice), (a, 1), (c, 1)), repeat(("the", 1), (a, 1), (b, 1), (c, 3))],
            1,
        ),
        ([a, b, a, b, a, b, c, d, c], [[a, b, c, a, b], [a, b, d, d, c], [d, c, d, c]], 2),
        ([a, b, c, a, b, c, a, b, c, d], [[a, b, c, d, a, b, c], [d, a, b, c], [b, c, d]], 3),
        ([a, a, b, b, c], [[b, a], [a, c, c]], 1),
        ([a, b], [[a, b, c], [c]], 3),
        ([], [[a], [b, a]], 1),
        ([a, b], [[], [b, a, b]], 1),
        ([a, b, b, a], [[c, d], [d, c]], 2),
        ([a], [[a, b, c], [c]], 3),
        ([a, b, c], [[b, a], [c, b, a]], 2),
        (["in", "today"], [["into", "day"]], 2),
    ]
    same_for_all(attempt, inputs, _clip, CLIP_MISTAKES, form=_two_counts, what="(matches, total)")
    return "clipped by the reference that has the n-gram most often, for every n-gram alone"


# 16.3


def _table(hypothesis: Sequence, reference: Sequence) -> list[list[int]]:
    """Entry (i, j): the length of the longest common subsequence of the first i and j words."""
    table = [[0] * (len(reference) + 1) for _ in range(len(hypothesis) + 1)]
    for i, word in enumerate(hypothesis):
        for j, other in enumerate(reference):
            longer = table[i][j] + 1 if word == other else 0
            table[i + 1][j + 1] = max(longer, table[i][j + 1], table[i + 1][j])
    return table


def _greedy(hypothesis: Words, reference: Words) -> Pairs:
    """Each word of the hypothesis takes its next place in the reference, if there is one."""
    pairs, start = [], 0
    for i, word in enumerate(hypothesis):
        if word in reference[start:]:
            start = reference.index(word, start) + 1
            pairs.append((i, start - 1))
    return pairs


def _greedy_back(hypothesis: Words, reference: Words) -> Pairs:
    return sorted((i, j) for j, i in _greedy(reference, hypothesis))


def _longest_run(hypothesis: Words, reference: Words) -> Pairs:
    best: Pairs = []
    for i in range(len(hypothesis)):
        for j in range(len(reference)):
            size = 0
            while (
                i + size < len(hypothesis)
                and j + size < len(reference)
                and hypothesis[i + size] == reference[j + size]
            ):
                size += 1
            if size > len(best):
                best = [(i + k, j + k) for k in range(size)]
    return best


def _read_pairs(found: object, hypothesis: Words, reference: Words) -> Pairs:
    """The answer as pairs of places, or `Mistake` when they are no common subsequence."""
    given = f"for hypothesis = {shorten(hypothesis, 100)}, reference = {shorten(reference, 100)}"
    pairs = []
    for pair in need_list(found, (tuple, list), "pairs of places (i, j)"):
        i, j = unpack(pair, "the place in the hypothesis", "the place in the reference")
        i = need_whole(i, "a place in the hypothesis", low=0)
        j = need_whole(j, "a place in the reference", low=0)
        pairs.append((i, j))
    wrong = [
        (i, j)
        for i, j in pairs
        if i >= len(hypothesis) or j >= len(reference) or hypothesis[i] != reference[j]
    ]
    if wrong:
        i, j = wrong[0]
        flipped = all(
            j < len(hypothesis) and i < len(reference) and hypothesis[j] == reference[i]
            for i, j in pairs
        )
        if flipped:
            raise Mistake(f"the place in the hypothesis comes first in a pair, {given}")
        raise Mistake(f"({i}, {j}) pairs two places that do not hold the same word, {given}")
    for (i, j), (k, m) in zip(pairs, pairs[1:], strict=False):
        if k <= i or m <= j:
            raise Mistake(
                f"({k}, {m}) comes after ({i}, {j}): both places must grow from pair to pair, "
                f"{given}"
            )
    return pairs


@checks("16.3")
def longest_common(attempt: Callable) -> str:
    # where taking the next match is short, in both directions; where the longest run is short, and
    # where it is no part of the longest; equal words; nothing in common; an empty text; random ones
    words = random.sample(["boat", "sea", "wind", "gull", "rope", "sail", "crew", "port"], 8)
    a, b, c, d, e, f, g, h = words
    few = words[:3]
    inputs = [
        ([e, a, b, c], [a, b, c, d, e]),
        ([a, b, c, d, e], [e, a, b, c]),
        ([a, f, b, g, c, h, d], [b, c, a, e, b, e, e, c, d]),
        ([a, b, c, d], [a, b, e, f, c, d]),
        ([a, b, c, d, e], [d, e, a, f, b, g, c]),
        ([d, e, a, f, b, g, c], [a, b, c, d, e]),
        ([a, a, b, a], [b, a, a, a]),
        ([a, b], [c, d, e]),
        ([], [a, b]),
        ([a, b], []),
        (words[:5], words[:5]),
        *[([random.choice(few) for _ in range(7)], random.choices(few, k=8)) for _ in range(3)],
    ]
    found = [(given, _read_pairs(attempt(*given), *given)) for given in inputs]
    short = [(given, pairs) for given, pairs in found if len(pairs) < _table(*given)[-1][-1]]
    if not short:
        return "as long as possible, in order in both sentences; any of the longest is right"
    for method, name in (
        (_longest_run, "this is the longest run of neighbours: a subsequence may leave words out"),
        (
            _greedy,
            "each word takes its next place in the reference: one far away blocks all that "
            "stand before it",
        ),
        (
            _greedy_back,
            "each word of the reference takes its next place in the hypothesis: one far away "
            "blocks all that stand before it",
        ),
    ):
        if all(len(pairs) == len(method(*given)) for given, pairs in found):
            raise Mistake(name)
    (hypothesis, reference), pairs = short[0]
    raise Mistake(
        f"{len(pairs)} pairs, and a common subsequence of {_table(hypothesis, reference)[-1][-1]} "
        f"exists, for hypothesis = {shorten(hypothesis, 100)}, reference = "
        f"{shorten(reference, 100)}"
    )


# 16.4


def _skips(words: Words, gap: int | None, *, shift: int = 1, single: bool = False) -> Counter:
    most = len(words) if gap is None else gap
    pairs = Counter(
        (words[i], words[j])
        for i in range(len(words))
        for j in range(i + 1, min(len(words), i + most + shift + 1))
    )
    return pairs + Counter((word,) for word in words) if single else pairs


Three = tuple[float, float, float]


def _three(matches: float, said: float, wanted: float) -> Three:
    precision, recall = _divide(matches, said), _divide(matches, wanted)
    return precision, recall, _f1(precision, recall)


def _skip_scores(hypothesis: Words, reference: Words, gap: int | None, **how) -> Three:
    one, other = _skips(hypothesis, gap, **how), _skips(reference, gap, **how)
    return _three((one & other).total(), one.total(), other.total())


def _skips_as(form: Callable[[Counter], Counter]) -> Callable:
    def answer(hypothesis: Words, reference: Words, gap: int | None) -> Three:
        one, other = form(_skips(hypothesis, gap)), form(_skips(reference, gap))
        return _three((one & other).total(), one.total(), other.total())

    return answer


def _unordered(counts: Counter) -> Counter:
    merged: Counter = Counter()
    for pair, count in counts.items():
        merged[tuple(sorted(pair))] += count
    return merged


def _skips_unclipped(hypothesis: Words, reference: Words, gap: int | None) -> Three:
    one, other = _skips(hypothesis, gap), _skips(reference, gap)
    matches = sum(count for pair, count in one.items() if pair in other)
    return _three(matches, one.total(), other.total())


def _three_numbers(found: object) -> list[float]:
    names = ("precision", "recall", "F1")
    return [
        need_number(value, f"the {name}")
        for value, name in zip(unpack(found, *names), names, strict=True)
    ]


SKIP_MISTAKES = [
    (
        _skips_as(lambda counts: Counter(counts.keys())),
        "every pair counts once: a pair that stands twice counts twice, up to the limit",
    ),
    (
        _skips_unclipped,
        "matches are not clipped: a pair counts at most as often as in the reference",
    ),
    (
        lambda h, r, gap: _skip_scores(h, r, gap, shift=0),
        "gap is the number of words between the two: with gap 0 neighbours are a pair",
    ),
    (
        lambda h, r, gap: _skip_scores(h, r, gap, shift=2),
        "one word too many fits between the two: with gap 0 only neighbours are a pair",
    ),
    (
        lambda h, r, gap: _skip_scores(h, r, gap or None),
        "gap 0 is taken for None: 0 is false in Python, so ask `gap is None`",
    ),
    (
        lambda h, r, gap: _skip_scores(h, r, None),
        "the gap is not looked at",
    ),
    (_skips_as(_unordered), "order counts: (a, b) and (b, a) are two pairs"),
    (
        lambda h, r, gap: (*_skip_scores(r, h, gap)[:2], _skip_scores(h, r, gap)[2]),
        "precision and recall are exchanged: precision divides by the pairs of the hypothesis",
    ),
    (
        lambda h, r, gap: _skip_scores(h, r, gap, single=True),
        "single words count, too: that is ROUGE-SU",
    ),
    (
        lambda h, r, gap: (*_skip_scores(h, r, gap)[:2], sum(_skip_scores(h, r, gap)[:2]) / 2),
        "this is the arithmetic mean of precision and recall: F1 is 2PR / (P + R)",
    ),
]


@checks("16.4")
def skip_scores(attempt: Callable) -> str:
    # words said twice, so that pairs stand more than once; other lengths; gaps 0, 1, 2 and none;
    # one word; nothing; words that are alike when written without a blank
    words = random.sample(["boat", "sea", "wind", "gull", "rope", "sail", "crew", "port"], 6)
    a, b, c, d, e, f = words
    inputs = [
        ([a, b, a, b, c, d, a], [b, a, c, a, b, d, e, c], None),
        ([a, b, a, b, c, d, a], [b, a, c, a, b, d, e, c], 0),
        ([a, b, c, a, b, c, d], [a, c, b, a, d, c, e, b, f], 1),
        ([a, b, c, a, b, c, d], [a, c, b, a, d, c, e, b, f], 2),
        ([a, b, a, b, a], [a, b, c], None),
        ([d, c, b], [b, c, d, a], None),
        ([a], [a], None),
        ([], [a, b], 1),
        (["in", "today"], ["into", "day"], 0),
        (random.choices(words, k=7), random.choices(words, k=9), 1),
        (random.choices(words[:3], k=6), random.choices(words[:3], k=8), None),
    ]
    same_for_all(
        attempt,
        inputs,
        _skip_scores,
        SKIP_MISTAKES,
        form=_three_numbers,
        what="(precision, recall, F1)",
    )
    return "ordered pairs, clipped, with at most `gap` words between; no pair gives 0"


# 16.5


def _chunks(pairs: Pairs, goes_on: Callable[[int, int], bool]) -> int:
    """Chunks of pairs sorted by the hypothesis; goes_on: of the two steps from pair to pair."""
    steps = [(k - i, m - j) for (i, j), (k, m) in zip(pairs, pairs[1:], strict=False)]
    return 1 + sum(not goes_on(*step) for step in steps)


def _score(
    pairs: Pairs,
    hypothesis_length: int,
    reference_length: int,
    *,
    goes_on: Callable[[int, int], bool] = lambda i, j: i == j == 1,
    order: bool = True,
    mean: Callable[[float, float], float] = lambda p, r: _divide(10 * p * r, r + 9 * p),
    penalty: Callable[[int, int, int], float] = lambda chunks, m, n: 0.5 * (chunks / m) ** 3,
) -> float:
    if not pairs:
        return 0.0
    m = len(pairs)
    chunks = _chunks(sorted(pairs) if order else pairs, goes_on)
    lost = penalty(chunks, m, hypothesis_length)
    return mean(m / hypothesis_length, m / reference_length) * (1 - lost)


def _score_with(**how) -> Callable[[Pairs, int, int], float]:
    return lambda pairs, said, wanted: _score(pairs, said, wanted, **how)


METEOR_MISTAKES = [
    (
        _score_with(mean=_f1),
        "the mean is the plain F1: in METEOR recall weighs nine times, 10PR / (R + 9P)",
    ),
    (
        _score_with(mean=lambda p, r: _divide(10 * p * r, p + 9 * r)),
        "precision and recall are exchanged in the mean: 10PR / (R + 9P)",
    ),
    (
        _score_with(order=False),
        "the pairs are read as they come: sort them by their place in the hypothesis",
    ),
    (
        _score_with(goes_on=lambda i, j: j == 1),
        "a chunk needs neighbours in both sentences: look at the hypothesis, too",
    ),
    (
        _score_with(goes_on=lambda i, j: i == 1),
        "a chunk needs neighbours in both sentences: look at the reference, too",
    ),
    (
        _score_with(goes_on=lambda i, j: i == 1 and abs(j) == 1),
        "a chunk has the same order in both sentences: a run read backwards is no chunk",
    ),
    (
        _score_with(goes_on=lambda i, j: i == j),
        "equal steps do not make a chunk: both must be 1, the words are neighbours",
    ),
    (
        _score_with(goes_on=lambda i, j: j > 0),
        "a chunk holds neighbours: words that are left out between them end it",
    ),
    (
        _score_with(penalty=lambda chunks, m, n: 0.5 * chunks / m),
        "the third power is missing in the penalty: 0.5 (chunks / m)³",
    ),
    (
        _score_with(penalty=lambda chunks, m, n: (chunks / m) ** 3),
        "the factor 0.5 is missing in the penalty",
    ),
    (
        _score_with(penalty=lambda chunks, m, n: 0.5 * ((chunks - 1) / m) ** 3),
        "a chunk is missing: one unbroken run is one chunk",
    ),
    (
        _score_with(penalty=lambda chunks, m, n: 0.5 * (chunks / m) ** 3 if chunks > 1 else 0.0),
        "the penalty holds for one chunk, too",
    ),
    (
        _score_with(penalty=lambda chunks, m, n: 0.5 * (chunks / n) ** 3),
        "the chunks are divided by the length of the hypothesis: divide by the pairs",
    ),
    (_score_with(penalty=lambda chunks, m, n: 0.0), "the penalty is missing"),
]


@checks("16.5")
def score_alignment(attempt: Callable) -> str:
    # shuffled pairs; a chunk broken in one sentence only, in either; a run read backwards; other
    # lengths; one chunk; nothing aligned
    def shuffled(*pairs: tuple[int, int]) -> Pairs:
        return random.sample(pairs, len(pairs))

    k, extra = random.randint(1, 3), random.randint(1, 4)
    inputs = [
        ([(4, 1), (0, 4), (2, 3), (5, 2), (1, 5), (3, 0)], 6, 6 + extra),
        (shuffled((0, 0), (1, 1), (2, 3), (3, 4), (4, 5)), 5 + extra, 6),
        (shuffled((0, 0), (2, 2), (3, 3), (5, 4)), 6, 5 + extra),
        (shuffled((0, 3), (1, 2), (2, 1), (3, 0)), 4 + extra, 5),
        ([(3, 5), (1, 0), (0, 1), (2, 4)], 4, 6 + extra),
        (shuffled(*((i, i + k) for i in range(5))), 5 + extra, 6 + k),
        ([(2, 4)], 3, 5 + extra),
        ([], 4, 3),
        (shuffled((0, 2), (1, 3), (3, 0), (4, 1), (6, 5)), 7, 6 + extra),
    ]
    same_for_all(attempt, inputs, _score, METEOR_MISTAKES, form=need_number, what="the score")
    return "recall weighs nine times; chunks are neighbours in both sentences, in one order"


# 16.6


def _scored(split: Callable[[str], Sequence[str]], give: Callable[..., float]) -> Callable:
    def score(hypothesis: str, reference: str) -> float:
        """The score of a hypothesis against one reference; both are texts."""
        if not isinstance(hypothesis, str) or not isinstance(reference, str):
            raise TypeError(
                f"score takes two texts, not {type(hypothesis).__name__} and "
                f"{type(reference).__name__}"
            )
        return give(Counter(split(hypothesis)), Counter(split(reference)))

    return score


def _clipped_scores(one: Counter, other: Counter) -> Three:
    return _three((one & other).total(), one.total(), other.total())


def _unclipped_f1(one: Counter, other: Counter) -> float:
    said = _divide(sum(one[word] for word in one if word in other), one.total())
    wanted = _divide(sum(other[word] for word in other if word in one), other.total())
    return _f1(said, wanted)


def _words(text: str) -> list[str]:
    return text.lower().split()


SCORERS = {
    "right": _scored(_words, lambda *counts: _clipped_scores(*counts)[2]),
    "recall": _scored(_words, lambda *counts: _clipped_scores(*counts)[1]),
    "precision": _scored(_words, lambda *counts: _clipped_scores(*counts)[0]),
    "letters": _scored(
        lambda text: list(text.lower()), lambda *counts: _clipped_scores(*counts)[2]
    ),
    "case": _scored(str.split, lambda *counts: _clipped_scores(*counts)[2]),
    "not clipped": _scored(_words, _unclipped_f1),
    "once": _scored(lambda text: set(_words(text)), lambda *counts: _clipped_scores(*counts)[2]),
}


@checks("16.6")
def diagnose(attempt: Callable) -> str:
    names = random.sample(list(SCORERS), len(SCORERS))
    found = {name: need_word(attempt(SCORERS[name]), *SCORERS) for name in names}
    wrong = [name for name in SCORERS if found[name] != name]
    if not wrong:
        return "all seven are told apart by what they give for your own sentences"
    if len(set(found.values())) == 1:
        raise Mistake(f'every scorer is "{found[wrong[0]]}" to you: ask it for two texts first')
    if len(wrong) == 1 or "right" not in wrong:
        name = wrong[0]
        raise Mistake(
            f'the scorer "{name}" was called "{found[name]}": find two texts for which these two '
            "give different numbers"
        )
    raise Mistake(
        f'the right scorer was called "{found["right"]}": ask for texts whose right score you '
        "know, and compare with a tolerance"
    )
