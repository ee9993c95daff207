"""Wrong answers to the exercises of chapter 04b, each with the words that must name its mistake."""

import json
from functools import partial

import torch
from safetensors.torch import load_file, save_file


def _stops(losses, patience, late=0):
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        if epoch - best == patience + late:
            return best, epoch
    return best, len(losses) - 1


def _looks_ahead(losses, patience):
    return losses.index(min(losses)), _stops(losses, patience)[1]


def _counts_rises(losses, patience):
    rises = 0
    for epoch in range(1, len(losses)):
        rises = rises + 1 if losses[epoch] > losses[epoch - 1] else 0
        if rises == patience:
            return losses.index(min(losses[: epoch + 1])), epoch
    return losses.index(min(losses)), len(losses) - 1


def _equal_is_new(losses, patience):
    best = 0
    for epoch, loss in enumerate(losses):
        if loss <= losses[best]:
            best = epoch
        if epoch - best == patience:
            return best, epoch
    return best, len(losses) - 1


def _checkpoint(keep=("step", "exp_avg", "exp_avg_sq"), model_too=True, buffers=True, said=None):
    """A checkpoint that keeps only a part of what the run needs."""

    class Checkpoint:
        def __init__(self, folder):
            self.folder = folder

        def save(self, model, optimizer, step):
            self.folder.mkdir(parents=True, exist_ok=True)
            weights = model.state_dict() if buffers else dict(model.named_parameters())
            weights = {name: value.detach().contiguous() for name, value in weights.items()}
            save_file(weights if model_too else {}, self.folder / "w.safetensors")
            averages = {
                f"{name}|{key}": value
                for name, weight in model.named_parameters()
                for key, value in optimizer.state.get(weight, {}).items()
                if key in keep
            }
            save_file(averages, self.folder / "o.safetensors")
            (self.folder / "step.json").write_text(json.dumps(step))

        def load(self, model, optimizer):
            if model_too:
                model.load_state_dict(load_file(self.folder / "w.safetensors"), strict=False)
            parameters = dict(model.named_parameters())
            for name, value in load_file(self.folder / "o.safetensors").items():
                weight, key = name.split("|")
                optimizer.state[parameters[weight]][key] = value
            step = json.loads((self.folder / "step.json").read_text())
            return step if said is None else said(step)

    return Checkpoint


class _Pickles(_checkpoint()):
    def save(self, model, optimizer, step):
        super().save(model, optimizer, step)
        torch.save(optimizer.state_dict(), self.folder / "optimizer.pt")


class _PicklesUnderAnotherName(_checkpoint()):
    def save(self, model, optimizer, step):
        super().save(model, optimizer, step)
        torch.save(optimizer.state_dict(), self.folder / "optimizer.safetensors")


class _KeepsInMemory(_checkpoint()):
    kept = {}

    def save(self, model, optimizer, step):
        self.kept["run"] = model.state_dict(), optimizer.state_dict(), step


class _KeepsTheFirst(_checkpoint()):
    def save(self, model, optimizer, step):
        if not (self.folder / "step.json").exists():
            super().save(model, optimizer, step)


def _differs(name, pairs):
    return any(one[name] != other[name] for one, other in pairs)


def _lost(unbroken, resumed, cut, rules=("rate", "rows", "now", "later")):
    pairs = list(zip(unbroken, resumed, strict=True))[cut:]
    gaps = [abs(one["loss"] - other["loss"]) > 1e-6 for one, other in pairs]
    found = {
        "rate": _differs("rate", pairs),
        "rows": _differs("rows", pairs),
        "now": gaps[0],
        "later": any(gaps),
    }
    words = {"rate": "schedule", "rows": "order", "now": "weights", "later": "averages"}
    return next((words[rule] for rule in rules if found[rule]), "nothing")


WRONG_ANSWERS = {
    "4b.1": [
        (_looks_ahead, "epochs seen by then"),
        (lambda *x: (_stops(*x)[1],) * 2, "not the last one's"),
        (lambda *x: (_stops(*x)[0],) * 2, "is the last epoch run"),
        (partial(_stops, late=1), "one epoch too late"),
        (lambda *x: tuple(epoch + 1 for epoch in _stops(*x)), "epochs count from 0"),
        (_equal_is_new, "an equal loss is no new lowest"),
        (_counts_rises, "you compare with the epoch before"),
        (lambda *x: _stops(*x)[0], "return two things, the best epoch"),
    ],
    "4b.2": [
        (_checkpoint(keep=()), "the optimizer is empty after load"),
        (_checkpoint(keep=("step", "exp_avg_sq")), "(exp_avg) is missing"),
        (_checkpoint(keep=("step", "exp_avg")), "(exp_avg_sq) is missing"),
        (_checkpoint(keep=("exp_avg", "exp_avg_sq")), "count of steps (step), which the hats need"),
        (_checkpoint(model_too=False), "is not the one that was saved"),
        (_checkpoint(buffers=False), "holds buffers as well"),
        (_checkpoint(said=lambda step: 0), "load returns 0, saved last were"),
        (_checkpoint(said=lambda step: step + 1), "saved last were"),
        (_Pickles, "neither .safetensors nor .json"),
        (_PicklesUnderAnotherName, "is not what its name says"),
        (_KeepsInMemory, "writes no file"),
        (_KeepsTheFirst, "saved last were"),
    ],
    "4b.3": [
        (partial(_lost, rules=("rate", "rows", "later")), "lost weights are taken for"),
        (partial(_lost, rules=("now", "later", "rate", "rows")), "ask for them first"),
        (partial(_lost, rules=("rate", "rows", "now")), "lost averages show one step later"),
        (partial(_lost, rules=("rows", "now", "later")), "the rates were not looked at"),
        (partial(_lost, rules=("rate", "now", "later")), "the rows were not looked at"),
        (lambda *given: "nothing", "every run is called sound"),
        (lambda *given: "rate", "return one of"),
    ],
}
