"""Weighted, focal, smoothed, DFT: values and gradients are those of torch, transformers and TRL on
random cases; the fast version is the readable one; a run learns with them as it does with NLL."""

import json
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from tiny import PAD, VOCABULARY, make_examples, make_model, make_tokenizer
from tolerances import LOSS
from torch.testing import assert_close
from transformers.trainer_pt_utils import LabelSmoother

import sft_lab.kernels.head
import sft_lab.train
from sft_lab.arguments import SettingError
from sft_lab.batches import pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.kernels.head import HeadLoss
from sft_lab.loop.update import mixed_precision, optimizer_step
from sft_lab.losses import graded_logits, graded_loss, response_loss
from sft_lab.token_losses import TokenLoss, dft, focal, smoothed, weighted
from sft_lab.train import evaluate, train

TOKENIZER = make_tokenizer()
EXAMPLES = make_examples(24)
RUN = {"batch_size": 8, "learning_rate": 3e-3, "progress": False}
NEAR = {"rtol": 1e-5, "atol": 1e-5}  # losses up to hundreds of nats


def random_weights(vocabulary: int, *, seed: int = 0) -> torch.Tensor:
    """From 0 (for some) to 5; the entry of token 0 is never 0."""
    weights = 5 * torch.rand(vocabulary, generator=torch.Generator().manual_seed(seed))
    weights[weights < 0.5] = 0
    weights[0] = 0.7
    return weights


# name: a loss with numbers drawn by a seed
LOSSES = {
    "weighted": lambda vocabulary, seed: weighted(random_weights(vocabulary, seed=seed)),
    "focal": lambda vocabulary, seed: focal((0, 0.3, 0.5, 1, 2, 3.7)[seed % 6]),
    "smoothed": lambda vocabulary, seed: smoothed((0, 0.1, 0.3, 0.99)[seed % 4]),
    "dft": lambda vocabulary, seed: dft(),
}
SOME = {
    "weighted": weighted(random_weights(VOCABULARY)),
    "focal": focal(2),
    "smoothed": smoothed(0.2),
    "dft": dft(),
}
every_loss = pytest.mark.parametrize("loss", SOME.values(), ids=SOME)
every_kind = pytest.mark.parametrize("kind", LOSSES)


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, T, V) from nearly even to p = 0 and p = 1, every fifth of bfloat16's numbers, and
    labels; every seventh case has one graded token."""
    generator = torch.Generator().manual_seed(seed)
    batch, tokens, vocabulary = (
        int(torch.randint(low, high, (), generator=generator))
        for low, high in ((1, 6), (2, 20), (2, 50))
    )
    logits = torch.randn(batch, tokens, vocabulary, generator=generator) * 10 ** (seed % 4 - 1)
    if seed % 5 == 0:
        logits = logits.bfloat16().float()
    labels = torch.randint(0, vocabulary, (batch, tokens), generator=generator)
    labels[torch.rand(batch, tokens, generator=generator) < 0.5] = IGNORE_INDEX
    if seed % 7 == 0:
        labels[:] = IGNORE_INDEX
    labels[0, 1] = 0  # one graded label at least, and it is token 0
    return logits, labels


def shifted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()


def fast_loss(logits: torch.Tensor, labels: torch.Tensor, loss: TokenLoss) -> torch.Tensor:
    """The mean through the kernel, whose states are the logits and whose head changes nothing."""
    scores, targets = shifted(logits, labels)
    graded = targets != IGNORE_INDEX
    factor = 1 / loss.divisor(targets[graded])
    same = torch.eye(scores.shape[1])
    return HeadLoss.apply(scores[graded], same, targets[graded], factor, loss)[0]


def with_gradient(loss, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`loss` of the logits, and its gradient by them."""
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def assert_same_loss(logits, labels, loss: TokenLoss, reference) -> None:
    """Value and gradient of both versions are those of `reference`, a function of the logits."""
    value, gradient = with_gradient(reference, logits)
    for ours in (response_loss, fast_loss):
        mine, by_logits = with_gradient(lambda z, f=ours: f(z, labels, loss), logits)
        assert_close(mine, value, **NEAR)
        assert_close(by_logits, gradient, rtol=1e-4, atol=1e-6)


