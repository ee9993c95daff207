"""Penalties are their formulas, their gradients and their closed forms; the Fisher information is a
loop over examples and, with sampled labels, right on average; a run takes each of them."""

import copy
import itertools
import math
import random
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from tiny import PAD, VOCABULARY, make_examples, make_model, make_tokenizer
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

import sft_lab.forgetting
import sft_lab.train
from sft_lab.arguments import SettingError
from sft_lab.batches import join_rows, pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.forgetting import (
    COSTS,
    average_weights,
    cost_of,
    distil_from,
    estimate_fisher,
    ewc,
    l2_to_start,
    replay,
    synaptic_intelligence,
)
from sft_lab.loop.penalties import Penalty
from sft_lab.loop.plan import Plan
from sft_lab.loop.update import mixed_precision, optimizer_step
from sft_lab.lora import add_lora
from sft_lab.losses import response_loss
from sft_lab.token_losses import smoothed
from sft_lab.train import learning_rate_at, train

pytestmark = pytest.mark.numeric

TOKENIZER = make_tokenizer()
EXAMPLES = make_examples(24)
RUN = {"batch_size": 8, "learning_rate": 3e-3, "progress": False}
NEAR = {"rtol": 1e-4, "atol": 1e-6}


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def moved(model, *, by: float = 0.05, seed: int = 1):
    """A copy whose weights are a little elsewhere."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight += by * torch.randn(weight.shape, generator=generator)
    return other


def consolidated(model, strength: float):
    """Synaptic intelligence with a random importance, as if a task had been learned."""
    penalty = synaptic_intelligence(model, strength)
    generator = torch.Generator().manual_seed(3)
    for path in penalty.path.values():
        path.copy_(torch.randn(path.shape, generator=generator))
    penalty.consolidate(model)
    return penalty


def random_fisher(model) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {n: torch.rand(w.shape, generator=generator) for n, w in model.named_parameters()}


# of a model before the new task, and a strength
PENALTIES = {
    "ewc": lambda model, strength: ewc(model, random_fisher(model), strength),
    "l2_to_start": l2_to_start,
    "synaptic_intelligence": consolidated,
    "distil_from": lambda model, strength: distil_from(moved(model, seed=9), strength),
}
every_penalty = pytest.mark.parametrize("make", PENALTIES.values(), ids=PENALTIES)


# --- the Fisher information


def log_likelihood(model, example: Example) -> torch.Tensor:
    """Of the graded tokens of one example, summed; written from the definition alone."""
    logits = model(torch.tensor([example.input_ids])).logits[0]
    terms = [
        logits[t - 1].log_softmax(-1)[label]
        for t, label in enumerate(example.labels)
        if t > 0 and label != IGNORE_INDEX
    ]
    return torch.stack(terms).sum()


def gradients_of(model, example: Example) -> dict[str, torch.Tensor]:
    trained = {n: w for n, w in model.named_parameters() if w.requires_grad}
    found = torch.autograd.grad(log_likelihood(model, example), list(trained.values()))
    return dict(zip(trained, found, strict=True))


def loop_fisher(model, examples: list[Example]) -> dict[str, torch.Tensor]:
    squares = [
        {n: g.square() for n, g in gradients_of(model, example).items()} for example in examples
    ]
    return {n: torch.stack([one[n] for one in squares]).mean(0) for n in squares[0]}


def freeze_some(model):
    for name, weight in model.named_parameters():
        weight.requires_grad_("mlp" in name or "norm" in name)
    return model


KINDS = {
    "qwen3": make_model,
    "llama": lambda: make_model("llama"),
    "partly frozen": lambda: freeze_some(make_model()),
    "lora": lambda: moved(add_lora(make_model(), rank=2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_empirical_fisher_is_a_loop_over_examples(kind):
    model = KINDS[kind]()
    ours = estimate_fisher(model, TOKENIZER, EXAMPLES, labels="true")
    wanted = loop_fisher(model, EXAMPLES)
    assert ours.keys() == wanted.keys()
    for name, values in ours.items():
        assert_close(values, wanted[name], rtol=1e-3, atol=1e-5)


def test_how_many_examples_are_taken_at_once_changes_nothing(monkeypatch):
    many = estimate_fisher(make_model(), TOKENIZER, EXAMPLES)
    monkeypatch.setattr(sft_lab.forgetting, "GRADIENTS_AT_ONCE", {"cpu": 1})
    one = estimate_fisher(make_model(), TOKENIZER, EXAMPLES)
    for name, values in many.items():
        assert_close(values, one[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [1, 5, 24, 100])
def test_the_wrong_one_squares_the_mean_gradient_of_batches(size):
    """Weighed by the examples of each batch; batches of one are the empirical Fisher."""
    model, wanted = make_model(), Counter()
    for start in range(0, len(EXAMPLES), size):
        group = EXAMPLES[start : start + size]
        mean = Counter()
        for example in group:
            for name, gradient in gradients_of(model, example).items():
                mean[name] = mean[name] + gradient / len(group)
        for name, gradient in mean.items():
            wanted[name] = wanted[name] + gradient.square() * len(group) / len(EXAMPLES)
    ours = estimate_fisher(model, TOKENIZER, EXAMPLES, labels="batch", batch_size=size)
    for name, values in ours.items():
        assert_close(values, wanted[name], rtol=1e-3, atol=1e-5)


def test_sampled_labels_give_the_exact_fisher_on_average():
    """A vocabulary of 5 and two graded tokens: all 25 answers are added up, each by its
    probability."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **{"vocab_size": 5, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4},
        **{"pad_token_id": 0, "initializer_range": 0.6},
    )
    model, row = LlamaForCausalLM(config).eval(), [2, 3, 1, 4]
    example = Example(row, [IGNORE_INDEX, IGNORE_INDEX, 1, 4])
    exact = Counter()
    for pair in itertools.product(range(5), repeat=2):
        answer = Example(row, [IGNORE_INDEX, IGNORE_INDEX, *pair])
        chance = log_likelihood(model, answer).exp().item()
        for name, gradient in gradients_of(model, answer).items():
            exact[name] = exact[name] + chance * gradient.square()

    def gap(labels: str) -> float:
        found = estimate_fisher(model, TOKENIZER, [example] * 3000, labels=labels)
        difference = sum((found[name] - exact[name]).square().sum() for name in exact)
        return (difference / sum(values.square().sum() for values in exact.values())).sqrt().item()

    assert gap("sampled") < 0.08
    assert gap("true") > 0.3


