"""The loss of sft_lab is torch's, and transformers' own, on random logits, models, paddings and
packings."""

import random

import pytest
import torch
import torch.nn.functional as F
from tiny import PAD, VOCABULARY, make_examples, make_model
from tolerances import LOGITS, LOSS, right_answers
from torch.testing import assert_close
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

import sft_lab.kernels.head
from sft_lab.batches import pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.losses import graded_logits, graded_loss, head_is_last, response_loss, token_nll

pytestmark = pytest.mark.numeric

ARCHITECTURES = ("qwen3", "llama")


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch, tokens, vocabulary = (
        int(torch.randint(low, high, (), generator=generator))
        for low, high in ((1, 6), (2, 20), (2, 50))
    )
    logits = torch.randn(batch, tokens, vocabulary, generator=generator) * 10 ** (seed % 4 - 1)
    labels = torch.randint(0, vocabulary, (batch, tokens), generator=generator)
    labels[torch.rand(batch, tokens, generator=generator) < 0.5] = IGNORE_INDEX
    labels[0, 1] = 0  # one graded label at least, and it is token 0
    return logits, labels


def test_the_loss_is_torchs_cross_entropy_on_500_random_cases():
    for seed in range(500):
        logits, labels = random_case(seed)
        shifted = logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1)
        near = {"rtol": 1e-5, "atol": 1e-5}  # losses up to hundreds of nats
        assert_close(response_loss(logits, labels), F.cross_entropy(*shifted), **near)
        each = F.cross_entropy(*shifted, reduction="none")
        assert_close(token_nll(logits, labels).flatten(), each, **near)


