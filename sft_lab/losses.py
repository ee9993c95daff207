"""Station "score": the loss of the graded tokens, in nats: their negative log-likelihood (derived
in chapters 01 and 03), or another one of `token_losses` (chapter 12)."""

import inspect
import weakref

import torch
import torch.nn.functional as F

from sft_lab.examples import IGNORE_INDEX
from sft_lab.kernels.head import HeadLoss
from sft_lab.kernels.plain import is_plain
from sft_lab.token_losses import TokenLoss
from sft_lab.undisturbed import undisturbed

# Of every model asked so far: whether its output head is the last thing it computes.
_HEAD_IS_LAST: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()


def token_nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of every graded token, in nats; 0 where nothing is graded.

    logits: (B, T, V); labels: (B, T), IGNORE_INDEX where a token is not graded. Returns (B, T - 1):
    row t of the logits predicts token t + 1, so the last row of the logits and the first label have
    no partner.
    """
    _check_shapes(logits, labels)
    flat = F.cross_entropy(
        # float32: a softmax over a large vocabulary in half precision loses small probabilities
        logits[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )
    return flat.view(labels.shape[0], -1)


def response_loss(
    logits: torch.Tensor, labels: torch.Tensor, loss: TokenLoss | None = None
) -> torch.Tensor:
    """Mean negative log-likelihood of the graded tokens, in nats per token; with `loss`, the mean
    of that.

    logits: (B, T, V); labels: (B, T), IGNORE_INDEX where a token is not graded. Row t of the logits
    predicts token t + 1, so the last row and the first label are unused (derived in chapter 03).
    Raises ValueError when no label is left to grade: usually truncation cut the response away; and
    when all that are graded have weight 0.
    """
    graded = labels[:, 1:] != IGNORE_INDEX
    _check_any_graded(labels)
    if loss is None:
        return token_nll(logits, labels).sum() / graded.sum()
    _check_shapes(logits, labels)
    targets = labels[:, 1:][graded]
    divisor = loss.divisor(targets)
    if divisor == 0:
        raise ValueError(f"every one of the {len(targets)} graded tokens has weight 0")
    return loss.per_token(logits[:, :-1][graded], targets).sum() / divisor


def graded_logits(
    model: torch.nn.Module, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vocabulary scores at the graded positions alone: (N, V) logits and their (N,) target tokens.

    The vocabulary head is the widest layer of a small model, and most positions are prompt or
    padding. Leaving them out changes no loss. `batch` holds input_ids and labels, (B, T), padded on
    the right: with causal attention a padding token comes after everything that is graded, so no
    attention mask is needed. Packed rows (one row, several examples) bring position_ids, from which
    most architectures keep the examples apart (loop.probes asks). A model that changes its scores
    behind the head (a scale, a soft cap) is asked for its own scores.
    """
    graded, targets = _find_graded(batch)
    hidden = _graded_states(model, batch, graded)
    if hidden is None:
        return _own_logits(model, batch, graded), targets
    return model.get_output_embeddings()(hidden), targets