def test_a_seed_draws_the_same_labels_and_another_one_others():
    first, same, other = (
        estimate_fisher(make_model(), TOKENIZER, EXAMPLES, seed=seed) for seed in (0, 0, 1)
    )
    for name, values in first.items():
        assert_close(values, same[name])
    assert any((values - other[name]).abs().max() > 1e-3 for name, values in first.items())


@pytest.mark.parametrize("labels", sft_lab.forgetting.LABELS)
def test_estimating_leaves_no_trace(labels):
    model = make_model(attention_dropout=0.5).train()
    before, state = weights_of(model), torch.get_rng_state()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = estimate_fisher(model, TOKENIZER, EXAMPLES, labels=labels)
    assert torch.equal(torch.rand(3), expected) and model.training
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
    again = estimate_fisher(model, TOKENIZER, EXAMPLES, labels=labels)  # no dropout
    for name, values in first.items():
        assert_close(values, again[name])
    torch.set_rng_state(state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_is_squared_in_float32(dtype):
    half = make_model().to(dtype)
    rounded = copy.deepcopy(half).float()
    ours = estimate_fisher(half, TOKENIZER, EXAMPLES, labels="true")
    wanted = estimate_fisher(rounded, TOKENIZER, EXAMPLES, labels="true")
    for name, values in ours.items():
        assert values.dtype == torch.float32
        assert_close(values, wanted[name], rtol=1e-3, atol=1e-5)


def frozen():
    return make_model().requires_grad_(False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": "empirical"}, "labels is 'empirical'; it must be one of sampled, true, batch"),
        ({"examples": []}, "no examples"),
        (
            {"examples": [*EXAMPLES[:2], Example([5, 6], [5, IGNORE_INDEX])]},
            r"examples\[2\] has no",
        ),
        ({"examples": [Example([5, 999], [IGNORE_INDEX, 999])]}, r"examples\[0\].*999"),
        ({"model": frozen()}, "no weight of the model trains"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_gives_no_fisher_is_refused(changed, message):
    given = {"model": make_model(), "tokenizer": TOKENIZER, "examples": EXAMPLES, **changed}
    model, tokenizer, examples = (given.pop(name) for name in ("model", "tokenizer", "examples"))
    with pytest.raises(ValueError, match=message):
        estimate_fisher(model, tokenizer, examples, **given)


# --- penalties as functions of the weights


class Weights(torch.nn.Module):
    """A few weights and nothing else."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, torch.nn.Parameter(tensor.clone()))


def draw(seed: int, *shape: int) -> torch.Tensor:
    # float32's numbers, as a start is kept in it, in float64
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return numbers.double()


def quadratic_case(seed: int):
    """Weights, a penalty on them, and what it should be: factor, importance, start."""
    rng = random.Random(seed)
    shapes = [(rng.randint(1, 4),), (rng.randint(1, 3), rng.randint(1, 3))]
    start = {f"w{i}": draw(seed + 7000 * i, *shape) for i, shape in enumerate(shapes)}
    importance = {name: draw(seed + 9, *w.shape).square() for name, w in start.items()}
    model, strength = Weights(**start), 10 ** rng.uniform(-2, 3)
    kind = ("ewc", "l2", "si")[seed % 3]
    if kind == "ewc":
        penalty, factor = ewc(model, importance, strength), strength / 2
    elif kind == "l2":
        penalty, factor = l2_to_start(model, strength), strength / 2
        importance = {name: torch.ones_like(w) for name, w in start.items()}
    else:
        penalty, factor = synaptic_intelligence(model, strength, damping=0.5), strength
        for name, path in penalty.path.items():
            path.copy_(importance[name] / 2)  # nothing has moved, so Ω = path / damping
        penalty.consolidate(model)
    with torch.no_grad():
        for i, weight in enumerate(model.parameters()):
            weight += draw(seed + 31 + i, *weight.shape)
    return model, penalty, factor, importance, start


def test_value_and_gradient_of_each_penalty_on_weights_are_its_formula():
    for seed in range(300):
        model, penalty, factor, importance, start = quadratic_case(seed)
        value = penalty.loss(model, None)
        found = torch.autograd.grad(value, list(model.parameters()))
        total = 0.0
        for (name, weight), gradient in zip(model.named_parameters(), found, strict=True):
            change = weight.detach() - start[name]
            total += factor * (importance[name] * change**2).sum()
            assert_close(gradient, 2 * factor * importance[name] * change, rtol=1e-5, atol=1e-6)
        assert_close(value.detach(), total, rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    step = 1e-3
    for seed in range(300):
        model, penalty, *_ = quadratic_case(seed)
        weight = next(model.parameters())
        (gradient,) = torch.autograd.grad(penalty.loss(model, None), weight)
        place = seed % weight.numel()
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                weight.view(-1)[place] += sign * step
                values.append(penalty.loss(model, None).item())
                weight.view(-1)[place] -= sign * step
        by_hand = (values[0] - values[1]) / (2 * step)
        assert gradient.view(-1)[place].item() == pytest.approx(by_hand, rel=1e-5, abs=1e-6)


def closed_form(seed: int):
    """A loss ½ (θ − a)ᵀ H (θ − a), EWC at λ, F and θ0, and where both together are least."""
    size = 1 + seed % 5
    root = draw(seed, size, size)
    curvature = root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)
    target, start = draw(seed + 1, size), draw(seed + 2, size)
    fisher, strength = draw(seed + 3, size).square(), 10.0 ** (seed % 6 - 3)
    model = Weights(theta=start)
    penalty = ewc(model, {"theta": fisher}, strength)
    whole = curvature + strength * torch.diag(fisher)
    least = torch.linalg.solve(whole, curvature @ target + strength * fisher * start)

    def loss() -> torch.Tensor:
        away = model.theta - target
        return 0.5 * away @ curvature @ away + penalty.loss(model, None)

    return model, loss, least


def test_on_a_parabola_ewc_is_least_where_the_closed_form_says():
    """(H + λF)⁻¹ (H a + λF θ0): the gradient is 0 there, and LBFGS goes there."""
    for seed in range(200):
        model, loss, least = closed_form(seed)
        with torch.no_grad():
            model.theta.copy_(least)
        (gradient,) = torch.autograd.grad(loss(), model.theta)
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-4)
        if seed % 10:
            continue
        model, loss, least = closed_form(seed)
        optimizer = torch.optim.LBFGS(
            model.parameters(), max_iter=200, line_search_fn="strong_wolfe"
        )

        def evaluate(model=model, loss=loss):
            model.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(evaluate)
        assert_close(model.theta.detach(), least, rtol=1e-3, atol=1e-4)


def test_l2_alone_draws_back_by_1_minus_rate_times_strength_a_step():
    for seed in range(50):
        start, away = draw(seed, 4), draw(seed + 1, 4)
        rate, strength, model = 0.01, 1.0 + seed, Weights(theta=start)
        penalty = l2_to_start(model, strength)
        with torch.no_grad():
            model.theta += away
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for _ in range(7):
            optimizer.zero_grad()
            penalty.loss(model, None).backward()
            optimizer.step()
        assert_close(model.theta.detach(), start + (1 - rate * strength) ** 7 * away)


def test_weights_without_a_fisher_move_freely():
    model = Weights(one=draw(0, 3), two=draw(1, 3))
    penalty = ewc(model, {"one": torch.ones(3)}, 1.0)
    with torch.no_grad():
        model.two += 5
    assert penalty.loss(model, None).item() == 0


# --- synaptic intelligence


def test_on_a_parabola_the_paths_sum_is_the_drop_of_the_loss_and_omega_half_the_curvature():
    for seed in range(20):
        curvature, start = 0.2 + draw(seed, 4).square(), draw(seed + 1, 4)
        model = Weights(theta=start)
        penalty = synaptic_intelligence(model, 1.0, damping=1e-8)

        def loss(model=model, curvature=curvature) -> torch.Tensor:
            return 0.5 * (curvature * model.theta.square()).sum()

        before, optimizer = loss().item(), torch.optim.SGD(model.parameters(), lr=4e-3)
        for _ in range(800):
            optimizer.zero_grad()
            loss().backward()
            penalty.before_penalty(model, 1.0)
            optimizer.step()
            penalty.after_step(model)
        path = penalty.path["theta"].sum().item()
        assert path == pytest.approx(before - loss().item(), rel=0.02)
        penalty.consolidate(model)
        moved_by = (start - model.theta.detach()).abs()
        # ½ h (x² − y²) / (x − y)²: at the minimum, y = 0, ½ h
        rest = model.theta.detach() / start
        wanted = curvature / 2 * (1 - rest**2) / (1 - rest) ** 2
        there = moved_by > 0.05
        omega = penalty.importance["theta"].double()
        assert_close(omega[there], wanted[there], rtol=0.03, atol=1e-3)


def hand_run(model, examples, penalty_gradient=lambda name, weight: 0.0):
    """Two epochs of the textbook's loop; the path of every weight, −Σ g Δθ."""
    weights = dict(model.named_parameters())
    path = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=0.0, weight_decay=0.0)
    plan = Plan(examples, None, 2, RUN["batch_size"], 1, 0)
    for step, window in enumerate(plan.windows()):
        (batch,) = plan.gather(window, PAD)
        loss = response_loss(model(batch["input_ids"]).logits, batch["labels"])
        gradients = torch.autograd.grad(loss, list(weights.values()))
        before = weights_of(model)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            weight.grad = gradient + penalty_gradient(name, weight.detach())
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        rate = learning_rate_at(step, plan.total_steps, peak=RUN["learning_rate"], warmup_steps=1)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            path[name] -= gradient * (weight.detach() - before[name])
    return path


def assert_near(found: dict, wanted: dict) -> None:
    """Nearly equal as one long vector each: single weights near 0 may take another sign."""
    gap = sum((found[name] - wanted[name]).square().sum() for name in wanted)
    assert gap.sqrt() < 2e-2 * sum(values.square().sum() for values in wanted.values()).sqrt()


def test_a_run_gathers_the_path_of_the_textbooks_loop_without_clipping_or_the_penaltys_gradient():
    model, other = make_model(), make_examples(24, seed=5)
    penalty, by_hand = synaptic_intelligence(model, 300.0), copy.deepcopy(model)
    start = weights_of(model)
    plain = train(copy.deepcopy(model), TOKENIZER, EXAMPLES, epochs=2, **RUN)
    history = train(model, TOKENIZER, EXAMPLES, epochs=2, penalty=penalty, **RUN)
    assert history.losses == pytest.approx(plain.losses, rel=1e-5)  # it gathers and adds nothing
    path = hand_run(by_hand, EXAMPLES)
    assert_near(penalty.path, path)
    penalty.consolidate(model)
    omega = {
        name: path[name].clamp(min=0) / ((weight - start[name]).square() + 0.1)
        for name, weight in weights_of(by_hand).items()
    }
    assert_near(penalty.importance, omega)

    anchor = weights_of(by_hand)
    train(model, TOKENIZER, other, epochs=2, penalty=penalty, **RUN)
    second = hand_run(
        by_hand, other, lambda name, weight: 600 * omega[name] * (weight - anchor[name])
    )
    assert_near(weights_of(model), weights_of(by_hand))
    assert_near(penalty.path, second)
    first = {name: values.clone() for name, values in penalty.importance.items()}
    penalty.consolidate(model)
    assert all((penalty.importance[name] >= values).all() for name, values in first.items())


def test_a_step_that_float16_leaves_out_adds_nothing_and_its_scale_is_taken_out():
    model = Weights(theta=draw(0, 3))
    penalty = synaptic_intelligence(model, 1.0)
    model.theta.grad = torch.tensor([math.inf, math.nan, 1.0]).double()
    penalty.before_penalty(model, 1024.0)
    penalty.after_step(model)
    assert torch.equal(penalty.path["theta"], torch.zeros(3))
    model.theta.grad = torch.tensor([1024.0, -2048.0, 0.0]).double()
    penalty.before_penalty(model, 1024.0)
    with torch.no_grad():
        model.theta -= 0.5
    penalty.after_step(model)
    assert_close(penalty.path["theta"], torch.tensor([0.5, -1.0, 0.0]))


def test_consolidating_before_any_step_is_refused():
    model = make_model()
    with pytest.raises(SettingError, match="no step since"):
        synaptic_intelligence(model, 1.0).consolidate(model)


# --- distillation


def test_distillation_is_torchs_kl_divergence_of_the_graded_positions_times_t_squared():
    models = [make_model(seed=seed) for seed in range(4)]
    for seed in range(200):
        rng = random.Random(seed)
        student, teacher = rng.sample(models, 2)
        strength, t = rng.uniform(0.1, 10), rng.uniform(0.5, 5)
        examples = make_examples(rng.randint(1, 4), seed=seed, longest=8)
        ours = distil_from(teacher, strength, t).loss(student, pad_batch(examples, PAD))
        rows = []
        for example in examples:  # each alone: no padding to count
            places = [i - 1 for i, label in enumerate(example.labels) if i and label >= 0]
            ids = torch.tensor([example.input_ids])
            rows.append([one(ids).logits[0, places] / t for one in (student, teacher)])
        log_q, log_p = (torch.cat(side).log_softmax(-1) for side in zip(*rows, strict=True))
        divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        assert_close(ours, strength * t**2 * divergence, rtol=1e-3, atol=1e-5)


def test_a_student_that_is_as_its_teacher_has_no_gradient_and_the_teacher_never_has_one():
    model, batch = make_model(), pad_batch(EXAMPLES, PAD)
    teacher = copy.deepcopy(model)
    for student, still in ((model, True), (moved(model), False)):
        value = distil_from(teacher, 5.0).loss(student, batch)
        gradients = torch.autograd.grad(value, list(student.parameters()))
        largest = max(gradient.abs().max().item() for gradient in gradients)
        assert (largest < 1e-5) == still
    assert all(weight.grad is None for weight in teacher.parameters())


# --- a step


def one_step(model, batches, penalty, **settings):
    """What a step reports, and the gradient it takes (the change of plain descent at rate 1)."""
    before = weights_of(model.train())
    weights = list(model.parameters())
    with mixed_precision(model) as (autocast, scaler):
        measured = optimizer_step(
            model,
            torch.optim.SGD(weights, lr=1.0),
            weights,
            batches,
            step=1,
            autocast=autocast,
            scaler=scaler,
            penalty=penalty,
            **{"max_grad_norm": math.inf, **settings},
        )
        after = weights_of(model)
    return measured, {name: before[name].float() - after[name].float() for name in before}


def difference(one: dict, other: dict) -> float:
    gap = sum((one[name] - other[name]).square().sum() for name in one).sqrt()
    return (gap / sum(values.square().sum() for values in other.values()).sqrt()).item()


@every_penalty
def test_a_step_takes_the_gradient_of_the_loss_and_of_the_penalty(make):
    start, batch = make_model(), pad_batch(EXAMPLES[:8], PAD)
    penalty, model = make(start, 3.0), moved(start)
    loss = response_loss(model(batch["input_ids"]).logits, batch["labels"])
    extra = penalty.loss(model, batch)
    gradients = torch.autograd.grad(loss + extra, list(model.parameters()))
    wanted = dict(zip(weights_of(model), gradients, strict=True))
    measured, taken = one_step(copy.deepcopy(model), [batch], penalty)
    assert measured["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert measured["penalty"] == pytest.approx(extra.item(), rel=1e-3)
    assert difference(taken, wanted) < 1e-3
    norm = math.sqrt(sum(values.square().sum().item() for values in wanted.values()))
    assert measured["grad_norm"] == pytest.approx(norm, rel=1e-3)  # of both together
    _, clipped = one_step(copy.deepcopy(model), [batch], penalty, max_grad_norm=norm / 4)
    assert difference(clipped, {n: values / 4 for n, values in wanted.items()}) < 1e-3


@every_penalty
def test_eight_batches_of_one_and_packed_rows_are_one_batch_of_eight(make):
    start = make_model()
    penalty, model = make(start, 3.0), moved(start)
    for seed in range(5):
        examples = make_examples(8, seed=seed)
        whole, wanted = one_step(copy.deepcopy(model), [pad_batch(examples, PAD)], penalty)
        ungraded = pad_batch([Example([5, 6], [IGNORE_INDEX] * 2)], PAD)
        for batches in (
            [*(pad_batch([example], PAD) for example in examples), ungraded],
            [join_rows(pack(examples, 40), PAD)],
        ):
            measured, taken = one_step(copy.deepcopy(model), batches, penalty)
            assert measured["penalty"] == pytest.approx(whole["penalty"], rel=1e-4)
            assert difference(taken, wanted) < 1e-3


@every_penalty
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_takes_nearly_the_same_step_also_with_a_loss_scale(make, dtype):
    start, batch = make_model(), pad_batch(EXAMPLES, PAD)
    penalty, model = make(start, 3.0), moved(start)
    exact, wanted = one_step(copy.deepcopy(model), [batch], penalty)
    measured, taken = one_step(copy.deepcopy(model).to(dtype), [batch], penalty)
    assert ("loss_scale" in measured) == (dtype == torch.float16)
    assert measured["penalty"] == pytest.approx(exact["penalty"], rel=0.05)
    assert difference(taken, wanted) < 0.1


@every_penalty
def test_another_loss_of_the_tokens_stands_beside_it(make):
    start, batch = make_model(), pad_batch(EXAMPLES, PAD)
    penalty, model, loss = make(start, 3.0), moved(start), smoothed(0.3)
    wanted = response_loss(model(batch["input_ids"]).logits, batch["labels"], loss)
    measured, _ = one_step(copy.deepcopy(model), [batch], penalty, token_loss=loss)
    assert measured["loss"] == pytest.approx(wanted.item(), rel=1e-4)
    assert measured["penalty"] == pytest.approx(penalty.loss(model, batch).item(), rel=1e-3)


# --- a run


@every_penalty
def test_strength_0_is_no_penalty(make):
    plain, model = make_model(), make_model()
    without = train(plain, TOKENIZER, EXAMPLES, epochs=2, **RUN)
    history = train(model, TOKENIZER, EXAMPLES, epochs=2, penalty=make(model, 0), **RUN)
    assert history.losses == pytest.approx(without.losses, rel=1e-4)
    assert [step["penalty"] for step in history.steps] == [0] * len(history.steps)
    assert "penalty" not in without.steps[0]
    assert_near(weights_of(model), weights_of(plain))


@every_penalty
def test_the_stronger_it_is_the_less_the_model_leaves_what_it_was(make):
    def distance(strength: float) -> float:
        model = make_model()
        if make is PENALTIES["distil_from"]:
            penalty = distil_from(copy.deepcopy(model), strength)
        else:
            penalty = make(model, strength)
        train(model, TOKENIZER, EXAMPLES, epochs=4, penalty=penalty, **RUN)
        probe = distil_from(make_model(), 1.0, 1.0)
        return probe.loss(model, pad_batch(EXAMPLES, PAD)).item()

    free, weak, strong = (distance(strength) for strength in (0, 1, 1e3))
    assert strong < 0.7 * free and strong < weak < 1.05 * free


def test_it_holds_lora_where_that_stood_and_refuses_weights_that_do_not_train():
    base = make_model()
    of_base = l2_to_start(base, 1.0)
    model = moved(add_lora(base, rank=2), by=0.0)
    of_lora = l2_to_start(model, 1e3)
    assert all("lora" in name for name in of_lora.start)
    history = train(model, TOKENIZER, EXAMPLES, penalty=of_lora, **RUN)
    assert history.steps[-1]["penalty"] > 0
    with pytest.raises(SettingError, match="none of the .* that train here.*after add_lora"):
        train(model, TOKENIZER, EXAMPLES, penalty=of_base, **RUN)


@pytest.mark.parametrize("name", ["ewc", "l2_to_start", "distil_from"])
def test_a_broken_run_goes_on_exactly_with_the_same_penalty_and_with_no_other(
    name, tmp_path, monkeypatch
):
    def run(strength: float = 3.0, *, start: int = 0, none: bool = False, **settings):
        model = make_model()
        penalty = None if none else PENALTIES[name](make_model(seed=start), strength)
        return model, train(
            model,
            TOKENIZER,
            EXAMPLES,
            epochs=2,
            penalty=penalty,
            checkpoint_every=2,
            **RUN | settings,
        )

    whole, unbroken = run()
    real, steps = sft_lab.train.optimizer_step, []

    def stop(*arguments, **settings):
        steps.append(1)
        if len(steps) > 3:
            raise RuntimeError("broken")
        return real(*arguments, **settings)

    monkeypatch.setattr(sft_lab.train, "optimizer_step", stop)
    with pytest.raises(RuntimeError, match="broken"):
        run(output_dir=tmp_path)
    monkeypatch.setattr(sft_lab.train, "optimizer_step", real)
    for other in ({"strength": 4.0}, {"start": 1}, {"none": True}):
        with pytest.raises(ValueError, match="other penalty"):
            run(output_dir=tmp_path, resume=True, **other)
    model, resumed = run(output_dir=tmp_path, resume=True)
    assert resumed.losses == pytest.approx(unbroken.losses, rel=1e-5)
    assert_near(weights_of(model), weights_of(whole))


def test_what_a_checkpoint_would_lose_is_refused(tmp_path):
    model = make_model()
    with pytest.raises(SettingError, match="synaptic_intelligence.*train without output_dir"):
        train(
            model,
            TOKENIZER,
            EXAMPLES,
            penalty=synaptic_intelligence(model, 1.0),
            output_dir=tmp_path,
            **RUN,
        )


class Own(Penalty):
    """A penalty of a reader: the squared size of the weights, or what `value` makes."""

    name = "own(1)"

    def __init__(self, value=None) -> None:
        self.value = value

    def loss(self, model, batch):
        if self.value is not None:
            return self.value
        return sum(weight.square().sum() for weight in model.parameters())


def test_a_penalty_of_ones_own_is_trained():
    model, plain = make_model(), make_model()
    train(plain, TOKENIZER, EXAMPLES, epochs=4, **RUN)
    history = train(model, TOKENIZER, EXAMPLES, epochs=4, penalty=Own(), **RUN)
    sizes = [sum(w.square().sum() for w in one.parameters()) for one in (model, plain)]
    assert sizes[0] < sizes[1] and history.steps[-1]["penalty"] < history.steps[0]["penalty"]


def nameless():
    penalty = Own()
    penalty.name = ""
    return penalty


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: "ewc", "penalty is 'ewc' .str.; it must be None, or made by"),
        (lambda model: nameless(), "has no name"),
        (lambda model: Own(torch.tensor(1.0)), "requires_grad=False.*two saved copies"),
        (lambda model: Own(torch.ones(3, requires_grad=True)), r"shape \(3,\)"),
        (lambda model: distil_from(model, 1.0), "shares its weights.*deepcopy"),
        (lambda model: distil_from(wider(), 1.0), "61 tokens|70 tokens"),
        (lambda model: l2_to_start(wider(), 1.0), r"embed_tokens.weight with shape \(70, 32\)"),
    ],
)
def test_what_is_no_penalty_of_this_model_is_refused(make, message):
    model = make_model()
    with pytest.raises(ValueError, match=message):
        train(model, TOKENIZER, EXAMPLES, penalty=make(model), **RUN)


