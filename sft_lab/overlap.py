"""Station "judge": how much of a reference stands in an answer, word by word: BLEU, ROUGE, chrF.

A hypothesis is what a model wrote, and a reference what it should have written: a sequence of words
each, so that how a text is cut into words is your choice (`split_words`). Several references are
several right ways to say it. The values are those of the libraries that people use, whose choices
are part of each score:

- BLEU as sacrebleu's with `tokenize="none"`: counts of all sentences are added before they are
  divided; a count is clipped by the reference that has most of that n-gram; each sentence counts
  with the reference length closest to its own, of two as close the shorter; `smoothing` says what
  stands for an order without a match. nltk smooths by the same methods, but counts an order for
  which a sentence is too short as one n-gram.
- ROUGE as rouge-score's without a stemmer: of several references the one with the best F1, for each
  score by itself. rouge-metric takes the one with the best recall, or adds all counts up. Texts are
  cut into Latin letters and digits, so that every score of a Chinese text is 0 unless
  `split_words` is told the language.
- ROUGE-S, -SU and -W are Lin's formulas (2004). rouge-metric follows his script ROUGE-1.5.5, which
  departs from them: -SU leaves the last word out of the single words, and the recall of -W weighs
  the length of the reference twice.
- chrF as sacrebleu's: characters without white space, orders 1 to 6, recall counts twice (beta 2).

0/0 is 0 throughout: two empty texts have nothing in common. Derived in chapter 16.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations
from math import exp, log

import numpy as np

from sft_lab.metrics import CHINESE, Score, list_ngrams, score_counts

Words = Sequence[Hashable]
LATIN_WORD = re.compile(r"[a-z0-9]+")
LATIN_OR_CHINESE = re.compile(rf"[a-z0-9]+|{CHINESE}")
LANGUAGES = {"en": LATIN_WORD, "zh": LATIN_OR_CHINESE}
SMOOTHINGS = ("none", "floor", "add-k", "exp")
FLOOR = 0.1  # matches that stand for none, with smoothing "floor"
CHARACTER_ORDERS = 6
BETA = 2


def split_words(text: str, *, language: str = "en") -> list[str]:
    """The words of a text in lower case, without punctuation.

    "en": runs of Latin letters and digits, as rouge-score cuts without its stemmer; "é" and "的" are
    no letters there. "zh": besides, each Chinese character is a word. Raises ValueError for another
    language.
    """
    if language not in LANGUAGES:
        raise ValueError(
            f"language is {language!r}; it must be one of {', '.join(map(repr, LANGUAGES))}"
        )
    return LANGUAGES[language].findall(text.lower())


# BLEU


def bleu(
    hypotheses: Sequence[Words],
    references: Sequence[Sequence[Words]],
    *,
    max_n: int = 4,
    smoothing: str = "exp",
    effective_order: bool = False,
) -> float:
    """BLEU of all sentences together, from 0 to 100.

    references: for each hypothesis a list of references. The geometric mean of the shares of 1- to
    max_n-grams that stand in a reference, times exp(1 - r/h) where the h words written are fewer
    than the r words of the references. smoothing: see `bleu_of_counts`. Give lists of one sentence
    for BLEU of a sentence, and effective_order=True, or a sentence of fewer than max_n words is 0.
    Source: Papineni et al. 2002; sacrebleu.
    """
    _check_pairs(hypotheses, references)
    counts = [count_bleu(*pair, max_n=max_n) for pair in zip(hypotheses, references, strict=True)]
    return bleu_of_counts(sum(counts), smoothing=smoothing, effective_order=effective_order)


def count_bleu(hypothesis: Words, references: Sequence[Words], *, max_n: int = 4) -> np.ndarray:
    """(2 max_n + 2,) what one sentence adds: matches of each order, n-grams of each order, words
    written, words of the reference of closest length."""
    check_words(hypothesis, references)
    matches, written = [], []
    for n in range(1, max_n + 1):
        ours = Counter(list_ngrams(hypothesis, n))
        most: Counter = Counter()  # of each n-gram, in the reference that has most of it
        for reference in references:
            most |= Counter(list_ngrams(reference, n))
        matches.append((ours & most).total())
        written.append(ours.total())
    length = len(hypothesis)
    closest = min(map(len, references), key=lambda other: (abs(other - length), other))
    return np.array([*matches, *written, length, closest])


def bleu_of_counts(
    counts: Sequence[float], *, smoothing: str = "exp", effective_order: bool = False
) -> float:
    """BLEU of added counts of `count_bleu`, from 0 to 100.

    smoothing, for an order n without a match: "none": the score is 0; "floor": 0.1 matches;
    "exp": 1/2 match, then 1/4, 1/8 ... for each further such order; "add-k": no matter whether
    there is one, 1 is added to matches and n-grams from n = 2 on. Without a common word the score
    is 0 whatever the smoothing. An order that no sentence is long enough for gives 0, or with
    effective_order the orders end before it. Source: Chen and Cherry 2014.
    """
    if smoothing not in SMOOTHINGS:
        raise ValueError(
            f"smoothing is {smoothing!r}; it must be one of {', '.join(map(repr, SMOOTHINGS))}"
        )
    *ngrams, length, closest = map(float, counts)
    max_n = len(ngrams) // 2
    if not any(ngrams[:max_n]):
        return 0.0
    logs, without = [], 0
    for n, (matches, written) in enumerate(zip(ngrams[:max_n], ngrams[max_n:], strict=True), 1):
        if smoothing == "add-k" and n > 1:
            matches, written = matches + 1, written + 1
        if not written:
            break
        if not matches:
            without += 1
            matches = {"floor": FLOOR, "exp": 0.5**without}.get(smoothing, 0)
        if not matches:
            return 0.0
        logs.append(log(matches / written))
    if len(logs) < max_n and not effective_order:
        return 0.0
    return 100 * min(1.0, exp(1 - closest / length)) * exp(sum(logs) / len(logs))


# ROUGE


def rouge_n(hypothesis: Words, references: Sequence[Words], n: int) -> Score:
    """ROUGE-N: n-grams in common, by those of the hypothesis and by those of the reference."""
    check_words(hypothesis, references)
    ours = Counter(list_ngrams(hypothesis, n))
    return _best(_share(ours, Counter(list_ngrams(other, n))) for other in references)


def rouge_l(hypothesis: Words, references: Sequence[Words]) -> Score:
    """ROUGE-L: words of the longest common subsequence: in the same order, gaps allowed."""
    check_words(hypothesis, references)
    return _best(
        score_counts(_lcs_table(hypothesis, other)[-1][-1], len(hypothesis), len(other))
        for other in references
    )


def rouge_lsum(
    hypothesis_sentences: Sequence[Words], references_sentences: Sequence[Sequence[Words]]
) -> Score:
    """ROUGE-L of a text of several sentences, whose order does not matter.

    A word of a reference's sentence counts when it belongs to its longest common subsequence with
    any sentence of the hypothesis, at most as often as the hypothesis has it. Of several longest
    subsequences rouge-score's is taken.
    """
    _check_several(references_sentences)
    for sentences in (hypothesis_sentences, *references_sentences):
        check_words([], [sentences, *sentences])
    return _best(_score_sentences(hypothesis_sentences, other) for other in references_sentences)


def rouge_s(hypothesis: Words, references: Sequence[Words], *, gap: int | None = None) -> Score:
    """ROUGE-S: pairs of words in the same order, with at most `gap` words between; None: any."""
    check_words(hypothesis, references)
    ours = _skip_bigrams(hypothesis, gap)
    return _best(_share(ours, _skip_bigrams(other, gap)) for other in references)


def rouge_su(hypothesis: Words, references: Sequence[Words], *, gap: int | None = None) -> Score:
    """ROUGE-SU: the pairs of ROUGE-S and all single words."""
    check_words(hypothesis, references)
    ours = _skip_bigrams(hypothesis, gap) + Counter(list_ngrams(hypothesis, 1))
    return _best(
        _share(ours, _skip_bigrams(other, gap) + Counter(list_ngrams(other, 1)))
        for other in references
    )


def rouge_w(hypothesis: Words, references: Sequence[Words], *, weight: float = 1.2) -> Score:
    """ROUGE-W: ROUGE-L in which a run of k neighbours counts k^weight, so that runs are worth more.

    Precision and recall are the weight by that of a whole text in one run, to the power 1/weight.
    The weight is found word by word as in Lin's paper, which may miss a heavier subsequence.
    """
    if weight < 1:
        raise ValueError(f"weight is {weight}: below 1 a run would be worth less than its words")
    check_words(hypothesis, references)
    return _best(_score_runs(hypothesis, other, weight) for other in references)


def _best(scores) -> Score:
    return max(scores, key=lambda score: score.f1)  # of equals the first


def _share(ours: Counter, wanted: Counter) -> Score:
    return score_counts((ours & wanted).total(), ours.total(), wanted.total())


def _lcs_table(first: Words, second: Words) -> list[list[int]]:
    """[i][j]: length of the longest common subsequence of the first i and the first j words."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, word in enumerate(first):
        for j, other in enumerate(second):
            longest = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if word == other else longest
    return table


