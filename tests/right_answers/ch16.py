"""Right answers to the exercises of chapter 16, each in another style; written from the statements
alone."""

from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache
from itertools import combinations, product
from statistics import fmean, harmonic_mean

import numpy as np
from nltk import ngrams
from rouge_score import rouge_scorer
from sklearn.metrics import classification_report, f1_score

from sft_lab import metrics, overlap
from sft_lab.alignment import count_chunks


# 16.1
def _by_counts(predicted, true):
    hits = Counter(p for p, t in zip(predicted, true, strict=True) if p == t)
    named, wanted = Counter(predicted), Counter(true)
    classes = named.keys() | wanted.keys()
    return sum(2 * hits[name] / (named[name] + wanted[name]) for name in classes) / len(classes)


def _from_precision_and_recall(predicted, true):
    total, names = 0.0, []
    for name in [*true, *predicted]:
        if name in names:
            continue
        names.append(name)
        hits = sum(p == name == t for p, t in zip(predicted, true, strict=True))
        precision = hits / predicted.count(name) if name in predicted else 0
        recall = hits / true.count(name) if name in true else 0
        if precision + recall > 0:
            total += 2 * precision * recall / (precision + recall)
    return total / len(names)


def _from_a_confusion_matrix(predicted, true):
    names, codes = np.unique([predicted, true], return_inverse=True)
    codes = codes.reshape(2, -1)
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (codes[0], codes[1]), 1)
    return float((2 * np.diag(table) / (table.sum(0) + table.sum(1))).mean())


def _in_fractions(predicted, true):
    pairs = list(zip(predicted, true, strict=True))
    scores = []
    for name in set(predicted).union(true):
        tp = pairs.count((name, name))
        fp = sum(p == name != t for p, t in pairs)
        fn = sum(t == name != p for p, t in pairs)
        scores.append(Fraction(2 * tp, 2 * tp + fp + fn))
    return float(sum(scores) / len(scores))


def _by_harmonic_mean(predicted, true):
    scores = []
    for name in {*predicted, *true}:
        hits = sum(p == name == t for p, t in zip(predicted, true, strict=True))
        rates = [hits / max(column.count(name), 1) for column in (predicted, true)]
        scores.append(harmonic_mean(rates))
    return fmean(scores)


def _from_the_report(predicted, true):
    report = classification_report(true, predicted, output_dict=True, zero_division=0)
    return report["macro avg"]["f1-score"]


# 16.2
def _by_counters(hypothesis, references, n):
    def count(words):
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    ours, most = count(hypothesis), Counter()
    for reference in references:
        most |= count(reference)
    return (ours & most).total(), ours.total()


def _by_lists(hypothesis, references, n):
    grams = [hypothesis[i : i + n] for i in range(len(hypothesis) - n + 1)]
    others = [[text[i : i + n] for i in range(len(text) - n + 1)] for text in references]
    matches, seen = 0, []
    for gram in grams:
        if gram not in seen:
            seen.append(gram)
            matches += min(grams.count(gram), max(other.count(gram) for other in others))
    return matches, len(grams)


def _by_zip(hypothesis, references, n):
    ours = list(zip(*(hypothesis[i:] for i in range(n)), strict=False))
    theirs = [list(zip(*(text[i:] for i in range(n)), strict=False)) for text in references]
    matches = sum(
        min(ours.count(gram), max(map(lambda grams, gram=gram: grams.count(gram), theirs)))
        for gram in set(ours)
    )
    return matches, len(ours)


def _crossed_off(hypothesis, references, n):
    """The k-th time that an n-gram comes, some reference must have it k times."""
    said, matches, total = defaultdict(int), 0, 0
    for gram in ngrams(hypothesis, n):
        total += 1
        said[gram] += 1
        matches += any(list(ngrams(text, n)).count(gram) >= said[gram] for text in references)
    return matches, total


def _by_numpy(hypothesis, references, n):
    total = max(len(hypothesis) - n + 1, 0)
    codes = {}
    rows = []
    for text in [hypothesis, *references]:
        row = [tuple(text[i : i + n]) for i in range(max(len(text) - n + 1, 0))]
        rows.append([codes.setdefault(gram, len(codes)) for gram in row])
    counts = np.array([np.bincount(np.array(row, int), minlength=len(codes) + 1) for row in rows])
    return int(np.minimum(counts[0], counts[1:].max(axis=0)).sum()), total


def _recursively(hypothesis, references, n):
    """Numbers each n-gram by how often it came before; the union of numbered ones clips."""

    def number(words, seen=()):
        if len(words) < n:
            return set()
        gram = tuple(words[:n])
        return {(gram, seen.count(gram))} | number(words[1:], (*seen, gram))

    ours = number(hypothesis)
    return len(ours & set().union(*map(number, references))), len(ours)


