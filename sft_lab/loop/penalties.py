"""Under "learn": what `train(penalty=…)` adds to the loss of every optimiser step; the ones that
the course teaches are made by `sft_lab.forgetting`."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch

Batch = dict[str, torch.Tensor]


class Penalty:
    """A term beside the loss of a step. A penalty of your own is a subclass with a `name` and a
    `loss`.

    name: the method and its numbers. A run keeps it, and does not go on (`resume=True`) with
    another.
    reads_batch: False: `loss` is asked once a step, whatever the number of batches, and needs the
    weights alone. True: once for each batch of the step, and the step's penalty is their mean, each
    batch weighing as many as it has graded tokens.
    learns: whether it gathers numbers during the run. A checkpoint does not hold these, so `train`
    refuses such a penalty together with `output_dir`.

    In a step come first the gradients of the task's loss, then `before_penalty`, the penalty's
    gradient, the clipping of both together, the update, and `after_step`.
    """

    name: str = ""
    reads_batch: bool = False
    learns: bool = False

    def kept(self) -> Iterable[torch.Tensor]:
        """The tensors that it keeps beside the model: old weights, importances, a teacher."""
        return ()

    @property
    def memory_bytes(self) -> int:
        """Bytes of all that it keeps beside the model."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.kept())

    def settings(self) -> dict[str, Any]:
        """What a run must have in common with the one it goes on from, as JSON holds it: the name,
        and a hash of what is kept."""
        digest = hashlib.sha256()
        for tensor in self.kept():
            whole = tensor.detach().to("cpu", torch.float32).contiguous()
            digest.update(whole.numpy().tobytes())
        return {"name": self.name, "kept": digest.hexdigest()}

    def check(self, model: torch.nn.Module) -> None:
        """Raise SettingError, before the first step, for a model that this cannot be added to."""

    def loss(self, model: torch.nn.Module, batch: Batch | None) -> torch.Tensor | None:
        """What is added to the step's mean loss: 0-dim, in nats as the loss is. None: nothing yet.

        batch: None, or, where `reads_batch` is True, input_ids, labels and the rest, with one entry
        more: `logits`, the model's own scores at the graded positions, (N, V).
        """
        raise NotImplementedError

    def before_penalty(self, model: torch.nn.Module, scale: float) -> None:
        """Called when every weight's `grad` is the gradient of the task's loss alone, `scale` times
        too large (the loss scale of float16, else 1), and the weights are those before the step."""

    def after_step(self, model: torch.nn.Module) -> None:
        """Called when the weights are those after the step; the gradients are still there, with the
        penalty's own among them, and clipped."""