def _lcs_places(reference: Words, sentence: Words) -> list[int]:
    """Places in the reference of one longest common subsequence, the one that rouge-score finds."""
    table = _lcs_table(reference, sentence)
    i, j, places = len(reference), len(sentence), []
    while i and j:
        if reference[i - 1] == sentence[j - 1]:
            i, j = i - 1, j - 1
            places.append(i)
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places


def _score_sentences(ours: Sequence[Words], wanted: Sequence[Words]) -> Score:
    left = Counter(word for sentence in ours for word in sentence)
    written, matches = left.total(), 0
    for reference in wanted:
        places = {i for sentence in ours for i in _lcs_places(reference, sentence)}
        for i in places:
            if left[reference[i]]:
                left[reference[i]] -= 1
                matches += 1
    return score_counts(matches, written, sum(map(len, wanted)))


def _skip_bigrams(words: Words, gap: int | None) -> Counter:
    if gap is not None and gap < 0:
        raise ValueError(f"gap is {gap}; it must be at least 0, or None for any distance")
    places = combinations(range(len(words)), 2)
    return Counter((words[i], words[j]) for i, j in places if gap is None or j - i - 1 <= gap)


def _score_runs(ours: Words, wanted: Words, weight: float) -> Score:
    heaviest = [[0.0] * (len(wanted) + 1) for _ in range(len(ours) + 1)]
    run = [[0] * (len(wanted) + 1) for _ in range(len(ours) + 1)]  # that ends with these two words
    for i, word in enumerate(ours):
        for j, other in enumerate(wanted):
            if word == other:
                k = run[i][j]
                run[i + 1][j + 1] = k + 1
                heaviest[i + 1][j + 1] = heaviest[i][j] + (k + 1) ** weight - k**weight
            else:
                heaviest[i + 1][j + 1] = max(heaviest[i][j + 1], heaviest[i + 1][j])
    run_worth = heaviest[-1][-1] ** (1 / weight)  # (a / b^w)^(1/w) = a^(1/w) / b
    return score_counts(run_worth, len(ours), len(wanted))


