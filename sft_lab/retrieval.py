"""Station "lookup": passages are found for a question, and a model answers from them.

Finding and reading are two steps that fail for different reasons, so they are two functions:
`retrieve` ranks the passages of a store, `answer_from` puts the best ones in front of the question
and says which of them bears the answer out (chapter 15b).
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.arguments import whole_number
from sft_lab.chat import generate_responses
from sft_lab.metrics import normalise

NOT_FOUND = "I do not know."
# Words that say nothing about what a sentence is about; only `supports` passes over them.
FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "are", "at", "for", "in", "is", "it", "know", "of", "on", "so")
    + ("that", "the", "to", "we")
)


@dataclass(frozen=True)
class Passage:
    """A short text, and a name under which an answer can cite it."""

    id: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found, and how well it matches the question."""

    passage: Passage
    score: float


@dataclass(frozen=True, eq=False)
class PassageStore:
    """Passages, and where each word stands: built once by `PassageStore.of`, asked many times.

    Compared by identity, so that what a ranking prepares for a store can be kept.
    """

    passages: tuple[Passage, ...]
    counts: tuple[Counter[str], ...]  # the words of each passage
    holders: dict[str, int]  # in how many passages a word stands

    @classmethod
    def of(cls, passages: Sequence[Passage]) -> "PassageStore":
        """Raises ValueError for no passage, for a passage without words, and for an id that two
        passages share: an answer that cites it would have two sources."""
        if not passages:
            raise ValueError("no passage: an empty store can answer nothing; was a file read?")
        counts = tuple(Counter(split_words(passage.text)) for passage in passages)
        seen: set[str] = set()
        for place, (passage, words) in enumerate(zip(passages, counts, strict=True)):
            if passage.id in seen:
                raise ValueError(
                    f"passages[{place}]: another passage has the id {passage.id!r}; give each an "
                    "id of its own, so that a citation names one text"
                )
            if not words:
                raise ValueError(
                    f"passages[{place}], {passage.id!r}, has no words, {passage.text[:60]!r}: it "
                    "could never be found; leave it out"
                )
            seen.add(passage.id)
        return cls(tuple(passages), counts, dict(Counter(word for c in counts for word in c)))


@dataclass(frozen=True)
class FoundAnswer:
    """An answer, the id of the passage that bears it out (None: none does), the ids of those that
    the model read, and the score of the best passage."""

    text: str
    source: str | None
    read: tuple[str, ...]
    score: float


Ranking = Callable[[PassageStore, str], np.ndarray]  # a score for each passage


def split_words(text: str) -> list[str]:
    """Runs of letters and digits, without regard to case: "Who's in Čad?" has four."""
    return re.findall(r"\w+", text.casefold())


def tf_idf(store: PassageStore, question: str) -> np.ndarray:
    """The cosine of the question and each passage, both as weights of words; from 0 to 1.

    A word weighs how often it occurs (tf) times ln((1 + N) / (1 + n)) + 1 (idf), where n of the N
    passages hold it. A word of the question that no passage holds counts as well, in the length of
    the question alone: a question about something else scores low. Derived in chapter 15b.
    """
    asked = Counter(_words_of(question))
    products = np.zeros(len(store.passages))
    for word, times in asked.items():
        held = np.array([counts[word] for counts in store.counts])  # 0 where it is missing
        products += times * held * _idf(store, word) ** 2
    return products / _lengths(store) / math.hypot(*(n * _idf(store, w) for w, n in asked.items()))


def bm25(store: PassageStore, question: str) -> np.ndarray:
    """BM25 as the package rank-bm25 scores it (k1 = 1.5, b = 0.75); 0 or larger as a rule.

    A word that more than half of the passages hold gets a quarter of the mean idf instead of its
    own, which would be negative (the package's `epsilon`).
    """
    return np.asarray(_engine(store).get_scores(_words_of(question)))


def retrieve(
    store: PassageStore, question: str, *, count: int = 3, ranking: Ranking = tf_idf
) -> list[Hit]:
    """The `count` passages that match best, best first; of equal scores the earlier passage.

    Fewer when the store has fewer. Raises ValueError for a question without words.
    """
    count = whole_number("count", count)
    scores = ranking(store, question)
    order = np.argsort(-scores, kind="stable")[:count]
    return [Hit(store.passages[place], float(scores[place])) for place in order]