# --- libraries and formulas
# -------------------------------------------------------------------------------------------------


@pytest.mark.numeric
def test_weighted_is_torchs_on_500_random_cases():
    for seed in range(500):
        logits, labels = random_case(seed)
        weights = random_weights(logits.shape[-1], seed=seed)
        assert_same_loss(
            logits,
            labels,
            weighted(weights),
            lambda z, y=labels, w=weights: F.cross_entropy(*shifted(z, y), weight=w),
        )


@pytest.mark.numeric
def test_smoothed_is_torchs_and_transformers_on_500_random_cases():
    for seed in range(500):
        logits, labels = random_case(seed)
        epsilon = random.Random(seed).choice([0.0, 0.1, random.Random(seed).random()])
        smoother = LabelSmoother(epsilon=epsilon)
        assert_same_loss(
            logits,
            labels,
            smoothed(epsilon),
            lambda z, y=labels, e=epsilon: F.cross_entropy(*shifted(z, y), label_smoothing=e),
        )
        theirs = smoother({"logits": logits}, labels, shift_labels=True)
        assert_close(response_loss(logits, labels, smoothed(epsilon)), theirs, **NEAR)


@pytest.mark.numeric
def test_focal_is_its_formula_in_float64_on_500_random_cases():
    for seed in range(500):
        logits, labels = random_case(seed)
        rng = random.Random(seed)
        gamma = rng.choice([0.0, 1.0, 2.0, rng.uniform(1, 5)])

        def formula(z, y=labels, g=gamma):
            scores, targets = shifted(z.double(), y)
            scores, targets = scores[targets != IGNORE_INDEX], targets[targets != IGNORE_INDEX]
            others = scores.scatter(1, targets[:, None], -torch.inf).logsumexp(-1)
            rest = torch.sigmoid(others - scores.gather(1, targets[:, None])[:, 0])  # 1 - p
            return (rest**g * F.cross_entropy(scores, targets, reduction="none")).mean().float()

        assert_same_loss(logits, labels, focal(gamma), formula)


