"""Station "judge": when is an answer right, how sure may a model be, and does it repeat itself?

An answer is right when it equals the reference after `normalise`. Containing the reference is not
enough: a model that rambles for a hundred tokens contains many things. `exact_match` and
`answer_f1` forgive more, as the evaluation of SQuAD does. Answers that are one of a few classes
have precision and recall. Repetition is counted at four levels: a token in a row, a phrase of n
tokens, a sentence, a paragraph (chapter 14).
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

CHINESE = "[\u3400-\u4dbf\u4e00-\u9fff]"  # a Chinese character, for regular expressions
ARTICLES = re.compile(r"\b(a|an|the)\b")


class Score(NamedTuple):
    """How much of what was given is wanted, how much of what is wanted was given, and their
    harmonic mean; each from 0 to 1."""

    precision: float
    recall: float
    f1: float


def score_counts(matches: float, given: float, wanted: float, *, zero_division: float = 0) -> Score:
    """Precision, recall and F1 of counts; a precision or recall of 0/0 is `zero_division`."""
    precision = matches / given if given else float(zero_division)
    recall = matches / wanted if wanted else float(zero_division)
    # 2 P R / (P + R) in counts: not 0/0 when nothing matches, only when there is nothing at all
    f1 = 2 * matches / (given + wanted) if given + wanted else float(zero_division)
    return Score(precision, recall, f1)


def normalise(text: str) -> str:
    """What is compared: Unicode NFC, runs of white space as one space, and no punctuation at the
    end.

    Letters keep their case: "Au" is gold's symbol and "AU" is not.
    """
    return " ".join(unicodedata.normalize("NFC", text).split()).rstrip(" .!?…。！？")


def is_right(answer: str, reference: str) -> bool:
    """Whether an answer says what the reference says, up to white space and final punctuation.

    Raises ValueError for a reference of which nothing is left to compare: an empty answer would
    equal it.
    """
    wanted = normalise(reference)
    if not wanted:
        raise ValueError(
            f"the reference is {reference!r}: without words in it every empty answer would be "
            "right; is it the right column of the data?"
        )
    return normalise(answer) == wanted


def normalise_answer(text: str, *, language: str = "en") -> str:
    """A short answer as SQuAD's evaluation compares it: lower case, no ASCII punctuation, no "a",
    "an" and "the", one space between words.

    language "zh" besides takes all other punctuation away and makes each Chinese character a word.
    The answer "A" has no words left: for single letters use `is_right`. Source: Rajpurkar et al.
    2016, evaluate-v1.1.py.
    """
    if language not in ("en", "zh"):
        raise ValueError(f"language is {language!r}; it must be 'en' or 'zh'")
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    if language == "zh":
        text = "".join(mark for mark in text if not unicodedata.category(mark).startswith("P"))
        text = re.sub(f"({CHINESE})", r" \1 ", text)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(answer: str, references: Sequence[str], *, language: str = "en") -> bool:
    """Whether an answer equals one of the references after `normalise_answer` (EM)."""
    _check_texts("references", references)
    ours = normalise_answer(answer, language=language)
    return any(ours == normalise_answer(other, language=language) for other in references)


def answer_f1(answer: str, references: Sequence[str], *, language: str = "en") -> float:
    """F1 of the words of an answer and of a reference after `normalise_answer`, the best of all.

    Order does not matter, a word counts as often as both have it. When one of the two has no words
    it is 1 if neither has, otherwise 0, as in SQuAD 2.0.
    """
    _check_texts("references", references)
    ours = Counter(normalise_answer(answer, language=language).split())
    scores = []
    for reference in references:
        wanted = Counter(normalise_answer(reference, language=language).split())
        common = (ours & wanted).total()
        scores.append(score_counts(common, ours.total(), wanted.total(), zero_division=1).f1)
    return max(scores)


def self_consistency(answers: Sequence[str]) -> float:
    """Share of answers to one question that equal the most frequent one after `normalise`: 1/n when
    all n differ. It says how sure a model is, not that it is right."""
    _check_texts("answers", answers)
    counts = Counter(map(normalise, answers))
    return max(counts.values()) / len(answers)


def _check_texts(name: str, texts: Sequence[str]) -> None:
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"{name} is {texts!r:.60}: give a list of texts, at least one")


# classes


def accuracy(predicted: Sequence[Hashable], true: Sequence[Hashable]) -> float:
    """Share of examples whose predicted class is the true one."""
    _check_classes(predicted, true)
    return sum(map(_equal, predicted, true)) / len(true)


def precision_recall_f1(
    predicted: Sequence[Hashable],
    true: Sequence[Hashable],
    *,
    average: str | None = "macro",
    zero_division: float = 0.0,
) -> Score | dict[Hashable, Score]:
    """Precision, recall and F1 of classes; every class that is predicted or true takes part.

    average None: {class: Score}; "macro": the mean of each over the classes, however rare (its F1
    is the mean of F1s, not the F1 of the means); "micro": of the counts of all classes together,
    which is the accuracy where each example has one class. A class that is never predicted has a
    precision of 0/0, one that is never true a recall of 0/0: both are `zero_division`. Such a class
    has F1 0. As scikit-learn's precision_recall_fscore_support.
    """
    _check_classes(predicted, true)
    if average not in ("macro", "micro", None):
        raise ValueError(f"average is {average!r}; it must be 'macro', 'micro' or None")
    right = Counter(guess for guess, wanted in zip(predicted, true, strict=True) if guess == wanted)
    guessed, wanted = Counter(predicted), Counter(true)
    if average == "micro":
        return score_counts(right.total(), guessed.total(), wanted.total())
    scores = {
        name: score_counts(right[name], guessed[name], wanted[name], zero_division=zero_division)
        for name in guessed | wanted
    }
    if average is None:
        return scores
    return Score(*(float(np.mean(column)) for column in zip(*scores.values(), strict=True)))


def _equal(one: Hashable, other: Hashable) -> bool:
    return one == other


def _check_classes(predicted: Sequence[Hashable], true: Sequence[Hashable]) -> None:
    if len(predicted) != len(true) or not len(true):
        raise ValueError(
            f"{len(predicted)} predicted and {len(true)} true classes: one of each is needed for "
            "every example, and at least one example"
        )


# how sure


def expected_calibration_error(
    confidence: Sequence[float], right: Sequence[bool], *, bins: int = 10
) -> float:
    """Mean distance between how sure a model is and how often it is right, as a fraction (ECE).

    confidence: the probability that the model gives its own best guess, from 0 to 1; right: whether
    that guess is right. Guesses are sorted into `bins` of equal width, a border belongs to the bin
    above it and 1.0 to the last one; a bin counts with its share of the guesses. Raises ValueError
    when the two differ in length, are empty, or a confidence is no probability. Source: Guo et al.
    2017, arXiv 1706.04599; derived in chapter 12.
    """
    sure, hit = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    if sure.ndim != 1 or sure.shape != hit.shape or not sure.size:
        raise ValueError(
            f"one confidence and one outcome for each guess is needed, got shapes {sure.shape} and "
            f"{hit.shape}"
        )
    if not ((sure >= 0) & (sure <= 1 + 1e-6)).all():  # a float32 softmax may end above 1
        raise ValueError(
            f"confidences reach from {sure.min()} to {sure.max()}: give probabilities, not logits "
            "or percentages"
        )
    inner = np.arange(1, bins) / bins
    chosen = np.digitize(sure, inner)  # a border belongs to the bin above it
    gaps = [abs((sure[chosen == b] - hit[chosen == b]).sum()) for b in range(bins)]
    return float(sum(gaps) / sure.size)


# repetition

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")


def list_ngrams(text_or_ids: str | Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """Every run of n neighbours, from the first to the one that ends with the last token.

    A text is cut into words at white space; Chinese has none, so give token ids there. Raises
    ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: an n-gram has at least one token")
    tokens = text_or_ids.split() if isinstance(text_or_ids, str) else list(text_or_ids)
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def repeated_share(text_or_ids: str | Sequence[Hashable], n: int) -> float:
    """Share of n-grams that stood earlier in the same text, from 0 to below 1 (rep-n, seq-rep-n).

    1 - different / all, so the first time does not count and each later one does. 0.0 when the text
    has fewer than n tokens. Source: Welleck et al. 2019, arXiv 1908.04319; derived in chapter 14.
    """
    ngrams = list_ngrams(text_or_ids, n)
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def distinct_n(texts_or_rows: Iterable[str | Sequence[Hashable]], n: int) -> float:
    """Different n-grams by all n-grams of several texts together, from above 0 to 1 (distinct-n).

    No n-gram reaches from one text into the next. It falls with length: compare only texts of about
    as many tokens. Raises ValueError for a single text instead of a list, and when no text has n
    tokens. Source: Li et al. 2016, arXiv 1510.03055.
    """
    if isinstance(texts_or_rows, str):
        raise ValueError(f"one text, {texts_or_rows[:40]!r}: give a list of texts")
    ngrams = [ngram for text in texts_or_rows for ngram in list_ngrams(text, n)]
    if not ngrams:
        raise ValueError(f"no text has {n} tokens: there is no {n}-gram to count")
    return len(set(ngrams)) / len(ngrams)


def longest_run(text_or_ids: str | Sequence[Hashable]) -> int:
    """How often one token stands in a row at most; 0 without a token, 1 when none follows itself.

    A text is cut into words as in `list_ngrams`.
    """
    tokens = [ngram[0] for ngram in list_ngrams(text_or_ids, 1)]
    return max((sum(1 for _ in run) for _, run in groupby(tokens)), default=0)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without white space around them; a line break ends one as well."""
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def split_paragraphs(text: str) -> list[str]:
    """The paragraphs of a text: what empty lines part."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def repeated_units(units: Sequence[Hashable]) -> float:
    """Share of units, such as sentences or paragraphs, that are equal to an earlier one; 0.0
    without a unit."""
    if isinstance(units, str):
        raise ValueError(f"one text, {units[:40]!r}: give its parts, as split_sentences makes them")
    return repeated_share(units, 1)
