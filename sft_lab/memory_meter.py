"""The memory of one training step, measured: every tensor counted while it lives, also for models
too large to hold.

With fake tensors, which have a shape and no content, PyTorch goes through the same operations and
allocates nothing: a step of a model of 7 billion parameters is measured on a laptop. The counts are
those of the tensors alone, as in `sft_lab.memory`, which predicts them; on a GPU compare with
torch.cuda.max_memory_allocated (chapter 08).
"""

import contextlib
import copy
import weakref
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from sft_lab.kernels.head import HeadLoss
from sft_lab.lora import LoRALinear, add_lora
from sft_lab.memory import PARTS, check_settings

PHASES = ("forward", "backward", "optimizer step")


class Moment(NamedTuple):
    """What is held after one operation of a step."""

    phase: str  # one of PHASES
    held: dict[str, int]  # bytes of each of PARTS


def measure_memory(
    config: PreTrainedConfig,
    *,
    method: str = "lora",
    rank: int = 16,
    batch_size: int = 1,
    length: int = 2048,
    half: bool = True,
    checkpointing: bool = False,
    head: str = "all",
    graded: float = 1.0,
    attention: str = "sdpa",
    trained_layers: int = 2,
    fake: bool = True,
    timeline: list[Moment] | None = None,
) -> dict[str, int]:
    """What predict_memory predicts, measured: one step with random weights, every tensor counted
    while it lives.

    fake: run it with tensors that have a shape and no content, so that a model of 7 B parameters is
    measured on a laptop. fake=False computes it for real, on the CPU. timeline: a list to which a
    Moment is added after every operation of the step.
    """
    check_settings(
        config, method, head, attention, batch_size, length, rank, graded, trained_layers
    )
    _check_measurable(config, method, fake)
    config = copy.deepcopy(config)
    config._attn_implementation = attention
    scored = round(graded * batch_size * length)
    mode = FakeTensorMode() if fake else contextlib.nullcontext()
    with mode, _Meter(config.vocab_size, timeline) as meter:
        # full tuning holds its weights in float32 whatever the products are computed in
        weights = torch.bfloat16 if half and method != "full" else torch.float32
        model = _build(config, method, rank, weights, trained_layers)
        if checkpointing:
            model.activation_checkpointing_enable()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        meter.part = "optimizer"
        optimizer = _warm_optimizer(trained)
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(
                lambda weight: meter.move(weight.grad, "gradients")
            )
        meter.start_step()
        input_ids = torch.zeros((batch_size, length), dtype=torch.long)
        inputs = {"input_ids": input_ids, "use_cache": False}
        inputs["attention_mask"] = _mask(config, input_ids, attention, weights)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            if head == "all":
                # the name lives on until the step is over, as in the loops of this course
                output = model(labels=input_ids, **inputs)
                loss = output.loss
            else:
                loss = _graded_loss(model, inputs, scored)
        _update(loss, optimizer, trained, meter)
    return {part: meter.peak[part] for part in PARTS}


def _update(
    loss: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    trained: list[nn.Parameter],
    meter: "_Meter",
) -> None:
    """The rest of the step: backward, clipping, the optimizer's step, gradients dropped."""
    meter.phase = "backward"
    loss.backward()
    meter.phase = "optimizer step"
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    meter.note()  # dropping is no operation, so the meter has not seen it


def _check_measurable(config: PreTrainedConfig, method: str, fake: bool) -> None:
    """ValueError for what fake tensors, or real ones, would measure wrongly."""
    if method == "qlora" and not fake:
        raise ValueError(
            "method is 'qlora' and fake is False: the 4-bit layer here holds the bytes, not the "
            "numbers"
        )
    if config.model_type == "llama" and fake:
        raise ValueError(
            "transformers gives Llama a mask when tensors are fake, and no mask otherwise: "
            "fake=False"
        )


def _build(
    config: PreTrainedConfig, method: str, rank: int, dtype: torch.dtype, trained_layers: int
) -> PreTrainedModel:
    """The model of a method, with random weights."""
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    if method == "full":
        return model
    if method == "freeze":
        model.requires_grad_(False)
        for module in model.model.layers[-trained_layers:].modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                # .float() would swap tensors, which fake ones refuse
                setattr(module, name, nn.Parameter(weight.detach().float()))
        return model
    add_lora(model, rank=rank)
    if method == "qlora":
        for module in list(model.modules()):  # changed while it is gone through
            if isinstance(module, LoRALinear):
                module.base_layer = _FourBitLinear(module.base_layer)
    return model