@pytest.mark.numeric
def test_the_slope_of_focal_is_the_finite_difference_of_its_value():
    log_probs = -torch.logspace(-4, 1.3, 200, dtype=torch.float64)
    step = 1e-5 * log_probs.abs()
    for gamma in (0, 0.3, 1, 2, 3.7):
        loss = focal(gamma)
        rise = loss.value(log_probs + step) - loss.value(log_probs - step)
        assert_close(loss.slope(log_probs), -rise / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def trl_dft(tmp_path_factory):
    """TRL's own loss of a model and a batch."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [{"input_ids": e.input_ids, "labels": e.labels} for e in EXAMPLES]
    trainer = SFTTrainer(
        model=make_model(),
        args=SFTConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            loss_type="dft",
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=TOKENIZER,
    )
    return lambda batch: trainer.compute_loss(trainer.model, dict(batch)), trainer.model


@pytest.mark.numeric
def test_dft_is_trls_on_500_random_batches(trl_dft):
    compute_loss, theirs = trl_dft
    ours = make_model()
    with torch.no_grad():  # nearly even scores alone would be an easy case
        for model in (ours, theirs):
            model.get_input_embeddings().weight.mul_(6)
    for seed in range(500):
        batch = pad_batch(make_examples(1 + seed % 5, seed=seed), PAD)
        graded = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
        reference = compute_loss(batch)
        loss, _ = graded_loss(ours, batch, factor=1 / graded, loss=dft())
        assert_close(loss, reference, **NEAR)
        if seed % 10 == 0:
            readable = response_loss(ours(batch["input_ids"]).logits, batch["labels"], dft())
            assert_close(readable, reference, **NEAR)
            gradients = [
                torch.autograd.grad(value, model.get_input_embeddings().weight)[0]
                for value, model in ((loss, ours), (readable, ours), (reference, theirs))
            ]
            assert_close(gradients[0], gradients[2], rtol=1e-4, atol=1e-5)
            assert_close(gradients[1], gradients[2], rtol=1e-4, atol=1e-5)


@pytest.mark.numeric
def test_dft_is_detached_p_times_nll_on_500_random_cases():
    for seed in range(500):
        logits, labels = random_case(seed)

        def formula(z, y=labels):
            scores, targets = shifted(z, y)
            nll = F.cross_entropy(scores, targets, reduction="none")  # 0 at -100
            return (nll * (-nll.detach()).exp()).sum() / (targets != IGNORE_INDEX).sum()

        assert_same_loss(logits, labels, dft(), formula)


def test_the_weight_of_dft_is_a_constant():
    scores = torch.tensor([[1.0, 0.0, -1.0]])
    p = scores.softmax(-1)[0, 0].item()
    _, gradient = with_gradient(lambda z: dft().per_token(z, torch.tensor([0])).sum(), scores)
    assert gradient[0, 0].item() == pytest.approx(p * (p - 1))
    with_the_weight = p * (p - 1) * (1 + math.log(p))  # what a gradient through p would give
    assert gradient[0, 0].item() != pytest.approx(with_the_weight, rel=0.1)


@pytest.mark.numeric
def test_fairseqs_smoothing_is_ours_with_a_larger_epsilon_on_500_random_cases():
    for seed in range(500):
        logits, labels = random_case(seed)
        scores, targets = shifted(logits.double(), labels)
        scores, targets = scores[targets != IGNORE_INDEX], targets[targets != IGNORE_INDEX]
        size, epsilon = scores.shape[1], random.Random(seed).uniform(0, 0.49)
        log_probs = scores.log_softmax(-1)
        nll, every = -log_probs.gather(1, targets[:, None])[:, 0], -log_probs.sum(-1)
        share = epsilon / (size - 1)
        fairseqs = (1 - epsilon - share) * nll + share * every
        ours = smoothed(epsilon * size / (size - 1)).per_token(scores, targets)
        assert_close(ours, fairseqs, rtol=1e-9, atol=1e-9)
        if epsilon > 0.1 and scores.std() > 0.5:  # the same epsilon is another loss
            gap = smoothed(epsilon).per_token(scores, targets) - fairseqs
            assert gap.abs().max() > 1e-5


# --- the fast version is the readable one
# -------------------------------------------------------------------------------------------------


@pytest.mark.numeric
@every_kind
def test_the_kernel_is_the_readable_version_on_500_random_cases(kind, monkeypatch):
    for seed in range(500):
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        count, width, vocabulary = rng.randint(1, 30), rng.randint(1, 12), rng.randint(2, 40)
        chunk = rng.choice([1, 3, 7, 1000])
        monkeypatch.setattr(sft_lab.kernels.head, "SCORES_AT_ONCE", chunk * vocabulary)
        hidden = torch.randn(count, width, generator=generator, requires_grad=True)
        head = torch.randn(vocabulary, width, generator=generator, requires_grad=True)
        targets = torch.randint(0, vocabulary, (count,), generator=generator)
        loss, factor = LOSSES[kind](vocabulary, seed), rng.uniform(0.1, 3)
        mine, _ = HeadLoss.apply(hidden, head, targets, factor, loss)
        readable = factor * loss.per_token(hidden @ head.t(), targets).sum()
        assert_close(mine, readable, rtol=1e-5, atol=1e-4)  # a sum, chunk by chunk
        ours, theirs = (
            torch.autograd.grad(3 * value, (hidden, head)) for value in (mine, readable)
        )
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.numeric
@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_certain_and_impossible_tokens_have_finite_losses_and_gradients(loss, dtype):
    scores = torch.zeros(6, VOCABULARY, dtype=dtype)
    for row, size in enumerate((30.0, 104.0, 1e4)):
        scores[row, 5], scores[row + 3, 6] = size, size  # p of token 5: 1 - 1e-11, 1, 1; 0 below
    labels = torch.full((6, 2), IGNORE_INDEX)
    labels[:, 1] = 5
    logits = scores[:, None].expand(-1, 2, -1).float()
    for version in (response_loss, fast_loss):
        value, gradient = with_gradient(lambda z, f=version: f(z, labels, loss), logits)
        assert value.isfinite() and gradient.isfinite().all()
        at_zero = gradient[3:, 0, 5] * (6 if loss.weights is None else 6.0)
        assert gradient[:3, 0, 5].abs().max() < 1e-2 or loss.epsilon  # known: nothing to learn
        if loss.settings["name"] == "dft":
            assert at_zero.abs().max() < 1e-9  # unknown: nothing is learned
        else:
            assert_close(at_zero, torch.full_like(at_zero, loss.epsilon * (1 - 1 / VOCABULARY) - 1))


@pytest.mark.parametrize("gamma", [0.01, 0.5, 1, 2])
def test_focal_has_a_gradient_at_p_exactly_1(gamma):
    log_probs = torch.zeros(1, requires_grad=True)
    (by_log_prob,) = torch.autograd.grad(focal(gamma).value(log_probs).sum(), log_probs)
    assert by_log_prob.isfinite() and abs(by_log_prob.item()) < 0.5
    slope = focal(gamma).slope(torch.zeros(1))
    assert slope.item() == 0


def test_focal_of_gamma_0_and_smoothing_of_0_are_the_nll():
    logits, labels = random_case(1)
    for loss in (focal(0), smoothed(0), weighted([2.0] * logits.shape[-1])):
        assert_close(response_loss(logits, labels, loss), response_loss(logits, labels), **NEAR)
        assert_close(fast_loss(logits, labels, loss), response_loss(logits, labels), **NEAR)


@pytest.mark.numeric
@every_loss
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_a_models_loss_is_the_readable_one_on_20_random_batches(loss, architecture, monkeypatch):
    model = make_model(architecture)
    weights = list(model.parameters())
    for seed in range(20):
        chunk = random.Random(seed).choice([1, 3, 17, 1000])
        monkeypatch.setattr(sft_lab.kernels.head, "SCORES_AT_ONCE", chunk * VOCABULARY)
        batch = pad_batch(make_examples(1 + seed % 5, seed=seed), PAD)
        targets = batch["labels"][:, 1:][batch["labels"][:, 1:] != IGNORE_INDEX]
        factor = 1 / max(1, loss.divisor(targets))
        mine, _ = graded_loss(model, batch, factor=factor, loss=loss)
        readable = factor * loss.per_token(*graded_logits(model, batch)).sum()
        assert_close(mine, readable, **NEAR)
        ours, theirs = (torch.autograd.grad(value, weights) for value in (mine, readable))
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, rtol=1e-3, atol=1e-5)


def add_to_head(model):
    return get_peft_model(
        model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    )


def scale_scores(model):
    def change(module, inputs, output):
        output.logits = output.logits * 1.5
        return output

    model.register_forward_hook(change)
    return model


@pytest.mark.numeric
@every_loss
@pytest.mark.parametrize("change", [add_to_head, scale_scores])
def test_lora_on_the_head_and_scores_changed_behind_it_are_in_the_loss(loss, change):
    model = change(make_model("llama"))
    batch = pad_batch(make_examples(6), PAD)
    divisor = loss.divisor(batch["labels"][:, 1:][batch["labels"][:, 1:] != IGNORE_INDEX])
    mine, _ = graded_loss(model, batch, factor=1 / divisor, loss=loss)
    readable = response_loss(model(batch["input_ids"]).logits, batch["labels"], loss)
    assert_close(mine, readable, **NEAR)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    ours, theirs = (torch.autograd.grad(value, trained) for value in (mine, readable))
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.numeric
@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_kernel_is_as_near_to_float32_as_the_readable_version(loss, dtype):
    model, batch = make_model(), pad_batch(make_examples(40), PAD)
    exact, _ = graded_loss(model, batch, loss=loss)
    with torch.autocast("cpu", dtype=dtype):
        readable = loss.per_token(*graded_logits(model, batch)).sum()
        ours, _ = graded_loss(model, batch, loss=loss)
    gradients = [
        torch.autograd.grad(value, model.model.embed_tokens.weight)[0]
        for value in (exact, readable, ours)
    ]
    assert ours.dtype == torch.float32
    assert abs(ours - exact) <= 1.2 * abs(readable - exact) + 1e-3 * exact
    theirs, mine = (
        (gradient - gradients[0]).norm() / gradients[0].norm() for gradient in gradients[1:]
    )
    assert mine <= 1.2 * theirs + 1e-4 and theirs < 0.05


# --- a step and a run
# -------------------------------------------------------------------------------------------------


def one_step(batches: list, loss: TokenLoss | None) -> tuple[float, list[torch.Tensor]]:
    """What a step reports, and the gradient it takes (the change of plain descent at rate 1)."""
    model = make_model().train()
    weights = list(model.parameters())
    before = [weight.detach().clone() for weight in weights]
    with mixed_precision(model) as (autocast, scaler):
        measured = optimizer_step(
            model,
            torch.optim.SGD(weights, lr=1.0),
            weights,
            batches,
            max_grad_norm=math.inf,
            step=1,
            autocast=autocast,
            scaler=scaler,
            token_loss=loss,
        )
    return measured["loss"], [b - w.detach() for b, w in zip(before, weights, strict=True)]


@pytest.mark.numeric
@every_loss
def test_eight_batches_of_one_are_one_batch_of_eight(loss):
    gaps = []
    for seed in range(5):
        examples = make_examples(8, seed=seed)
        alone = [pad_batch([example], PAD) for example in examples]
        whole, gradient = one_step([pad_batch(examples, PAD)], loss)
        parts, summed = one_step(alone, loss)
        assert whole == pytest.approx(parts, rel=1e-5)
        for one, other in zip(gradient, summed, strict=True):
            assert_close(one, other, rtol=1e-3, atol=1e-5)
        joined = pad_batch(examples, PAD)
        right = response_loss(make_model()(joined["input_ids"]).logits, joined["labels"], loss)
        assert whole == pytest.approx(right.item(), rel=1e-4)
        graded = [b for b in alone if loss.divisor(b["labels"][b["labels"] != IGNORE_INDEX]) > 0]
        means = [one_step([batch], loss)[0] for batch in graded]
        gaps.append(abs(sum(means) / len(means) - whole) / whole)
    assert max(gaps) > 1e-3  # the usual mistake is another number: the comparisons can fail


@pytest.mark.numeric
@every_loss
def test_a_run_learns_and_packed_it_is_the_same(loss):
    ours, packed = make_model(), make_model()
    given = {**RUN, "epochs": 12, "batch_size": len(EXAMPLES), "loss": loss}
    history = train(ours, TOKENIZER, EXAMPLES, eval_examples=EXAMPLES, **given)
    assert history.evaluations[-1]["loss"] < history.evaluations[0]["loss"] - 0.1
    losses = train(packed, TOKENIZER, EXAMPLES, pack_to=64, **given).losses
    assert_close(losses, history.losses, **LOSS)
    # evaluations are NLL, the losses of the steps are what was trained
    assert history.evaluations[-1] == {"step": 12, **evaluate(ours, TOKENIZER, EXAMPLES)}
    batch, fresh = pad_batch(EXAMPLES, PAD), make_model()
    first = response_loss(fresh(batch["input_ids"]).logits, batch["labels"], loss).item()
    assert history.losses[0] == pytest.approx(first, rel=1e-4)
    assert abs(first - evaluate(fresh, TOKENIZER, EXAMPLES)["loss"]) > 1e-3


@pytest.mark.numeric
@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_with_every_loss(loss, dtype):
    given = {**RUN, "epochs": 4, "loss": loss}
    exact = train(make_model(), TOKENIZER, EXAMPLES, **given).losses
    losses = train(make_model().to(dtype), TOKENIZER, EXAMPLES, **given).losses
    assert losses == pytest.approx(exact, rel=0.03)


def settings_of_trl(loss: str) -> dict:
    return {"loss_type": "dft"} if loss == "dft" else {"label_smoothing_factor": 0.2}


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["dft", "smoothed"])
def test_24_steps_are_those_of_trl(name, tmp_path):
    """One batch a step holds the whole data set, in two parts, so its order does not matter."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    ours, theirs, half = make_model(), make_model(), len(EXAMPLES) // 2
    given = {"batch_size": half, "accumulation_steps": 2, "epochs": 24, "learning_rate": 2e-3}
    history = train(ours, TOKENIZER, EXAMPLES, progress=False, loss=SOME[name], **given)
    trainer = SFTTrainer(
        model=theirs,
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            num_train_epochs=24,
            per_device_train_batch_size=half,
            gradient_accumulation_steps=2,
            learning_rate=2e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **settings_of_trl(name),
        ),
        train_dataset=Dataset.from_list(
            [{"input_ids": e.input_ids, "labels": e.labels} for e in EXAMPLES]
        ),
        processing_class=TOKENIZER,
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 24
    assert_close(history.losses, losses, rtol=0, atol=1e-4)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def train_until(number: int, monkeypatch, **settings) -> None:
    real = sft_lab.train.optimizer_step

    def step(*arguments, **given):
        if given["step"] == number:
            raise Killed
        return real(*arguments, **given)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sft_lab.train, "optimizer_step", step)
        train(make_model(attention_dropout=0.2), TOKENIZER, EXAMPLES, **settings)


