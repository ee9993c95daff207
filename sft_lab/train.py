"""Station "learn": the training loop in plain PyTorch, fast on a CPU, exact on resume (taken apart
in chapter 04)."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.batches import group_by_length, join_rows, pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.checkpoints import (
    check_result,
    find_checkpoint,
    load_checkpoint,
    remove_checkpoint,
    rng_state,
    save_checkpoint,
    save_result,
    set_rng_state,
)
from sft_lab.loop.process import interrupt_between_steps, keep_freed_memory
from sft_lab.loop.update import mixed_precision, optimizer_step
from sft_lab.losses import graded_loss


@dataclass
class History:
    """What a run did: one dict an optimiser step, one dict an evaluation."""

    steps: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0  # real (unpadded) tokens that went through the model in these seconds

    @property
    def losses(self) -> list[float]:
        """Training loss of every step, nats per graded token."""
        return [step["loss"] for step in self.steps]

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def learning_rate_at(step: int, total_steps: int, *, peak: float, warmup_steps: int) -> float:
    """Linear warm-up from 0, then cosine decay to 0; `step` counts from 0, as transformers counts
    (chapter 04)."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    eval_examples: Sequence[Example] | None = None,
    epochs: int = 1,
    learning_rate: float = 3e-4,
    batch_size: int = 16,
    seed: int = 0,
    accumulation_steps: int = 1,
    warmup_ratio: float = 0.1,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    pack_to: int | None = None,
    evaluate_every: int | None = None,
    output_dir: Path | str | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    log_dir: Path | str | None = None,
    progress: bool = True,
) -> History:
    """Fine-tune `model` in place on encoded examples, in plain PyTorch; trains whatever parameters
    require gradients.

    One step takes `accumulation_steps` batches of `batch_size` examples, and every graded token of
    the step weighs the same: the gradient is that of one batch of all of them. AdamW; linear
    warm-up over `warmup_ratio` of the steps, then cosine decay to 0; the gradient's norm is clipped
    at `max_grad_norm`. Evaluates at the end of every epoch, and every `evaluate_every` steps if
    given. With `pack_to`, examples are packed into rows of at most so many tokens (chapter 03), and
    `batch_size` counts rows. Half-precision models train with float32 updates (`mixed_precision`).

    With `output_dir` it writes a checkpoint every `checkpoint_every` steps (and when interrupted),
    and the tuned model, or its LoRA adapter, at the end; `resume=True` then goes on exactly where
    the checkpoint was made (from the start if a kill came before the first one). With `log_dir` it
    writes TensorBoard events. Raises FloatingPointError, with the weights of the step before, when
    a loss is not finite.
    """
    if not examples:
        raise ValueError("no examples to train on")
    for name, value in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("accumulation_steps", accumulation_steps),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if resume and output_dir is None:
        raise ValueError("resume=True needs the output_dir of the run to go on with")
    if output_dir is not None:
        check_result(model)
    keep_freed_memory()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("no parameter of the model requires gradients: everything is frozen")
    rows = pack(examples, pack_to) if pack_to else None
    lengths = (
        [row["input_ids"].shape[1] for row in rows]
        if rows
        else [len(example.input_ids) for example in examples]
    )
    steps_an_epoch = math.ceil(math.ceil(len(lengths) / batch_size) / accumulation_steps)
    total_steps = steps_an_epoch * epochs
    warmup_steps = math.ceil(warmup_ratio * total_steps)
    run = {
        "examples": _fingerprint(examples),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
        "accumulation_steps": accumulation_steps,
        "warmup_ratio": warmup_ratio,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "pack_to": pack_to,
    }
    checkpoint = Path(output_dir) / "checkpoint" if output_dir is not None else None
    torch.manual_seed(seed)  # dropout, where a model or an adapter has it
    with contextlib.ExitStack() as at_end:
        autocast, scaler = at_end.enter_context(mixed_precision(model))
        optimizer = torch.optim.AdamW(
            parameters, lr=learning_rate, weight_decay=weight_decay, fused=True
        )
        optimizer.zero_grad()  # a backward() before this call must not count in the first step
        going_on = resume and find_checkpoint(checkpoint)
        history = _resume(checkpoint, model, optimizer, scaler, run) if going_on else History()
        first, started = len(history.steps), time.perf_counter() - history.seconds
        writer = None
        if log_dir is not None:
            from torch.utils.tensorboard import (
                SummaryWriter,  # slow to import, and few runs ask for it
            )

            writer = SummaryWriter(str(log_dir), purge_step=first + 1)
            at_end.callback(writer.close)
        at_end.callback(model.train, model.training)
        model.train()
        interrupted = at_end.enter_context(interrupt_between_steps())
        bar = at_end.enter_context(
            tqdm(
                total=total_steps,
                initial=first,
                unit="step",
                desc="train",
                disable=not progress,
                leave=False,
            )
        )
        for step in range(first, total_steps):
            epoch, position = divmod(step, steps_an_epoch)
            if position == 0 or step == first:
                batches = group_by_length(lengths, batch_size, seed=1_000_003 * seed + epoch)
            window = batches[position * accumulation_steps : (position + 1) * accumulation_steps]
            gathered = [
                join_rows([rows[i] for i in indices], tokenizer.pad_token_id)
                if rows
                else pad_batch([examples[i] for i in indices], tokenizer.pad_token_id)
                for indices in window
            ]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(
                    step, total_steps, peak=learning_rate, warmup_steps=warmup_steps
                )
            measured = optimizer_step(
                model,
                optimizer,
                parameters,
                gathered,
                max_grad_norm=max_grad_norm,
                step=step + 1,
                autocast=autocast,
                scaler=scaler,
            )
            history.steps.append({"step": step + 1, **measured})
            history.tokens += sum(lengths[i] for indices in window for i in indices)
            epoch_ends = position + 1 == steps_an_epoch
            evaluating = eval_examples and (
                epoch_ends or (evaluate_every and (step + 1) % evaluate_every == 0)
            )
            if evaluating:
                with autocast:
                    history.evaluations.append(
                        {"step": step + 1, **evaluate(model, tokenizer, eval_examples)}
                    )
            if writer is not None:
                _log(writer, "train", history.steps[-1])
                if evaluating:
                    _log(writer, "eval", history.evaluations[-1])
            history.seconds = time.perf_counter() - started
            bar.set_postfix(loss=f"{measured['loss']:.3f}", refresh=False)
            bar.update()
            last = step + 1 == total_steps
            if (
                checkpoint is not None
                and not last
                and (interrupted or (step + 1) % checkpoint_every == 0)
            ):
                state = {
                    "run": run,
                    "rng": rng_state(),
                    "scaler": scaler.state_dict(),
                    **asdict(history),
                }
                save_checkpoint(checkpoint, model, optimizer, state)
            if interrupted and not last:
                kept = (
                    f"; train(…, resume=True) goes on from {checkpoint}"
                    if checkpoint
                    else ", nothing was saved"
                )
                raise KeyboardInterrupt(f"stopped after step {step + 1} of {total_steps}{kept}")
    if output_dir is not None:
        save_result(model, tokenizer, output_dir)
        remove_checkpoint(checkpoint)
    return history


