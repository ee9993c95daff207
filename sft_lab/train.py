"""Station "learn": the training loop in plain PyTorch, fast on a CPU, exact on resume (taken apart
in chapter 04)."""

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.arguments import whole_number
from sft_lab.batches import group_by_length, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.checkpoints import (
    STATE_FILE,
    find_checkpoint,
    load_checkpoint,
    name_result,
    name_run,
    read_state,
    rng_state,
    save_checkpoint,
    set_rng_state,
    told_if_damaged,
)
from sft_lab.loop.limits import check_rows
from sft_lab.loop.output import log_folder, output_folder, save_in_folder
from sft_lab.loop.penalties import Penalty
from sft_lab.loop.plan import Plan
from sft_lab.loop.probes import check_model, check_scores
from sft_lab.loop.process import interrupt_between_steps, keep_freed_memory
from sft_lab.loop.settings import (
    check_loss,
    check_penalty,
    check_settings,
    check_watching,
    notice_no_change,
)
from sft_lab.loop.update import mixed_precision, optimizer_step
from sft_lab.losses import graded_loss
from sft_lab.stopping import name_stop_token
from sft_lab.token_losses import TokenLoss


@dataclass
class History:
    """What a run did: one dict an optimiser step, one dict an evaluation."""

    steps: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0  # real (unpadded) tokens that went through the model in these seconds

    @property
    def losses(self) -> list[float]:
        """Training loss of every step, nats per graded token: of the loss that was trained."""
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
    loss: TokenLoss | None = None,
    penalty: Penalty | None = None,
    evaluate_every: int | None = None,
    output_dir: Path | str | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    log_dir: Path | str | None = None,
    progress: bool = True,
) -> History:
    """Fine-tune `model` in place on encoded examples; trains whatever requires gradients.

    One step takes `accumulation_steps` batches of `batch_size` examples, and every graded token of
    the step weighs the same. Its loss is the NLL, or one of `sft_lab.token_losses`; a `penalty` of
    `sft_lab.forgetting` is added once a step (the history's losses leave it out). Evaluations,
    after every epoch and every `evaluate_every` steps, are always NLL. AdamW; linear warm-up over
    `warmup_ratio` of the steps, then cosine decay to 0; the gradient's norm, the penalty's with it,
    is clipped at `max_grad_norm`. With `pack_to`, rows of at most so many tokens are packed, and
    `batch_size` counts rows. Half-precision models get float32 updates.

    With `output_dir` it writes a checkpoint every `checkpoint_every` steps (and when interrupted),
    and at the end the tuned model or its LoRA adapter; `resume=True` goes on exactly where the
    checkpoint was made. `log_dir`: this run's TensorBoard events. Raises OutputError for a folder
    that it must not touch, ValueError for settings that teach nothing and a model or rows that it
    cannot score, before the first step; later UnsavedError, FloatingPointError (weights as before).
    """
    plan = Plan(examples, pack_to, epochs, batch_size, accumulation_steps, seed)
    settings = check_settings(plan, learning_rate, warmup_ratio, weight_decay, max_grad_norm)
    eval_examples = check_watching(eval_examples, evaluate_every, checkpoint_every)
    watched = _Watched(eval_examples, evaluate_every, log_dir, progress)
    check_rows(model, tokenizer.pad_token_id, examples=plan.examples, eval_examples=eval_examples)
    settings["loss"] = check_loss(loss, plan, model)
    settings["penalty"] = check_penalty(penalty, model, output_dir)
    folder = output_folder(output_dir, model, tokenizer, plan.total_steps, checkpoint_every, resume)
    with folder as checkpoint:
        keep_freed_memory()
        torch.manual_seed(seed)  # dropout, where a model or an adapter has it
        with notice_no_change(model), mixed_precision(model) as (autocast, scaler):
            run = _Run(model, tokenizer, plan, settings, autocast, scaler, loss, penalty)
            run.begin(checkpoint if resume else None)
            _take_steps(run, watched, checkpoint, checkpoint_every)
        if checkpoint:
            with interrupt_between_steps():  # comes too late: there is no step after these
                save_in_folder(model, tokenizer, checkpoint, run.history)
    name_result(model, checkpoint and checkpoint.parent)
    return run.history


