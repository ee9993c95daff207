"""Station "keep": a model learns a new task and keeps an old one (chapters 13 and 13b).

Each of the four penalties goes into `train(penalty=…)`, which adds it to the loss of every step.
θ are the weights that train, θ0 these weights when the old task was learned, λ the strength.

EWC                   ½ λ Σ F (θ − θ0)²    F: the diagonal of the Fisher information
                                           (Kirkpatrick et al. 2016, arXiv:1612.00796)
L2 to the start       ½ λ Σ (θ − θ0)²      what is left of EWC when every weight counts the same
synaptic intelligence λ Σ Ω (θ − θ0)²      Ω: what each weight did for the old loss on its way
                                           (Zenke, Poole and Ganguli 2017, arXiv:1703.04200)
distillation          λ T² KL(old ‖ new)   at the graded positions of the new task's batches
                                           (learning without forgetting, Li and Hoiem 2016,
                                           arXiv:1606.09282)

The sums run over single weights: no mean over weights or tensors. With λ = 1, EWC and SI each add
about the old task's own loss near its minimum, once a step. Other codes leave the ½ out, take means
or square the gradient of a whole batch: a λ cannot be carried from one code to another.

Replay and averaging need no penalty. What each costs: `cost_of`.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.arguments import SettingError, check_seed, real_number, whole_number
from sft_lab.batches import pad_batch
from sft_lab.distill import distillation_loss
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.limits import check_rows, count_entries
from sft_lab.loop.penalties import Batch, Penalty
from sft_lab.loop.plan import check_examples, grades
from sft_lab.losses import graded_logits
from sft_lab.undisturbed import undisturbed

Tensors = dict[str, torch.Tensor]
LABELS = ("sampled", "true", "batch")
FISHER_BATCH = 16  # examples whose gradients labels="batch" averages before it squares
# numbers of single examples' gradients that stand together: 128 MiB, and 4 GiB on a GPU
GRADIENTS_AT_ONCE = {"cpu": 1 << 25, "cuda": 1 << 30}

# --- penalties


def ewc(model: PreTrainedModel, fisher: Tensors, strength: float) -> Penalty:
    """½ λ Σ F (θ − θ0)², with θ0 the weights of `model` now and F from `estimate_fisher` (any dict
    of parameter names, with values ≥ 0, will do). Weights without an entry in F move freely.

    SettingError for a strength below 0 or not finite, and a Fisher that does not fit the model.
    """
    strength = _check_strength(strength)
    weights = dict(model.named_parameters())
    for name, values in fisher.items():
        shape = tuple(weights[name].shape) if name in weights else None
        if shape != tuple(values.shape):
            raise SettingError(
                f"fisher[{name!r}] has shape {tuple(values.shape)}, the model's weight of that "
                f"name {shape} (None: there is none): estimate it on this model"
            )
        if not (values >= 0).all():  # also for nan
            raise SettingError(
                f"fisher[{name!r}] has values below 0 or nan; a mean of squares has none. Was it "
                "estimated in half precision, or of a broken model?"
            )
    if not any(values.any() for values in fisher.values()):
        raise SettingError(
            f"fisher has {len(fisher)} tensors and no value above 0, so it would protect nothing: "
            "estimate it on examples of the old task"
        )
    importance = {name: values.detach().float().clone() for name, values in fisher.items()}
    start = _copy({name: weights[name] for name in fisher})
    return _Quadratic(f"ewc(strength={strength!r})", strength / 2, start, importance)


def l2_to_start(model: PreTrainedModel, strength: float) -> Penalty:
    """½ λ Σ (θ − θ0)², with θ0 the weights of `model` that train, as they are now. Weight decay
    draws them to 0 instead. SettingError for a strength below 0 or not finite."""
    strength = _check_strength(strength)
    return _Quadratic(f"l2_to_start(strength={strength!r})", strength / 2, _copy(_trained(model)))


def synaptic_intelligence(
    model: PreTrainedModel, strength: float, damping: float = 0.1
) -> "SynapticIntelligence":
    """λ Σ Ω (θ − θ0)²: a penalty that finds out during the training on the old task what each
    weight does for its loss.

    Train the old task with it (it gathers and adds nothing), call `consolidate(model)`, train the
    new task with it; for a third task consolidate again. damping: ξ, what keeps Ω finite for
    weights that hardly moved. SettingError for a strength below 0 or a damping not above 0.
    """
    return SynapticIntelligence(model, strength, damping)


def distil_from(teacher: PreTrainedModel, strength: float, temperature: float = 2.0) -> Penalty:
    """λ T² KL(teacher ‖ model), the mean over the graded positions of a step: the model is to
    answer the new task's questions also as `teacher`, a copy of the model before, would.

    The teacher comes first in the KL and gives no gradient; padding and prompts are not counted. It
    is put into eval mode. SettingError for a strength below 0 and a temperature not above 0.
    """
    strength = _check_strength(strength)
    temperature = real_number("temperature", temperature, above=0, advice="1 softens nothing")
    return _Distillation(teacher, strength, temperature)


class _Quadratic(Penalty):
    """factor Σ importance (θ − start)²; importance None: 1 everywhere."""

    def __init__(
        self, name: str, factor: float, start: Tensors, importance: Tensors | None = None
    ) -> None:
        self.name, self.factor = name, factor
        self.start, self.importance = start, importance

    def kept(self) -> Iterable[torch.Tensor]:
        return [*self.start.values(), *(self.importance or {}).values()]

    def check(self, model: torch.nn.Module) -> None:
        _check_weights(self.name, self.start, model)

    def loss(self, model: torch.nn.Module, batch: Batch | None) -> torch.Tensor:
        return self.factor * _distance(_trained(model), self.start, self.importance)


class SynapticIntelligence(Penalty):
    """λ Σ Ω (θ − θ0)²; made by `synaptic_intelligence`.

    Over a task, path = −Σ g · Δθ for each weight: g the gradient of the task's loss alone (before
    clipping, without the penalty's own), Δθ what the step did to the weight. Its sum over the
    weights is about the drop of the loss. At its end Ω grows by path / ((θ − θ at its start)² + ξ).
    A weight whose path is negative gets nothing: below 0, Ω would reward moving it. There is no ½:
    a weight that alone went down a parabola to its minimum has Ω = half its curvature.
    """

    learns = True

    def __init__(self, model: PreTrainedModel, strength: float, damping: float) -> None:
        self.strength = _check_strength(strength)
        self.damping = real_number(
            "damping", damping, above=0, advice="It divides what a weight that never moved has done"
        )
        self.name = f"synaptic_intelligence(strength={self.strength!r}, damping={self.damping!r})"
        self.start = _copy(_trained(model))  # where the task in training began
        if not self.start:
            raise SettingError("no weight of the model trains, so there is no path to follow")
        self.path = {name: torch.zeros_like(start) for name, start in self.start.items()}
        self.importance: Tensors | None = None  # Ω, from the first consolidate on
        self._before: Tensors = {}
        self._gradients: Tensors = {}

    def kept(self) -> Iterable[torch.Tensor]:
        return [*self.start.values(), *self.path.values(), *(self.importance or {}).values()]

    def check(self, model: torch.nn.Module) -> None:
        _check_weights(self.name, self.start, model)

    def loss(self, model: torch.nn.Module, batch: Batch | None) -> torch.Tensor | None:
        if self.importance is None:
            return None
        return self.strength * _distance(_trained(model), self.start, self.importance)

    def before_penalty(self, model: torch.nn.Module, scale: float) -> None:
        weights = _trained(model)
        self._before = {
            name: weights[name].detach().clone() for name in weights if name in self.path
        }
        self._gradients = {
            name: weights[name].grad / scale
            for name in self._before
            if weights[name].grad is not None
        }

    def after_step(self, model: torch.nn.Module) -> None:
        weights = _trained(model)
        for name, gradient in self._gradients.items():
            moved = weights[name].detach() - self._before[name]
            # float16: a step that was left out has an infinite gradient and moved nothing
            gain = torch.where(moved == 0, 0.0, gradient * moved)
            self.path[name] = self.path[name].to(gain.device).sub_(gain)
        self._before, self._gradients = {}, {}

    def consolidate(self, model: torch.nn.Module) -> None:
        """The task in training is learned: its path becomes importance, added to that of the tasks
        before, and θ0 are the weights of now. SettingError when nothing was gathered since."""
        if not any(path.any() for path in self.path.values()):
            raise SettingError(
                f"{self.name}: no step since it was made or last consolidated: train with "
                "penalty=it on the old task first"
            )
        self.check(model)
        names = dict(model.named_parameters())
        weights = _copy({name: names[name] for name in self.path})
        self.importance = self.importance or {}
        for name, path in self.path.items():
            change = weights[name] - self.start[name].to(weights[name].device)
            gained = path.clamp(min=0) / (change.square() + self.damping)
            self.importance[name] = gained + self.importance.get(name, 0.0)
            self.path[name] = torch.zeros_like(path)
            self.start[name] = weights[name]


class _Distillation(Penalty):
    reads_batch = True

    def __init__(self, teacher: PreTrainedModel, strength: float, temperature: float) -> None:
        self.name = f"distil_from(strength={strength!r}, temperature={temperature!r})"
        self.teacher, self.strength, self.temperature = teacher.eval(), strength, temperature

    def kept(self) -> Iterable[torch.Tensor]:
        return self.teacher.parameters()

    def check(self, model: torch.nn.Module) -> None:
        if {id(weight) for weight in model.parameters()} & {
            id(weight) for weight in self.teacher.parameters()
        }:
            raise SettingError(
                f"{self.name}: the teacher shares its weights with the model in training, so it "
                "would change with it and hold nothing: give copy.deepcopy(model), made before"
            )
        entries = [count_entries(one) for one in (self.teacher, model)]
        if entries[0] != entries[1]:
            raise SettingError(
                f"{self.name}: the teacher has {entries[0]} tokens and the model {entries[1]}: "
                "their scores can be compared only with one tokenizer"
            )

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        scores = batch["logits"] if "logits" in batch else graded_logits(model, batch)[0]
        inputs = {
            name: tensor.to(self.teacher.device)
            for name, tensor in batch.items()
            if name != "logits"
        }
        with torch.no_grad():
            wanted, _ = graded_logits(self.teacher, inputs)
        return self.strength * distillation_loss(
            scores, wanted.to(scores.device), temperature=self.temperature
        )


# --- the Fisher information


def estimate_fisher(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    labels: str = "sampled",
    seed: int = 0,
    batch_size: int = FISHER_BATCH,
) -> Tensors:
    """The diagonal of the Fisher information of the weights that train, by parameter name, float32.

    The mean over examples of g², where g is the gradient of the summed (not averaged) log-
    probability of one example's graded tokens; so its unit is nats² an example, and answers of more
    tokens count for more. labels says which tokens are meant:

    "sampled": drawn with `seed` from the model's own distribution at each graded position, behind
    the example's own tokens. This is the Fisher information, or an unbiased estimate of it.
    "true": the example's own tokens, the "empirical Fisher". It vanishes where the model has
    learned them by heart.
    "batch": the example's own tokens, but the gradient is averaged over `batch_size` examples
    before it is squared. Often met, and wrong: gradients of different sign cancel, and the result
    is too small, `batch_size` times where both signs are as likely, less elsewhere.

    Nothing about the model changes; no dropout. Raises SettingError for other labels, no examples,
    an example without a graded token, and a model in which nothing trains.
    """
    seed, batch_size = check_seed(seed), whole_number("batch_size", batch_size)
    examples = _check_fisher(model, tokenizer, examples, labels)
    names = list(_trained(model))
    # torch's fast attention on a CPU has no rule for vmap
    with undisturbed(model), sdpa_kernel(SDPBackend.MATH):
        if labels == "sampled":
            examples = _draw_labels(model, tokenizer, examples, seed)
        # float32 also for a half-precision model: there a square of 1e-4 is 0
        weights = {name: weight.detach().float() for name, weight in model.named_parameters()}
        size = sum(weights[name].numel() for name in names)
        if labels == "batch":
            groups = _cut(range(len(examples)), batch_size)
        else:  # rows of one length together: hardly any padding
            by_length = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
            room = GRADIENTS_AT_ONCE.get(model.device.type, GRADIENTS_AT_ONCE["cpu"])
            groups = _cut(by_length, max(1, min(FISHER_BATCH, room // size)))
        square = _sum_of_squares(model, weights, names, together=labels == "batch")
        total = {name: torch.zeros_like(weights[name]) for name in names}
        for group in groups:
            batch = pad_batch([examples[i] for i in group], tokenizer.pad_token_id)
            ids, targets = (batch[name].to(model.device) for name in ("input_ids", "labels"))
            for name, values in square(ids, targets).items():
                total[name] += values
    return {name: values / len(examples) for name, values in total.items()}


def _check_fisher(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    labels: str,
) -> list[Example]:
    """The examples, as a list, when each of them has a gradient to be squared."""
    if labels not in LABELS:
        raise SettingError(f"labels is {labels!r:.60}; it must be one of {', '.join(LABELS)}")
    examples = list(examples)
    check_examples(examples, "examples")
    check_rows(model, tokenizer.pad_token_id, examples=examples)
    for place, example in enumerate(examples):
        if not grades(example.labels):
            raise SettingError(
                f"examples[{place}] has no graded token: it would add 0 to the mean. Leave it "
                "out, or check the examples with check_labels"
            )
    if not _trained(model):
        raise SettingError("no weight of the model trains, so there is no Fisher to estimate")
    return examples


def _sum_of_squares(
    model: PreTrainedModel, weights: Tensors, names: list[str], *, together: bool
) -> Callable[[torch.Tensor, torch.Tensor], Tensors]:
    """A function of (B, T) token ids and labels: the sum over rows of the squared gradients of each
    row's log-likelihood; `together`: B times the square of their mean."""
    frozen = {name: weight for name, weight in weights.items() if name not in names}
    trained = {name: weights[name] for name in names}

    def log_likelihood(trained: Tensors, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids, "use_cache": False}
        logits = functional_call(model, {**frozen, **trained}, (), inputs).logits[:, :-1]
        targets = labels[:, 1:]
        graded = targets != IGNORE_INDEX
        chosen = logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
        return (chosen * graded).sum()

    def one_row(trained: Tensors, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return log_likelihood(trained, ids[None], labels[None])

    of_each = vmap(grad(one_row), in_dims=(None, 0, 0))

    def squares(ids: torch.Tensor, labels: torch.Tensor) -> Tensors:
        if together:
            summed = grad(log_likelihood)(trained, ids, labels)
            return {name: values.square() / len(ids) for name, values in summed.items()}
        if len(ids) == 1:
            single = grad(log_likelihood)(trained, ids, labels)
            return {name: values.square() for name, values in single.items()}
        rows = of_each(trained, ids, labels)
        return {name: values.square_().sum(0) for name, values in rows.items()}

    return squares


@torch.no_grad()
def _draw_labels(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    seed: int,
) -> list[Example]:
    """The same rows, graded at the same places, with labels from the model's own distribution."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    for group in _cut(range(len(examples)), FISHER_BATCH):
        batch = pad_batch([examples[i] for i in group], tokenizer.pad_token_id)
        logits, _ = graded_logits(model, {k: v.to(model.device) for k, v in batch.items()})
        # on the CPU: the same draw on every device
        tokens = torch.multinomial(logits.float().softmax(-1).cpu(), 1, generator=generator)
        labels = batch["labels"]
        labels[:, 0] = IGNORE_INDEX
        labels[labels != IGNORE_INDEX] = tokens[:, 0]
        drawn += [
            Example(examples[i].input_ids, row[: len(examples[i].input_ids)].tolist())
            for i, row in zip(group, labels, strict=True)
        ]
    return drawn


# --- without a penalty


def replay(
    old: Sequence[Example], new: Sequence[Example], ratio: float, *, seed: int = 0
) -> list[Example]:
    """The new examples and round(ratio · len(new)) old ones, shuffled.

    Old ones are drawn without repetition; where more are asked for than there are, every old one
    comes equally often, give or take one. ratio 0 gives the new ones alone, shuffled. SettingError
    for a ratio that is below 0 or too small to give one old example, and when there are none.
    """
    ratio = real_number("ratio", ratio, least=0, advice="0.1: one old example for ten new ones")
    generator = torch.Generator().manual_seed(check_seed(seed))
    old, new = list(old), list(new)
    if not new:
        raise SettingError("new is empty: there is nothing to learn")
    count = round(ratio * len(new))
    if ratio > 0 and (count == 0 or not old):
        raise SettingError(
            f"ratio is {ratio:g}: of {len(new)} new examples that is {count} old ones, and there "
            f"are {len(old)}. Give at least ratio={1 / len(new):.2g}, and old examples"
        )
    chosen = []
    while len(chosen) < count:
        order = torch.randperm(len(old), generator=generator).tolist()
        chosen += [old[i] for i in order[: count - len(chosen)]]
    mixed = [*new, *chosen]
    return [mixed[i] for i in torch.randperm(len(mixed), generator=generator).tolist()]


@torch.no_grad()
def average_weights(
    before: PreTrainedModel, after: PreTrainedModel, share: float
) -> PreTrainedModel:
    """A new model with the weights (1 − share) · before + share · after; all else, also what
    trains, is as in `after`. SettingError for a share outside 0 to 1 and models whose weights
    differ in name or shape."""
    share = real_number("share", share, least=0, most=1, advice="1 is all of the model after")
    one, other = dict(before.named_parameters()), dict(after.named_parameters())
    for name in one.keys() | other.keys():
        shapes = [tuple(side[name].shape) if name in side else None for side in (one, other)]
        if shapes[0] != shapes[1]:
            raise SettingError(
                f"{name} has shape {shapes[0]} before, {shapes[1]} after (None: it is not there): "
                "only two states of one model can be averaged; merge an adapter first"
            )
    averaged = copy.deepcopy(after)
    for name, weight in averaged.named_parameters():
        first, last = one[name].to(weight.device).float(), weight.float()
        weight.copy_((1 - share) * first + share * last)
    return averaged


@dataclass(frozen=True)
class Cost:
    """What a method costs beside plain fine-tuning.

    kept: numbers for each weight, from one task to the next; in_a_step: numbers for each weight
    that stand only during a step; forward, backward: passes through a model, in passes of the new
    task's batch; before: what is computed once, ahead of the new task.
    """

    kept: float
    in_a_step: float
    forward: float
    backward: float
    before: str


COSTS = {
    "ewc": Cost(2, 0, 0, 0, "a gradient for each of the Fisher's examples"),
    "l2_to_start": Cost(1, 0, 0, 0, "nothing"),
    "synaptic_intelligence": Cost(3, 2, 0, 0, "nothing, but it watches the old task's training"),
    "distil_from": Cost(1, 0, 1, 0, "nothing"),
    "average_weights": Cost(1, 0, 0, 0, "nothing"),
}


def cost_of(method: str, *, ratio: float = 0.0) -> Cost:
    """What `method`, a name of COSTS or "replay" with its `ratio`, costs. Replay keeps examples,
    not numbers for each weight, and trains `ratio` more of them. SettingError for another name."""
    if method == "replay":
        ratio = real_number("ratio", ratio, least=0)
        return Cost(0, 0, ratio, ratio, "nothing, but it keeps old examples")
    if method not in COSTS:
        raise SettingError(f"method is {method!r:.60}; there are {', '.join(COSTS)}, replay")
    return COSTS[method]


# --- small parts


def _check_strength(strength: float) -> float:
    return real_number(
        "strength", strength, least=0, advice="0 is none; sweep decades, 1e-2 to 1e6, to find one"
    )


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _copy(weights: dict[str, torch.Tensor]) -> Tensors:
    """A copy in float32, which is also what half-precision models are trained in."""
    return {name: weight.detach().to(torch.float32, copy=True) for name, weight in weights.items()}


def _distance(weights: Tensors, start: Tensors, importance: Tensors | None) -> torch.Tensor:
    """Σ importance (weight − start)² over what both have."""
    terms = []
    for name in weights.keys() & start.keys():
        square = (weights[name] - start[name].to(weights[name].device)).square()
        if importance is not None:
            square = square * importance[name].to(square.device)
        terms.append(square.sum())
    return torch.stack(terms).sum()


def _check_weights(name: str, start: Tensors, model: torch.nn.Module) -> None:
    """SettingError when a penalty on weights has none of those that train, or in other shapes."""
    trained = _trained(model)
    both = [key for key in start if key in trained]
    if not both:
        raise SettingError(
            f"{name} holds {len(start)} weights (first: {next(iter(start), None)}), and none of "
            f"the {len(trained)} that train here (first: {next(iter(trained), None)}): it would "
            "add nothing. Make it of the model as it is trained: after add_lora, before train"
        )
    for key in both:
        if start[key].shape != trained[key].shape:
            raise SettingError(
                f"{name} holds {key} with shape {tuple(start[key].shape)}, which has shape "
                f"{tuple(trained[key].shape)} here: make it of this model"
            )


def _cut(places: Sequence[int], size: int) -> list[list[int]]:
    return [list(places[i : i + size]) for i in range(0, len(places), size)]