# chrF


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """chrF2 of all texts together, from 0 to 100: characters in common instead of words.

    references: for each text a list of references, of which the one counts that gives this text
    the best score. Precision and recall are means over the orders 1 to 6 that both sides are long
    enough for. Source: Popović 2015; sacrebleu.
    """
    _check_pairs(hypotheses, references)
    return chrf_of_counts(
        sum(count_chrf(*pair) for pair in zip(hypotheses, references, strict=True))
    )


def count_chrf(hypothesis: str, references: Sequence[str]) -> np.ndarray:
    """(3, 6) what one text adds: n-grams of characters in common, its own, and the reference's, of
    each order."""
    _check_several(references)
    ours, best = _count_characters(hypothesis), None
    for reference in references:
        wanted = _count_characters(reference)
        # an order that the reference is too short for is not held against the text
        counts = np.array(
            [
                ((mine & other).total(), mine.total() * bool(other), other.total())
                for mine, other in zip(ours, wanted, strict=True)
            ]
        ).T
        if best is None or chrf_of_counts(counts) > chrf_of_counts(best):
            best = counts
    return best


def chrf_of_counts(counts: np.ndarray) -> float:
    """chrF2 of added counts of `count_chrf`, from 0 to 100."""
    matches, written, wanted = np.asarray(counts, dtype=float)
    both = (written > 0) & (wanted > 0)
    if not both.any() or not matches.any():
        return 0.0
    precision = (matches[both] / written[both]).mean()
    recall = (matches[both] / wanted[both]).mean()
    return float(100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall))


def _count_characters(text: str) -> list[Counter]:
    characters = list("".join(text.split()))
    return [Counter(list_ngrams(characters, n)) for n in range(1, CHARACTER_ORDERS + 1)]


# what is given


def check_words(hypothesis: Words, references: Sequence[Words]) -> None:
    """Raises ValueError for a text in place of words, whose letters would be compared without a
    word, and when there is no reference."""
    _check_several(references)
    for words in (hypothesis, *references):
        if isinstance(words, str):
            raise ValueError(
                f"{words[:40]!r} stands where a sequence of words belongs: cut it with "
                "split_words, and give a list of references, each a list of words"
            )


def _check_pairs(hypotheses: Sequence, references: Sequence[Sequence]) -> None:
    if isinstance(hypotheses, str) or not len(hypotheses) or len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} lists of references: each "
            "hypothesis needs a list of its own, and there must be at least one"
        )


def _check_several(references: Sequence) -> None:
    if isinstance(references, str) or not len(references):
        raise ValueError(f"references is {references!r:.60}: give a list of at least one")
