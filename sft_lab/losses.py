"""Station "score": negative log-likelihood of the graded tokens, in nats (derived in chapters 01
and 03)."""

import torch
import torch.nn.functional as F

from sft_lab.examples import IGNORE_INDEX
from sft_lab.kernels.head import HeadNLL
from sft_lab.kernels.plain import is_plain


def token_nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of every graded token, in nats; 0 where nothing is graded.

    logits: (B, T, V); labels: (B, T), IGNORE_INDEX where a token is not graded. Returns (B, T - 1):
    row t of the logits predicts token t + 1, so the last row of the logits and the first label have
    no partner.
    """
    if logits.shape[:2] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} differ in (B, T)"
        )
    flat = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )
    return flat.view(labels.shape[0], -1)


def response_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the graded tokens, in nats per token.

    logits: (B, T, V); labels: (B, T), IGNORE_INDEX where a token is not graded. Row t of the logits
    predicts token t + 1, so the last row and the first label are unused (derived in chapter 03).
    Raises ValueError when no label is left to grade: usually truncation cut the response away.
    """
    graded = (labels[:, 1:] != IGNORE_INDEX).sum()
    if graded == 0:
        raise ValueError(
            f"no graded token in labels of shape {tuple(labels.shape)}: the mean of nothing is "
            "not a loss. Usually truncation cut the response away; check the examples with "
            "sft_lab.labels.check_labels"
        )
    return token_nll(logits, labels).sum() / graded


def graded_logits(
    model: torch.nn.Module, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vocabulary scores at the graded positions alone: (N, V) logits and their (N,) target tokens.

    The vocabulary head is the widest layer of a small model, and most positions are prompt or
    padding. Leaving them out changes no loss. `batch` holds input_ids and labels, (B, T), padded on
    the right: with causal attention a padding token comes after everything that is graded, so no
    attention mask is needed. Packed rows (one row, several examples) bring position_ids, from which
    transformers keeps the examples apart.
    """
    hidden, targets = _graded_states(model, batch)
    return model.get_output_embeddings()(hidden), targets


def graded_loss(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], *, factor: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """`factor` times the summed NLL of the graded tokens, in nats, and how many of them rank first;
    both 0-dim tensors.

    The same loss as from `graded_logits`, whose (N, V) scores never exist in full: a vocabulary of
    151,936 entries makes them larger than the model. They are made SCORES_AT_ONCE at a time and
    turned into gradients at once, so give here, as `factor`, all that the loss is to be multiplied
    with (1 / graded tokens, a loss scale).
    """
    hidden, targets = _graded_states(model, batch)
    head = model.get_output_embeddings()
    if is_plain(head, torch.nn.Linear) and head.bias is None:
        return HeadNLL.apply(hidden, head.weight, targets, factor)
    logits = head(hidden)
    loss = F.cross_entropy(logits.float(), targets, reduction="sum") * factor
    return loss, (logits.argmax(-1) == targets).sum()


def _graded_states(
    model: torch.nn.Module, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder's last hidden states at the graded positions, (N, D), and their (N,) target
    tokens."""
    config = model.config.get_text_config()
    for setting in (
        "final_logit_softcapping",
        "logit_scale",
        "logits_scaling",
        "lm_head_multiplier",
    ):
        if getattr(config, setting, None):
            raise ValueError(
                f"this model changes its logits after the head ({setting}); train it with "
                "model(labels=…)"
            )
    if "attention_mask" in batch and (batch["attention_mask"].diff(dim=1) > 0).any():
        raise ValueError(
            "this batch is padded on the left; pad on the right (sft_lab.batches.pad_batch)"
        )
    from sft_lab.kernels import (
        short_rows,  # imports transformers' model code: not for a chapter that only needs a loss
    )

    targets = batch["labels"][:, 1:]
    graded = targets != IGNORE_INDEX
    if short_rows.handles(model, batch):
        return short_rows.graded_states(model, batch["input_ids"][:, :-1], graded), targets[graded]
    inputs = {name: batch[name] for name in ("input_ids", "position_ids") if name in batch}
    hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state[:, :-1]
    return hidden[graded], targets[graded]