@torch.inference_mode()
def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
) -> dict[str, float]:
    """Loss (nats per graded token), token accuracy and perplexity = exp(loss) over all graded
    tokens of `examples`. It is the plain NLL, whatever loss the model was trained with."""
    batch_size = whole_number("batch_size", batch_size)
    if not examples:
        raise ValueError("no examples to evaluate")
    check_rows(model, tokenizer.pad_token_id, examples=examples)
    check_scores(model, examples, tokenizer.pad_token_id)
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


class _Run:
    """A run in progress: the model, and all else that changes from step to step."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        plan: Plan,
        settings: dict[str, Any],
        autocast: torch.autocast,
        scaler: torch.amp.GradScaler,
        loss: TokenLoss | None,
        penalty: Penalty | None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.plan, self.settings = plan, settings
        self.autocast, self.scaler = autocast, scaler
        self.loss, self.penalty = loss, penalty
        self.history = History()
        self.warmup_steps = math.ceil(settings["warmup_ratio"] * plan.total_steps)
        self.parameters = [weight for weight in model.parameters() if weight.requires_grad]
        if not self.parameters:
            raise ValueError("no parameter of the model requires gradients: everything is frozen")
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            fused=True,  # all parameters in one pass over memory
        )
        self.optimizer.zero_grad()  # a backward() before this run must not count in its first step

    def begin(self, checkpoint: Path | None) -> None:
        """Take up `checkpoint`, if there is one, and try the model as it then is."""
        if checkpoint and find_checkpoint(checkpoint):
            self.resume(checkpoint)
        with self.autocast:
            check_model(self.model, self.plan, self.tokenizer.pad_token_id)
        name_stop_token(self.model, self.tokenizer)

    def update(self, window: list[list[int]]) -> None:
        """The next step, on the examples of `window`."""
        done = len(self.history.steps)
        rate = learning_rate_at(
            done,
            self.plan.total_steps,
            peak=self.settings["learning_rate"],
            warmup_steps=self.warmup_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        measured = optimizer_step(
            self.model,
            self.optimizer,
            self.parameters,
            self.plan.gather(window, self.tokenizer.pad_token_id),
            max_grad_norm=self.settings["max_grad_norm"],
            step=done + 1,
            autocast=self.autocast,
            scaler=self.scaler,
            token_loss=self.loss,
            penalty=self.penalty,
        )
        self.history.steps.append({"step": done + 1, **measured})
        self.history.tokens += self.plan.count_tokens(window)

    def evaluate(self, examples: Sequence[Example]) -> None:
        with self.autocast:
            measured = evaluate(self.model, self.tokenizer, examples)
        self.history.evaluations.append({"step": len(self.history.steps), **measured})

    def save(self, checkpoint: Path) -> bool:
        """Whether a checkpoint was saved. It is a precaution: where the disk is full, the run goes
        on without it and warns."""
        state = {
            "run": self.settings,
            "rng": rng_state(),
            "scaler": self.scaler.state_dict(),
            **asdict(self.history),
        }
        try:
            save_checkpoint(checkpoint, self.model, self.optimizer, state)
        except (OSError, SafetensorError) as error:
            kept = "the one before stays" if checkpoint.exists() else "there is none"
            warnings.warn(
                f"step {len(self.history.steps)}: no checkpoint could be written in {checkpoint} "
                f"({error}); {kept}, and the run goes on",
                stacklevel=4,
            )
            return False
        return True

    def resume(self, checkpoint: Path) -> None:
        """Take up weights, optimizer, random state and history; ValueError for another run's."""
        state = read_state(checkpoint)
        other = [name for name, value in self.settings.items() if value != state["run"].get(name)]
        if other:
            raise ValueError(
                f"{checkpoint} belongs to a run with other {', '.join(other)}: give the same "
                "settings, another output_dir, or resume=False to start afresh"
            )
        with told_if_damaged(checkpoint / STATE_FILE):
            names = ("steps", "evaluations", "seconds", "tokens")
            history = History(**{name: state[name] for name in names})
            total = self.plan.total_steps
            if not 0 < len(history.steps) < total:  # a checkpoint stands between two steps
                raise ValueError(f"it is of {len(history.steps)} steps, and the run has {total}")
            set_rng_state(state["rng"])  # dropout goes on where it was
            self.scaler.load_state_dict(state["scaler"])
        load_checkpoint(checkpoint, self.model, self.optimizer)
        self.history = history


