"""Right answers to the exercises of chapter 04b, in different styles."""

import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, load_file, save, save_file


def stop_by_best(losses, patience):
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        if epoch - best >= patience:
            return best, epoch
    return best, len(losses) - 1


def stop_by_counter(losses, patience):
    lowest, best, waited, epoch = math.inf, 0, 0, 0
    for epoch, loss in enumerate(losses):
        if loss < lowest:
            lowest, best, waited = loss, epoch, 0
        else:
            waited += 1
            if waited == patience:
                break
    return best, epoch


def stop_by_prefixes(losses, patience):
    for last in range(len(losses)):
        seen = losses[: last + 1]
        best = seen.index(min(seen))
        if last - best == patience or last == len(losses) - 1:
            return best, last
    raise ValueError("no epoch")


def stop_by_numpy(losses, patience):
    so_far = np.minimum.accumulate(losses)
    bests = [int(np.argmax(so_far == low)) for low in so_far]
    ends = [i for i, best in enumerate(bests) if i - best >= patience]
    last = ends[0] if ends else len(losses) - 1
    return bests[last], last


def stop_by_records(losses, patience):
    records = [i for i in range(len(losses)) if all(losses[i] < x for x in losses[:i])]
    for here, following in zip(records, [*records[1:], math.inf], strict=True):
        if following - here > patience and here + patience < len(losses):
            return here, here + patience
    return records[-1], len(losses) - 1


# 4b.2
class TwoFiles:
    def __init__(self, folder):
        self.folder = folder

    def save(self, model, optimizer, step):
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model/{name}": value.clone() for name, value in model.state_dict().items()}
        for number, weight in enumerate(model.parameters()):
            for name, value in optimizer.state.get(weight, {}).items():
                tensors[f"state/{number}/{name}"] = value.clone()
        save_file(tensors, self.folder / "run.safetensors")
        (self.folder / "run.json").write_text(json.dumps({"step": step}))

    def load(self, model, optimizer):
        tensors = load_file(self.folder / "run.safetensors")
        own = {name[6:]: value for name, value in tensors.items() if name.startswith("model/")}
        model.load_state_dict(own)
        for number, weight in enumerate(model.parameters()):
            found = {
                name.split("/")[2]: value
                for name, value in tensors.items()
                if name.startswith(f"state/{number}/")
            }
            if found:
                optimizer.state[weight] = found
        return json.loads((self.folder / "run.json").read_text())["step"]


class ByStateDict:
    """The optimizer's own state_dict, taken apart."""

    def __init__(self, folder):
        self.path = Path(folder)

    def save(self, model, optimizer, step):
        os.makedirs(self.path, exist_ok=True)
        save_file(
            {name: value.contiguous() for name, value in model.state_dict().items()},
            str(self.path / "model.safetensors"),
        )
        state = optimizer.state_dict()["state"]
        flat = {f"{key}.{name}": v for key, part in state.items() for name, v in part.items()}
        save_file(flat, str(self.path / "optimizer.safetensors"))
        with open(self.path / "step.json", "w") as file:
            json.dump(step, file)

    def load(self, model, optimizer):
        model.load_state_dict(load_file(str(self.path / "model.safetensors")))
        state = {}
        for name, value in load_file(str(self.path / "optimizer.safetensors")).items():
            key, part = name.split(".")
            state.setdefault(int(key), {})[part] = value
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
        with open(self.path / "step.json") as file:
            return json.load(file)


class StepAsATensor:
    def __init__(self, folder):
        self.file = folder / "all.safetensors"

    def save(self, model, optimizer, step):
        self.file.parent.mkdir(parents=True, exist_ok=True)
        parts = {"steps": torch.tensor(step)}
        parts |= {"m." + name: value for name, value in model.state_dict().items()}
        for name, weight in model.named_parameters():
            for key, value in optimizer.state[weight].items() if weight in optimizer.state else ():
                parts[f"o.{name}|{key}"] = value
        save_file(parts, self.file)

    def load(self, model, optimizer):
        parts = load_file(self.file)
        with torch.no_grad():
            for name, value in model.state_dict().items():
                value.copy_(parts["m." + name])
        for name, weight in model.named_parameters():
            keys = ("step", "exp_avg", "exp_avg_sq")
            found = {key: parts[f"o.{name}|{key}"] for key in keys if f"o.{name}|{key}" in parts}
            if found:
                optimizer.state[weight].update(found)
        return parts["steps"].item()


class AFileATime:
    def __init__(self, folder):
        self.folder = folder

    def _parts(self, model, optimizer):
        yield "model", dict(model.state_dict())
        for number, weight in enumerate(model.parameters()):
            if optimizer.state.get(weight):
                yield f"weight{number}", dict(optimizer.state[weight])

    def save(self, model, optimizer, step):
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.safetensors"):
            old.unlink()
        for name, tensors in self._parts(model, optimizer):
            save_file(tensors, self.folder / f"{name}.safetensors")
        (self.folder / "steps.json").write_text(str(step))

    def load(self, model, optimizer):
        model.load_state_dict(load_file(self.folder / "model.safetensors"))
        for number, weight in enumerate(model.parameters()):
            path = self.folder / f"weight{number}.safetensors"
            if path.exists():
                optimizer.state[weight] = load_file(path)
        return int((self.folder / "steps.json").read_text())