def test_the_loss_has_torchs_gradient_on_50_random_cases():
    for seed in range(50):
        logits, labels = random_case(seed)
        ours, torchs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        response_loss(ours, labels).backward()
        F.cross_entropy(torchs[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).backward()
        assert_close(ours.grad, torchs.grad)


def test_token_nll_is_zero_exactly_where_nothing_is_graded():
    logits, labels = random_case(1)
    nll = token_nll(logits, labels)
    assert nll.shape == (labels.shape[0], labels.shape[1] - 1)
    assert torch.equal(nll == 0, labels[:, 1:] == IGNORE_INDEX)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_is_the_models_own_on_50_random_batches(architecture):
    model = make_model(architecture)
    for seed in range(50):
        batch = pad_batch(make_examples(1 + seed % 7, seed=seed), PAD)
        with torch.no_grad():
            theirs = model(**batch)
            logits, targets = graded_logits(model, batch)
        assert_close(response_loss(theirs.logits, batch["labels"]), theirs.loss, **LOSS)
        assert_close(F.cross_entropy(logits, targets), theirs.loss, **LOSS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_at_graded_positions_are_the_full_scores_there_with_or_without_the_mask(
    architecture,
):
    model = make_model(architecture)
    for seed in range(30):
        batch = pad_batch(make_examples(5, seed=seed), PAD)
        graded = batch["labels"][:, 1:] != IGNORE_INDEX
        with torch.no_grad():
            full = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
            logits, targets = graded_logits(model, batch)
        assert_close(logits, full[:, :-1][graded], **LOGITS)  # with padding in the sums or without
        assert torch.equal(targets, batch["labels"][:, 1:][graded])


def test_the_gradient_of_graded_scores_is_that_of_the_models_own_loss():
    ours, theirs = make_model(), make_model()
    batch = pad_batch(make_examples(8), PAD)
    F.cross_entropy(*graded_logits(ours, batch)).backward()
    theirs(**batch).loss.backward()
    for (name, parameter), (_, reference) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert_close(
            parameter.grad,
            reference.grad,
            rtol=1e-4,
            atol=1e-5,  # sums over all tokens, in another order
            msg=lambda text, n=name: f"{n}: {text}",
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("frozen", ["nothing", "head", "all but the head"])
def test_the_loss_in_chunks_and_its_gradients_are_torchs_on_20_random_batches(
    architecture, frozen, monkeypatch
):
    model = make_model(architecture)
    head = model.get_output_embeddings().weight
    for parameter in model.parameters():
        parameter.requires_grad_(
            {"nothing": True, "head": parameter is not head}.get(frozen, parameter is head)
        )
    for seed in range(20):
        monkeypatch.setattr(
            sft_lab.kernels.head,
            "SCORES_AT_ONCE",
            random.Random(seed).choice([1, 3, 17]) * VOCABULARY,
        )
        batch, factor = (
            pad_batch(make_examples(1 + seed % 5, seed=seed), PAD),
            random.Random(seed).uniform(0.1, 3),
        )
        logits, targets = graded_logits(model, batch)
        right = factor * F.cross_entropy(logits, targets, reduction="sum")
        loss, correct = graded_loss(model, batch, factor=factor)
        assert_close(loss, right, rtol=1e-5, atol=1e-4)  # a sum, chunk by chunk
        assert int(correct) in right_answers(logits, targets)
        trained = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        ours, theirs = (
            torch.autograd.grad(7 * value, list(trained.values())) for value in (loss, right)
        )
        for name, one, other in zip(trained, ours, theirs, strict=True):
            # a sum over chunks, near 100
            assert_close(one, other, rtol=1e-3, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_in_chunks_is_as_near_to_float32_as_torchs_own(dtype):
    model, batch = make_model(), pad_batch(make_examples(40), PAD)
    exact, _ = graded_loss(model, batch)
    with torch.autocast("cpu", dtype=dtype):
        logits, targets = graded_logits(model, batch)
        torchs, (ours, _) = (
            F.cross_entropy(logits.float(), targets, reduction="sum"),
            graded_loss(model, batch),
        )
    gradients = [
        torch.autograd.grad(loss, model.model.embed_tokens.weight)[0]
        for loss in (exact, torchs, ours)
    ]
    assert ours.dtype == torch.float32
    assert abs(ours - exact) <= 1.2 * abs(torchs - exact) + 1e-3 * exact
    theirs, mine = (
        (gradient - gradients[0]).norm() / gradients[0].norm() for gradient in gradients[1:]
    )
    assert mine <= 1.2 * theirs + 1e-4 and theirs < 0.05


def test_a_head_that_is_no_plain_linear_layer_is_called():
    model, batch = make_model("llama"), pad_batch(make_examples(6), PAD)
    model.lm_head = torch.nn.Linear(32, VOCABULARY)  # with a bias
    torch.nn.init.normal_(model.lm_head.bias)
    assert_close(
        graded_loss(model, batch)[0], F.cross_entropy(*graded_logits(model, batch), reduction="sum")
    )


def watch_call(head: torch.nn.Module, called: list) -> None:
    real = head.forward

    def forward(states: torch.Tensor) -> torch.Tensor:
        called.append("forward")
        return real(states)

    head.forward = forward


WATCHES = {
    "forward hook": lambda head, called: head.register_forward_hook(lambda *_: called.append(1)),
    "forward pre-hook": lambda head, called: head.register_forward_pre_hook(
        lambda *_: called.append(1)
    ),
    "backward hook": lambda head, called: head.register_full_backward_hook(
        lambda *_: called.append(1)
    ),
    "backward pre-hook": lambda head, called: head.register_full_backward_pre_hook(
        lambda *_: called.append(1)
    ),
    "another forward": watch_call,
}


@pytest.mark.parametrize("watch", WATCHES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_that_hangs_on_the_head_is_skipped(architecture, watch):
    model, called = make_model(architecture), []
    WATCHES[watch](model.get_output_embeddings(), called)
    graded_loss(model, pad_batch(make_examples(3), PAD))[0].backward()
    assert called


def test_what_a_pre_hook_of_the_head_changes_is_in_the_loss():
    model, batch = make_model(), pad_batch(make_examples(6), PAD)
    model.lm_head.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    graded = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
    assert_close(graded_loss(model, batch, factor=1 / graded)[0], model(**batch).loss)


def test_a_second_backward_through_the_same_loss_fails_instead_of_counting_twice():
    loss, _ = graded_loss(make_model(), pad_batch(make_examples(2), PAD))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_rows_have_the_loss_of_unpacked_examples_on_20_random_sets(architecture):
    model = make_model(architecture)
    for seed in range(20):
        examples = make_examples(9, seed=seed)
        with torch.no_grad():
            unpacked = model(**pad_batch(examples, PAD)).loss
            parts = [graded_logits(model, row) for row in pack(examples, 60)]
        logits, targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        assert len(parts) < len(examples), "nothing was packed"
        assert_close(F.cross_entropy(logits, targets), unpacked, rtol=0, atol=1e-5)


def test_packing_without_position_ids_leaks_so_the_test_above_can_fail():
    model, examples = make_model(), make_examples(9)
    with torch.no_grad():
        rows = pack(examples, 60)
        right = torch.cat([graded_logits(model, row)[0] for row in rows])
        leaked = torch.cat(
            [graded_logits(model, {k: row[k] for k in ("input_ids", "labels")})[0] for row in rows]
        )
    assert (right - leaked).abs().max() > 0.1


def test_labels_without_a_graded_token_are_an_error():
    logits = torch.zeros(1, 3, 5)
    only_the_first = torch.tensor(
        [[4, IGNORE_INDEX, IGNORE_INDEX]]
    )  # nothing predicts the first token
    with pytest.raises(
        ValueError, match=r"no graded token in labels of shape \(1, 3\).*truncation"
    ):
        response_loss(logits, only_the_first)


def test_logits_and_labels_of_different_length_are_an_error():
    with pytest.raises(ValueError, match=r"\(1, 2, 5\) and labels \(1, 3\) differ"):
        token_nll(torch.zeros(1, 2, 5), torch.zeros(1, 3, dtype=torch.long))


BEHIND_THE_HEAD = {
    "soft cap": lambda sizes: Gemma2ForCausalLM(
        Gemma2Config(**sizes, final_logit_softcapping=2.0, sliding_window=8)
    ),
    "division": lambda sizes: GraniteForCausalLM(GraniteConfig(**sizes, logits_scaling=8.0)),
    "factor": lambda sizes: CohereForCausalLM(CohereConfig(**sizes, logit_scale=0.25)),
    "layers": lambda sizes: RobertaForCausalLM(
        RobertaConfig(**sizes, is_decoder=True, hidden_dropout_prob=0.0)
    ),
}


@pytest.mark.parametrize("change", BEHIND_THE_HEAD)
def test_what_a_model_does_to_its_scores_behind_the_head_is_in_loss_and_gradient(change):
    torch.manual_seed(0)
    model = BEHIND_THE_HEAD[change](
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "intermediate_size": 16,
            "max_position_embeddings": 64,
            "initializer_range": 0.5,
            "pad_token_id": PAD,
        }
    ).eval()
    for seed in range(10):
        examples = make_examples(1 + seed % 4, seed=seed)
        batch = pad_batch(examples, PAD)
        alone = [model(input_ids=torch.tensor([e.input_ids])).logits[0, :-1] for e in examples]
        targets = torch.tensor([token for e in examples for token in e.labels[1:]])
        right = F.cross_entropy(torch.cat(alone), targets, reduction="sum")  # ignores -100
        loss, correct = graded_loss(model, batch, factor=0.5)
        assert_close(2 * loss, right, rtol=1e-5, atol=1e-4)
        scores, kept = graded_logits(model, batch)
        assert_close(scores, torch.cat(alone)[targets != IGNORE_INDEX], **LOGITS)
        assert torch.equal(kept, targets[targets != IGNORE_INDEX])
        assert int(correct) in right_answers(scores, kept)
        weights = list(model.parameters())
        ours, theirs = (
            torch.autograd.grad(value, weights, allow_unused=True) for value in (2 * loss, right)
        )
        for one, other in zip(ours, theirs, strict=True):
            if other is not None:
                assert_close(one, other, rtol=1e-3, atol=1e-3)  # sums over all tokens, near 10


def test_whether_the_head_is_last_is_asked_again_on_request():
    model, ids = make_model("llama"), torch.arange(2, 12)[None]
    assert head_is_last(model, ids)
    model.register_forward_hook(lambda module, inputs, output: _scaled(output, 1.05))
    assert not head_is_last(model, ids)
    batch = pad_batch(make_examples(4), PAD)
    assert_close(
        response_loss(model(**batch).logits, batch["labels"]),
        F.cross_entropy(*graded_logits(model, batch)),
        **LOSS,
    )


def _scaled(output, factor):
    output.logits = output.logits * factor
    return output


def test_a_batch_padded_on_the_left_is_refused():
    ids = torch.tensor([[PAD, PAD, 5, 6]])
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 6]])
    batch = {"input_ids": ids, "labels": labels, "attention_mask": (ids != PAD).long()}
    with pytest.raises(ValueError, match="padded on the left"):
        graded_logits(make_model(), batch)


def test_a_batch_with_nothing_to_grade_gives_no_scores_and_no_error():
    """One micro-batch of a step may have none: train counts the step's graded tokens together."""
    logits, targets = graded_logits(
        make_model(), pad_batch([Example([5, 6, 7], [IGNORE_INDEX] * 3)], PAD)
    )
    assert logits.shape == (0, VOCABULARY) and targets.shape == (0,)
    F.cross_entropy(logits, targets, reduction="sum").backward()