def graded_states(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """The decoder's last hidden states at the graded positions, (N, D), in the order of
    `graded_logits`: what the output head reads. None for a model whose scores are made of more than
    these."""
    return _graded_states(model, batch, _find_graded(batch)[0])


def graded_loss(
    model: torch.nn.Module,
    batch: dict[str, torch.Tensor],
    *,
    factor: float = 1.0,
    loss: TokenLoss | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`factor` times the summed loss of the graded tokens, in nats, and how many of them rank
    first; both 0-dim tensors. The loss is their NLL, or `loss`.

    The same loss as from `graded_logits`, whose (N, V) scores never exist in full: a vocabulary of
    151,936 entries makes them larger than the model. They are made SCORES_AT_ONCE at a time and
    turned into gradients at once, so give here, as `factor`, all that the loss is to be multiplied
    with (1 / graded tokens, a loss scale). It is not divided by the weights of `loss`: a step may
    be several batches (`TokenLoss.divisor`).
    """
    graded, targets = _find_graded(batch)
    hidden = _graded_states(model, batch, graded)
    if hidden is None:
        logits = _own_logits(model, batch, graded)
    else:
        head = model.get_output_embeddings()
        if is_plain(head, torch.nn.Linear) and head.bias is None:
            if loss is not None:
                loss.check_vocabulary(len(head.weight))
            return HeadLoss.apply(hidden, head.weight, targets, factor, loss)
        logits = head(hidden)  # all scores at once: an adapter on the head, a hook, a bias
    return summed_loss(logits, targets, factor=factor, loss=loss)


def summed_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    factor: float = 1.0,
    loss: TokenLoss | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `graded_loss` returns, of logits that are there already: (N, V), and their targets."""
    if loss is None:
        total = F.cross_entropy(logits.float(), targets, reduction="sum")
    else:
        total = loss.per_token(logits, targets).sum()
    return total * factor, (logits.argmax(-1) == targets).sum()


@torch.no_grad()
def head_is_last(
    model: torch.nn.Module, input_ids: torch.Tensor, own: torch.Tensor | None = None
) -> bool:
    """Whether the model's scores are what its output head makes of its decoder's last states, and
    nothing is done to them afterwards; found out by doing both on `input_ids`, (1, T). `own` is the
    model's own scores of them, (1, T, V), where they are known.

    Gemma 2 caps its scores, Granite and Cohere scale them: trained without that, they would learn
    for other scores than they answer with. The answer is kept for graded_logits and graded_loss.
    """
    with undisturbed(model):
        if own is None:
            own = model(input_ids=input_ids, use_cache=False).logits
        try:
            states = model.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state
            scores = model.get_output_embeddings()(states)
        except Exception:  # no such parts, or they do not fit together: then only the whole will do
            scores = None
    # the same weights in the same order, so hardly a bit may differ in any number format
    _HEAD_IS_LAST[model] = (
        scores is not None
        and scores.shape == own.shape
        and torch.allclose(scores.float(), own.float(), rtol=1e-3, atol=1e-5, equal_nan=True)
    )
    return _HEAD_IS_LAST[model]


def _check_shapes(logits: torch.Tensor, labels: torch.Tensor) -> None:
    if logits.shape[:2] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} differ in (B, T)"
        )


def _check_any_graded(labels: torch.Tensor) -> None:
    if not (labels[:, 1:] != IGNORE_INDEX).any():
        raise ValueError(
            f"no graded token in labels of shape {tuple(labels.shape)}: the mean of nothing is "
            "not a loss. Usually truncation cut the response away; check the examples with "
            "sft_lab.labels.check_labels"
        )


def _find_graded(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which positions predict a graded token, (B, T - 1) bool, and these (N,) tokens."""
    # a mask that rises from 0 to 1: padding stands before the first token
    if "attention_mask" in batch and (batch["attention_mask"].diff(dim=1) > 0).any():
        raise ValueError(
            "this batch is padded on the left; pad on the right (sft_lab.batches.pad_batch)"
        )
    # position t predicts token t + 1: the last position and the first label have no partner
    targets = batch["labels"][:, 1:]
    graded = targets != IGNORE_INDEX
    return graded, targets[graded]


def _graded_states(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], graded: torch.Tensor
) -> torch.Tensor | None:
    """The decoder's last hidden states at the graded positions, (N, D); None for a model whose
    scores are made of more than these."""
    # imports transformers' model code: not for a chapter that only needs a loss
    from sft_lab.kernels import short_rows

    # what is written out there is a class whose head is last, so it is not asked first
    if _HEAD_IS_LAST.get(model, True) and short_rows.handles(model, batch):
        return short_rows.graded_states(model, batch["input_ids"][:, :-1], graded)
    if model not in _HEAD_IS_LAST:
        head_is_last(model, batch["input_ids"][:1, :8])
    if not _HEAD_IS_LAST[model]:
        return None
    return model.get_decoder()(**_inputs(batch)).last_hidden_state[:, :-1][graded]


def _own_logits(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], graded: torch.Tensor
) -> torch.Tensor:
    """The whole model's scores at the graded positions, (N, V)."""
    inputs = _inputs(batch)
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return model(**inputs).logits[:, :-1][graded]
    # a position that no row grades needs no scores: they are the largest tensor of a step
    kept = graded.any(dim=0).nonzero()[:, 0]
    return model(**inputs, logits_to_keep=kept).logits[graded[:, kept]]


def _inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | bool]:
    """What a model reads of a batch. No mask: nothing that is graded sees the padding behind it."""
    inputs = {name: batch[name] for name in ("input_ids", "position_ids") if name in batch}
    return {**inputs, "use_cache": False}
