"""Further wrong answers to the exercises of chapter 04b."""

import json
import math

import torch
from safetensors.torch import load_file, save_file


def stop(
    losses,
    patience,
    *,
    better=lambda loss, best: loss < best,
    reset=True,
    enough=lambda waited, patience: waited == patience,
    versus_previous=False,
    first=math.inf,
):
    """Right with the defaults; every keyword is a mistake."""
    lowest, best, waited, epoch = first, 0, 0, 0
    for epoch, loss in enumerate(losses):
        if better(loss, lowest):
            lowest, best, waited = loss, epoch, 0 if reset else waited
        else:
            waited += 1
            if versus_previous:
                lowest = loss
            if enough(waited, patience):
                break
    return best, epoch


def stops(**mistakes):
    return lambda losses, patience: stop(losses, patience, **mistakes)


def stopped(change):
    """The right indices, changed."""
    return lambda losses, patience: change(*stop(losses, patience), losses)


def stop_at_the_overall_best(losses, patience):
    return losses.index(min(losses)), stop(losses, patience)[1]


def stop_counts_rises_in_a_row(losses, patience):
    """Compares with the epoch before."""
    waited = 0
    for epoch in range(1, len(losses)):
        waited = waited + 1 if losses[epoch] >= losses[epoch - 1] else 0
        if waited == patience:
            return losses.index(min(losses[: epoch + 1])), epoch
    return losses.index(min(losses)), len(losses) - 1


def stop_in_place(losses, patience):
    best, last = stop(losses, patience)
    del losses[last + 1 :]
    return best, last


def last_of_equals(losses, patience):
    _, last = stop(losses, patience)
    seen = losses[: last + 1]
    return max(i for i, loss in enumerate(seen) if loss == min(seen)), last


# 4b.2
def _checkpoint(
    weights="all", state=("step", "exp_avg", "exp_avg_sq"), made=True, counted=True, back=True,
    kept=True, written=True, shape=None, again=True,
):  # fmt: skip
    class Checkpoint:
        memory = {}

        def __init__(self, folder):
            self.folder = folder

        def save(self, model, optimizer, step):
            if made:
                self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "run.safetensors"
            if not again and path.exists():
                return
            own = model.state_dict() if weights == "all" else dict(model.named_parameters())
            if weights == "trained":
                own = {n: w for n, w in model.named_parameters() if w.requires_grad}
            tensors = {f"m {name}": value.detach().clone() for name, value in own.items()}
            if shape is not None:
                tensors = {name: value.to(shape) for name, value in tensors.items()}
            for number, weight in enumerate(model.parameters()):
                for name in state:
                    if weight in optimizer.state:
                        tensors[f"o {number} {name}"] = optimizer.state[weight][name].clone()
            save_file(tensors, path)
            (self.folder / "step.json").write_text(json.dumps(step if counted else 0))

        def load(self, model, optimizer):
            tensors = load_file(self.folder / "run.safetensors")
            own = {n[2:]: value for n, value in tensors.items() if n.startswith("m ")}
            if kept:
                model.load_state_dict(own, strict=False)
            for number, weight in enumerate(model.parameters()):
                found = {
                    n.split(" ")[2]: v for n, v in tensors.items() if n.startswith(f"o {number} ")
                }
                if found and written:
                    for name in ("step", "exp_avg", "exp_avg_sq"):
                        found.setdefault(
                            name, torch.zeros(()) if name == "step" else torch.zeros_like(weight)
                        )
                    optimizer.state[weight] = found
            step = json.loads((self.folder / "step.json").read_text())
            return step if back else None

    return Checkpoint


class _Pickled:
    def __init__(self, folder):
        self.folder = folder

    def save(self, model, optimizer, step):
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save((model.state_dict(), optimizer.state_dict(), step), self.folder / "run.pt")

    def load(self, model, optimizer):
        weights, state, step = torch.load(self.folder / "run.pt", weights_only=False)
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
        return step


class _PickledUnderAnotherName(_Pickled):
    def save(self, model, optimizer, step):
        super().save(model, optimizer, step)
        (self.folder / "run.pt").rename(self.folder / "run.safetensors")

    def load(self, model, optimizer):
        (self.folder / "run.safetensors").rename(self.folder / "run.pt")
        return super().load(model, optimizer)


class _InMemory:
    held = {}

    def __init__(self, folder):
        self.folder = folder

    def save(self, model, optimizer, step):
        self.mine = {n: v.clone() for n, v in model.state_dict().items()}, step

    def load(self, model, optimizer):
        model.load_state_dict(self.mine[0])
        return self.mine[1]