def wider():
    model = make_model()
    model.resize_token_embeddings(VOCABULARY + 9)
    return model


def test_a_strength_beyond_all_numbers_ends_the_run_and_says_so():
    model = make_model()
    penalty = l2_to_start(moved(model), 1e38)
    with pytest.raises(FloatingPointError, match="learning rate or a strength too high"):
        train(model, TOKENIZER, EXAMPLES, penalty=penalty, **RUN)


NO_STRENGTH = (-1, -1e-9, math.nan, math.inf, "1", None, True)


@pytest.mark.parametrize("strength", NO_STRENGTH)
def test_no_strength_is_refused_by_all(strength):
    model = make_model()
    for make in (*PENALTIES.values(), synaptic_intelligence):
        with pytest.raises(SettingError, match="strength is"):
            make(model, strength)


@pytest.mark.parametrize("value", [0, -1, math.nan, None])
def test_damping_and_temperature_are_above_0(value):
    with pytest.raises(SettingError, match="damping is"):
        synaptic_intelligence(make_model(), 1.0, value)
    with pytest.raises(SettingError, match="temperature is"):
        distil_from(make_model(), 1.0, value)


@pytest.mark.parametrize(
    ("fisher", "message"),
    [
        ({"gone": torch.ones(2)}, r"'gone'.*None: there is none"),
        ({"theta": torch.ones(2)}, r"shape \(2,\), the model's weight of that name \(3,\)"),
        ({"theta": torch.tensor([1, -1, 1.0])}, "below 0 or nan"),
        ({"theta": torch.tensor([1, math.nan, 1.0])}, "below 0 or nan"),
        ({"theta": torch.zeros(3)}, "protect nothing"),
        ({}, "protect nothing"),
    ],
)
def test_a_fisher_of_another_model_or_of_nothing_is_refused(fisher, message):
    with pytest.raises(SettingError, match=message):
        ewc(Weights(theta=torch.ones(3)), fisher, 1.0)


