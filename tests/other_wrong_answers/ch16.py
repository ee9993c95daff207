"""Wrong answers to the exercises of chapter 16, as a learner may write them; written from the
statements alone."""

from collections import Counter
from difflib import SequenceMatcher
from itertools import combinations, groupby

from nltk.translate.bleu_score import modified_precision
from sklearn.metrics import f1_score, precision_score, recall_score


# 16.1
def _scores(predicted, true, names=None):
    """(precision, recall, F1) of each class."""
    scores = {}
    for name in names or {*predicted, *true}:
        hits = sum(p == name == t for p, t in zip(predicted, true, strict=True))
        precision = hits / max(predicted.count(name), 1)
        recall = hits / max(true.count(name), 1)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        scores[name] = precision, recall, f1
    return scores


def _mean_f1(predicted, true, names=None):
    scores = _scores(predicted, true, names)
    return sum(score[2] for score in scores.values()) / len(scores)


def _f1_of_the_means(predicted, true):
    scores = list(_scores(predicted, true).values())
    precision, recall = (sum(score[i] for score in scores) / len(scores) for i in (0, 1))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _without_the_missed(predicted, true):
    """A class whose F1 is 0 is left out."""
    scores = [score[2] for score in _scores(predicted, true).values() if score[2]]
    return sum(scores) / len(scores) if scores else 0.0


def _undefined_is_one(predicted, true):
    """0 / 0 is 1, and F1 an arithmetic mean of both."""
    total = 0.0
    names = {*predicted, *true}
    for name in names:
        hits = sum(p == name == t for p, t in zip(predicted, true, strict=True))
        precision = hits / predicted.count(name) if name in predicted else 1.0
        recall = hits / true.count(name) if name in true else 1.0
        total += (precision + recall) / 2
    return total / len(names)


def _divides_by_zero(predicted, true):
    total = 0.0
    names = {*predicted, *true}
    for name in names:
        hits = sum(p == name == t for p, t in zip(predicted, true, strict=True))
        precision, recall = hits / predicted.count(name), hits / true.count(name)
        total += 2 * precision * recall / (precision + recall)
    return total / len(names)


def _half_guarded(predicted, true):
    """Thinks of classes never named, not of those named and never right."""
    total = 0.0
    names = {*predicted, *true}
    for name in names:
        if name not in predicted or name not in true:
            continue
        hits = sum(p == name == t for p, t in zip(predicted, true, strict=True))
        precision, recall = hits / predicted.count(name), hits / true.count(name)
        total += 2 * precision * recall / (precision + recall)
    return total / len(names)


def _sorted_in_place(predicted, true):
    value = _mean_f1(predicted, true)
    predicted.sort()
    true.sort()
    return value


def _sorted_first(predicted, true):
    return _mean_f1(sorted(predicted), sorted(true))


def _jaccard(predicted, true):
    total, names = 0.0, {*predicted, *true}
    for name in names:
        both = sum(p == name == t for p, t in zip(predicted, true, strict=True))
        either = sum(name in pair for pair in zip(predicted, true, strict=True))
        total += both / either
    return total / len(names)