@torch.inference_mode()
def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
) -> dict[str, float]:
    """Loss (nats per graded token), token accuracy and perplexity = exp(loss) over all graded
    tokens of `examples`."""
    if not examples:
        raise ValueError("no examples to evaluate")
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    total, correct, graded = 0.0, 0, 0
    for indices in group_by_length(
        [len(example.input_ids) for example in examples], batch_size, seed=0
    ):
        batch = pad_batch([examples[i] for i in indices], tokenizer.pad_token_id)
        loss, ranked_first = graded_loss(
            model, {name: tensor.to(device) for name, tensor in batch.items()}
        )
        total += loss.item()
        correct += ranked_first.item()
        graded += int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
    model.train(was_training)
    if graded == 0:
        raise ValueError(
            "no graded token in the examples to evaluate; check them with "
            "sft_lab.labels.check_labels"
        )
    loss = total / graded
    perplexity = math.exp(loss) if loss < 700 else math.inf  # a float ends at exp(709)
    return {"loss": loss, "accuracy": correct / graded, "perplexity": perplexity, "graded": graded}


def _log(writer: Any, split: str, measured: dict[str, float]) -> None:
    for name, value in measured.items():
        if name != "step":
            writer.add_scalar(f"{split}/{name}", value, measured["step"])


def _fingerprint(examples: Sequence[Example]) -> str:
    return hashlib.sha256(
        repr([(example.input_ids, example.labels) for example in examples]).encode()
    ).hexdigest()


def _resume(
    checkpoint: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    run: dict[str, Any],
) -> History:
    """Weights, optimizer, random state and history of a checkpoint of this very run; ValueError for
    another's."""
    saved = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    other = [name for name in run if run[name] != saved["run"].get(name)]
    if other:
        raise ValueError(
            f"{checkpoint} belongs to a run with other {', '.join(other)}: give the same "
            "settings, another output_dir, or resume=False to start afresh"
        )
    load_checkpoint(checkpoint, model, optimizer)
    set_rng_state(saved["rng"])
    scaler.load_state_dict(saved["scaler"])
    return History(**{name: saved[name] for name in ("steps", "evaluations", "seconds", "tokens")})
