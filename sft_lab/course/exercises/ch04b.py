"""Checks of chapter 04b, a run that is watched, killed and resumed."""

import copy
import json
import numbers
import operator
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    named,
    need_list,
    need_whole,
    need_word,
    same_for_all,
    unpack,
)
from sft_lab.course.resume_runs import LOSSES, Run, resumed_run
from sft_lab.examples import IGNORE_INDEX, Example


@checks("4b.1")
def early_stop(attempt: Callable) -> str:
    def form(found: Any) -> list[int]:
        pair = unpack(found, "the best epoch", "the last epoch run")
        return need_list(list(pair), numbers.Integral, "two whole numbers, the epochs' indices")

    mistakes = [
        (
            lambda losses, patience: (losses.index(min(losses)), _stop(losses, patience)[1]),
            "the best epoch lies beyond the last one run: look at epochs seen by then",
        ),
        (
            lambda losses, patience: (_stop(losses, patience)[1],) * 2,
            "keep the best epoch's weights, not the last one's",
        ),
        (
            lambda losses, patience: (_stop(losses, patience)[0],) * 2,
            "the second number is the last epoch run, `patience` after the best",
        ),
        (
            lambda losses, patience: _stop(losses, patience + 1),
            "one epoch too late: the `patience`-th epoch without a new lowest loss is the last",
        ),
        (
            lambda losses, patience: (losses.index(min(losses)), len(losses) - 1),
            "it does not stop; count the epochs since the best",
        ),
        (
            lambda losses, patience: tuple(epoch + 1 for epoch in _stop(losses, patience)),
            "epochs count from 0",
        ),
        (
            lambda losses, patience: _stop(losses, patience, better=operator.le),
            "an equal loss is no new lowest",
        ),
        (
            _count_rises,
            "you compare with the epoch before: compare with the lowest loss so far",
        ),
    ]
    what = "(best epoch, last epoch run)"
    same_for_all(attempt, _random_runs(), _stop, mistakes, form=form, what=what)
    return "keeps the best epoch seen, waits out a bump, ends a flat run, and never looks ahead"


def _random_runs() -> list[tuple[list[float], int]]:
    """Validation losses and a patience: one run of each kind, and a few at random."""
    start = random.uniform(2.0, 4.0)
    falling = [start - 0.1 * epoch - random.uniform(0.0, 0.05) for epoch in range(4)]
    low = falling[-1]

    def go_on(*above: float) -> list[float]:
        """The falling losses, and then these, as distances from the lowest."""
        return [round(loss, 3) for loss in (*falling, *(low + distance for distance in above))]

    runs = [
        (go_on(0.3, 0.2, 0.4, 0.3, -0.5), 3),  # turns up, and would fall again later
        (go_on(0.3, -0.2, 0.1, 0.2, 0.0), 2),  # one bump before its best epoch
        (go_on(), 2),  # falls to the end
        ([go_on()[-1]] * 6, 2),  # flat
        (go_on(0.5, 0.4, 0.3, 0.2), 3),  # falls again, but never below its best
        (go_on(0.1, -0.003, 0.1, -0.006, 0.1, 0.2), 2),  # new lowest losses by very little
        (go_on(0.1, 0.0, 0.1, 0.2), 4),  # reaches the lowest once more
        (go_on(0.2, -0.1), 1),
        (go_on(0.2, -0.1, 0.1), 2),  # ends before the patience does
        ([go_on()[0]], 1),  # one epoch
        ([15.2, 14.9, 15.0, 15.1], 2),  # high, as with a large vocabulary
        (go_on() + [go_on()[-1] - step * 1e-5 for step in (1, 2, 0, 0)], 2),  # hardly lower
    ]
    for _ in range(6):
        losses = [round(start + random.choice([0.0, 0.1, 0.2, 0.3]), 2) for _ in range(8)]
        runs.append((losses, random.randint(1, 4)))
    return runs


def _stop(
    losses: list[float], patience: int, better: Callable[[float, float], bool] = operator.lt
) -> tuple[int, int]:
    """The best epoch seen and the last one run."""
    best = 0
    for epoch, loss in enumerate(losses):
        if better(loss, losses[best]):
            best = epoch
        if epoch - best == patience:
            return best, epoch
    return best, len(losses) - 1


