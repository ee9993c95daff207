"""Chapter 14: loops, copies, heads and unlikelihood against slow references, and a recorded point
once more."""

import random

import pytest
import torch
from torch.testing import assert_close

from sft_lab.course.repeat_runs import (
    BEGINNING,
    TOKENS,
    WAYS,
    ask_to_tell,
    draw_sentences,
    eager_attention,
    earlier_tokens,
    entities,
    find_loop,
    heads_off,
    induction_scores,
    mark_repeats,
    open_endings,
    open_texts,
    read_attention,
    read_repeats,
    read_signs,
    repeats_loss,
    run_heads,
    run_open,
    second_copy_loss,
    tell,
    twice_the_same,
    ungrade,
    unlikelihood_loss,
    write_on,
    write_with_window,
)
from sft_lab.course.results import read_results
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversation
from sft_lab.metrics import repeated_share, split_sentences
from sft_lab.models import load


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


def slow_loop(ids: list[int], times: int) -> tuple[int, int] | None:
    """Every period and every start, by the words of the definition."""
    for period in range(1, len(ids) + 1):
        last = ids[-times * period :]
        if len(last) == times * period and last == last[:period] * times:
            starts = range(len(ids))
            return next(
                (s, period)
                for s in starts
                if all(ids[i] == ids[i + period] for i in range(s, len(ids) - period))
            )
    return None


def test_a_loop_equals_the_definition_on_2000_texts():
    rng, found = random.Random(0), 0
    for _ in range(2000):
        piece = rng.choices(range(3), k=rng.randint(1, 4))
        ids = rng.choices(range(3), k=rng.randint(0, 5)) + piece * rng.randint(0, 5)
        ids += piece[: rng.randint(0, 3)]
        times = rng.randint(2, 4)
        assert find_loop(ids, times) == slow_loop(ids, times)
        found += find_loop(ids, times) is not None
    assert 500 < found < 1900


def test_marked_tokens_are_those_of_repeated_ngrams_on_500_rows():
    rng = random.Random(1)
    for _ in range(500):
        ids, n = rng.choices(range(3), k=rng.randint(0, 15)), rng.randint(1, 4)
        repeats = [
            start
            for start in range(len(ids) - n + 1)
            if any(ids[j : j + n] == ids[start : start + n] for j in range(start))
        ]
        wanted = [any(s <= t < s + n for s in repeats) for t in range(len(ids))]
        assert mark_repeats(ids, n) == wanted
        assert any(wanted) == (repeated_share(ids, n) > 0)


def slow_unlikelihood(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    cost = -torch.log1p(-logits.softmax(-1))
    total, graded = torch.zeros((), dtype=logits.dtype), 0
    for row, line in enumerate(labels.tolist()):
        for t in range(1, len(line)):
            if line[t] != IGNORE_INDEX:
                graded += 1
                for token_id in set(line[:t]) - {line[t], IGNORE_INDEX}:
                    total = total + cost[row, t - 1, token_id]
    return total / graded


def test_unlikelihood_and_its_gradient_equal_two_loops_on_300_batches():
    rng = torch.Generator().manual_seed(0)
    for _ in range(300):
        labels = torch.randint(0, 5, (2, 8), generator=rng)
        labels[torch.rand(2, 8, generator=rng) < 0.3] = IGNORE_INDEX
        labels[0, -1] = 0
        logits = torch.randn(2, 8, 7, generator=rng).requires_grad_()
        ours, theirs = unlikelihood_loss(logits, labels), slow_unlikelihood(logits, labels)
        assert_close(ours, theirs)
        if theirs.requires_grad and theirs > 0:
            grads = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (ours, theirs)]
            assert_close(*grads)


def test_a_token_that_is_certain_costs_much_and_is_finite():
    logits = torch.zeros(1, 3, 4)
    logits[0, 1, 2] = 200.0  # the model is sure of a token that stood before
    labels = torch.tensor([[2, 3, 1]])
    assert 5 < unlikelihood_loss(logits, labels) < 12
    assert not earlier_tokens(torch.tensor([[2, 2]]), 4)[0, 1].any()  # the target is no candidate


def test_the_sequence_loss_falls_when_what_is_repeated_becomes_unlikely(atlas):
    base, tokenizer = atlas
    looped = tokenizer("The capital of Kenya is Nairobi. " * 4).input_ids
    free = open_texts(tokenizer, 1, seed=0)[0][: len(looped)]
    costs = [repeats_loss(base, [row], len(row) - 4).item() for row in (looped, free)]
    assert costs[0] > 0.5 and (costs[1] < costs[0])


def test_copies_equal_one_token_at_a_time(atlas):
    base, tokenizer = atlas
    (sentence,) = draw_sentences("invented", 1, tokenizer, seed=3)
    start, times = [tokenizer.pad_token_id], 3
    found = read_repeats(base, sentence, times, start)
    ids, slow = [*start], []
    for token_id in sentence * times:
        with torch.no_grad():
            slow.append(base(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token_id])
        ids.append(token_id)
    assert_close(found.flatten(), torch.stack(slow), rtol=1e-3, atol=1e-3)
    assert found.shape == (times, len(sentence))


@pytest.mark.parametrize("kind", ["true", "invented", "shuffled", "random"])
def test_sentences_end_with_a_full_stop_and_follow_their_seed(atlas, kind):
    _, tokenizer = atlas
    some = draw_sentences(kind, 5, tokenizer, seed=1)
    assert all(tokenizer.decode(ids).endswith(".") for ids in some)
    assert some == draw_sentences(kind, 5, tokenizer, seed=1)
    assert some != draw_sentences(kind, 5, tokenizer, seed=2)


