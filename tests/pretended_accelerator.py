"""An accelerator on any machine: its tensors are those of the CPU, marked, and they refuse to meet
unmarked ones.

It poses as an Apple GPU, whose device type `mps` every build of torch knows by name:

    with pretended_accelerator():
        model.to(ACCELERATOR)
        model(torch.tensor([[5]]))  # RuntimeError: … found at least two devices, mps:0 and cpu

A function mode sees each call from Python: it answers `tensor.device`, moves by copying, and raises
where a marked tensor meets an unmarked one of one dimension or more (a number, 0-dim, may meet any,
as on CUDA). A dispatch mode sees what torch computes inside, the backward pass too, and marks every
result of a marked tensor. A mark belongs to a storage, so views have it too.

What it does not show: speed, memory, number formats, kernels that a real device lacks, and a mix
inside one call of torch, which only a real device could make.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

ACCELERATOR = torch.device("mps", 0)
Tensor = torch.Tensor
ANSWERS = {  # what a marked tensor says about itself
    Tensor.device.__get__: ACCELERATOR,
    Tensor.is_cpu.__get__: False,
    Tensor.is_mps.__get__: True,
    Tensor.get_device: 0,
}
MOVES = (Tensor.to, Tensor.cpu, torch.as_tensor, torch.asarray)
# A copy may cross devices, and so may `parameter.data = …`, with which a module moves its weights.
CROSSING = (Tensor.copy_, Tensor.data.__set__, torch._has_compatible_shallow_copy_type)
INDEXING = (Tensor.__getitem__, Tensor.__setitem__)  # indices may come from the CPU


@contextlib.contextmanager
def pretended_accelerator() -> Iterator[None]:
    """Inside, ACCELERATOR exists; tensors that were marked here are plain CPU tensors outside."""
    marks = Marks()
    refusing = Refusing(marks)

    def run_backward(*arguments, **settings):  # torch takes a mode off before it gets here
        with refusing:
            return real_run_backward(*arguments, **settings)

    real_run_backward = torch.autograd._engine_run_backward
    with (
        mock.patch("torch.Event", Event),
        mock.patch("torch.autograd._engine_run_backward", run_backward),
        Marking(marks),
        refusing,
    ):
        yield


class Marks:
    """The storages that stand on the accelerator."""

    def __init__(self) -> None:
        # A weak reference keeps the number of its storage from being given to another one.
        self.storages: dict[int, StorageWeakRef] = {}
        self.paused = False  # while a move copies, results are not marked

    def __contains__(self, tensor: Tensor) -> bool:
        return storage_of(tensor)._cdata in self.storages

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Mark no results inside."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def add(self, value: object) -> None:
        """Mark the tensors in any result of torch."""
        for tensor in tensors_in(value):
            storage = storage_of(tensor)
            self.storages[storage._cdata] = StorageWeakRef(storage)
        if len(self.storages) > 20_000:
            self.storages = {
                number: kept for number, kept in self.storages.items() if not kept.expired()
            }


class Marking(TorchDispatchMode):
    """Whatever is computed from a marked tensor is marked, inside torch and in backward."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self.marks = marks

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        copies = function is torch.ops.aten.copy_.default or self.marks.paused
        marked = not copies and any(t in self.marks for t in tensors_in((args, kwargs)))
        result = function(*args, **(kwargs or {}))
        if marked:
            self.marks.add(result)
        return result


class Refusing(TorchFunctionMode):
    """Raises where a call from Python mixes devices; answers, moves and makes tensors."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self.marks = marks

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        marked = bool(args) and isinstance(args[0], Tensor) and args[0] in self.marks
        if function in ANSWERS and marked:
            return ANSWERS[function]
        if function in (Tensor.numpy, Tensor.__array__) and marked:
            raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu()")
        if function in MOVES and isinstance(args[0], Tensor):
            return self.move(function, *args, **kwargs)
        if function in CROSSING:
            return function(*args, **kwargs)
        return self.compute(function, args, kwargs)

    def compute(self, function, args: tuple, kwargs: dict) -> object:
        """Call `function` after looking at its tensors, and mark what it makes on the
        accelerator."""
        met = list(tensors_in((args[:1] if function in INDEXING else args, kwargs)))
        on_accelerator = any(tensor in self.marks for tensor in met)
        if not on_accelerator and function in INDEXING:
            met = list(tensors_in(args))
        self.refuse_mix(function, met)
        asked = kwargs.get("device")
        if asked is not None and not is_accelerator(asked):
            with self.marks.pause():
                return function(*args, **kwargs)
        if asked is not None:
            kwargs["device"] = "cpu"
        result = function(*args, **kwargs)
        if asked is not None or on_accelerator:
            self.marks.add(result)
        return result

    def refuse_mix(self, function, met: list[Tensor]) -> None:
        """RuntimeError, in torch's words, when marked tensors and unmarked ones meet."""
        strangers = [t for t in met if t.dim() and t.device.type == "cpu" and t not in self.marks]
        if strangers and any(tensor in self.marks for tensor in met):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"mps:0 and cpu, in {resolve_name(function) or function}: the one on the CPU has "
                f"shape {tuple(strangers[0].shape)}"
            )

    def move(self, function, tensor: Tensor, *args, **kwargs) -> Tensor:
        """`tensor.to(...)` and its like: the format by torch, the device by a copy."""
        kwargs.pop("copy", None)
        if function is Tensor.cpu:
            device, dtype = torch.device("cpu"), None
        elif args and isinstance(args[0], Tensor):  # tensor.to(other)
            device, dtype = ACCELERATOR if args[0] in self.marks else args[0].device, args[0].dtype
        else:
            device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        changed = tensor if dtype is None else tensor.to(dtype)
        target = tensor in self.marks if device is None else is_accelerator(device)
        if device is not None and device.type == "meta":
            return changed.to(device)
        return changed if target == (tensor in self.marks) else Move.apply(changed, self.marks)


class Move(torch.autograd.Function):
    """To the other device and, in backward, the gradient back."""

    @staticmethod
    def forward(ctx, tensor: Tensor, marks: Marks) -> Tensor:
        ctx.marks = marks
        with torch._C.DisableTorchFunction(), marks.pause():
            copy = tensor.clone()
        if tensor not in marks:
            marks.add(copy)
        return copy

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return Move.apply(gradient, ctx.marks), None


class Event:
    """A point in an Apple GPU's queue, which transformers waits for; here all is done at once."""

    def __init__(self, **_: object) -> None:
        self.record = self.synchronize = lambda: None


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors in nested arguments or results."""
    return (leaf for leaf in tree_iter(value) if isinstance(leaf, Tensor))


def storage_of(tensor: Tensor) -> torch.UntypedStorage:
    """The storage of a tensor, also of one that `torch.vmap` has wrapped."""
    with torch._C.DisableTorchFunction():
        while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
        return tensor.untyped_storage()


def is_accelerator(device: object) -> bool:
    """Whether a device, or its name, is the accelerator's."""
    return torch.device(device).type == ACCELERATOR.type
