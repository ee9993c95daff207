"""Perplexity and bits per byte against one text at a time, transformers' own loss and loops."""

import math
import random

import pytest
import torch
from tiny import VOCABULARY, make_examples, make_model, make_tokenizer
from tolerances import LOSS

from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.perplexity import (
    Score,
    add_up,
    bits_per_byte,
    perplexity,
    score_examples,
    score_texts,
    start_token_id,
    token_accuracy,
)

TEXTS = ["The capital of Kenya is Nairobi.", "我爱你。", "x", "- iron\n- gold\n\nNaïve 😀?"]


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_600_random_rows_cost_what_transformers_says_of_each_alone(architecture):
    model, tokenizer = make_model(architecture), make_tokenizer()
    examples = make_examples(600, seed=1)
    scores = score_examples(model, tokenizer, examples, batch_size=16)
    for example, score in zip(examples, scores, strict=True):
        ids, labels = (torch.tensor([row]) for row in (example.input_ids, example.labels))
        with torch.no_grad():
            alone = model(ids, labels=labels)
        count = sum(label != IGNORE_INDEX for label in example.labels[1:])
        best = alone.logits[0, :-1].argmax(-1) == labels[0, 1:]
        assert score.tokens == count
        assert score.right == int(best.sum())
        assert math.isclose(score.nats / count, alone.loss.item(), abs_tol=LOSS["atol"])


@pytest.mark.parametrize("size", [1, 4, 16, 1000])
def test_no_batch_size_changes_a_number(size):
    model, tokenizer = make_model(), make_tokenizer()
    examples = make_examples(70, seed=2)
    found = score_examples(model, tokenizer, examples, batch_size=size)
    expected = score_examples(model, tokenizer, examples, batch_size=7)
    assert [s.tokens for s in found] == [s.tokens for s in expected]
    assert perplexity(found) == pytest.approx(perplexity(expected), rel=1e-5)
    assert token_accuracy(found) == token_accuracy(expected)


def test_1000_random_sets_of_scores_are_added_up_and_divided_once():
    rng = random.Random(3)
    for _ in range(1000):
        rows = [
            [rng.uniform(0, 9) for _ in range(rng.randint(1, 12))] for _ in range(rng.randint(1, 8))
        ]
        scores = [Score(sum(r), len(r), rng.randint(0, len(r)), 3 * len(r)) for r in rows]
        flat = [nats for row in rows for nats in row]
        mean = sum(flat) / len(flat)
        assert perplexity(scores) == pytest.approx(math.exp(mean))
        assert bits_per_byte(scores) == pytest.approx(sum(flat) / math.log(2) / (3 * len(flat)))
        assert token_accuracy(scores) == sum(s.right for s in scores) / len(flat)


def test_every_token_of_a_text_is_scored_and_none_of_its_context(model, tokenizer):
    [alone] = score_texts(model, tokenizer, [" is Nairobi."], contexts=["The capital of Kenya"])
    ids, rest = (tokenizer(t).input_ids for t in ("The capital of Kenya", " is Nairobi."))
    with torch.no_grad():
        log_probs = model(torch.tensor([ids + rest])).logits[0].log_softmax(-1)
    by_hand = -sum(log_probs[len(ids) - 1 + k, token].item() for k, token in enumerate(rest))
    assert alone.nats == pytest.approx(by_hand, abs=1e-4)
    assert (alone.tokens, alone.bytes) == (len(rest), len(" is Nairobi."))


def test_a_context_of_ids_is_read_as_it_is(model, tokenizer):
    ids = tokenizer("The capital of Kenya").input_ids
    given = score_texts(model, tokenizer, [" is"] * 2, contexts=[ids, "The capital of Kenya"])
    assert given[0] == pytest.approx(given[1])


def test_the_first_token_is_scored_behind_the_token_that_begins_a_document(model, tokenizer):
    assert start_token_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    for text, score in zip(TEXTS, score_texts(model, tokenizer, TEXTS), strict=True):
        ids = [start_token_id(tokenizer), *tokenizer(text).input_ids]
        rows = torch.tensor([ids])
        with torch.no_grad():
            loss = model(rows, labels=rows).loss.item()
        assert score.tokens == len(ids) - 1
        assert score.nats == pytest.approx(loss * score.tokens, abs=1e-3)
        assert score.bytes == len(text.encode())


def test_control_tokens_in_a_text_stay_letters(model, tokenizer):
    [score] = score_texts(model, tokenizer, ["<|im_end|>"])
    assert score.tokens > 1


def test_a_uniform_model_costs_the_same_bits_per_byte_for_every_tokenizer():
    # each byte costs 8 bits, however long the tokens are: perplexity differs, bits per byte do not
    texts, nats = "wonderful", 9 * 8 * math.log(2)
    long, short = Score(nats, 2, 0, len(texts)), Score(nats, 9, 0, len(texts))
    assert bits_per_byte([long]) == bits_per_byte([short]) == pytest.approx(8)
    assert perplexity([short]) == pytest.approx(256) and perplexity([long]) > 1e10


def test_training_mode_dropout_and_random_numbers_are_left_alone():
    model, tokenizer = make_model(attention_dropout=0.5).train(), make_tokenizer()
    examples = make_examples(10)
    torch.manual_seed(4)
    first = score_examples(model, tokenizer, examples)
    drawn = torch.rand(1)
    torch.manual_seed(4)
    assert torch.rand(1) == drawn
    assert model.training
    assert first == score_examples(model, tokenizer, examples)


def test_a_model_that_is_sure_and_wrong_has_an_infinite_perplexity():
    assert perplexity([Score(1e6, 1, 0, 1)]) == math.inf


def test_what_cannot_be_measured_is_refused(model, tokenizer):
    with pytest.raises(TypeError, match="put it into a list"):
        score_texts(model, tokenizer, "one text")
    with pytest.raises(ValueError, match=r"texts\[1\] is ''"):
        score_texts(model, tokenizer, ["a", ""])
    with pytest.raises(ValueError, match="1 contexts for 2 texts"):
        score_texts(model, tokenizer, ["a", "b"], contexts=["c"])
    with pytest.raises(ValueError, match="positions"):
        score_examples(make_model(), make_tokenizer(), [Example([2] * 200, [2] * 200)])
    with pytest.raises(ValueError, match="nothing was scored"):
        add_up([])
    with pytest.raises(ValueError, match="no token was scored"):
        perplexity([Score(0.0, 0, 0, 0)])
    with pytest.raises(ValueError, match="no token was scored"):
        token_accuracy([Score(0.0, 0, 0, 0)])
    with pytest.raises(ValueError, match="score_texts"):
        bits_per_byte(score_examples(make_model(), make_tokenizer(), make_examples(2)))


def test_an_example_without_a_graded_token_adds_nothing():
    model, tokenizer = make_model(), make_tokenizer()
    ids = [random.Random(5).randrange(2, VOCABULARY) for _ in range(6)]
    empty = Example(ids, [IGNORE_INDEX] * 6)
    scores = score_examples(model, tokenizer, [empty, *make_examples(3)], batch_size=4)
    assert scores[0] == Score(0.0, 0, 0, 0)
    assert score_examples(model, tokenizer, [empty]) == [Score(0.0, 0, 0, 0)]