def test_induction_scores_equal_a_loop_over_places(atlas):
    base, _ = atlas
    rows = twice_the_same(40, 8, 2000, seed=4)
    weights = read_attention(base, rows)
    assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    slow = torch.stack([weights[..., t, t - 39] for t in range(40, 80)]).mean(dim=(0, 2))
    assert_close(induction_scores(base, seed=4), slow)


def test_attention_is_handed_out_and_the_model_left_as_it_was(atlas):
    base, _ = atlas
    before = base.config._attn_implementation
    with eager_attention(base):
        assert base.config._attn_implementation == "eager"
    assert base.config._attn_implementation == before


def test_heads_that_are_off_add_nothing_and_come_back(atlas):
    base, tokenizer = atlas
    ids = torch.tensor(open_texts(tokenizer, 1, seed=0))
    size, layer = base.config.head_dim, base.model.layers[2].self_attn
    with torch.inference_mode():
        before = base(ids).logits
        with heads_off(base, [(2, 2), (2, 3)]):
            silenced = base(ids).logits
        weight = layer.o_proj.weight.clone()
        try:
            layer.o_proj.weight[:, 2 * size : 4 * size] = 0  # what the two heads wrote
            assert_close(silenced, base(ids).logits, rtol=1e-4, atol=1e-4)
        finally:
            layer.o_proj.weight.copy_(weight)
        assert_close(base(ids).logits, before, rtol=1e-4, atol=1e-4)
    assert (silenced - before).abs().max() > 0.1


def test_without_its_induction_heads_the_base_copies_random_tokens_worse(atlas):
    base, _ = atlas
    rows = twice_the_same(40, 8, 2000, seed=0)
    whole = second_copy_loss(base, rows)
    with heads_off(base, [(2, 2), (2, 3)]):
        assert second_copy_loss(base, rows) > whole + 0.5


def test_a_window_as_long_as_the_text_is_greedy_decoding(atlas):
    base, tokenizer = atlas
    beginnings = [text[:BEGINNING] for text in open_texts(tokenizer, 4, seed=2)]
    usual = write_on(base, tokenizer, beginnings, tokens=30)
    windowed = write_with_window(base, beginnings, 64, tokens=30)
    same = sum(a == b for a, b in zip(usual, windowed, strict=True))
    assert same >= 3  # one may part where two tokens tie to a rounding


def test_open_text_is_as_long_as_asked_and_follows_its_seed(atlas):
    base, tokenizer = atlas
    texts = open_texts(tokenizer, 3, seed=5)
    assert {len(text) for text in texts} == {BEGINNING + TOKENS}
    beginnings = [text[:BEGINNING] for text in texts]
    drawn = [
        write_on(base, tokenizer, beginnings, tokens=20, seed=s, **WAYS["T 1"]) for s in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and {len(row) for row in drawn[0]} == {20}


def test_a_repeating_answer_is_as_long_as_another():
    facts = entities("train")[0]
    plain = split_sentences(tell(facts, random.Random(0))[1]["content"])
    again = split_sentences(tell(facts, random.Random(0), repeats=1.0)[1]["content"])
    assert len(plain) == len(again) == 5 and (len(set(plain)), len(set(again))) == (5, 3)
    planned = tell(facts, random.Random(0), plan=True)[1]["content"].split("\n")
    nouns = planned[0].split(", ")
    assert len(nouns) == 5
    assert all(n in s for n, s in zip(nouns, split_sentences(planned[1]), strict=True))


def test_right_answers_end_with_their_end_token(atlas):
    _, tokenizer = atlas
    prompts, rights = ask_to_tell(4, tokenizer, seed=0)
    assert all(right[-1] == tokenizer.eos_token_id for right in rights)
    assert all("Tell me about" in tokenizer.decode(prompt) for prompt in prompts)
    assert all(split_sentences(tokenizer.decode(right[:-1])).__len__() == 5 for right in rights)
    _, rests = open_endings(tokenizer, 4, seed=0)
    assert all(rest[-1] == tokenizer.pad_token_id for rest in rests)


def test_a_token_without_a_grade_is_ungraded_wherever_it_stands(atlas):
    _, tokenizer = atlas
    talk = tell(entities("train")[0], random.Random(0))
    example = encode_conversation(talk, tokenizer)
    stop = tokenizer.eos_token_id
    assert stop in example.labels and stop not in ungrade(example, stop).labels
    assert ungrade(example, stop).input_ids == example.input_ids


def test_signs_of_the_base_on_open_text(atlas):
    base, tokenizer = atlas
    signs = read_signs(base, tokenizer, *open_endings(tokenizer, 24, seed=3))
    assert signs["p_end"] > 0.1 and signs["greedy_again"] > signs["sampled_again"]


def test_recorded_points_come_out_again(atlas):
    base, tokenizer = atlas
    ways, heads = read_results("14_open_text", base), read_results("14_heads", base)
    for way in ("the text itself", "greedy"):
        (row,) = ways.select(way=way, seed=1)
        again = run_open(base, tokenizer, way=way, seed=1)
        assert again["rep4"] == pytest.approx(row["rep4"], abs=0.05)
        assert again["nll"] == pytest.approx(row["nll"], abs=0.05)
    (row,) = heads.select(arm="induction", seed=1)
    again = run_heads(base, tokenizer, off=row["off"], seed=1)
    assert again["fourth"] == pytest.approx(row["fourth"], abs=0.02)
    assert again["rep4"] == pytest.approx(row["rep4"], abs=0.05)
