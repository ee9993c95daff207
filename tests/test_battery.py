"""The battery: what its items say, how a choice is made, and that nothing depends on chance."""

import math
import random
import re

import numpy as np
import pytest
import torch
from tiny import make_model, make_tokenizer

from sft_lab import battery
from sft_lab.battery import (
    COVERINGS,
    Item,
    build_battery,
    choose,
    confidence,
    draw_items,
    outcomes,
    score_choices,
    swap_words,
)
from sft_lab.facts import load_facts
from sft_lab.perplexity import Score


def test_the_same_seed_gives_the_same_items_and_another_seed_others():
    assert build_battery(40, seed=1) == build_battery(40, seed=1)
    for task, items in build_battery(40, seed=2).items():
        assert items != build_battery(40, seed=1)[task]


@pytest.mark.parametrize("make", [*battery.TASKS.values(), battery.yes_or_no])
def test_items_differ_and_their_right_choice_stands_in_no_fixed_place(make):
    items = draw_items(make, 200, seed=3)
    assert len({(item.context, frozenset(item.choices)) for item in items}) == 200
    places = np.bincount([item.right for item in items])
    expected = 200 / len(items[0].choices)
    assert len(places) == len(items[0].choices)
    assert (abs(places - expected) < 5 * math.sqrt(expected)).all()
    for item in items:
        assert len(set(item.choices)) == len(item.choices)
        assert item.cluster


def test_an_unacceptable_sentence_has_the_same_words_in_another_order():
    for item in draw_items(battery.acceptability, 150):
        right, wrong = item.choices[item.right], item.choices[1 - item.right]
        assert sorted(right.split()) == sorted(wrong.split())
        differ = [
            i for i, (a, b) in enumerate(zip(right.split(), wrong.split(), strict=True)) if a != b
        ]
        assert len(differ) == 2 and differ[1] == differ[0] + 1


def test_what_follows_stands_in_the_passage_and_the_other_statement_does_not():
    for item in draw_items(battery.entailment, 150):
        right, wrong = (item.choices[k].strip() for k in (item.right, 1 - item.right))
        assert right in item.context and wrong not in item.context


def test_yes_is_right_where_the_statement_stands_in_the_passage():
    answers = []
    for item in draw_items(battery.yes_or_no, 150):
        passage, question = item.context.split("\nDoes it follow? ")
        assert item.choices[item.right] == (" Yes." if question in passage else " No.")
        answers.append(item.right)
    assert 40 < sum(answers) < 110


def test_of_two_statements_one_has_the_words_of_the_context_in_the_same_parts():
    values = {fact.value for fact in load_facts() if fact.domain == "countries"}
    kinds = set()
    for item in draw_items(battery.same_meaning, 150):
        right, wrong = (
            set(re.findall(r"\w+", item.choices[k])) for k in (item.right, 1 - item.right)
        )
        told = set(re.findall(r"\w+", item.context))
        assert item.choices[item.right] != item.choices[1 - item.right]
        # either the same words with entity and value exchanged, or the true value of the real world
        is_true = any(value in item.choices[1 - item.right] for value in values)
        kinds.add(is_true)
        if is_true:
            assert len(right & told) > len(wrong & told)
        else:
            assert {word.lower() for word in right} == {word.lower() for word in wrong}
    assert kinds == {True, False}


def test_commonsense_follows_from_the_class_alone():
    for item in draw_items(battery.commonsense, 150):
        kind = item.context.split(". ")[0].split()[-1]
        assert item.choices[item.right] == f" {COVERINGS[kind]}."
        assert len(item.choices) == len(COVERINGS)
        assert item.context.endswith(" is")


def test_choose_is_the_least_cost_of_1000_random_items():
    rng = random.Random(4)
    size = {"sum": lambda s: 1, "token": lambda s: s.tokens, "byte": lambda s: s.bytes}
    for _ in range(1000):
        scores = [
            Score(rng.uniform(0, 20), rng.randint(1, 6), 0, rng.randint(1, 30))
            for _ in range(rng.randint(2, 5))
        ]
        for rule, of in size.items():
            best = min(scores, key=lambda s: s.nats / of(s))
            assert scores[choose(scores, rule)] == best


def test_of_equal_choices_the_first_is_taken():
    assert choose([Score(3.0, 1, 0, 1), Score(2.0, 1, 0, 1), Score(2.0, 1, 0, 1)]) == 1
    with pytest.raises(ValueError, match="one of sum, token, byte"):
        choose([Score(1.0, 1, 0, 1)], "mean")


def test_confidence_is_the_softmax_over_the_choices():
    nats = torch.rand(300, 4, dtype=torch.float64) * 9
    scores = [[Score(n, 1, 0, 1) for n in row] for row in nats.tolist()]
    np.testing.assert_allclose(confidence(scores), (-nats).softmax(-1).max(-1).values)


def test_choices_cost_the_same_one_by_one_and_in_batches():
    model, tokenizer = make_model(), make_tokenizer()
    rng = random.Random(5)

    def say() -> str:
        return " ".join(f"w{rng.randrange(2, 60)}" for _ in range(rng.randint(1, 9)))

    items = [Item("any", say(), tuple({say(), say(), say()}), 0, "") for _ in range(60)]
    together = score_choices(model, tokenizer, items, batch_size=16)
    for item, scores in zip(items, together, strict=True):
        [alone] = score_choices(model, tokenizer, [item], batch_size=1)
        assert [s.nats for s in alone] == pytest.approx([s.nats for s in scores], abs=1e-4)
    hits = outcomes(items, together)
    assert hits.tolist() == [
        choose(s) == item.right for item, s in zip(items, together, strict=True)
    ]


def test_swapped_words_need_two_that_differ():
    assert swap_words(random.Random(0), "a b") == "b a"
    with pytest.raises(ValueError, match="no two neighbouring words"):
        swap_words(random.Random(0), "well well")
