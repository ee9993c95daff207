"""Station "judge": when a model should say nothing, and what its silence costs.

An answer declines when it begins with one of DECLINED. How sure a model is of an answer is read
from the probabilities of the answer's own tokens. AUROC says how well that number tells right
answers from wrong ones; the risk-coverage curve says what a threshold on it buys. Derived in
chapter 15.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import continue_ids, decode_response, encode_prompts
from sft_lab.metrics import normalise
from sft_lab.records import Conversation

DECLINED = (
    *("i do not know", "i don't know", "i dont know", "i am not sure", "i'm not sure"),
    *("i have no information", "i do not have any information", "i don't have any information"),
    *("i cannot answer", "i can't answer", "i cannot say", "i can't say", "i am unable to answer"),
    *("我不知道", "不知道", "我不确定", "我不清楚", "我无法回答", "无法回答"),
)
NOT_KNOWN = ("is not known", "are not known", "is unknown to me")
APOLOGY = re.compile(r"^((i am|i'm) )?(sorry|afraid|unfortunately|抱歉|对不起)[\s,.:;!，-]*(but )?")
GOES_ON = re.compile(r"\bbut\b|\bhowever\b|但是?|不过")
AROUND = " \t\n\"'“”‘*`.。"
BATCH_SIZE = 64


def is_declined(answer: str) -> bool:
    """Whether an answer declines to answer.

    It does when its first words, after an apology, are one of DECLINED, or its last ones one of
    NOT_KNOWN, and no "but" follows: "I do not know, but I think it is Paris." claims something.
    Quotation marks and letter case do not matter. A phrase further inside does not count: "The book
    is called I do not know." is an answer. An empty answer does not decline; it says nothing.
    """
    text = unicodedata.normalize("NFKC", answer).replace("’", "'").casefold().strip(AROUND)
    text = APOLOGY.sub("", text)
    return (text.startswith(DECLINED) or text.endswith(NOT_KNOWN)) and not GOES_ON.search(text)


class Scored(NamedTuple):
    """An answer, and the log-probability (nats) that the model gave to each of its tokens, the stop
    token included."""

    text: str
    log_probs: list[float]

    @property
    def least(self) -> float:
        """The probability of the least likely token."""
        return float(np.exp(min(self.log_probs)))

    @property
    def whole(self) -> float:
        """The probability of the whole answer, the product over its tokens."""
        return float(np.exp(sum(self.log_probs)))

    @property
    def mean(self) -> float:
        """The geometric mean of the tokens' probabilities."""
        return float(np.exp(sum(self.log_probs) / len(self.log_probs)))


def answer_scored(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Conversation],
    *,
    max_new_tokens: int = 24,
    **decoding,
) -> list[Scored]:
    """Answer every prompt as `generate_responses` does, and score the answers with the model's own
    probabilities at temperature 1, whatever `decoding` drew them."""
    asked = encode_prompts(tokenizer, prompts)
    said = continue_ids(model, tokenizer, asked, max_new_tokens=max_new_tokens, **decoding)
    scores = score_ids(model, tokenizer, asked, said)
    texts = [decode_response(ids, tokenizer) for ids in said]
    return [Scored(*both) for both in zip(texts, scores, strict=True)]


@torch.inference_mode()
def score_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> list[list[float]]:
    """The log-probability (nats) of every token of each answer after its prompt; both are ids."""
    scores: list[list[float]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    pad = tokenizer.pad_token_id or 0  # what stands behind the last token changes nothing before
    for first in range(0, len(order), BATCH_SIZE):
        places = order[first : first + BATCH_SIZE]
        rows = [[*prompts[i], *answers[i]] for i in places]
        width = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows]).to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits
        for row, place in enumerate(places):
            start = len(prompts[place]) - 1  # row t of the logits predicts token t + 1
            said = ids[row, start + 1 : start + 1 + len(answers[place])]
            log_probs = logits[row, start : start + len(said)].float().log_softmax(-1)
            scores[place] = log_probs.gather(1, said[:, None])[:, 0].tolist()
    return scores


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The chance that a positive, drawn at random, has a higher score than a negative; a tie counts
    half. 0.5 is a coin, 1.0 a perfect order.

    Computed from ranks (Mann-Whitney): the sum of the positives' ranks, less the least that it can
    be, divided by the number of pairs. Tied scores share the mean of their ranks. Raises ValueError
    unless there is one finite score for each outcome, and at least one outcome of each kind.
    """
    score, is_positive = _paired(scores, positive)
    positives = int(is_positive.sum())
    negatives = len(score) - positives
    if not positives or not negatives:
        raise ValueError(
            f"{positives} positives and {negatives} negatives: AUROC compares the two, so at "
            "least one of each is needed"
        )
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks = (last - (counts - 1) / 2)[place]  # from 1; ties share their mean rank
    least = positives * (positives + 1) / 2
    return float((ranks[is_positive].sum() - least) / (positives * negatives))


class Point(NamedTuple):
    """What a threshold does: answers with at least this confidence are given."""

    threshold: float
    coverage: float  # share of the questions that are answered
    risk: float  # share of wrong ones among the answers given


def risk_coverage(confidence: Sequence[float], right: Sequence[bool]) -> list[Point]:
    """One point for each different confidence, from the strictest threshold to none.

    Answers of equal confidence are given together: no threshold tells them apart. Raises ValueError
    unless there is one finite confidence for each outcome, and at least one.
    Source: El-Yaniv and Wiener 2010, "On the Foundations of Noise-free Selective Classification".
    """
    sure, is_right = _paired(confidence, right)
    thresholds, place = np.unique(-sure, return_inverse=True)  # the surest first
    given = np.bincount(place).cumsum()
    wrong = np.bincount(place, weights=~is_right).cumsum()
    return [
        Point(float(-t), float(g / len(sure)), float(w / g))
        for t, g, w in zip(thresholds, given, wrong, strict=True)
    ]


def risk_at(confidence: Sequence[float], right: Sequence[bool], coverage: float) -> float:
    """The risk when the surest answers are given, at least this share of the questions (0 to 1)."""
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage is {coverage}: give a share above 0, at most 1")
    points = risk_coverage(confidence, right)
    return next(point.risk for point in points if point.coverage >= coverage - 1e-9)


def vote(answers: Sequence[str], needed: int) -> str | None:
    """The answer that most of several samples agree on, or None where fewer than `needed` do.

    Answers agree when they are equal after `normalise`. Of two that are equally frequent the one
    given first is taken.
    """
    if not 1 <= needed <= len(answers):
        raise ValueError(f"needed is {needed}, with {len(answers)} answers: from 1 to their number")
    (said, count), *_ = Counter(map(normalise, answers)).most_common(1)
    return next(a for a in answers if normalise(a) == said) if count >= needed else None


def _paired(scores: Sequence[float], outcomes: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    score, outcome = np.asarray(scores, dtype=float), np.asarray(outcomes, dtype=bool)
    if score.ndim != 1 or score.shape != outcome.shape or not score.size:
        raise ValueError(
            f"one score and one outcome for each answer is needed, got shapes {score.shape} and "
            f"{outcome.shape}"
        )
    if not np.isfinite(score).all():
        place = int(np.flatnonzero(~np.isfinite(score))[0])
        raise ValueError(f"score {place} is {score[place]}: give finite numbers")
    return score, outcome