def _warm_optimizer(trained: list[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW as after its first step, which makes its averages: the step of interest is a later
    one."""
    optimizer = torch.optim.AdamW(trained, fused=True)
    for parameter in trained:
        averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros(()), **averages}
    return optimizer


def _mask(
    config: PreTrainedConfig, input_ids: torch.Tensor, attention: str, dtype: torch.dtype
) -> Any:
    """The attention mask of rows without padding, as transformers would make it.

    It makes it by looking at numbers, which fake tensors do not have. "sdpa" needs none here, and a
    dict by kind of layer is taken as it is by all but Llama.
    """
    later = None
    if attention == "eager":
        rows, length = input_ids.shape
        later = torch.zeros(rows, 1, length, length, dtype=dtype).triu(1)
    return later if config.model_type == "llama" else {"full_attention": later}


def _graded_loss(model: PreTrainedModel, inputs: dict[str, Any], scored: int) -> torch.Tensor:
    """sft_lab.losses.graded_loss on the first `scored` positions: which ones are graded is a
    question about numbers that fake tensors do not have."""
    states = model.model(**inputs).last_hidden_state.flatten(0, 1)[torch.arange(scored)]
    targets = inputs["input_ids"].flatten()[:scored]
    loss, _ = HeadLoss.apply(states, model.lm_head.weight, targets, 1.0)
    return loss


class _Meter(TorchDispatchMode):
    """Counts every tensor from the operation that makes it until it is freed, under the part it
    belongs to."""

    def __init__(self, vocabulary: int, timeline: list[Moment] | None = None) -> None:
        super().__init__()
        self.vocabulary, self.part = vocabulary, "weights"
        self.timeline, self.phase = timeline, ""  # no phase: the step has not begun
        self.live: dict[int, tuple[str, int]] = {}  # of each storage: its part and bytes
        self.now, self.peak = Counter(), Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor)
        if self.now.total() > self.peak.total():
            self.peak = Counter(self.now)
        self.note()
        return made

    def note(self) -> None:
        """Add this moment to the timeline, if one is kept and the step has begun."""
        if self.timeline is not None and self.phase:
            held = {part: self.now[part] for part in PARTS}
            self.timeline.append(Moment(self.phase, held))

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()  # views share one, so it counts once
        if storage._cdata not in self.live:
            part = self._find_part(tensor)
            self.live[storage._cdata] = (part, storage.nbytes())
            self.now[part] += storage.nbytes()
            weakref.finalize(storage, self._drop, storage._cdata)

    def _find_part(self, tensor: torch.Tensor) -> str:
        """In a step: (…, V) are scores, and a float32 (V, D) is the gradient of the embedding or of
        the head."""
        if self.part != "activations" or tensor.dim() < 2:
            return self.part
        if tensor.shape[-1] == self.vocabulary:
            return "logits"
        return (
            "gradients"
            if tensor.shape[0] == self.vocabulary and tensor.dtype == torch.float32
            else "activations"
        )

    def _drop(self, key: int) -> None:
        part, size = self.live.pop(key)
        self.now[part] -= size

    def move(self, tensor: torch.Tensor, part: str) -> None:
        """Count this tensor under another part from now on."""
        self._add(tensor)
        key = tensor.untyped_storage()._cdata
        old, size = self.live[key]
        self.live[key] = (part, size)
        self.now[old] -= size
        self.now[part] += size

    def start_step(self) -> None:
        """From here on, what is made is activations; what making the model took is forgotten."""
        self.part, self.peak = "activations", Counter(self.now)
        self.phase = PHASES[0]
        self.note()


class _Unpacked(torch.autograd.Function):
    """x W^T with W unpacked for the moment, in forward and again in backward, as bitsandbytes
    does."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: "_FourBitLinear") -> torch.Tensor:
        ctx.layer = layer
        return x @ layer.unpack(x.dtype).T

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient @ ctx.layer.unpack(gradient.dtype), None


class _FourBitLinear(nn.Module):
    """The bytes of a 4-bit linear layer, for measuring with fake tensors; it holds no numbers."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.shape, count, self.bias = layer.weight.shape, layer.weight.numel(), layer.bias
        sizes = {"packed": (count // 2, torch.uint8), "scales": (count // 64, torch.uint8)}
        for name, (size, kind) in (
            sizes | {"scales_of_scales": (count // (64 * 256), torch.float32)}
        ).items():
            self.register_buffer(name, torch.empty(size, dtype=kind))

    def unpack(self, kind: torch.dtype) -> torch.Tensor:
        return self.packed.new_empty(self.shape, dtype=kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = _Unpacked.apply(x, self)
        return product if self.bias is None else product + self.bias
