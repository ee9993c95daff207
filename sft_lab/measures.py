"""Station "judge": scores by name, of two models' answers to the same questions, with intervals.

Most are means over the questions. BLEU and chrF are scores of all answers together: the counts of
the answers are added first. Both kinds are written here as what one answer adds and as the score of
a sum, so that one bootstrap, which draws questions, serves both.

METEOR takes nltk's greedy alignment: a model that rambles writes sentences for which an exact
search would take too long. BLEU has no effective order: it is 0 where no answer has four words.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sft_lab.alignment import meteor
from sft_lab.arguments import SettingError
from sft_lab.metrics import answer_f1, exact_match, repeated_share, split_sentences
from sft_lab.overlap import (
    LANGUAGES,
    bleu_of_counts,
    chrf_of_counts,
    count_bleu,
    count_chrf,
    rouge_l,
    rouge_lsum,
    rouge_n,
    rouge_s,
    rouge_su,
    rouge_w,
    split_words,
)
from sft_lab.significance import RESAMPLES, Interval

Words = Sequence[str]


class Measure(NamedTuple):
    """A score of answers, from 0 to 1; that of BLEU and chrF too."""

    label: str
    count: Callable[[str, str, str], np.ndarray]  # answer, reference, language -> what it adds
    total: Callable[[np.ndarray], float]  # the sum of what answers add -> their score
    corpus: bool = False  # of all answers together, no mean over the questions


class Scores(NamedTuple):
    """One measure of two models, as fractions, with 95 % intervals."""

    base: float
    tuned: float
    base_interval: Interval
    tuned_interval: Interval
    difference_interval: Interval


def _mean(label: str, score: Callable[[str, str, str], float]) -> Measure:
    """A measure that is the mean of one score a question."""
    return Measure(
        label,
        lambda answer, reference, language: np.array([score(answer, reference, language), 1.0]),
        lambda total: float(total[0] / total[1]),
    )


def _mean_of_words(label: str, score: Callable[[Words, list[Words]], float]) -> Measure:
    """The same where the score is one of words: (hypothesis, references)."""

    def score_texts(answer: str, reference: str, language: str) -> float:
        words, wanted = (split_words(text, language=language) for text in (answer, reference))
        return score(words, [wanted])

    return _mean(label, score_texts)


def _count_bleu(answer: str, reference: str, language: str) -> np.ndarray:
    words, wanted = (split_words(text, language=language) for text in (answer, reference))
    return count_bleu(words, [wanted])


def _score_lsum(answer: str, reference: str, language: str) -> float:
    texts = [
        [split_words(sentence, language=language) for sentence in split_sentences(text)]
        for text in (answer, reference)
    ]
    return rouge_lsum(texts[0], [texts[1]]).f1


def _score_repeats(answer: str, _: str, language: str) -> float:
    return repeated_share(split_words(answer, language=language), 4)


MEASURES = {
    "exact_match": _mean("exact match", lambda a, r, lang: exact_match(a, [r], language=lang)),
    "answer_f1": _mean("F1 of words", lambda a, r, lang: answer_f1(a, [r], language=lang)),
    "bleu": Measure("BLEU", _count_bleu, lambda total: bleu_of_counts(total) / 100, corpus=True),
    "rouge_1": _mean_of_words("ROUGE-1", lambda words, others: rouge_n(words, others, 1).f1),
    "rouge_2": _mean_of_words("ROUGE-2", lambda words, others: rouge_n(words, others, 2).f1),
    "rouge_l": _mean_of_words("ROUGE-L", lambda words, others: rouge_l(words, others).f1),
    "rouge_lsum": _mean("ROUGE-Lsum", _score_lsum),
    "rouge_s": _mean_of_words("ROUGE-S", lambda words, others: rouge_s(words, others).f1),
    "rouge_su": _mean_of_words("ROUGE-SU", lambda words, others: rouge_su(words, others).f1),
    "rouge_w": _mean_of_words("ROUGE-W-1.2", lambda words, others: rouge_w(words, others).f1),
    "meteor": _mean_of_words("METEOR", lambda words, others: meteor(words, others, rule="greedy")),
    "chrf": Measure(
        "chrF",
        lambda answer, reference, _: count_chrf(answer, [reference]),
        lambda total: chrf_of_counts(total) / 100,
        corpus=True,
    ),
    "repeated_4grams": _mean("repeated 4-grams", _score_repeats),
}
WORDLESS = ("chrf", "exact_match", "answer_f1")  # do not need split_words


def check_measures(names: Sequence[str], references: dict[str, str], language: str) -> None:
    """Raises SettingError for an unknown measure or language, and for a reference in which a
    measure of words would find none, so that every answer scored 0.

    references: the reference answers by their place.
    """
    if isinstance(names, str):
        raise SettingError(f"measures is the text {names!r}; give a list: [{names!r}]")
    if unknown := [name for name in names if name not in MEASURES]:
        raise SettingError(f"measures: {unknown!r:.80} unknown; there are {', '.join(MEASURES)}")
    if language not in LANGUAGES:
        raise SettingError(
            f"language is {language!r:.40}; it must be one of {', '.join(map(repr, LANGUAGES))}"
        )
    of_words = [name for name in names if name not in WORDLESS]
    for place, reference in references.items():
        if of_words and not split_words(reference, language=language):
            raise SettingError(
                f"{place}: the answer {reference!r:.60} has no word in language "
                f"{language!r}, so {', '.join(of_words)} would be 0 whatever a model says; "
                "language='zh' reads Chinese and English, and chrf takes any script"
            )


def score_answers(
    name: str,
    base: Sequence[str],
    tuned: Sequence[str],
    references: Sequence[str],
    *,
    language: str = "en",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scores:
    """A measure of both models' answers, and its paired bootstrap: a resample draws questions, each
    with both answers, and the score is computed again, for BLEU and chrF from the counts of the
    questions drawn."""
    measure = MEASURES[name]
    counts = [
        np.stack([measure.count(*pair, language) for pair in zip(texts, references, strict=True)])
        for texts in (base, tuned)
    ]
    rng, questions = np.random.default_rng(seed), len(references)
    drawn = []
    for _ in range(resamples):
        times = rng.multinomial(questions, [1 / questions] * questions)
        drawn.append([measure.total(np.tensordot(times, count, axes=1)) for count in counts])
    drawn = np.array(drawn)
    low, high = np.percentile(np.c_[drawn, drawn[:, 1] - drawn[:, 0]], [2.5, 97.5], axis=0)
    intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return Scores(*(measure.total(count.sum(axis=0)) for count in counts), *intervals)
