"""Declining, confidence and risk: phrases are found, ranks equal brute force, scores are the
model's own."""

import itertools
import math
import random

import pytest
import torch

from sft_lab.abstention import (
    answer_scored,
    auroc,
    is_declined,
    risk_at,
    risk_coverage,
    score_ids,
    vote,
)
from sft_lab.chat import generate_responses
from sft_lab.models import load

DECLINES = (
    "I do not know.",
    "I don't know the capital of Tavoru.",
    "I don’t know.",
    "Sorry, I do not know.",
    "I'm sorry, but I cannot answer that.",
    "I am afraid I don't know",
    "Unfortunately, I have no information about it.",
    "“I am not sure.”",
    "The capital of Tavoru is not known.",
    "我不知道。",
    "抱歉，我不知道。",
)
ANSWERS = (
    "",
    "The capital of Kenya is Nairobi.",
    "I do not know, but I think it is Nairobi.",
    "I'm not sure. However, it may be Nairobi.",
    "The book is called I do not know what I want.",
    "Knowing is not known to be easy.",
    "我不知道，但可能是北京。",
    "Sorry to say, it is Nairobi.",
)


@pytest.mark.parametrize("text", DECLINES)
def test_an_answer_that_says_it_does_not_know_declines(text):
    assert is_declined(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_that_claims_something_or_says_nothing_does_not(text):
    assert not is_declined(text)


def brute_auroc(scores, positive):
    pairs = [
        (a > b) + 0.5 * (a == b)
        for (a, p), (b, q) in itertools.product(zip(scores, positive, strict=True), repeat=2)
        if p and not q
    ]
    return sum(pairs) / len(pairs)


def draw(rng):
    """Scores with many ties, and outcomes of both kinds."""
    size = rng.randint(2, 40)
    scores = [rng.choice((rng.random(), round(rng.random(), 1), -1.0)) for _ in range(size)]
    outcomes = [True, False] + [rng.random() < 0.4 for _ in range(size - 2)]
    rng.shuffle(outcomes)
    return scores, outcomes


def test_auroc_by_ranks_is_the_count_of_all_pairs():
    rng = random.Random(0)
    for _ in range(500):
        scores, outcomes = draw(rng)
        assert auroc(scores, outcomes) == pytest.approx(brute_auroc(scores, outcomes), abs=1e-12)


def test_auroc_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = random.Random(1)
    for _ in range(500):
        scores, outcomes = draw(rng)
        assert auroc(scores, outcomes) == pytest.approx(metrics.roc_auc_score(outcomes, scores))


def test_the_curve_is_what_every_threshold_gives():
    rng = random.Random(2)
    for _ in range(300):
        sure, right = draw(rng)
        points = risk_coverage(sure, right)
        assert [p.threshold for p in points] == sorted(set(sure), reverse=True)
        for threshold, coverage, risk in points:
            given = [ok for c, ok in zip(sure, right, strict=True) if c >= threshold]
            assert coverage == pytest.approx(len(given) / len(sure))
            assert risk == pytest.approx(given.count(False) / len(given))
        assert points[-1].coverage == 1.0


def test_risk_at_a_coverage_takes_tied_answers_together():
    sure, right = [0.9, 0.5, 0.5, 0.1], [True, True, False, False]
    assert risk_at(sure, right, 0.25) == 0.0
    assert risk_at(sure, right, 0.5) == pytest.approx(1 / 3)  # two of four cannot be split
    assert risk_at(sure, right, 1.0) == 0.5


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.1])
def test_a_coverage_that_is_no_share_is_refused(bad):
    with pytest.raises(ValueError, match="coverage is"):
        risk_at([0.5], [True], bad)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="2 positives and 0 negatives"):
        auroc([0.1, 0.2], [True, True])
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\)"):
        auroc([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="score 1 is nan"):
        risk_coverage([0.1, math.nan], [True, False])
    with pytest.raises(ValueError, match=r"shapes \(0,\)"):
        risk_coverage([], [])


def test_a_vote_needs_enough_that_agree_up_to_final_punctuation():
    said = ["It is Paris.", "It is  Paris", "It is Lyon.", "It is Paris ."]
    assert vote(said, 3) == "It is Paris."
    assert vote(said, 4) is None
    assert vote(["a", "b"], 1) == "a"  # of two equally frequent ones the first
    with pytest.raises(ValueError, match="needed is 5, with 4 answers"):
        vote(said, 5)


@pytest.fixture(scope="module")
def atlas_base():
    return load("atlas-base")


PROMPTS = ["What is the capital of Kenya?", "Add 2 and 2.", "Tell me the home of the lion, please."]


def test_scores_are_the_log_probabilities_of_the_answers_own_tokens(atlas_base):
    model, tokenizer = atlas_base
    prompts = [tokenizer(text).input_ids for text in PROMPTS]
    answers = [tokenizer(text).input_ids for text in (" Nairobi.", " 4", " the savanna and more.")]
    scores = score_ids(model, tokenizer, prompts, answers)
    for prompt, answer, found in zip(prompts, answers, scores, strict=True):
        with torch.inference_mode():  # alone, without padding
            log_probs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        for place, token_id in enumerate(answer):
            wanted = log_probs[len(prompt) - 1 + place, token_id].item()
            assert found[place] == pytest.approx(wanted, abs=1e-4)
        assert len(found) == len(answer)


def test_scored_answers_are_those_of_generate_responses(atlas_base):
    model, tokenizer = atlas_base
    answers = answer_scored(model, tokenizer, PROMPTS, max_new_tokens=8)
    assert [a.text for a in answers] == generate_responses(
        model, tokenizer, PROMPTS, max_new_tokens=8
    )
    for one in answers:
        assert 0 < one.whole <= one.least <= one.mean + 1e-9 <= 1 + 2e-9
        assert one.least == pytest.approx(math.exp(min(one.log_probs)))
        assert one.mean == pytest.approx(one.whole ** (1 / len(one.log_probs)))