# --- replay, averages, costs


def numbered(count: int, first: int) -> list[Example]:
    return [Example([5, first + i], [IGNORE_INDEX, first + i]) for i in range(count)]


def test_replay_has_all_new_ones_and_as_many_old_ones_as_asked_for():
    for seed in range(200):
        rng = random.Random(seed)
        old, new = numbered(rng.randint(1, 30), 1000), numbered(rng.randint(1, 30), 5000)
        ratio = rng.choice([0, rng.uniform(0.6 / len(new), 3)])
        mixed = replay(old, new, ratio, seed=seed)
        counts = Counter(example.input_ids[1] for example in mixed)
        of_old = [counts[example.input_ids[1]] for example in old]
        assert all(counts[example.input_ids[1]] == 1 for example in new)
        assert sum(of_old) == round(ratio * len(new)) == len(mixed) - len(new)
        assert max(of_old) - min(of_old) <= 1  # no repetition while there are enough
        assert mixed == replay(old, new, ratio, seed=seed)


def test_replay_shuffles_and_a_seed_draws_others():
    old, new = numbered(50, 1000), numbered(50, 5000)
    mixed = replay(old, new, 0.5)
    assert mixed[:50] != new and any(example in old for example in mixed[:50])
    drawn = [{e.input_ids[1] for e in replay(old, new, 0.5, seed=s)} for s in (0, 1)]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    ("old", "new", "ratio", "message"),
    [
        (3, 3, -0.1, "ratio is -0.1"),
        (3, 3, math.nan, "ratio is nan"),
        (3, 0, 0.5, "new is empty"),
        (0, 3, 0.5, "there are 0"),
        (3, 10, 0.01, "of 10 new examples that is 0 old ones.*ratio=0.1"),
    ],
)
def test_what_would_replay_nothing_is_refused(old, new, ratio, message):
    with pytest.raises(SettingError, match=message):
        replay(numbered(old, 1000), numbered(new, 5000), ratio)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_average_of_weights_goes_from_the_one_to_the_other(dtype):
    before, after = make_model().to(dtype), moved(make_model()).to(dtype)
    kept = weights_of(before), weights_of(after)
    for share in (0, 0.25, 0.5, 1):
        averaged = average_weights(before, after, share)
        assert not averaged.training and averaged is not after
        for name, weight in averaged.named_parameters():
            wanted = (1 - share) * kept[0][name].float() + share * kept[1][name].float()
            assert weight.dtype == dtype
            assert_close(weight.detach(), wanted.to(dtype))
    for model, weights in zip((before, after), kept, strict=True):
        assert all(torch.equal(weights[n], w) for n, w in model.named_parameters())


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, None])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(SettingError, match="share is"):
        average_weights(make_model(), make_model(), share)


def test_two_models_of_other_weights_have_no_average():
    for other in (wider(), add_lora(make_model())):
        with pytest.raises(SettingError, match="only two states of one model"):
            average_weights(make_model(), other, 0.5)


def test_each_penalty_keeps_as_many_numbers_a_weight_as_its_cost_says():
    model = make_model()
    count = sum(weight.numel() for weight in model.parameters())
    for name, make in PENALTIES.items():
        assert make(model, 1.0).memory_bytes == 4 * count * COSTS[name].kept


def test_replay_costs_its_ratio_and_an_unknown_method_is_refused():
    assert (cost_of("replay", ratio=0.25).forward, cost_of("ewc").kept) == (0.25, 2)
    with pytest.raises(SettingError, match="method is 'gem'; there are"):
        cost_of("gem")