# 16.2
def _grams(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _clip(hypothesis, references, n, limit, total=None):
    ours = Counter(_grams(hypothesis, n))
    counts = [Counter(_grams(text, n)) for text in references]
    matches = sum(
        min(count, limit([other[gram] for other in counts])) for gram, count in ours.items()
    )
    return matches, ours.total() if total is None else total


def _best_reference(hypothesis, references, n):
    """The reference with most matches, alone."""
    ours = Counter(_grams(hypothesis, n))
    return max((ours & Counter(_grams(text, n))).total() for text in references), ours.total()


def _summed_matches(hypothesis, references, n):
    ours = Counter(_grams(hypothesis, n))
    return sum((ours & Counter(_grams(text, n))).total() for text in references), ours.total()


def _unclipped(hypothesis, references, n):
    ours = _grams(hypothesis, n)
    return sum(any(gram in _grams(text, n) for text in references) for gram in ours), len(ours)


def _as_sets(hypothesis, references, n):
    ours = set(_grams(hypothesis, n))
    return len(ours & {gram for text in references for gram in _grams(text, n)}), len(ours)


def _sets_over_all(hypothesis, references, n):
    ours = set(_grams(hypothesis, n))
    same = ours & {gram for text in references for gram in _grams(text, n)}
    return len(same), len(_grams(hypothesis, n))


def _one_text(hypothesis, references, n):
    """All references in a row: n-grams run over their ends."""
    joined = [word for text in references for word in text]
    return _best_reference(hypothesis, [joined], n)


def _glued(hypothesis, references, n):
    """The words of an n-gram without a blank."""

    def glue(words):
        return ["".join(gram) for gram in _grams(words, n)]

    return _clip(glue(hypothesis), [glue(text) for text in references], 1, max)


def _orderless(hypothesis, references, n):
    def order(words):
        return [" ".join(sorted(gram)) for gram in _grams(words, n)]

    return _clip(order(hypothesis), [order(text) for text in references], 1, max)


def _too_few(hypothesis, references, n):
    """Loses the last n-gram."""

    def cut(words):
        return ["\n".join(words[i : i + n]) for i in range(len(words) - n)]

    return _clip(cut(hypothesis), [cut(text) for text in references], 1, max)


def _ragged(hypothesis, references, n):
    """The slices at the end are shorter than n."""

    def cut(words):
        return ["\n".join(words[i : i + n]) for i in range(len(words))]

    return _clip(cut(hypothesis), [cut(text) for text in references], 1, max)


def _all_orders(hypothesis, references, n):
    parts = [_clip(hypothesis, references, k, max) for k in range(1, n + 1)]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def _eats_references(hypothesis, references, n):
    value = _clip(hypothesis, references, n, max)
    for word in hypothesis:
        for text in references:
            if word in text:
                text.remove(word)
    return value


def _nltk(hypothesis, references, n):
    fraction = modified_precision(references, hypothesis, n)
    return fraction.numerator, fraction.denominator


def _reduced(hypothesis, references, n):
    from fractions import Fraction

    matches, total = _clip(hypothesis, references, n, max)
    return Fraction(matches, total).as_integer_ratio() if total else (0, 0)


# 16.3
def _lcs(hypothesis, reference):
    if not hypothesis or not reference:
        return []
    m, n = len(hypothesis) - 1, len(reference) - 1
    if hypothesis[m] == reference[n]:
        return [*_lcs(hypothesis[:m], reference[:n]), (m, n)]
    return max(_lcs(hypothesis[:m], reference), _lcs(hypothesis, reference[:n]), key=len)


def _blocks(hypothesis, reference):
    matcher = SequenceMatcher(None, hypothesis, reference, autojunk=False)
    return [
        (block.a + k, block.b + k)
        for block in matcher.get_matching_blocks()
        for k in range(block.size)
    ]


def _substring(hypothesis, reference):
    """The longest common run."""
    block = SequenceMatcher(None, hypothesis, reference, autojunk=False).find_longest_match()
    return [(block.a + k, block.b + k) for k in range(block.size)]


def _first_come(hypothesis, reference):
    """Each word takes the next place in the reference that has it."""
    pairs, start = [], 0
    for i, word in enumerate(hypothesis):
        if word in reference[start:]:
            start = reference.index(word, start) + 1
            pairs.append((i, start - 1))
    return pairs


def _in_step(hypothesis, reference):
    """Moves in both texts where the words differ."""
    return [(i, i) for i, (a, b) in enumerate(zip(hypothesis, reference, strict=False)) if a == b]


def _any_order(hypothesis, reference):
    """Pairs as in ROUGE-1, in whatever order."""
    pairs, used = [], set()
    for i, word in enumerate(hypothesis):
        for j, other in enumerate(reference):
            if word == other and j not in used:
                used.add(j)
                pairs.append((i, j))
                break
    return pairs


def _not_strict(hypothesis, reference):
    """One word of the reference may serve several of the hypothesis."""
    chains = {}
    for i, word in enumerate(hypothesis):
        for j, other in enumerate(reference):
            if word == other:
                before = [chain for (k, m), chain in chains.items() if k < i and m <= j]
                chains[i, j] = [*max(before, key=len, default=[]), (i, j)]
    return max(chains.values(), key=len, default=[])


def _all_equal(hypothesis, reference):
    return [(i, j) for i, a in enumerate(hypothesis) for j, b in enumerate(reference) if a == b]


def _by_first_index(hypothesis, reference):
    """Places looked up by the word: a repeated word gets the first one."""
    words = [hypothesis[i] for i, _ in _lcs(hypothesis, reference)]
    return [(hypothesis.index(word), reference.index(word)) for word in words]


def _look_ahead(hypothesis, reference):
    """Drops the word of the side whose partner is farther away."""
    pairs, i, j = [], 0, 0
    while i < len(hypothesis) and j < len(reference):
        if hypothesis[i] == reference[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif hypothesis[i] in reference[j:]:
            j += 1
        else:
            i += 1
    return pairs


def _empties(hypothesis, reference):
    hypothesis[:], value = [], _lcs(hypothesis, reference)
    return value


# 16.4
def _pairs(words, gap):
    return [
        (words[i], words[j])
        for i, j in combinations(range(len(words)), 2)
        if gap is None or j - i - 1 <= gap
    ]


def _rates(same, said, wanted, empty=0):
    precision = same / said if said else empty
    recall = same / wanted if wanted else empty
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0


def _skip(hypothesis, reference, gap, pairs=_pairs):
    ours, wanted = Counter(pairs(hypothesis, gap)), Counter(pairs(reference, gap))
    return _rates((ours & wanted).total(), ours.total(), wanted.total())


def _none_and_zero(words, gap):
    return _pairs(words, gap or None)


def _with_singles(words, gap):
    return _pairs(words, gap) + list(words)


def _last_word_missing(words, gap):
    return _pairs(words[:-1], gap)


def _sorted_pairs(words, gap):
    return [tuple(sorted(pair)) for pair in _pairs(words, gap)]


def _with_itself(words, gap):
    return _pairs(words, gap) + [(word, word) for word in words]


def _two_words(words, gap):
    """No pair of a word with the same word."""
    return [pair for pair in _pairs(words, gap) if pair[0] != pair[1]]


def _just_the_gap(words, gap):
    return _pairs(words, None) if gap is None else list(zip(words, words[gap + 1 :], strict=False))


def _glued_pairs(words, gap):
    return ["".join(pair) for pair in _pairs(words, gap)]


def _by_index(words, gap):
    """The distance of the first places of the words."""
    return [
        (a, b)
        for a, b in combinations(words, 2)
        if gap is None or words.index(b) - words.index(a) - 1 <= gap
    ]


def _skip_sets(hypothesis, reference, gap):
    ours, wanted = set(_pairs(hypothesis, gap)), set(_pairs(reference, gap))
    return _rates(len(ours & wanted), len(ours), len(wanted))


def _skip_unclipped(hypothesis, reference, gap):
    ours, wanted = _pairs(hypothesis, gap), _pairs(reference, gap)
    return _rates(sum(pair in wanted for pair in ours), len(ours), len(wanted))


def _all_pairs_below(hypothesis, reference, gap):
    """Divides by n (n − 1) / 2 whatever the gap."""
    same = (Counter(_pairs(hypothesis, gap)) & Counter(_pairs(reference, gap))).total()
    said, wanted = (len(_pairs(words, None)) for words in (hypothesis, reference))
    return _rates(same, said, wanted)


def _gap_in_one(hypothesis, reference, gap):
    ours, wanted = Counter(_pairs(hypothesis, gap)), Counter(_pairs(reference, None))
    return _rates((ours & wanted).total(), ours.total(), wanted.total())


def _empty_is_one(hypothesis, reference, gap):
    ours, wanted = Counter(_pairs(hypothesis, gap)), Counter(_pairs(reference, gap))
    return _rates((ours & wanted).total(), ours.total(), wanted.total(), empty=1)


def _equal_is_one(hypothesis, reference, gap):
    return (1.0, 1.0, 1.0) if hypothesis == reference else _skip(hypothesis, reference, gap)


def _unguarded(hypothesis, reference, gap):
    ours, wanted = Counter(_pairs(hypothesis, gap)), Counter(_pairs(reference, gap))
    same = (ours & wanted).total()
    precision, recall = same / ours.total(), same / wanted.total()
    return precision, recall, 2 * precision * recall / (precision + recall) if same else 0


def _unguarded_f1(hypothesis, reference, gap):
    precision, recall, _ = _skip(hypothesis, reference, gap)
    return precision, recall, 2 * precision * recall / (precision + recall)


def _mean_of_both(hypothesis, reference, gap):
    precision, recall, _ = _skip(hypothesis, reference, gap)
    return precision, recall, (precision + recall) / 2


def _pops(hypothesis, reference, gap):
    value = _skip(hypothesis, reference, gap)
    for words in (hypothesis, reference):
        while words:
            words.pop(0)
    return value


# 16.5
def _count_chunks(pairs):
    return sum((i - 1, j - 1) not in pairs for i, j in pairs)


def _meteor(pairs, said, wanted, count=_count_chunks, power=3, factor=0.5, weights=(1, 9)):
    m = len(pairs)
    if not m:
        return 0.0
    P, R = m / said, m / wanted
    mean = 10 * P * R / (weights[0] * R + weights[1] * P)
    return mean * (1 - factor * (count(pairs) / m) ** power)


def _as_given(pairs):
    """Believes that the pairs are in order."""
    return 1 + sum(
        (k, m) != (i + 1, j + 1) for (i, j), (k, m) in zip(pairs, pairs[1:], strict=False)
    )


def _breaks(pairs):
    return _count_chunks(pairs) - 1


def _joints(pairs):
    return len(pairs) - _count_chunks(pairs)


def _backwards_too(pairs):
    ordered = sorted(pairs)
    return 1 + sum(
        k != i + 1 or abs(m - j) != 1 for (i, j), (k, m) in zip(ordered, ordered[1:], strict=False)
    )


def _next_in_the_reference(pairs):
    """Words of the hypothesis between two pairs do not count."""
    ordered = sorted(pairs)
    return 1 + sum(m != j + 1 for (_, j), (_, m) in zip(ordered, ordered[1:], strict=False))


def _next_in_the_hypothesis(pairs):
    ordered = sorted(pairs)
    return 1 + sum(k != i + 1 for (i, _), (k, _) in zip(ordered, ordered[1:], strict=False))


def _growing(pairs):
    """Any gap in a chunk, in one order."""
    ordered = sorted(pairs)
    return 1 + sum(m < j for (_, j), (_, m) in zip(ordered, ordered[1:], strict=False))


def _diagonals(pairs):
    """Pairs with one difference, with gaps in between."""
    return len({j - i for i, j in pairs})


def _grouped(pairs):
    return len(list(groupby(sorted(pairs), key=lambda pair: pair[1] - pair[0])))


def _same_step(pairs):
    """Equal steps join, as 2 and 2."""
    ordered = sorted(pairs)
    return 1 + sum(k - i != m - j for (i, j), (k, m) in zip(ordered, ordered[1:], strict=False))


def _sides_apart(pairs):
    """Sorts both sides for themselves."""
    ours, theirs = sorted(i for i, _ in pairs), sorted(j for _, j in pairs)
    return _as_given(list(zip(ours, theirs, strict=True)))


def _two_of_a_run(pairs):
    """Only runs of two or more are chunks."""
    return sum((i - 1, j - 1) not in pairs and (i + 1, j + 1) in pairs for i, j in pairs)


def _sorts(pairs, hypothesis_length, reference_length):
    pairs.sort()
    return _meteor(pairs, hypothesis_length, reference_length)


def _single_chunk_free(pairs, hypothesis_length, reference_length):
    """No penalty when all stands in one chunk."""
    if pairs and _count_chunks(pairs) == 1:
        return _meteor(pairs, hypothesis_length, reference_length, factor=0)
    return _meteor(pairs, hypothesis_length, reference_length)


def _even_f1(pairs, hypothesis_length, reference_length):
    m = len(pairs)
    if not m:
        return 0.0
    return (
        2 * m / (hypothesis_length + reference_length) * (1 - (_count_chunks(pairs) / m) ** 3 / 2)
    )


def _no_pairs(pairs, hypothesis_length, reference_length):
    m = len(pairs)
    P, R = m / hypothesis_length, m / reference_length
    return 10 * P * R / (R + 9 * P) * (1 - (_count_chunks(pairs) / m) ** 3 / 2)


def _penalty_by_length(pairs, hypothesis_length, reference_length):
    if not pairs:
        return 0.0
    m, chunks = len(pairs), _count_chunks(pairs)
    mean = 10 * m / (hypothesis_length + 9 * reference_length)
    return mean * (1 - (chunks / hypothesis_length) ** 3 / 2)


# 16.6
def _differ(score, hypothesis, reference, value):
    return abs(score(hypothesis, reference) - value) > 1e-4


def _diagnose(score, without=(), once="a a a b", other="a c"):
    """Right but for the kinds that it does not know, and the text with repeats."""
    if "case" not in without and _differ(score, "a", "A", 1):
        return "case"
    if "letters" not in without and _differ(score, "ab", "ba", 0):
        return "letters"
    if "recall" not in without and not _differ(score, "a b", "a", 1):
        return "recall"
    if "precision" not in without and not _differ(score, "a", "a b", 1):
        return "precision"
    ours, wanted = once.split(), other.split()
    same = (Counter(ours) & Counter(wanted)).total()
    if not _differ(score, once, other, 2 * same / (len(ours) + len(wanted))):
        return "right"
    sets = set(ours), set(wanted)
    as_sets = 2 * len(sets[0] & sets[1]) / (len(sets[0]) + len(sets[1]))
    if "once" not in without and not _differ(score, once, other, as_sets):
        return "once"
    return "not clipped" if "not clipped" not in without else "right"


def _not_clipped_first(score):
    """With the repeats in the hypothesis alone, sets give the same."""
    name = _diagnose(score, without=("once",))
    return "not clipped" if name == "not clipped" else name


def _exact(score):
    """Compares with ==, where the numbers are true to six digits only."""
    if score("a", "A") == 0:
        return "case"
    if score("ab", "ba") == 1:
        return "letters"
    names = {2 / 6: "right", 1 / 2: "once", 4 / 7: "not clipped", 1 / 4: "precision"}
    found = names.get(score("a a a b", "a c"), "right")
    if found == "once" and score("a b c", "a") == 1:
        return "recall"
    return found


def _recall_or_once(score):
    """One text tells 1/2 of a recall from nothing."""
    if score("a", "A") < 0.5:
        return "case"
    if score("ab", "ba") > 0.5:
        return "letters"
    table = {0.333: "right", 0.5: "recall", 0.25: "precision", 0.6: "not clipped"}
    return table.get(round(score("a a a b", "a c"), 3), "once")


def _letters_by_a_word(score):
    """Letters in common with another word: any text with one word in common has them, too."""
    if score("cat dog", "cat god") > 0:
        return "letters"
    return _diagnose(score, without=("letters",))


def _swapped(score):
    name = _diagnose(score)
    return {"recall": "precision", "precision": "recall"}.get(name, name)


def _sets_swapped(score):
    name = _diagnose(score)
    return {"once": "not clipped", "not clipped": "once"}.get(name, name)


def _numbered(score):
    names = ["right", "recall", "precision", "letters", "case", "not clipped", "once"]
    return names.index(_diagnose(score))


OTHER_WRONG_ANSWERS = {
    "16.1": [
        lambda predicted, true: _mean_f1(predicted, true, set(true)),
        lambda predicted, true: _mean_f1(predicted, true, set(predicted)),
        lambda predicted, true: _mean_f1(predicted, true, set(predicted) & set(true) or {""}),
        lambda predicted, true: sum(map(str.__eq__, predicted, true)) / len(true),
        lambda predicted, true: float(f1_score(true, predicted, average="weighted")),
        lambda predicted, true: float(f1_score(true, predicted, average="micro")),
        lambda predicted, true: float(
            recall_score(true, predicted, average="macro", zero_division=0)
        ),
        lambda predicted, true: float(
            precision_score(true, predicted, average="macro", zero_division=0)
        ),
        lambda predicted, true: 100 * _mean_f1(predicted, true),
        lambda predicted, true: round(_mean_f1(predicted, true), 2),
        lambda predicted, true: {k: v[2] for k, v in _scores(predicted, true).items()},
        lambda predicted, true: _mean_f1(predicted, true) * len({*predicted, *true}) / len(true),
        lambda predicted, true: sum(v[2] for v in _scores(predicted, true).values()),
        lambda predicted, true: sorted(v[2] for v in _scores(predicted, true).values())[
            len({*predicted, *true}) // 2
        ],
        _f1_of_the_means,
        _without_the_missed,
        _undefined_is_one,
        _divides_by_zero,
        _half_guarded,
        _sorted_in_place,
        _sorted_first,
        _jaccard,
    ],
    "16.2": [
        lambda hypothesis, references, n: _clip(hypothesis, references, n, sum),
        lambda hypothesis, references, n: _clip(hypothesis, references, n, min),
        lambda hypothesis, references, n: _clip(hypothesis, references[:1], n, max),
        lambda hypothesis, references, n: _clip(hypothesis, references[-1:], n, max),
        lambda hypothesis, references, n: _clip(
            hypothesis, references, n, max, len(hypothesis) - n + 1
        ),
        lambda hypothesis, references, n: _clip(hypothesis, references, n, max, len(hypothesis)),
        lambda hypothesis, references, n: _clip(
            hypothesis, references, n, max, max(1, len(_grams(hypothesis, n)))
        ),
        lambda hypothesis, references, n: _clip(
            hypothesis, references, n, max, max(len(_grams(text, n)) for text in references)
        ),
        lambda hypothesis, references, n: _clip(hypothesis, references, n, max)[::-1],
        lambda hypothesis, references, n: _clip(hypothesis, references, n, max)[0],
        lambda hypothesis, references, n: _clip(hypothesis, references, 1, max),
        lambda hypothesis, references, n: _clip(hypothesis, references, min(n, 2), max),
        lambda hypothesis, references, n: (
            _clip(hypothesis, references, n, max)[0] / max(1, len(_grams(hypothesis, n)))
        ),
        _best_reference,
        _summed_matches,
        _unclipped,
        _as_sets,
        _sets_over_all,
        _one_text,
        _glued,
        _orderless,
        _too_few,
        _ragged,
        _all_orders,
        _eats_references,
        _nltk,
        _reduced,
    ],
    "16.3": [
        lambda hypothesis, reference: len(_lcs(hypothesis, reference)),
        lambda hypothesis, reference: [hypothesis[i] for i, _ in _lcs(hypothesis, reference)],
        lambda hypothesis, reference: [i for i, _ in _lcs(hypothesis, reference)],
        lambda hypothesis, reference: [(j, i) for i, j in _lcs(hypothesis, reference)],
        lambda hypothesis, reference: [(i + 1, j + 1) for i, j in _lcs(hypothesis, reference)],
        lambda hypothesis, reference: _lcs(hypothesis, reference)[::-1],
        lambda hypothesis, reference: _lcs(hypothesis, reference)[1:],
        lambda hypothesis, reference: _lcs(hypothesis[1:], reference[1:]),
        lambda hypothesis, reference: _lcs(hypothesis, reference) or None,
        lambda hypothesis, reference: [(0, 0), (2, 2), (3, 3)],
        _blocks,
        _substring,
        _first_come,
        _in_step,
        _any_order,
        _not_strict,
        _all_equal,
        _by_first_index,
        _look_ahead,
        _empties,
    ],
    "16.4": [
        lambda hypothesis, reference, gap: _skip(
            hypothesis, reference, gap if gap is None else gap - 1
        ),
        lambda hypothesis, reference, gap: _skip(
            hypothesis, reference, gap if gap is None else gap + 1
        ),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, None),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap or 0),
        lambda hypothesis, reference, gap: _skip(reference, hypothesis, gap),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap)[2],
        lambda hypothesis, reference, gap: tuple(
            round(value, 2) for value in _skip(hypothesis, reference, gap)
        ),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap)[:2],
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _none_and_zero),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _with_singles),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _last_word_missing),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _sorted_pairs),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _with_itself),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _two_words),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _just_the_gap),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _glued_pairs),
        lambda hypothesis, reference, gap: _skip(hypothesis, reference, gap, _by_index),
        _skip_sets,
        _skip_unclipped,
        _all_pairs_below,
        _gap_in_one,
        _empty_is_one,
        _equal_is_one,
        _unguarded,
        _unguarded_f1,
        _mean_of_both,
        _pops,
    ],
    "16.5": [
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _as_given),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _breaks),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _joints),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _backwards_too),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _next_in_the_reference),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _next_in_the_hypothesis),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _growing),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _diagonals),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _grouped),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _same_step),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _sides_apart),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, _two_of_a_run),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, power=1),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, power=2),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, factor=1),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, factor=0),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted, weights=(9, 1)),
        lambda pairs, said, wanted: _meteor(pairs, wanted, said),
        lambda pairs, said, wanted: 100 * _meteor(pairs, said, wanted),
        lambda pairs, said, wanted: _meteor(pairs, said, wanted) or None,
        lambda pairs, said, wanted: 0.9375,
        _sorts,
        _single_chunk_free,
        _even_f1,
        _no_pairs,
        _penalty_by_length,
    ],
    "16.6": [
        lambda score: "right",
        lambda score: "not clipped",
        lambda score: _diagnose(score, without=("recall",)),
        lambda score: _diagnose(score, without=("precision",)),
        lambda score: _diagnose(score, without=("letters",)),
        lambda score: _diagnose(score, without=("case",)),
        lambda score: _diagnose(score, without=("once",)),
        lambda score: _diagnose(score, without=("not clipped",)),
        lambda score: _diagnose(score, without=("not clipped", "once")),
        lambda score: _diagnose(score, once="a a a b", other="a b"),
        lambda score: _diagnose(score, once="a b", other="a c"),
        lambda score: _diagnose(score, once="a a", other="a"),
        lambda score: _diagnose(score).upper(),
        lambda score: [_diagnose(score)],
        lambda score: _diagnose(score).replace("not clipped", "unclipped"),
        _exact,
        _recall_or_once,
        _letters_by_a_word,
        lambda score: _diagnose(score, without=("recall", "precision")),
        _swapped,
        _sets_swapped,
        lambda score: None if _diagnose(score) else "",
        _numbered,
    ],
}