def _count_rises(losses: list[float], patience: int) -> tuple[int, int]:
    rises = 0
    for epoch in range(1, len(losses)):
        rises = rises + 1 if losses[epoch] > losses[epoch - 1] else 0
        if rises == patience:
            return losses.index(min(losses[: epoch + 1])), epoch
    return losses.index(min(losses)), len(losses) - 1


@checks("4b.2")
def checkpoint(attempt: Callable) -> str:
    seed, cut = random.randrange(10**6), random.randint(4, 7)
    unbroken, optimizer = _network(seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "runs" / "first"  # not there yet
        _train(unbroken, optimizer, seed, range(3))
        attempt(place).save(unbroken, optimizer, 3)
        _train(unbroken, optimizer, seed, range(3, cut))
        attempt(place).save(unbroken, optimizer, cut)  # a later save replaces the earlier one
        saved = copy.deepcopy((unbroken.state_dict(), optimizer.state_dict()["state"]))
        _check_files(place)
        resumed, fresh = _network(seed + 1)
        with named(FileNotFoundError, "load finds no file: save writes in the folder it was given"):
            found = attempt(place).load(resumed, fresh)
    if found is None:
        raise Mistake("load returns None: return the number of steps that were done")
    if need_whole(found, "what load returns", low=0) != cut:
        raise Mistake(f"load returns {found}, saved last were {cut} steps")
    _compare_weights(resumed.state_dict(), saved[0])
    _compare_averages(fresh, resumed, saved[1])
    _train(unbroken, optimizer, seed, range(cut, cut + 5))
    _train(resumed, fresh, seed, range(cut, cut + 5))
    for one, other in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        if not torch.equal(one, other):
            raise Mistake("five steps after the resume the weights differ from the unbroken run's")
    return "a killed run goes on to the last bit, from safetensors and JSON alone"


def _network(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A small network with a frozen layer and a layer with buffers, and its optimizer."""
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 6)]
    model = torch.nn.Sequential(*layers, torch.nn.Tanh(), torch.nn.Linear(6, 1)).train()
    model[2].requires_grad_(False)  # the optimizer keeps nothing for it
    return model, torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.01)


def _train(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: range
) -> None:
    for i in steps:
        rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(1000 * seed + i))
        optimizer.zero_grad()
        (model(rows).squeeze(1) - rows.sum(dim=1)).square().mean().backward()
        optimizer.step()


def _check_files(place: Path) -> None:
    """Only safetensors and JSON, and they are what their names say."""
    files = [path for path in place.rglob("*") if path.is_file()]
    if not files:
        raise Mistake("save writes no file in the folder it was given")
    for path in files:
        if path.suffix not in (".safetensors", ".json"):
            raise Mistake(
                f"{path.name} is neither .safetensors nor .json: a pickle file runs code when it "
                "is opened"
            )
        try:
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            else:
                with safe_open(path, "pt"):
                    pass
        except (ValueError, SafetensorError):
            raise Mistake(
                f"{path.name} is not what its name says: save it with safetensors or json"
            ) from None


def _compare_weights(found: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> None:
    for name, tensor in saved.items():
        if torch.equal(found[name], tensor):
            continue
        if "running" in name or "tracked" in name:
            raise Mistake(f"the buffer {name} is lost: model.state_dict() holds buffers as well")
        if name.startswith("2."):
            raise Mistake(f"the frozen weight {name} is lost: save all of model.state_dict()")
        raise Mistake(f"after load the weight {name} is not the one that was saved last")


def _compare_averages(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module, saved: dict[int, Any]
) -> None:
    """The optimizer's state of each parameter, in the order of the parameters."""
    lost = {
        "exp_avg": "AdamW's mean of the gradients (exp_avg)",
        "exp_avg_sq": "AdamW's mean of the squared gradients (exp_avg_sq)",
        "step": "AdamW's count of steps (step), which the hats need",
    }
    parameters = list(model.parameters())
    if not any(optimizer.state.get(weight) for weight in parameters):
        raise Mistake(
            "the optimizer is empty after load: without its averages the next step is a sign step"
        )
    for number, values in saved.items():
        found = optimizer.state.get(parameters[number], {})
        for name, tensor in values.items():
            if name not in found:
                raise Mistake(f"{lost[name]} is missing after load")
            if not torch.equal(torch.as_tensor(found[name]).float(), tensor.float()):
                raise Mistake(f"{lost[name]} is not the one that was saved, for parameter {number}")


@checks("4b.3")
def what_was_lost(attempt: Callable) -> str:
    inputs, answers = [], {}
    for lost in (*LOSSES, *random.choices(LOSSES, k=2)):
        unbroken, resumed, cut = _random_runs_of(lost)
        answers[len(inputs)] = lost
        inputs.append((unbroken, resumed, cut))
    places = {id(given[1]): answers[number] for number, given in enumerate(inputs)}
    same_for_all(
        attempt,
        inputs,
        lambda unbroken, resumed, cut: places[id(resumed)],
        _DIAGNOSES,
        form=lambda found: need_word(found, *LOSSES),
        what="what was lost",
    )
    return "names what each of seven resumed runs had lost"


def _random_runs_of(lost: str) -> tuple[Run, Run, int]:
    """An unbroken run of a tiny model, the same run resumed, and the step before which it was
    cut."""
    seed, cut, steps = random.randrange(10**6), random.randint(3, 6), random.randint(10, 12)
    settings = {"cut": cut, "steps": steps, "peak": 0.05, "seed": seed, "batch_size": 4}
    examples = [_random_example() for _ in range(60)]
    torch.manual_seed(seed)
    base = _Pairs()
    runs = [resumed_run(base, examples, 0, lost=word, **settings) for word in ("nothing", lost)]
    gaps = [abs(one["loss"] - other["loss"]) for one, other in zip(*runs, strict=True)][cut:]
    told = {"weights": gaps[0], "averages": max(gaps[1:])}.get(lost, 1.0)
    if told < 1e-3:  # two models may give one batch the same loss by chance
        return _random_runs_of(lost)
    for run in runs:  # what a log holds
        for one in run:
            del one["moved"]
    return *runs, cut


def _random_example() -> Example:
    ids = [random.randrange(1, 20) for _ in range(random.randint(4, 9))]
    return Example(ids, [IGNORE_INDEX, *ids[1:]])


class _Pairs(torch.nn.Module):
    """The smallest language model: the next token depends on this one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(20, 8)
        self.head = torch.nn.Linear(8, 20)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return _Output(self.head(self.table(input_ids)))


class _Output:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


def _diagnose(
    unbroken: Run, resumed: Run, cut: int, rules: tuple[str, ...], last: str = "nothing"
) -> str:
    """The first of the rules that finds a difference from `cut` on."""
    pairs = list(zip(unbroken, resumed, strict=True))[cut:]

    def differs(name: str, some: list[tuple[dict, dict]]) -> bool:
        if name == "loss":
            return any(abs(one["loss"] - other["loss"]) > 1e-5 for one, other in some)
        return any(one[name] != other[name] for one, other in some)

    found = {
        "schedule": differs("rate", pairs),
        "order": differs("rows", pairs),
        "weights": differs("loss", pairs[:1]),
        "averages": differs("loss", pairs),
    }
    return next((rule for rule in rules if found[rule]), last)


_RULES = ("schedule", "order", "weights", "averages")
_DIAGNOSES = [
    (
        lambda *given: _diagnose(*given, ("schedule", "order", "averages")),
        "lost weights are taken for lost averages: the loss of step `cut` is measured before its "
        "update, so only weights and rows can change it",
    ),
    (
        lambda *given: _diagnose(*given, ("weights", "averages", "schedule", "order")),
        "other rows and rates change the losses as well: ask for them first",
    ),
    (
        lambda *given: _diagnose(*given, ("schedule", "order", "weights")),
        "lost averages show one step later: look at the losses behind step `cut` too",
    ),
    (
        lambda *given: _diagnose(*given, ("order", "weights", "averages")),
        "the rates were not looked at: a schedule that begins anew is seen there",
    ),
    (
        lambda *given: _diagnose(*given, ("schedule", "weights", "averages")),
        "the rows were not looked at: other rows have other losses",
    ),
    (lambda *given: "nothing", "every run is called sound"),
]