# 16.3
def _by_table(hypothesis, reference):
    m, n = len(hypothesis), len(reference)
    table = [[0] * (n + 1) for _ in range(m + 1)]
    for i in range(m):
        for j in range(n):
            if hypothesis[i] == reference[j]:
                table[i + 1][j + 1] = table[i][j] + 1
            else:
                table[i + 1][j + 1] = max(table[i][j + 1], table[i + 1][j])
    pairs, i, j = [], m, n
    while i and j:
        if hypothesis[i - 1] == reference[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif table[i - 1][j] >= table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _memoised(hypothesis, reference):
    @cache
    def best(i, j):
        if i == len(hypothesis) or j == len(reference):
            return []
        if hypothesis[i] == reference[j]:
            return [(i, j), *best(i + 1, j + 1)]
        return max(best(i + 1, j), best(i, j + 1), key=len)

    return best(0, 0)


def _try_all_choices(hypothesis, reference):
    for size in range(min(len(hypothesis), len(reference)), 0, -1):
        for places in combinations(range(len(hypothesis)), size):
            pairs, j = [], 0
            for i in places:
                while j < len(reference) and reference[j] != hypothesis[i]:
                    j += 1
                if j == len(reference):
                    break
                pairs.append((i, j))
                j += 1
            if len(pairs) == size:
                return pairs
    return []


def _longest_path(hypothesis, reference):
    """The last of the longest ones: each pair with the best chain that ends in it."""
    equal = [
        (i, j)
        for i, j in product(range(len(hypothesis)), range(len(reference)))
        if hypothesis[i] == reference[j]
    ]
    chains = {}
    for i, j in equal:
        before = [chain for (k, m), chain in chains.items() if k < i and m < j]
        chains[i, j] = [*max(before, key=len, default=[]), (i, j)]
    return max(reversed(chains.values()), key=len, default=[])


def _row_by_row(hypothesis, reference):
    row = [[]] * (len(reference) + 1)
    for i, word in enumerate(hypothesis):
        new = [[]]
        for j, other in enumerate(reference):
            options = [row[j + 1], new[j]]
            if word == other:
                options.append([*row[j], (i, j)])
            new.append(max(options, key=len))
        row = new
    return row[-1]


def _from_the_end(hypothesis, reference):
    """Recursion on the last words, with slices."""
    if not hypothesis or not reference:
        return []
    *first, last = hypothesis
    if last in reference:
        j = len(reference) - 1 - reference[::-1].index(last)
        with_last = [*_from_the_end(first, reference[:j]), (len(first), j)]
        return max(with_last, _from_the_end(first, reference), key=len)
    return _from_the_end(first, reference)


def _with_rouge_score(hypothesis, reference):
    table = rouge_scorer._lcs_table(reference, hypothesis)
    places = rouge_scorer._backtrack_norec(table, reference, hypothesis)
    pairs, i = [], 0
    for j in places:
        i = hypothesis.index(reference[j], i)
        pairs.append((i, int(j)))
        i += 1
    return pairs


# 16.4
def _skip_counters(hypothesis, reference, gap):
    def count(words):
        return Counter(
            (words[i], words[j])
            for i, j in combinations(range(len(words)), 2)
            if gap is None or j - i - 1 <= gap
        )

    ours, wanted = count(hypothesis), count(reference)
    same = sum((ours & wanted).values())
    precision = same / ours.total() if ours else 0.0
    recall = same / wanted.total() if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if same else 0.0
    return precision, recall, f1


def _skip_crossed_off(hypothesis, reference, gap):
    def pairs(words):
        found = []
        for i, first in enumerate(words):
            stop = len(words) if gap is None else i + gap + 2
            found += [(first, second) for second in words[i + 1 : stop]]
        return found

    ours, left = pairs(hypothesis), pairs(reference)
    said, wanted, same = len(ours), len(left), 0
    for pair in ours:
        if pair in left:
            left.remove(pair)
            same += 1
    return same / max(said, 1), same / max(wanted, 1), 2 * same / max(said + wanted, 1)


def _skip_matrices(hypothesis, reference, gap):
    words = sorted({*hypothesis, *reference})
    tables = []
    for text in (hypothesis, reference):
        table = np.zeros((len(words), len(words)))
        one_hot = np.array([[word == other for other in words] for word in text], float)
        if len(text):
            distance = np.arange(len(text))[None] - np.arange(len(text))[:, None]
            near = (distance > 0) & (distance <= (len(text) if gap is None else gap + 1))
            table = one_hot.T @ near @ one_hot
        tables.append(table)
    same = np.minimum(*tables).sum()
    sums = [table.sum() for table in tables]
    precision, recall = (float(same / total) if total else 0.0 for total in sums)
    return precision, recall, float(2 * same / sum(sums)) if sum(sums) else 0.0


def _skip_recursive(hypothesis, reference, gap):
    def pairs(words):
        if not words:
            return Counter()
        first, *rest = words
        near = rest if gap is None else rest[: gap + 1]
        return Counter((first, other) for other in near) + pairs(rest)

    ours, wanted = pairs(list(hypothesis)), pairs(list(reference))
    same = sum(min(count, wanted[pair]) for pair, count in ours.items())
    try:
        precision = same / ours.total()
    except ZeroDivisionError:
        precision = 0
    try:
        recall = same / wanted.total()
    except ZeroDivisionError:
        recall = 0
    try:
        return precision, recall, 2 / (1 / precision + 1 / recall)
    except ZeroDivisionError:
        return precision, recall, 0


def _skip_by_distance(hypothesis, reference, gap):
    """All pairs at distance 1, then 2, …"""
    widest = max(len(hypothesis), len(reference)) if gap is None else gap + 1
    counts = []
    for words in (hypothesis, reference):
        count = Counter()
        for distance in range(1, widest + 1):
            count.update(zip(words, words[distance:], strict=False))
        counts.append(count)
    same = (counts[0] & counts[1]).total()
    said, wanted = (sum(count.values()) for count in counts)
    if same == 0:
        return 0, 0, 0
    return same / said, same / wanted, 2 * same / (said + wanted)


# 16.5
def _starts(pairs, hypothesis_length, reference_length):
    m = len(pairs)
    if m == 0:
        return 0
    chunks = sum((i - 1, j - 1) not in pairs for i, j in pairs)
    P, R = m / hypothesis_length, m / reference_length
    return 10 * P * R / (R + 9 * P) * (1 - 0.5 * (chunks / m) ** 3)


def _sorted_run(pairs, hypothesis_length, reference_length):
    if not pairs:
        return 0.0
    ordered, chunks = sorted(pairs), 1
    for (i, j), (k, m) in zip(ordered, ordered[1:], strict=False):
        if (k, m) != (i + 1, j + 1):
            chunks += 1
    precision, recall = len(pairs) / hypothesis_length, len(pairs) / reference_length
    mean = 1 / (0.9 / recall + 0.1 / precision)
    return mean * (1 - (chunks / len(pairs)) ** 3 / 2)


def _by_the_reference(pairs, hypothesis_length, reference_length):
    ordered = np.array(sorted(pairs, key=lambda pair: pair[1])).reshape(-1, 2)
    m = len(ordered)
    if m < 1:
        return 0.0
    chunks = 1 + int((np.diff(ordered, axis=0) != 1).any(axis=1).sum())
    mean = 10 * m / (hypothesis_length + 9 * reference_length)
    return float(mean * (1 - (chunks / m) ** 3 / 2))


def _eaten(pairs, hypothesis_length, reference_length):
    """Takes any pair, and all that hangs together with it, until none is left."""
    left, chunks, m = {tuple(pair) for pair in pairs}, 0, len(pairs)
    while left:
        i, j = left.pop()
        chunks += 1
        for step in (1, -1):
            at = (i + step, j + step)
            while at in left:
                left.remove(at)
                at = (at[0] + step, at[1] + step)
    if not m:
        return 0
    P, R = Fraction(m, hypothesis_length), Fraction(m, reference_length)
    return float(10 * P * R / (R + 9 * P) * (1 - Fraction(chunks, m) ** 3 / 2))


def _joins(pairs, hypothesis_length, reference_length):
    """Chunks are the pairs less the places where two of them join."""
    partner, m = dict(pairs), len(pairs)
    joined = 0
    for i in range(hypothesis_length - 1):
        joined += i in partner and partner.get(i + 1) == partner[i] + 1
    return (
        0.0
        if not partner
        else 10 * m / (hypothesis_length + 9 * reference_length) * (1 - ((m - joined) / m) ** 3 / 2)
    )


def _with_the_courses(pairs, hypothesis_length, reference_length):
    m = len(pairs)
    if m == 0:
        return 0.0
    p, r = m / hypothesis_length, m / reference_length
    return 10 * p * r / (r + 9 * p) * (1 - 0.5 * (count_chunks(sorted(pairs)) / m) ** 3)


# 16.6
def _tree(score):
    if score("yes", "YES") < 0.5:
        return "case"
    if score("ab cd", "dcb a") > 0.9:
        return "letters"
    long_answer, long_reference = score("a b c d", "a"), score("a", "a b c d")
    if long_answer > long_reference + 0.1:
        return "recall"
    if long_answer < long_reference - 0.1:
        return "precision"
    repeats = score("a a a b", "a c")
    if abs(repeats - 1 / 2) < 0.01:
        return "once"
    return "not clipped" if repeats > 0.5 else "right"


def _words_of(text, lower=True):
    return (text.lower() if lower else text).split()


def _f1(same, said, wanted):
    return 2 * same / (said + wanted)


def _suspects(hypothesis, reference):
    """What each of the seven gives."""
    ours, wanted = _words_of(hypothesis), _words_of(reference)
    same = (Counter(ours) & Counter(wanted)).total()
    letters = Counter(hypothesis.lower()), Counter(reference.lower())
    raw = Counter(_words_of(hypothesis, False)), Counter(_words_of(reference, False))
    p = sum(word in wanted for word in ours) / len(ours)
    r = sum(word in ours for word in wanted) / len(wanted)
    sets = set(ours), set(wanted)
    return {
        "right": _f1(same, len(ours), len(wanted)),
        "recall": same / len(wanted),
        "precision": same / len(ours),
        "letters": _f1((letters[0] & letters[1]).total(), len(hypothesis), len(reference)),
        "case": _f1((raw[0] & raw[1]).total(), len(ours), len(wanted)),
        "not clipped": 2 * p * r / (p + r) if p + r else 0,
        "once": _f1(len(sets[0] & sets[1]), len(sets[0]), len(sets[1])),
    }


def _one_probe(score):
    probe = "Go go go stop there", "go stop stop now or never GO my dear"
    values, seen = _suspects(*probe), score(*probe)
    return min(values, key=lambda name: abs(values[name] - seen))


def _by_elimination(score):
    left = ["right", "recall", "precision", "letters", "case", "not clipped", "once"]
    for probe in [
        ("x y z", "x"),
        ("x", "x y z"),
        ("Q", "q"),
        ("x x x y", "x z w"),
        ("xy", "yx"),
    ]:
        values, seen = _suspects(*probe), score(*probe)
        left = [name for name in left if abs(values[name] - seen) < 1e-4]
    (name,) = left
    return name


def _looked_up(score):
    first = round(score("Dog dog cat", "dog cow"), 2)
    if round(score("A", "a")) == 0:
        return "case"
    if score("ab", "ba") == 1:
        return "letters"
    if first == 0.5:  # recall, or sets
        return "once" if round(score("dog dog", "dog dog dog dog"), 2) == 1 else "recall"
    return {0.4: "right", 0.33: "precision", 0.57: "not clipped"}[first]


def _matched(score):
    probes = [
        ("b B c", "b b d e"),
        ("k k k", "k"),
        ("k", "k k k"),
        ("on no", "no"),
        ("no on", "ON"),
    ]
    seen = np.array([score(*probe) for probe in probes])
    names = list(_suspects(*probes[0]))
    wanted = np.array([list(_suspects(*probe).values()) for probe in probes])
    return names[int(np.abs(wanted - seen[:, None]).max(axis=0).argmin())]


def _by_questions(score):
    def says(hypothesis, reference, value):
        return abs(score(hypothesis, reference) - value) < 1e-5

    match (
        says("Paris", "paris", 1),
        says("tar", "rat", 0),
        says("one two", "one", 2 / 3),
        says("one one", "one", 2 / 3),
        says("one one one two", "one three", 1 / 2),
    ):
        case False, *_:
            return "case"
        case _, False, *_:
            return "letters"
        case _, _, False, *_:
            return "recall" if says("one two", "one", 1) else "precision"
        case *_, True, _:
            return "right"
        case *_, same:
            return "once" if same else "not clipped"


RIGHT_ANSWERS = {
    "16.1": [
        _by_counts,
        _from_precision_and_recall,
        _from_a_confusion_matrix,
        _in_fractions,
        _by_harmonic_mean,
        _from_the_report,
        lambda predicted, true: f1_score(true, predicted, average="macro", zero_division=0),
        lambda predicted, true: metrics.precision_recall_f1(predicted, true).f1,
        lambda predicted, true: _by_counts(true, predicted),
    ],
    "16.2": [_by_counters, _by_lists, _by_zip, _crossed_off, _by_numpy, _recursively],
    "16.3": [
        _by_table,
        _memoised,
        _try_all_choices,
        _longest_path,
        _row_by_row,
        _from_the_end,
        _with_rouge_score,
        lambda hypothesis, reference: [(i, j) for j, i in _by_table(reference, hypothesis)],
    ],
    "16.4": [
        _skip_counters,
        _skip_crossed_off,
        _skip_matrices,
        _skip_recursive,
        _skip_by_distance,
        lambda hypothesis, reference, gap: overlap.rouge_s(hypothesis, [reference], gap=gap),
    ],
    "16.5": [_starts, _sorted_run, _by_the_reference, _eaten, _joins, _with_the_courses],
    "16.6": [_tree, _one_probe, _by_elimination, _looked_up, _matched, _by_questions],
}