OTHERS = {
    "weighted": weighted(random_weights(VOCABULARY, seed=1)),
    "focal": focal(2.5),
    "smoothed": smoothed(0.1),
    "dft": None,
}


@pytest.mark.parametrize("name", SOME)
def test_a_run_goes_on_with_its_loss_and_with_no_other(name, monkeypatch, tmp_path):
    given = {**RUN, "epochs": 2, "checkpoint_every": 2, "output_dir": tmp_path}
    train_until(4, monkeypatch, loss=SOME[name], **given)
    model = make_model(attention_dropout=0.2)
    with pytest.raises(ValueError, match="belongs to a run with other loss: give the same"):
        train(model, TOKENIZER, EXAMPLES, resume=True, loss=OTHERS[name], **given)
    history = train(model, TOKENIZER, EXAMPLES, resume=True, loss=SOME[name], **given)
    del given["output_dir"]
    whole = make_model(attention_dropout=0.2)
    assert history.losses == train(whole, TOKENIZER, EXAMPLES, loss=SOME[name], **given).losses


def test_a_checkpoint_that_knows_of_no_losses_is_one_of_nll(monkeypatch, tmp_path):
    given = {**RUN, "epochs": 2, "checkpoint_every": 2, "output_dir": tmp_path}
    train_until(4, monkeypatch, **given)
    (path,) = tmp_path.rglob("state.json")
    state = json.loads(path.read_text(encoding="utf-8"))
    assert state["run"].pop("loss", "missing") is None
    path.write_text(json.dumps(state), encoding="utf-8")
    model = make_model(attention_dropout=0.2)
    with pytest.raises(ValueError, match="other loss"):
        train(model, TOKENIZER, EXAMPLES, resume=True, loss=dft(), **given)
    assert len(train(model, TOKENIZER, EXAMPLES, resume=True, **given).losses) == 6


