"""Under "learn": before the first step, the model itself is asked whether the loop scores it right.

No list says which architectures do. Short rows are scored as the loop scores them, and once more by
the model alone. That shows a mask that lets neighbours through, a model that looks ahead, and a
kernel that computes another function: what a run would learn wrongly without a word.
"""

import contextlib
import random
from collections.abc import Iterator, Sequence
from itertools import chain

import torch
import torch.nn.functional as F

from sft_lab.batches import join_rows, pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.plan import Plan
from sft_lab.losses import graded_logits, graded_loss, head_is_last
from sft_lab.undisturbed import undisturbed

# How far two ways to the same scores may be apart, relative to the spread of the scores. Over all
# architectures, built tiny, rounding was seen to do 2e-6, 6e-4 and 6e-3; deeper models add to that.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
LONG, SHORT, SHORTEST = 12, 8, 4  # tokens of the documents that are tried


def check_model(model: torch.nn.Module, plan: Plan, pad_token_id: int) -> None:
    """Raise ValueError, in one line with what to do, for a model that the steps of `plan` would
    score otherwise than the model itself does.

    Costs a few passes of some 30 tokens each. Weights, gradients, modes and random generators stay
    as they are.
    """
    check_scores(model, plan.examples, pad_token_id)
    if plan.rows:
        together = min(plan.batch_size, len(plan.rows))
        check_packing(model, plan.examples, pad_token_id, batch_size=together)


@torch.inference_mode(False)  # evaluate runs in it, and there is no gradient there
@torch.no_grad()
def check_scores(model: torch.nn.Module, examples: Sequence[Example], pad_token_id: int) -> None:
    """Compare the loss of two padded rows, and their scores, with those of the model for each row
    alone. The rows are drawn from the tokens of `examples`.

    The model's own scores are the measure, and not `model(labels=…).loss`: to that, mixtures of
    experts add a loss of their own, and some architectures do not shift the labels.
    """
    _check_peft(model)
    long, _ = _draw_documents(examples, pad_token_id)
    with undisturbed(model):
        with (
            _refusing(f"{_name(model)} cannot be trained on rows of token ids", _advise(model)),
            torch.enable_grad(),
            _embeddings(model) as embedded,
        ):
            own = _own_scores(model, long)
            looks_ahead = _reached(own[:SHORT], embedded, [range(SHORT)])
        own = own.detach()
        if own.isnan().any():
            return  # broken weights: the first step says so, with its number
        head_is_last(model, _tensor(model, long), own[None])
        rows = [_graded(long), _graded(long[:SHORT])]
        batch = _on_device(model, pad_batch(rows, pad_token_id))
        scores, targets = graded_logits(model, batch)
        # the short row is how the long one begins, and so are its scores
        alone = torch.cat((own[:-1], own[: SHORT - 1]))
        loss, right = graded_loss(model, batch)[0], F.cross_entropy(alone, targets, reduction="sum")
        tolerance, count = _tolerance(model), len(targets)
        same = torch.isclose(loss, right, rtol=tolerance, atol=tolerance * count)
        wrong = not same or _differ(scores, alone, model)
        if wrong and not looks_ahead:  # or without a gradient to show it
            looks_ahead = _differ(_own_scores(model, long[:SHORT]), own[:SHORT], model)
    if looks_ahead:
        raise ValueError(
            f"{_name(model)} looks ahead: its scores change with later tokens, which it is asked "
            "to predict. Take a causal model (a BERT becomes one with config.is_decoder = True)"
        )
    if wrong:
        raise ValueError(
            f"{_name(model)}: two short rows in one padded batch have a loss of {loss / count:.4f} "
            f"nats per token, but {right / count:.4f} by the model's own scores of a row alone. "
            "Train it with model(**batch).loss in a loop of your own (chapter 04)"
        )


def _advise(model: torch.nn.Module) -> str:
    """What to do about a model that gives no scores."""
    if isinstance(getattr(model, "module", None), torch.nn.Module):
        return "it wraps another model, and that one can be asked: give model.module"
    half = _tolerance(model) > TOLERANCE[torch.float32]
    return (
        "take a model that goes on with a text, loaded with AutoModelForCausalLM (AutoModel's has "
        "no output head)" + (", or load it in float32" if half else "")
    )


