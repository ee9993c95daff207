"""Under "learn": before the first step, the model itself is asked whether the loop scores it right.

No list says which architectures do. Short rows are scored as the loop scores them, and once more by
the model alone. That shows a mask that lets neighbours through, a model that looks ahead, and a
kernel that computes another function: what a run would learn wrongly without a word.
"""

import random
from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F

from sft_lab.batches import join_rows, pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.plan import Plan
from sft_lab.losses import graded_logits, graded_loss, head_is_last
from sft_lab.undisturbed import undisturbed

# How far two ways to the same scores may be apart, relative to the spread of the scores. Each is
# ten times what rounding was seen to do over all architectures; a mistake does 0.1 and more.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
# What stands in the same place of a row of the same length is not even rounded differently when
# the tokens elsewhere change, unless it sees them.
LEAK = 1e-3
LONG, SHORT, SHORTEST = 12, 8, 4  # tokens of the documents that are tried


def check_model(model: torch.nn.Module, plan: Plan, pad_token_id: int) -> None:
    """Raise ValueError, in one line with what to do, for a model that the steps of `plan` would
    score otherwise than the model itself does.

    Costs a few forward passes of some 30 tokens. Weights, gradients, modes and random generators
    stay as they are.
    """
    check_scores(model, plan.examples, pad_token_id)
    if plan.rows:
        together = min(plan.batch_size, len(plan.rows))
        check_packing(model, plan.examples, pad_token_id, batch_size=together)


@torch.no_grad()
def check_scores(model: torch.nn.Module, examples: Sequence[Example], pad_token_id: int) -> None:
    """Compare the loss of two padded rows, and their scores, with those of the model for each row
    alone. The rows are drawn from the tokens of `examples`.

    The model's own scores are the measure, and not `model(labels=…).loss`: to that, mixtures of
    experts add a loss of their own, and some architectures do not shift the labels.
    """
    _check_peft(model)
    long, short, other = _draw_documents(examples, pad_token_id)
    with undisturbed(model):
        own_long, own_short = _own_scores(model, long), _own_scores(model, short)
        if own_long.isnan().any() or own_short.isnan().any():
            return  # broken weights: the first step says so, with its number
        own_changed = _own_scores(model, short + other[SHORT:])  # another end
        if _apart(own_long, own_changed)[:SHORT].max() > LEAK:
            raise ValueError(
                f"{_name(model)} looks ahead: its scores change with later tokens, which it is "
                "asked to predict. Take a causal model (a BERT becomes one with config.is_decoder "
                "= True)"
            )
        head_is_last(model, _tensor(model, long))
        batch = _on_device(model, pad_batch([_graded(long), _graded(short)], pad_token_id))
        own = torch.cat((own_long, own_short))
        scores, targets = graded_logits(model, batch)
        loss, right = graded_loss(model, batch)[0], F.cross_entropy(own, targets, reduction="sum")
        tolerance, count = _tolerance(model), len(targets)
        same = torch.isclose(loss, right, rtol=tolerance, atol=tolerance * count)
        if not (same and _apart(scores, own).median() <= tolerance):
            raise ValueError(
                f"{_name(model)}: two short rows in one padded batch have a loss of "
                f"{loss / count:.4f} nats per token, but {right / count:.4f} by the model's own "
                "scores of each row alone. Train it with model(**batch).loss in a loop of your own "
                "(chapter 04)"
            )