# --- what is refused
# -------------------------------------------------------------------------------------------------

REFUSED = {
    focal: (-1, -1e-9, math.nan, math.inf, "2", True, None),
    smoothed: (-0.1, 1, 1.5, math.nan, "0.1", True, None),
    weighted: (
        (),
        [],
        "abc",
        None,
        1.0,
        [[1.0, 2.0]],
        [1.0, -0.5],
        [1.0, math.nan],
        [math.inf, 1.0],
        [0.0, 0.0],
        ["1", "2"],
        [[1.0], [1.0, 2.0]],
    ),
}


@pytest.mark.parametrize(
    ("make", "value"), [(make, value) for make, values in REFUSED.items() for value in values]
)
def test_numbers_that_make_no_loss_are_refused_by_name(make, value):
    name = {focal: "gamma", smoothed: "epsilon", weighted: "weights"}[make]
    with pytest.raises(SettingError, match=name) as found:
        make(value)
    assert "\n" not in str(found.value)


def test_a_bad_weight_is_named_by_its_place():
    with pytest.raises(SettingError, match=r"weights\[2\] is -3; it must be a finite number"):
        weighted([1, 2, -3, 4])


def test_weights_may_be_of_any_kind_and_are_not_shared():
    given = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float32)
    loss = weighted(given)
    given[0] = 100
    for same in ([1, 2, 0], (1.0, 2.0, 0.0), np.array([1, 2, 0]), torch.tensor([1, 2, 0]).half()):
        assert weighted(same).settings == loss.settings
    assert weighted([1, 2, 1]).settings != loss.settings
    assert loss.divisor(torch.tensor([0, 1, 1, 2])) == 5


