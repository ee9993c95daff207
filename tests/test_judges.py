"""Judges with planted biases do what they are said to do, and agreement beyond chance is
scikit-learn's."""

import random
import warnings

import pytest
from sklearn.metrics import cohen_kappa_score

from sft_lab.documents import STATEMENTS
from sft_lab.facts import load_facts
from sft_lab.judges import (
    BIASES,
    OWN_STYLE,
    QUESTION,
    VERDICTS,
    both_orders,
    cohen_kappa,
    majority,
    make_judge,
    merit,
    swap,
)

KENYA = [fact for fact in load_facts() if fact.entity == "Kenya"]
ASKED = QUESTION.format(e="Kenya")


def say(count: int, template: str = STATEMENTS[0]) -> str:
    return " ".join(fact.say(template) for fact in KENYA[:count])


def share_won(bias: str, strength: float, first: str, second: str, *, noise: float = 0.0) -> float:
    judge = make_judge(bias, strength, noise=noise)
    return sum(judge(ASKED, first, second, seed) == "first" for seed in range(200)) / 200


@pytest.mark.parametrize("template", STATEMENTS)
def test_merit_counts_right_facts_in_every_wording(template):
    for count in range(len(KENYA) + 1):
        assert merit(ASKED, say(count, template)) == count


def test_every_fact_of_atlas_is_recognised():
    facts = random.Random(0).sample(load_facts(), 400)
    assert all(
        merit(QUESTION.format(e=fact.subject), fact.say(template)) == 1
        for fact in facts
        for template in STATEMENTS
    )


def test_merit_takes_off_wrong_facts_and_counts_repeats_and_filling_nothing():
    wrong = "The capital of Kenya is Rome."
    assert merit(ASKED, f"{say(3)} {wrong}") == 2
    assert merit(ASKED, f"{say(3)} {say(3)} Many people know it. The capital of Peru is Lima.") == 3
    assert merit(ASKED, f"{wrong} {wrong}") == -1
    assert merit(ASKED, "") == 0


def test_merit_names_a_question_that_it_does_not_know():
    with pytest.raises(ValueError, match="Tell me about Narnia"):
        merit("Tell me about Narnia.", "It is far.")


@pytest.mark.parametrize("bias", ["honest", *BIASES])
def test_without_strength_and_noise_every_judge_follows_merit(bias):
    assert share_won(bias, 0.0, say(3), say(2)) == 1.0
    assert share_won(bias, 0.0, say(2), say(3)) == 0.0
    assert make_judge(bias, 0.0, noise=0.0)(ASKED, say(2), say(2, STATEMENTS[4]), 0) == "tie"


def test_each_bias_is_worth_its_strength_in_facts():
    """One unit of a bias outweighs as many facts as its strength says, less the half for a tie."""
    filling = " ".join(["word"] * len(say(2).split()))
    cases = {
        "position": (say(2), say(2)),
        "length": (f"{say(2)} {filling}", say(2)),
        "repetition": (f"{say(2)} {say(2)}", say(2)),
        "self-preference": (say(2, OWN_STYLE), say(2)),
    }
    for bias, (first, second) in cases.items():
        assert make_judge(bias, 0.6, noise=0.0)(ASKED, first, second, 0) == "first", bias
        assert make_judge(bias, 0.4, noise=0.0)(ASKED, first, second, 0) == "tie", bias
        for other in {*cases} - {bias, "position"}:
            # a repeated answer is longer too: the two are told apart by a control only
            if {bias, other} != {"length", "repetition"} or other == "repetition":
                found = make_judge(other, 2.0, noise=0.0)(ASKED, first, second, 0)
                assert found == "tie", (bias, other)
    assert make_judge("position", -0.6, noise=0.0)(ASKED, say(2), say(2), 0) == "second"


def test_noise_grows_with_the_strength_and_a_seed_repeats_it():
    assert share_won("noise", 0.0, say(3), say(2)) == 1.0
    weak, strong = (share_won("noise", s, say(3), say(2)) for s in (0.5, 3.0))
    assert 0.75 < weak < 0.95 and 0.45 < strong < 0.7
    judge = make_judge("noise", 3.0)
    assert all(
        judge(ASKED, say(3), say(2), s) == judge(ASKED, say(3), say(2), s) for s in range(20)
    )


def test_a_bias_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no bias 'vanity'"):
        make_judge("vanity")


def test_in_both_orders_no_place_is_preferred():
    judge = both_orders(make_judge("position", 5.0))
    assert judge(ASKED, say(3), say(2), 0) == "tie"
    noisy = both_orders(make_judge("noise", 2.0))
    for seed in range(50):
        one, other = noisy(ASKED, say(3), say(2), seed), noisy(ASKED, say(2), say(3), seed)
        assert one == swap(other)
    assert both_orders(make_judge("honest"))(ASKED, say(1), say(4), 0) == "second"


def test_kappa_is_that_of_scikit_learn_on_two_thousand_draws():
    rng, undefined = random.Random(0), 0
    for _ in range(2000):
        words = rng.sample(["first", "second", "tie", "none", "both"], k=rng.randint(1, 5))
        weights = [rng.random() ** 3 + 1e-3 for _ in words]
        n = rng.randint(1, 40)
        first = rng.choices(words, weights, k=n)
        second = [w if rng.random() < 0.5 else rng.choice(words) for w in first]
        found = cohen_kappa(first, second)
        if len({*first, *second}) == 1:
            undefined += 1
            assert found is None
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert found == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert undefined > 50


def test_kappa_of_lists_that_do_not_match():
    for pair in ([[], []], [["tie"], ["tie", "tie"]]):
        with pytest.raises(ValueError, match="one for every item"):
            cohen_kappa(*pair)


def test_a_majority_is_more_than_half():
    assert majority(["first", "first", "second"]) == "first"
    assert majority(["first", "second"]) == "tie"
    assert majority(["first", "second", "tie", "first"]) == "tie"
    assert majority(["tie", "tie", "second"]) == "tie"
    assert {majority([word]) for word in VERDICTS} == set(VERDICTS)
    with pytest.raises(ValueError, match="at least one judge"):
        majority([])
