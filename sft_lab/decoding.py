"""Station "speak": between the logits of a step and the token that is taken.

A processor is called as transformers calls its own: `processor(input_ids, scores)` with the tokens
so far, (B, T), and the logits of the next one, (B, V); it returns new logits and leaves those given
as they are. A forbidden token gets -inf. `generate_responses(…, processors=[TopK(5)])` applies them
in their order. Derived in chapter 14b; each equals transformers' own (tests/test_decoding.py).

Two searches for one prompt follow: beams, and contrastive search. Both are slow and readable.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sft_lab.arguments import SettingError, real_number, whole_number

NEVER = float("-inf")


# how flat, and how many: what the distribution alone decides


@dataclass(frozen=True)
class Temperature:
    """Logits divided by the temperature: below 1 the likeliest tokens gain, above 1 the others."""

    temperature: float

    def __post_init__(self) -> None:
        real_number("temperature", self.temperature, above=0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores / self.temperature


@dataclass(frozen=True)
class TopK:
    """The k likeliest tokens; all that equal the last of them stay as well."""

    k: int

    def __post_init__(self) -> None:
        whole_number("k", self.k)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        last_kept = scores.topk(min(self.k, scores.shape[-1])).values[..., -1:]
        return scores.masked_fill(scores < last_kept, NEVER)


@dataclass(frozen=True)
class TopP:
    """The likeliest tokens until their probabilities reach p; the token that crosses p stays.

    Also called nucleus sampling. Source: Holtzman et al. 2019, arXiv 1904.09751.
    """

    p: float

    def __post_init__(self) -> None:
        real_number("p", self.p, above=0, most=1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.p == 1:
            return scores
        best_first, order = scores.sort(dim=-1, descending=True)
        probabilities = best_first.softmax(dim=-1)
        likelier = probabilities.cumsum(dim=-1) - probabilities  # what stands before each token
        dropped = (likelier >= self.p).scatter(-1, order, likelier >= self.p)
        return scores.masked_fill(dropped, NEVER)


@dataclass(frozen=True)
class MinP:
    """Tokens at least min_p times as likely as the likeliest one. Source: arXiv 2407.01082; found
    no better than top-p at equal tuning by arXiv 2506.13681."""

    min_p: float

    def __post_init__(self) -> None:
        real_number("min_p", self.min_p, least=0, most=1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        probabilities = scores.softmax(dim=-1)
        least = self.min_p * probabilities.amax(dim=-1, keepdim=True)
        return scores.masked_fill(probabilities < least, NEVER)


@dataclass(frozen=True)
class Typical:
    """Tokens whose surprise is nearest to the mean surprise (the entropy), until their
    probabilities reach `mass`. The likeliest token may be among the dropped ones."""

    mass: float

    def __post_init__(self) -> None:
        real_number("mass", self.mass, above=0, below=1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        log_probs = scores.log_softmax(dim=-1)
        probabilities = log_probs.exp()
        entropy = -(probabilities * log_probs).nansum(dim=-1, keepdim=True)
        distance, order = (-log_probs - entropy).abs().sort(dim=-1)
        reached = probabilities.gather(-1, order).cumsum(dim=-1)
        last = (reached < self.mass).sum(dim=-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        dropped = distance > distance.gather(-1, last)
        return scores.masked_fill(dropped.scatter(-1, order, dropped), NEVER)


# what was said already


@dataclass
class History:
    """Base of the processors that look back. prompt: whether the prompt's tokens count as said.

    Padding never counts, once `begin` has told which tokens are the prompt's: `generate_responses`
    calls it before each batch. Without it every token counts, as in transformers.
    """

    prompt: bool = field(default=True, kw_only=True)
    attention_mask: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def begin(self, attention_mask: Tensor) -> None:
        """The prompts of a batch, padded on the left: (B, width), 1 where a token stands."""
        self.attention_mask = attention_mask

    def said(self, input_ids: Tensor) -> Tensor:
        """Which of the tokens (B, T) count as said, (B, T). SettingError when the prompt is to be
        left out and nobody told where it ends."""
        counted = torch.ones_like(input_ids, dtype=torch.bool)
        if self.attention_mask is None:
            if self.prompt:
                return counted
            raise SettingError(
                f"{self} does not know where the prompt ends: call begin(attention_mask) first; "
                "generate_responses does"
            )
        # beam search has several rows for each prompt
        mask = self.attention_mask.bool().to(input_ids.device)
        mask = mask.repeat_interleave(len(input_ids) // len(mask), dim=0)
        counted[:, : mask.shape[1]] = mask if self.prompt else False
        return counted

    def count(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """How often each token of the vocabulary was said, (B, V)."""
        return torch.zeros_like(scores).scatter_add(
            1, input_ids, self.said(input_ids).to(scores.dtype)
        )


@dataclass
class RepetitionPenalty(History):
    """A token that was said: its logit divided by the penalty if positive, multiplied if negative.

    Once for each token, however often it was said. How strong it is depends on a constant added to
    all logits, which changes no probability. Source: Keskar et al. 2019, arXiv 1909.05858.
    """

    penalty: float

    def __post_init__(self) -> None:
        real_number("penalty", self.penalty, above=0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        punished = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(self.count(input_ids, scores) > 0, punished, scores)


@dataclass
class FrequencyPenalty(History):
    """`penalty` less for every time that a token was said, the prompt left out."""

    penalty: float
    prompt: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        real_number("penalty", self.penalty)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores - self.penalty * self.count(input_ids, scores)


@dataclass
class PresencePenalty(History):
    """`penalty` less for a token that was said, once or often, the prompt left out."""

    penalty: float
    prompt: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        real_number("penalty", self.penalty)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores - self.penalty * (self.count(input_ids, scores) > 0).to(scores.dtype)


@dataclass
class NoRepeatNgram(History):
    """No n tokens in a row that stood there in the same order before."""

    size: int

    def __post_init__(self) -> None:
        whole_number("size", self.size)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        length = input_ids.shape[1]
        if length < self.size:
            return scores
        ending = input_ids[:, length + 1 - self.size :]  # the last size - 1 tokens
        grams = input_ids.unfold(1, self.size, 1)  # (B, grams, size)
        same = (grams[..., :-1] == ending[:, None]).all(dim=-1)
        same &= self.said(input_ids).unfold(1, self.size, 1).all(dim=-1)
        banned = torch.zeros_like(scores).scatter_add(1, grams[..., -1], same.to(scores.dtype))
        return scores.masked_fill(banned > 0, NEVER)


# searches


class Found(NamedTuple):
    """What a search found: the new tokens, and their score."""

    ids: list[int]
    score: float


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    prompt_ids: list[int],
    *,
    beams: int,
    max_new_tokens: int,
    stop_ids: Collection[int],
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> Found:
    """The best of what `beams` beginnings, kept side by side, led to.

    The score is the sum of the new tokens' log-probabilities, divided by their number to the power
    of `length_penalty` (0: the sum; 1: the mean; the stop token counts, the prompt does not).
    Ends when `beams` answers are finished and (early_stopping) at once, or else when the best
    beginning, scored at its present length, is no better than the worst of them. That bound is a
    guess for a positive length_penalty: a longer answer may still win. As in transformers, where
    the score was once divided by the length with the prompt (issue 26624; PR 20901 on the bound).
    ValueError when the vocabulary is too small to fill the beams in the first step.
    """
    width = (1 + len(stop_ids)) * beams  # so many may not all be finished
    if width > model.config.vocab_size:
        raise ValueError(
            f"{beams} beams need a vocabulary of {width}, not {model.config.vocab_size}"
        )
    running, finished = [Found([], 0.0)], []
    for length in range(1, max_new_tokens + 1):
        candidates = _extend(model, prompt_ids, running, width)
        running = []
        for rank, (ids, score) in enumerate(candidates):
            is_done = ids[-1] in stop_ids or length == max_new_tokens
            if is_done and rank < beams:
                finished.append(Found(ids, score / length**length_penalty))
            elif not is_done and len(running) < beams:
                running.append(Found(ids, score))
        finished = sorted(finished, key=lambda found: -found.score)[:beams]
        if not running or (len(finished) == beams and early_stopping):
            break
        bound = running[0].score / length**length_penalty
        if len(finished) == beams and bound <= finished[-1].score:
            break
    return finished[0]


def _extend(
    model: PreTrainedModel, prompt_ids: list[int], running: list[Found], width: int
) -> list[Found]:
    """The `width` best ways to add one token to one of the beginnings, the best first."""
    rows = torch.tensor([prompt_ids + found.ids for found in running], device=model.device)
    log_probs = model(input_ids=rows).logits[:, -1].float().log_softmax(dim=-1)
    totals = log_probs + log_probs.new_tensor([[found.score] for found in running])
    best = totals.flatten().topk(width)
    vocabulary = log_probs.shape[1]
    return [
        Found([*running[place // vocabulary].ids, place % vocabulary], total)
        for total, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


@torch.inference_mode()
def contrastive_search(
    model: PreTrainedModel,
    prompt_ids: list[int],
    *,
    k: int = 4,
    alpha: float = 0.6,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
) -> list[int]:
    """New tokens, each the best of the k likeliest by (1 - alpha) · probability - alpha · echo.

    A candidate's echo is the largest cosine between its hidden state (last layer) and that of any
    token before it: a candidate that leads back to what was said looks like it. Source: Su et al.
    2022, arXiv 2210.14140, for k 4 and alpha 0.6 on models without training for it.
    """
    whole_number("k", k)
    real_number("alpha", alpha, least=0, most=1)
    ids = list(prompt_ids)
    for _ in range(max_new_tokens):
        row = torch.tensor([ids], device=model.device)
        best = model(input_ids=row).logits[0, -1].float().softmax(dim=-1).topk(k)
        rows = torch.cat([row.repeat(k, 1), best.indices[:, None]], dim=1)
        states = model(input_ids=rows, output_hidden_states=True).hidden_states[-1].float()
        states = torch.nn.functional.normalize(states, dim=-1)  # (k, T + 1, D)
        echo = (states[:, :-1] @ states[:, -1:].mT).squeeze(-1).amax(dim=1)
        chosen = ((1 - alpha) * best.values - alpha * echo).argmax()
        ids.append(int(best.indices[chosen]))
        if ids[-1] in stop_ids:
            break
    return ids[len(prompt_ids) :]