@pytest.fixture
def no_step(monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(sft_lab.train, "optimizer_step", refuse)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("focal", r"loss is 'focal' \(str\); it must be None"),
        (focal, "loss is <function focal"),
        (torch.nn.CrossEntropyLoss(), "made by weighted, focal, smoothed or dft"),
        (weighted([1.0] * (VOCABULARY - 1)), "weights has 60 entries, but the model has 61 scores"),
        (weighted([1.0] * (VOCABULARY + 1)), "weights has 62 entries, but the model has 61 scores"),
        (weighted([1.0] + [0.0] * (VOCABULARY - 1)), "step 1: every graded token .* has weight 0"),
    ],
)
@pytest.mark.parametrize("packing", [{}, {"pack_to": 40}])
def test_a_run_refuses_a_loss_that_it_cannot_train(loss, message, packing, no_step, tmp_path):
    with pytest.raises(SettingError, match=message):
        train(
            make_model(),
            TOKENIZER,
            EXAMPLES,
            loss=loss,
            output_dir=tmp_path / "run",
            **RUN,
            **packing,
        )
    assert not (tmp_path / "run").exists()


def test_a_batch_of_weight_0_beside_another_one_counts_nothing():
    weights = torch.zeros(VOCABULARY)
    weights[7] = 2.0
    nothing, some = ([Example([5, 6, 8], [IGNORE_INDEX, 6, 8]), Example([5, 7], [-100, 7])],) * 2
    batches = [pad_batch(nothing[:1], PAD), pad_batch(some[1:], PAD)]
    both, gradient = one_step(batches, weighted(weights))
    alone, same = one_step(batches[1:], weighted(weights))
    assert both == pytest.approx(alone)
    for one, other in zip(gradient, same, strict=True):
        assert_close(one, other)
    with pytest.raises(ValueError, match="step 1: every one of its 2 graded tokens has weight 0"):
        one_step(batches[:1], weighted(weights))
    logits = torch.zeros(1, 3, VOCABULARY)
    with pytest.raises(ValueError, match="every one of the 2 graded tokens has weight 0"):
        response_loss(logits, torch.tensor([[5, 6, 8]]), weighted(weights))


def test_weights_for_another_vocabulary_are_refused_by_every_way_to_the_loss():
    batch, loss = pad_batch(make_examples(3), PAD), weighted([1.0] * 60)
    for model in (make_model(), scale_scores(make_model("llama"))):
        with pytest.raises(SettingError, match="60 entries, but the model has 61 scores"):
            graded_loss(model, batch, loss=loss)


@every_loss
def test_labels_without_a_graded_token_are_an_error_for_every_loss(loss):
    nothing = torch.tensor([[4, IGNORE_INDEX, IGNORE_INDEX]])
    with pytest.raises(ValueError, match="no graded token"):
        response_loss(torch.zeros(1, 3, VOCABULARY), nothing, loss)
    with pytest.raises(ValueError, match="differ in"):
        response_loss(torch.zeros(1, 4, VOCABULARY), nothing.clamp(min=0), loss)
