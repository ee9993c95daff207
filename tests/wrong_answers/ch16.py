"""Wrong answers to the exercises of chapter 16, each with what its reader is told."""

from collections import Counter

from sklearn.metrics import f1_score


def _macro(classes):
    def answer(predicted, true):
        names = sorted(classes(set(predicted), set(true)))
        scores = f1_score(true, predicted, labels=names, average=None, zero_division=0)
        return float(sum(scores) / len(names))

    return answer


def _f1_of_means(predicted, true):
    names = {*predicted, *true}
    hits = Counter(p for p, t in zip(predicted, true, strict=True) if p == t)
    p = sum(hits[c] / predicted.count(c) for c in names if c in predicted) / len(names)
    r = sum(hits[c] / true.count(c) for c in names if c in true) / len(names)
    return 2 * p * r / (p + r) if p + r else 0.0


def _grams(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _unclipped(hypothesis, references, n):
    known = {gram for reference in references for gram in _grams(reference, n)}
    grams = _grams(hypothesis, n)
    return sum(gram in known for gram in grams), len(grams)


def _clip(bound, total=len):
    def answer(hypothesis, references, n):
        grams = _grams(hypothesis, n)
        counts = [Counter(_grams(reference, n)) for reference in references]
        most = bound(counts)
        matches = sum(min(count, most[gram]) for gram, count in Counter(grams).items())
        return matches, total(grams)

    return answer


def _max(counts):
    most = Counter()
    for one in counts:
        most |= one
    return most


def _min(counts):
    return Counter({gram: min(one[gram] for one in counts) for gram in counts[0]})


def _best_reference(hypothesis, references, n):
    return max(_clip(_max)(hypothesis, [reference], n) for reference in references)


def _of_words(hypothesis, references, n):
    return _clip(_max)(hypothesis, references, n)[0], len(hypothesis)


def _next_place(hypothesis, reference):
    pairs, start = [], 0
    for i, word in enumerate(hypothesis):
        if word in reference[start:]:
            start = reference.index(word, start) + 1
            pairs.append((i, start - 1))
    return pairs


def _lcs(a, b):
    if not a or not b:
        return []
    if a[-1] == b[-1]:
        return [*_lcs(a[:-1], b[:-1]), (len(a) - 1, len(b) - 1)]
    return max(_lcs(a[:-1], b), _lcs(a, b[:-1]), key=len)


def _run(hypothesis, reference):
    spans = [
        [(i + k, j + k) for k in range(size)]
        for size in range(1, len(hypothesis) + 1)
        for i in range(len(hypothesis) - size + 1)
        for j in range(len(reference) - size + 1)
        if hypothesis[i : i + size] == reference[j : j + size]
    ]
    return max(spans, key=len, default=[])


def _any_order(hypothesis, reference):
    free, pairs = set(range(len(reference))), []
    for i, word in enumerate(hypothesis):
        places = [j for j in sorted(free) if reference[j] == word]
        if places:
            free.discard(places[0])
            pairs.append((i, places[0]))
    return pairs


def _pairs(words, most):
    return Counter(
        (words[i], words[j])
        for i in range(len(words))
        for j in range(i + 1, len(words))
        if most is None or j - i <= most
    )


def _skips(*, shift=1, form=lambda counts: counts, falsy=False, flip=False):
    def answer(hypothesis, reference, gap):
        most = None if gap is None or (falsy and not gap) else gap + shift
        one, other = form(_pairs(hypothesis, most)), form(_pairs(reference, most))
        matches = sum((one & other).values())
        p = matches / sum(one.values()) if one else 0.0
        r = matches / sum(other.values()) if other else 0.0
        f = 2 * p * r / (p + r) if p + r else 0.0
        return (r, p, f) if flip else (p, r, f)

    return answer


def _meteor(*, order=True, chunk=None, mean=None, penalty=None):
    chunk = chunk or (lambda i, j: i == 1 and j == 1)
    mean = mean or (lambda p, r: 10 * p * r / (r + 9 * p))
    penalty = penalty or (lambda chunks, m: 0.5 * (chunks / m) ** 3)

    def answer(pairs, said, wanted):
        if not pairs:
            return 0.0
        row = sorted(pairs) if order else pairs
        steps = [(k - i, m - j) for (i, j), (k, m) in zip(row, row[1:], strict=False)]
        chunks = 1 + sum(not chunk(*step) for step in steps)
        m = len(pairs)
        return mean(m / said, m / wanted) * (1 - penalty(chunks, m))

    return answer


def _told_by_one_pair(score):
    values = {"right": 1, "recall": 1, "precision": 1, "letters": 1, "case": 0, "once": 1}
    return next(name for name, value in values.items() if score("Cat", "cat") == value)


def _without_once(score):
    if score("Cat", "cat") == 0:
        return "case"
    if score("ab", "ba") > 0:
        return "letters"
    p, r = score("a b", "a"), score("a", "a b")
    if p != r:
        return "recall" if p > r else "precision"
    return "right" if score("a a", "a") < 1 else "not clipped"


def _mixed_up(score):
    value = _without_once(score)
    return {"recall": "precision", "precision": "recall"}.get(value, value)


WRONG_ANSWERS = {
    "16.1": [
        (
            lambda predicted, true: float(f1_score(true, predicted, average="micro")),
            "this is the accuracy",
        ),
        (_macro(lambda predicted, true: true), "a class that was predicted and is never true"),
        (_macro(lambda predicted, true: predicted), "a class that was never predicted is missing"),
        (
            lambda predicted, true: float(f1_score(true, predicted, average="weighted")),
            "weighted by how often they are true",
        ),
        (_f1_of_means, "the F1 of the mean precision and the mean recall"),
    ],
    "16.2": [
        (_unclipped, "counts however often it is said"),
        (_clip(lambda counts: sum(counts, Counter())), "the references are added up"),
        (_clip(_min), "the smallest count among the references"),
        (_best_reference, "one reference is chosen for all n-grams"),
        (_clip(_max, lambda grams: len(set(grams))), "expected"),
        (_of_words, "the total is the number of words"),
        (_clip(_max, lambda grams: max(1, len(grams))), "the total is 0"),
        (lambda hypothesis, references, n: 0.5, "return two things"),
    ],
    "16.3": [
        (_next_place, "each word takes its next place in the reference"),
        (_run, "the longest run of neighbours"),
        (_any_order, "both places must grow"),
        (lambda h, r: [(j, i) for i, j in _lcs(h, r)], "comes first in a pair"),
        (lambda h, r: [h[i] for i, _ in _lcs(h, r)], "pairs of places"),
        (lambda h, r: len(_lcs(h, r)), "return a list"),
        (lambda h, r: _lcs(h, r)[1:], "a common subsequence of"),
    ],
    "16.4": [
        (_skips(form=lambda counts: Counter(set(counts))), "every pair counts once"),
        (_skips(shift=0), "with gap 0 neighbours are a pair"),
        (_skips(shift=2), "one word too many"),
        (_skips(falsy=True), "0 is false in Python"),
        (
            _skips(form=lambda c: Counter(tuple(sorted(p)) for p in c.elements())),
            "order counts",
        ),
        (_skips(flip=True), "precision and recall are exchanged"),
        (lambda h, r, gap: _skips()(h, r, gap)[1], "return three things"),
    ],
    "16.5": [
        (_meteor(mean=lambda p, r: 2 * p * r / (p + r)), "the plain F1"),
        (_meteor(mean=lambda p, r: 10 * p * r / (p + 9 * r)), "exchanged in the mean"),
        (_meteor(order=False), "sort them"),
        (_meteor(chunk=lambda i, j: j == 1), "look at the hypothesis, too"),
        (_meteor(chunk=lambda i, j: i == 1), "look at the reference, too"),
        (_meteor(chunk=lambda i, j: i == 1 and abs(j) == 1), "read backwards is no chunk"),
        (_meteor(penalty=lambda chunks, m: 0.5 * chunks / m), "the third power"),
        (_meteor(penalty=lambda chunks, m: (chunks / m) ** 3), "the factor 0.5"),
        (_meteor(penalty=lambda chunks, m: 0.5 * ((chunks - 1) / m) ** 3), "a chunk is missing"),
    ],
    "16.6": [
        (lambda score: "right", "every scorer is"),
        (_told_by_one_pair, 'the scorer "recall" was called "right"'),
        (_without_once, 'the scorer "once" was called "not clipped"'),
        (_mixed_up, 'the scorer "recall" was called "precision"'),
        (lambda score: "wrong", "return one of"),
    ],
}