@torch.no_grad()
def check_packing(
    model: torch.nn.Module, examples: Sequence[Example], pad_token_id: int, *, batch_size: int
) -> None:
    """Try neighbours in packed rows, `batch_size` rows at once as the loop has them: the scores of
    a document must be those that it has alone, whatever stands before it."""
    long, short, other = _draw_documents(examples, pad_token_id)
    documents = [long, short, other, short, short[:SHORTEST]]
    rows = [
        pack([_graded(document) for document in row], sum(map(len, row)))[0]
        for row in (documents[:2], documents[2:])
    ]
    # one row and several can take different ways through the attention
    batches = [rows] if batch_size > 1 else [[row] for row in rows]
    with undisturbed(model):
        own = [_own_scores(model, document) for document in documents]
        if any(scores.isnan().any() for scores in own):
            return
        try:
            scores = [
                graded_logits(model, _on_device(model, join_rows(batch, pad_token_id)))[0]
                for batch in batches
            ]
        except Exception as error:
            raise ValueError(
                f"{_name(model)} cannot score packed rows ({_in_short(error)}): train without "
                "pack_to"
            ) from error
    packed = torch.cat(scores).split([len(document) - 1 for document in documents])
    seen = _apart(packed[1], packed[3]).max() > LEAK  # the same document behind two others
    alone = all(
        _apart(one, other).median() <= _tolerance(model)
        for one, other in zip(packed, own, strict=True)
    )
    if seen or not alone:
        what = "the one before it in its row" if seen else "its place in the row"
        raise ValueError(
            f"{_name(model)} does not keep packed examples apart: the scores of an example change "
            f"with {what}. Train without pack_to"
        )


def _check_peft(model: torch.nn.Module) -> None:
    """Refuse PEFT's models that put trained vectors before each row."""
    config = getattr(model, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise ValueError(
            f"this is a {config.peft_type.value} model of PEFT, which puts vectors of its own "
            "before each row, and this loop would leave them out: use add_prompt or add_prefix of "
            "sft_lab.adapters, or train it with TRL's SFTTrainer (chapter 07)"
        )


def _draw_documents(examples: Sequence[Example], pad_token_id: int) -> tuple[list[int], ...]:
    """Token ids of three documents, of LONG, SHORT and LONG tokens that occur in the examples; the
    second is how the first begins."""
    known = chain.from_iterable(example.input_ids for example in examples[:100])
    vocabulary = sorted({*known, pad_token_id})  # at least two, or all documents would be alike
    draw = random.Random(0)
    long, other = (draw.choices(vocabulary, k=LONG) for _ in range(2))
    return long, long[:SHORT], other


def _graded(document: list[int]) -> Example:
    return Example(document, [IGNORE_INDEX, *document[1:]])


def _own_scores(model: torch.nn.Module, document: list[int]) -> torch.Tensor:
    """What the whole model makes of a document alone, (T - 1, V); ValueError where it cannot."""
    try:
        scores = model(input_ids=_tensor(model, document), use_cache=False).logits
    except Exception as error:
        advice = ", or load it in float32" if _tolerance(model) > TOLERANCE[torch.float32] else ""
        raise ValueError(
            f"{_name(model)} cannot score a row of token ids ({_in_short(error)}): take a model "
            f"that goes on with a text{advice}"
        ) from error
    if scores.shape[:2] != (1, len(document)):
        raise ValueError(
            f"{_name(model)} makes scores of shape {tuple(scores.shape)} of a row of "
            f"{len(document)} tokens: take a model that scores every token"
        )
    return scores[0, :-1].float()


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How far two (N, V) scores are apart, (N,), relative to the spread of `other` over V.

    Who asks for the median allows a position its own fate: in half precision, a tie in a router can
    send one token to another expert.
    """
    # as log-probabilities, where adding a constant changes nothing; no chance at all may be -inf
    one, other = (scores.float().log_softmax(-1).clamp(min=-30) for scores in (one, other))
    spread = (other - other.mean(-1, keepdim=True)).norm(dim=-1)
    return (one - other).norm(dim=-1) / spread.clamp(min=1e-6)


def _tolerance(model: torch.nn.Module) -> float:
    """That of the coarsest number format in use."""
    formats = {parameter.dtype for parameter in model.parameters()}
    device = next(model.parameters()).device.type
    if torch.is_autocast_enabled(device):
        formats.add(torch.get_autocast_dtype(device))
    return max(TOLERANCE.get(dtype, 0.0) for dtype in {torch.float32, *formats})


def _tensor(model: torch.nn.Module, document: list[int]) -> torch.Tensor:
    return torch.tensor([document], device=next(model.parameters()).device)


def _on_device(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.160}"


def _name(model: torch.nn.Module) -> str:
    return type(model).__name__