@dataclass
class _Watched:
    """What is looked at during a run, without a word in what it learns."""

    eval_examples: Sequence[Example] | None
    evaluate_every: int | None
    log_dir: Path | str | None
    progress: bool

    def evaluates(self, step: int, steps_an_epoch: int) -> bool:
        """Whether there is an evaluation after `step` (counted from 1)."""
        every = self.evaluate_every
        due = step % steps_an_epoch == 0 or (every and step % every == 0)
        return bool(self.eval_examples and due)

    @contextlib.contextmanager
    def open_log(self, run: _Run, checkpoint: Path | None) -> Iterator["_Log"]:
        """TensorBoard's log of a run; drops events from its next step on, which it wrote after its
        last checkpoint when it was killed. OutputError as in `log_folder`."""
        if self.log_dir is None:
            yield _Log(None)
            return
        ending = f".{name_run(run.settings, run.model)}"
        with log_folder(self.log_dir, ending, checkpoint) as folder:
            # slow to import, and few runs ask for it
            from torch.utils.tensorboard import SummaryWriter

            first = len(run.history.steps) + 1
            log = _Log(SummaryWriter(str(folder), purge_step=first, filename_suffix=ending))
            try:
                yield log
            finally:
                log.close()


@dataclass
class _Log:
    """TensorBoard's writer, or None. A run does not end because its log cannot be written: it warns
    and goes on without."""

    writer: Any

    def add(self, split: str, measured: dict[str, float]) -> None:
        if self.writer is None:
            return
        try:
            for name, value in measured.items():
                if name != "step":
                    self.writer.add_scalar(f"{split}/{name}", value, measured["step"])
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        try:
            if self.writer is not None:
                self.writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        folder, self.writer = self.writer.log_dir, None
        warnings.warn(f"the log in {folder} ends here: {error}", stacklevel=4)


def _take_steps(
    run: _Run, watched: _Watched, checkpoint: Path | None, checkpoint_every: int
) -> None:
    """All steps that are left of a run, from `run.history` on."""
    history, total, first = run.history, run.plan.total_steps, len(run.history.steps)
    bar = tqdm(
        total=total,
        initial=first,
        unit="step",
        desc="train",
        disable=not watched.progress,
        leave=False,
    )
    with (
        watched.open_log(run, checkpoint) as log,
        _training_mode(run.model),
        interrupt_between_steps() as interrupted,
        bar,
    ):
        started = time.perf_counter() - history.seconds
        for step, window in enumerate(run.plan.windows(first), start=first + 1):
            run.update(window)
            log.add("train", history.steps[-1])
            if watched.evaluates(step, run.plan.steps_an_epoch):
                run.evaluate(watched.eval_examples)
                log.add("eval", history.evaluations[-1])
            history.seconds = time.perf_counter() - started
            bar.set_postfix(loss=f"{history.losses[-1]:.3f}", refresh=False)
            bar.update()
            if step == total:  # the result is saved instead, and an interrupt comes too late
                return
            saved = False
            if checkpoint and (interrupted or step % checkpoint_every == 0):
                saved = run.save(checkpoint)
            if interrupted:
                kept = (
                    f"; train(…, resume=True) goes on from {checkpoint}"
                    if saved
                    else ", its checkpoint could not be saved"
                    if checkpoint
                    else ", nothing was saved"
                )
                raise KeyboardInterrupt(f"stopped after step {step} of {total}{kept}")


@contextlib.contextmanager
def _training_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout acts meanwhile; afterwards the model is in the mode it came in."""
    before = model.training
    model.train()
    try:
        yield
    finally:
        model.train(before)