def recall_at(ranks: Sequence[int | None], count: int) -> float:
    """The share of questions whose right passage is among the first `count`.

    ranks: for each question the place of its right passage, counted from 1; None: not found."""
    whole_number("count", count)
    return sum(rank is not None and rank <= count for rank in _checked(ranks)) / len(ranks)


def mean_reciprocal_rank(ranks: Sequence[int | None]) -> float:
    """The mean of 1 / rank; a passage that was not found (None) counts 0. Ranks begin at 1."""
    return math.fsum(1 / rank for rank in _checked(ranks) if rank is not None) / len(ranks)


def supports(passage: str, answer: str) -> bool:
    """Whether every word of the answer stands in the passage, but for FUNCTION_WORDS.

    A check of words, not of meaning: "Lima is the capital of Peru" supports "The capital of Lima is
    Peru", and nothing supports an answer in other words. An empty answer has no support.
    """
    said = set(split_words(answer)) - FUNCTION_WORDS
    return bool(said) and said <= set(split_words(passage))


def write_prompt(passages: Sequence[str], question: str) -> str:
    """Passages in front of the question, as Atlas writes notes; the question alone for none."""
    return f"Notes: {' '.join(passages)}\n{question}" if passages else question


def answer_from(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    store: PassageStore,
    *,
    count: int = 3,
    least: float = 0.0,
    ranking: Ranking = tf_idf,
    system: str | None = None,
    max_new_tokens: int = 60,
) -> list[FoundAnswer]:
    """Greedy answers, each from the `count` best passages of the store, with its source.

    least: where even the best passage scores below it, the model is not asked and the answer is
    NOT_FOUND; scores of two rankings do not compare. The source is the best passage that
    `supports` the answer; None means that the answer is not from the passages, whatever it says.
    Raises TypeError for a single text in place of a list, ValueError for a question without words.
    """
    if isinstance(questions, str):
        raise TypeError(f"questions is a single text, {questions[:60]!r}: put it into a list")
    found = [retrieve(store, question, count=count, ranking=ranking) for question in questions]
    asked = [place for place, hits in enumerate(found) if hits[0].score >= least]
    prompts = [write_prompt([h.passage.text for h in found[i]], questions[i]) for i in asked]
    said = {}
    if prompts:
        texts = generate_responses(
            model, tokenizer, prompts, system=system, max_new_tokens=max_new_tokens
        )
        said = dict(zip(asked, texts, strict=True))
    return [_with_source(said.get(place), hits) for place, hits in enumerate(found)]


def _with_source(text: str | None, hits: Sequence[Hit]) -> FoundAnswer:
    read = tuple(hit.passage.id for hit in hits)
    if text is None:
        return FoundAnswer(NOT_FOUND, None, (), hits[0].score)
    sources = [hit.passage.id for hit in hits if supports(hit.passage.text, normalise(text))]
    return FoundAnswer(text, sources[0] if sources else None, read, hits[0].score)


@lru_cache(maxsize=8)
def _engine(store: PassageStore) -> Any:
    from rank_bm25 import BM25Okapi  # only who ranks in this way needs the package

    return BM25Okapi([list(counts.elements()) for counts in store.counts])


@lru_cache(maxsize=8)
def _lengths(store: PassageStore) -> np.ndarray:
    """The length of each passage as a row of TF-IDF weights."""
    return np.array(
        [math.hypot(*(n * _idf(store, word) for word, n in c.items())) for c in store.counts]
    )


def _idf(store: PassageStore, word: str) -> float:
    return math.log((1 + len(store.passages)) / (1 + store.holders.get(word, 0))) + 1


def _words_of(question: str) -> list[str]:
    words = split_words(question)
    if not words:
        raise ValueError(f"the question {question!r} has no words: there is nothing to look for")
    return words


def _checked(ranks: Sequence[int | None]) -> Sequence[int | None]:
    if not len(ranks):
        raise ValueError("no rank: ask at least one question")
    for place, rank in enumerate(ranks):
        if rank is not None and rank < 1:
            raise ValueError(f"ranks[{place}] is {rank}: places are counted from 1")
    return ranks