class WrittenAside:
    """Under another name first, then renamed."""

    def __init__(self, folder):
        self.folder, self.name = folder, "checkpoint.safetensors"

    def save(self, model, optimizer, step):
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = dict(model.state_dict())
        order = list(model.parameters())
        for weight, state in optimizer.state.items():
            place = next(i for i, other in enumerate(order) if other is weight)
            tensors |= {f"{key}@{place}": value for key, value in state.items()}
        data = save(tensors, metadata={"step": str(step)})
        aside = self.folder / "new.safetensors"
        aside.write_bytes(data)
        aside.replace(self.folder / self.name)
        (self.folder / "step.json").write_text(json.dumps([step]))

    def load(self, model, optimizer):
        tensors = load((self.folder / self.name).read_bytes())
        names = model.state_dict().keys()
        model.load_state_dict({name: tensors[name] for name in names})
        for place, weight in enumerate(model.parameters()):
            if f"step@{place}" in tensors:
                keys = ("step", "exp_avg", "exp_avg_sq")
                optimizer.state[weight] = {key: tensors[f"{key}@{place}"] for key in keys}
        return json.loads((self.folder / "step.json").read_text())[0]


# 4b.3
def lost_by_order(unbroken, resumed, cut):
    def differs(key, at):
        one, other = unbroken[at][key], resumed[at][key]
        return abs(one - other) >= 1e-5 if key == "loss" else one != other

    after = range(cut, len(unbroken))
    if any(differs("rate", at) for at in after):
        return "schedule"
    if any(differs("rows", at) for at in after):
        return "order"
    if differs("loss", cut):
        return "weights"
    return "averages" if any(differs("loss", at) for at in after) else "nothing"


def lost_by_columns(unbroken, resumed, cut):
    a, b = unbroken[cut:], resumed[cut:]
    if [row["rows"] for row in a] != [row["rows"] for row in b]:
        return "order"
    if not np.allclose([r["rate"] for r in a], [r["rate"] for r in b], rtol=1e-9, atol=0):
        return "schedule"
    gap = np.abs(np.array([r["loss"] for r in a]) - np.array([r["loss"] for r in b])) >= 1e-5
    return "weights" if gap[0] else "averages" if gap.any() else "nothing"


def lost_by_first_difference(unbroken, resumed, cut):
    for at, (one, other) in enumerate(zip(unbroken, resumed, strict=True)):
        if list(one["rows"]) != list(other["rows"]):
            return "order"
        if not math.isclose(one["rate"], other["rate"], rel_tol=1e-9, abs_tol=1e-15):
            return "schedule"
        if abs(one["loss"] - other["loss"]) >= 1e-5:
            early = at == cut
            later = zip(unbroken[at:], resumed[at:], strict=True)
            if any(x["rate"] != y["rate"] for x, y in later):
                return "schedule"
            return "weights" if early else "averages"
    return "nothing"


def lost_by_sets(unbroken, resumed, cut):
    changed = set()
    for at in range(cut, len(resumed)):
        for key in ("rows", "rate"):
            if unbroken[at][key] != resumed[at][key]:
                changed.add(key)
        if abs(unbroken[at]["loss"] - resumed[at]["loss"]) >= 1e-5:
            changed.add("first" if at == cut else "later")
    for key, word in {
        "rows": "order",
        "rate": "schedule",
        "first": "weights",
        "later": "averages",
    }.items():
        if key in changed:
            return word
    return "nothing"


def lost_by_torch(unbroken, resumed, cut):
    def column(log, key):
        return torch.tensor([row[key] for row in log[cut:]], dtype=torch.float64)

    if any(x["rows"] != y["rows"] for x, y in zip(unbroken, resumed, strict=True)):
        return "order"
    if (column(unbroken, "rate") != column(resumed, "rate")).any():
        return "schedule"
    apart = (column(unbroken, "loss") - column(resumed, "loss")).abs() >= 1e-5
    if not apart.any():
        return "nothing"
    return "weights" if bool(apart[0]) else "averages"


RIGHT_ANSWERS = {
    "4b.1": [stop_by_best, stop_by_counter, stop_by_prefixes, stop_by_numpy, stop_by_records],
    "4b.2": [TwoFiles, ByStateDict, StepAsATensor, AFileATime, WrittenAside],
    "4b.3": [
        lost_by_order,
        lost_by_columns,
        lost_by_first_difference,
        lost_by_sets,
        lost_by_torch,
    ],
}