@torch.no_grad()
def check_packing(
    model: torch.nn.Module, examples: Sequence[Example], pad_token_id: int, *, batch_size: int
) -> None:
    """Try neighbours in packed rows, `batch_size` rows at once as the loop has them: the scores of
    a document must be those that it has alone, whatever stands before it."""
    long, other = _draw_documents(examples, pad_token_id)
    # one row and several can take different ways through the attention
    rows = [[long, long[:SHORT]], [other, long[:SHORT], long[:SHORTEST]]][:batch_size]
    documents = [document for row in rows for document in row]
    packed = [pack([_graded(document) for document in row], sum(map(len, row)))[0] for row in rows]
    batch = _on_device(model, join_rows(packed, pad_token_id))
    with undisturbed(model):
        own = _own_scores(model, long)
        if own.isnan().any():
            return
        with (
            _refusing(f"{_name(model)} cannot be trained on packed rows", "train without pack_to"),
            torch.enable_grad(),
            _embeddings(model) as embedded,
        ):
            joined, _ = graded_logits(model, batch)
            second = joined[LONG - 1 :][: SHORT - 1]
            place = [range(LONG, LONG + SHORT), *[range(0)] * (len(rows) - 1)]
            leaks = _reached(second, embedded, place)
        scores = joined.detach().split([len(document) - 1 for document in documents])
        moved = [
            _differ(one, own[: len(one)], model)
            for one, document in zip(scores, documents, strict=True)
            if document is not other
        ]
        if leaks or any(moved):
            raise ValueError(
                f"{_name(model)} does not keep packed examples apart: the scores of an example "
                "change with its neighbours or its place in the row. Train without pack_to"
            )


@contextlib.contextmanager
def _embeddings(model: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collects what the input embedding puts out, (B, T, D), to ask for gradients by it."""
    found: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        found.append(output.detach().requires_grad_())
        return found[-1].clone()  # some models scale it in place

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def _reached(scores: torch.Tensor, embedded: list[torch.Tensor], allowed: Sequence[range]) -> bool:
    """Whether scores depend on tokens outside the `allowed` places of each row: whether their
    gradient by these tokens' embeddings is not 0 (chapter 03). Behind a mask it is exactly 0 in
    every number format, however differently two ways to the same scores are rounded."""
    if not embedded:
        return False  # a model that reads its embedding's weights by itself
    best = scores.float().log_softmax(-1).amax(-1).sum()
    for gradient in torch.autograd.grad(best, embedded, allow_unused=True):
        if gradient is None or gradient.dim() != 3 or len(allowed) not in gradient.shape[:2]:
            continue
        if len(gradient) != len(allowed):  # XLNet's positions come before its rows
            gradient = gradient.transpose(0, 1)
        strength = gradient.float().norm(dim=-1)  # (B, T)
        outside = strength.clone()
        for row, places in zip(outside, allowed, strict=True):
            row[list(places)] = 0
        if outside.max() > 1e-6 * strength.max():
            return True
    return False


def _check_peft(model: torch.nn.Module) -> None:
    """Refuse PEFT's models that put trained vectors before each row."""
    config = getattr(model, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise ValueError(
            f"this is a {config.peft_type.value} model of PEFT, which puts vectors of its own "
            "before each row, and this loop would leave them out: use add_prompt or add_prefix of "
            "sft_lab.adapters, or train it with TRL's SFTTrainer (chapter 07)"
        )


def _draw_documents(examples: Sequence[Example], pad_token_id: int) -> tuple[list[int], list[int]]:
    """Two documents of LONG token ids each that occur in the first examples."""
    known = chain.from_iterable(example.input_ids for example in examples[:100])
    vocabulary = sorted({*known, pad_token_id})  # at least two, or both would be alike
    draw = random.Random(0)
    return draw.choices(vocabulary, k=LONG), draw.choices(vocabulary, k=LONG)


def _graded(document: list[int]) -> Example:
    return Example(document, [IGNORE_INDEX, *document[1:]])


def _own_scores(model: torch.nn.Module, document: list[int]) -> torch.Tensor:
    """What the whole model makes of a document alone: (T, V), float32."""
    scores = model(input_ids=_tensor(model, document), use_cache=False).logits
    if scores.shape[:2] != (1, len(document)):
        raise ValueError(f"scores of shape {tuple(scores.shape)} for {len(document)} tokens")
    return scores[0].float()


@contextlib.contextmanager
def _refusing(what: str, advice: str) -> Iterator[None]:
    """Whatever a model raises inside, it says in its own words; the refusal is one line."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.160}"
        raise ValueError(f"{what} ({reason}): {advice}") from error


def _differ(one: torch.Tensor, other: torch.Tensor, model: torch.nn.Module) -> bool:
    """Whether two (N, V) scores are further apart than rounding explains.

    At most positions: in half precision, a tie in a router can send one token to another expert.
    """
    # as log-probabilities, where adding a constant changes nothing; no chance at all may be -inf
    one, other = (scores.float().log_softmax(-1).clamp(min=-30) for scores in (one, other))
    spread = (other - other.mean(-1, keepdim=True)).norm(dim=-1).clamp(min=1e-6)
    return not ((one - other).norm(dim=-1) / spread).median() <= _tolerance(model)


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


def _name(model: torch.nn.Module) -> str:
    return type(model).__name__