# 4b.3
def _lost(
    order=("rows", "rate", "first", "later"), near=1e-5, words=None, start=0, keys=("rows", "rate")
):
    named = words or {"rows": "order", "rate": "schedule", "first": "weights", "later": "averages"}

    def what(unbroken, resumed, cut):
        seen = set()
        for at in range(cut + start, len(resumed)):
            seen |= {key for key in keys if unbroken[at][key] != resumed[at][key]}
            if abs(unbroken[at]["loss"] - resumed[at]["loss"]) >= near:
                seen.add("first" if at == cut else "later")
        return next((named[key] for key in order if key in seen), "nothing")

    return what


def _lost_at_the_cut_alone(unbroken, resumed, cut):
    if unbroken[cut]["rate"] != resumed[cut]["rate"]:
        return "schedule"
    if unbroken[cut]["rows"] != resumed[cut]["rows"]:
        return "order"
    return "weights" if abs(unbroken[cut]["loss"] - resumed[cut]["loss"]) > 1e-5 else "nothing"


def _lost_by_the_last_loss(unbroken, resumed, cut):
    return "nothing" if abs(unbroken[-1]["loss"] - resumed[-1]["loss"]) < 1e-5 else "averages"


OTHER_WRONG_ANSWERS = {
    "4b.1": [
        stop_at_the_overall_best,
        stop_counts_rises_in_a_row,
        stop_in_place,
        last_of_equals,
        stops(better=lambda loss, best: loss <= best),
        stops(better=lambda loss, best: loss > best, first=-math.inf),
        stops(better=lambda loss, best: loss < best - 0.05),
        stops(better=lambda loss, best: round(loss, 1) < round(best, 1), first=1e9),
        stops(reset=False),
        stops(enough=lambda waited, patience: waited > patience),
        stops(enough=lambda waited, patience: waited >= patience - 1),
        stops(enough=lambda waited, patience: waited == 2),
        stops(enough=lambda waited, patience: False),
        stops(enough=lambda waited, patience: True),
        stops(versus_previous=True),
        stops(first=1.0),
        stops(first=10.0),
        stopped(lambda best, last, losses: (last, best)),
        stopped(lambda best, last, losses: (best + 1, last + 1)),
        stopped(lambda best, last, losses: (best, last + 1)),
        stopped(lambda best, last, losses: (best, last - 1)),
        stopped(lambda best, last, losses: (losses[best], losses[last])),
        stopped(lambda best, last, losses: (losses[best], last)),
        stopped(lambda best, last, losses: best),
        stopped(lambda best, last, losses: (float(best), float(last))),
        stopped(lambda best, last, losses: (best, len(losses) - 1)),
        stopped(lambda best, last, losses: (best, best)),
        lambda losses, patience: (losses.index(min(losses)), len(losses) - 1),
        lambda losses, patience: (
            losses.index(min(losses)),
            min(losses.index(min(losses)) + patience, len(losses) - 1),
        ),
        lambda losses, patience: stop(losses, patience + 1),
        lambda losses, patience: stop(losses[1:], patience),
        lambda losses, patience: stop(sorted(losses), patience),
        stops(better=lambda loss, best: loss < best - 1e-3),
        stops(better=lambda loss, best: loss < best - 1e-4),
        stops(better=lambda loss, best: round(loss, 4) < round(best, 4), first=1e9),
    ],
    "4b.2": [
        _checkpoint(weights="named"),
        _checkpoint(weights="trained"),
        _checkpoint(state=("exp_avg", "exp_avg_sq")),
        _checkpoint(state=("step", "exp_avg")),
        _checkpoint(state=("step", "exp_avg_sq")),
        _checkpoint(state=()),
        _checkpoint(made=False),
        _checkpoint(counted=False),
        _checkpoint(back=False),
        _checkpoint(kept=False),
        _checkpoint(written=False),
        _checkpoint(again=False),
        _checkpoint(shape=torch.bfloat16),
        _Pickled,
        _PickledUnderAnotherName,
        _InMemory,
    ],
    "4b.3": [
        _lost(order=("first", "later", "rows", "rate")),
        _lost(order=("first", "rows", "rate", "later")),
        _lost(order=("later", "rows", "rate", "first")),
        _lost(order=("rows", "rate", "later", "first")),
        _lost(near=0.0),
        _lost(near=0.5),
        _lost(keys=("rate",)),
        _lost(keys=("rows",)),
        _lost(keys=()),
        _lost(start=1),
        _lost(words={"rows": "schedule", "rate": "order", "first": "weights", "later": "averages"}),
        _lost(words={"rows": "order", "rate": "schedule", "first": "averages", "later": "weights"}),
        _lost_at_the_cut_alone,
        _lost_by_the_last_loss,
        lambda a, b, cut: None,
        lambda a, b, cut: _lost()(a, b, cut).upper(),
    ],
}
