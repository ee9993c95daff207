"""Under "learn": a run that would teach nothing, or something else than its settings say, is
refused before its first step; one that has changed no weight says so."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from sft_lab.arguments import SettingError, real_number, whole_number
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.penalties import Penalty
from sft_lab.loop.plan import Plan, check_examples, grades
from sft_lab.token_losses import TokenLoss


def check_settings(
    plan: Plan,
    learning_rate: float,
    warmup_ratio: float,
    weight_decay: float,
    max_grad_norm: float,
) -> dict[str, Any]:
    """All settings that make a run the one it is, as numbers that JSON holds.

    Raises SettingError for a number out of its range, and for a run of one step that a warm-up
    starts at learning rate 0.
    """
    learning_rate = real_number(
        "learning_rate",
        learning_rate,
        above=0,
        advice="Usual are 1e-5 to 1e-3; to measure without training, call evaluate",
    )
    warmup_ratio = real_number(
        "warmup_ratio",
        warmup_ratio,
        least=0,
        most=1,
        advice=f"It is a share of the steps; of this run's {plan.total_steps}, 0.1 is a tenth",
    )
    weight_decay = real_number("weight_decay", weight_decay, least=0, advice="0 is none")
    if learning_rate * weight_decay >= 1:
        raise SettingError(
            f"weight_decay is {weight_decay:g}: times the learning rate, {learning_rate:g}, it is "
            "what a step takes away of every weight, here all of it; usual are 0 to 0.1"
        )
    max_grad_norm = real_number(
        "max_grad_norm",
        max_grad_norm,
        above=0,
        infinite=True,
        advice="It is the longest gradient let through, so 0 would train nothing; to switch "
        "clipping off (0 or None elsewhere), give math.inf",
    )
    if plan.total_steps == 1 and warmup_ratio > 0:
        raise SettingError(
            f"warmup_ratio is {warmup_ratio:g} and the run has one step: a warm-up begins at "
            "learning rate 0, so nothing would be trained. Give warmup_ratio=0, or take more steps "
            "(more epochs, or a smaller batch_size)"
        )
    return plan.settings() | {
        "learning_rate": learning_rate,
        "warmup_ratio": warmup_ratio,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
    }


def check_loss(loss: TokenLoss | None, plan: Plan, model: torch.nn.Module) -> dict[str, Any] | None:
    """What the settings of a run say of its loss; None: NLL. SettingError for what is no TokenLoss,
    weights for another vocabulary than the model's, and weights that leave a step nothing to train.
    """
    if loss is None:
        return None
    if not isinstance(loss, TokenLoss):
        raise SettingError(
            f"loss is {loss!r:.60} ({type(loss).__name__}); it must be None, which is the NLL, or "
            "made by weighted, focal, smoothed or dft of sft_lab.token_losses"
        )
    if loss.weights is None:
        return loss.settings
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    size = getattr(head, "out_features", None)
    if size is not None:  # or the first step says so
        loss.check_vocabulary(size)
    weights = loss.weights.tolist()
    counts = [
        any(weights[label] > 0 for label in labels[1:] if label != IGNORE_INDEX)
        for labels in plan.labels()
    ]
    for step, window in enumerate([] if all(counts) else plan.windows(), start=1):
        if not any(counts[i] for batch in window for i in batch):
            raise SettingError(
                f"step {step}: every graded token in its batches has weight 0, so it would train "
                "nothing; give larger batches, or a small weight to more tokens"
            )
    return loss.settings


def check_penalty(
    penalty: Penalty | None, model: torch.nn.Module, output_dir: Any
) -> dict[str, Any] | None:
    """What the settings of a run say of its penalty, where a checkpoint may keep them; None: there
    is none. SettingError for what is no Penalty, one that does not fit the model, and one that a
    checkpoint would lose."""
    if penalty is None:
        return None
    if not isinstance(penalty, Penalty):
        raise SettingError(
            f"penalty is {penalty!r:.60} ({type(penalty).__name__}); it must be None, or made by "
            "ewc, l2_to_start, synaptic_intelligence or distil_from of sft_lab.forgetting, or a "
            "sft_lab.loop.penalties.Penalty of your own"
        )
    if not penalty.name:
        raise SettingError(
            f"the penalty, a {type(penalty).__name__}, has no name: give it one with all its "
            "numbers in it, so that no run goes on with another"
        )
    if penalty.learns and output_dir is not None:
        raise SettingError(
            f"penalty is {penalty.name!r}, which gathers numbers during the run, and no checkpoint "
            f"in output_dir, {str(output_dir)!r:.60}, would hold them: train without output_dir, "
            "and save the model afterwards"
        )
    penalty.check(model)
    return penalty.settings() if output_dir is not None else None  # a hash of all it keeps: slow


def check_watching(
    eval_examples: Iterable[Example] | None, evaluate_every: int | None, checkpoint_every: int
) -> list[Example] | None:
    """The examples to evaluate, as a list. SettingError when they have nothing to grade, and for
    steps that are not counted from 1."""
    whole_number("checkpoint_every", checkpoint_every, advice="It counts steps")
    if evaluate_every is not None:
        whole_number("evaluate_every", evaluate_every, advice="It counts steps; None: each epoch")
        if eval_examples is None:
            raise SettingError(
                f"evaluate_every is {evaluate_every}, but there is nothing to evaluate: give "
                "eval_examples"
            )
    if eval_examples is None:
        return None
    eval_examples = list(eval_examples)
    check_examples(eval_examples, "eval_examples")
    if not any(grades(example.labels) for example in eval_examples):
        raise SettingError(
            f"eval_examples: none of the {len(eval_examples)} has a graded token; check them with "
            "check_labels"
        )
    return eval_examples


@contextlib.contextmanager
def notice_no_change(model: torch.nn.Module) -> Iterator[None]:
    """Warn when the block ends without an error and no weight that trains has changed by 1e-7.

    This finds what no range of a setting can: a rate too small for the weights or their number
    format, a gradient that is clipped to nothing or does not arrive.
    """
    before = _contents(model)
    yield
    if before == _contents(model):
        warnings.warn(
            "the run has changed no weight by as much as 1e-7: the model is what it was. Usual "
            "causes: a learning rate or max_grad_norm too small for the weights or their number "
            "format, or no gradient that reaches what trains (see grad_norm in the history)",
            stacklevel=4,
        )


def _contents(model: torch.nn.Module) -> list[int]:
    """A number for each weight that trains, another after a change that matters: one is added, so
    that what is smaller than a float32 can tell from it is rounded away, and the bits are summed as
    whole numbers, which rounds nothing away."""
    trained = [weight.detach() for weight in model.parameters() if weight.requires_grad]
    return [
        (weight.float() + 1).view(torch.int32).sum(dtype=torch.int64).item() for weight in trained
    ]
