"""Station "judge": probes of a run. Each asks one question whose healthy answer is known beforehand
(built one by one in chapter 18b).

A probe of the data wants the examples as the run gets them. A probe of a model wants examples that
keep the label contract (`sft_lab.labels`), or it would measure the mistake with the mistake. A
probe of a function (an evaluation, a step, a way to answer) is given that function: the one the run
uses. Models are scored a row at a time, without padding, in evaluation mode, and left as they were.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import render
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.lora import merge_lora
from sft_lab.records import Conversation
from sft_lab.rendering import stop_token_id
from sft_lab.undisturbed import undisturbed

SIZES = (1, 4, 16)  # batch sizes at which an evaluation is compared with itself
PROBED = (2, 24)  # rows and tokens with which two models are compared
WINDOW = 4  # steps before and after a resume that are compared

Span = tuple[int, int]


# before the run: no model


def graded_share(examples: Sequence[Example]) -> float:
    """Graded tokens by all tokens, from 0 to 1. 1.0 says that the prompt is trained too, 0.0 that
    nothing is."""
    _need(examples)
    graded = sum(label != IGNORE_INDEX for example in examples for label in example.labels)
    return graded / sum(len(example.input_ids) for example in examples)


def graded_spans(example: Example) -> list[Span]:
    """First and last + 1 position of every run of graded tokens."""
    spans, start = [], None
    for t, label in enumerate([*example.labels, IGNORE_INDEX]):
        if label != IGNORE_INDEX and start is None:
            start = t
        elif label == IGNORE_INDEX and start is not None:
            spans.append((start, t))
            start = None
    return spans


def graded_text(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What is trained, as text with its control tokens: one text for each run of graded tokens."""
    return [tokenizer.decode(example.labels[a:b]) for a, b in graded_spans(example)]


def prefix_mismatches(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """The numbers of the rows, from 0, that are taught otherwise than they are asked: for some
    answer, the rendered prompt is not how the rendered conversation begins."""
    found = []
    for row, turns in enumerate(conversations):
        whole = render(turns, tokenizer)
        answers = [k for k, turn in enumerate(turns) if k and turn["role"] == "assistant"]
        prompts = (render(turns[:k], tokenizer, add_generation_prompt=True) for k in answers)
        if not all(map(whole.startswith, prompts)):
            found.append(row)
    return found


# what a model has learned, by examples with right labels


def accuracy_by_position(model: PreTrainedModel, examples: Sequence[Example]) -> list[float]:
    """Share of tokens that rank first given all before them: at answer position 0, 1, 2, …, over
    the answers that are so long, and as the last entry at the last graded token, the stop token."""
    places: list[list[bool]] = []
    stops: list[bool] = []
    for example, scores in _score(model, examples):
        for start, end in graded_spans(example):
            start = max(start, 1)  # nothing predicts the first token of a row
            wanted = torch.tensor(example.input_ids[start:end], device=scores.device)
            right = (scores[start - 1 : end - 1].argmax(-1) == wanted).tolist()
            places += [[] for _ in range(len(right) - 1 - len(places))]
            for place, hit in zip(places, right[:-1], strict=False):
                place.append(hit)
            stops += right[-1:]
    _need(stops, "a graded token")
    return [sum(hits) / len(hits) for hits in (*places, stops)]


def stop_probability(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> float:
    """Mean probability of the stop token where an answer ends: before its stop token, if that is
    graded, else behind the last graded token."""
    stop, found = stop_token_id(tokenizer), []
    for example, scores in _score(model, examples):
        for _, end in graded_spans(example):
            behind = end - 1 if example.input_ids[end - 1] == stop else end
            if behind:  # nothing predicts the first token of a row
                found.append(scores[behind - 1].softmax(-1)[stop].item())
    _need(found, "the end of an answer")
    return sum(found) / len(found)


def shifted_accuracy(model: PreTrainedModel, examples: Sequence[Example]) -> dict[int, float]:
    """Share of graded tokens that rank first one position before them, {1: …}, where they are to be
    predicted, and two positions before them, {2: …}."""
    found: dict[int, list[bool]] = {1: [], 2: []}
    for example, scores in _score(model, examples):
        best = scores.argmax(-1).tolist()
        for ahead, hits in found.items():
            pairs = zip(best, example.labels[ahead:], strict=False)
            hits += [guess == label for guess, label in pairs if label != IGNORE_INDEX]
    _need(found[2], "a graded token behind the second")
    return {ahead: sum(hits) / len(hits) for ahead, hits in found.items()}


# whether two ways to the same number agree


def batch_difference(
    loss_of: Callable[[Sequence[Example], int], float],
    examples: Sequence[Example],
    *,
    sizes: Sequence[int] = SIZES,
) -> float:
    """Largest minus smallest loss of one evaluation, loss_of(examples, batch_size), at several
    batch sizes. The examples should differ in length, or there is no padding to be counted."""
    _need(examples)
    losses = [float(loss_of(examples, size)) for size in sizes]
    return max(losses) - min(losses)


def accumulation_difference(
    gradient_of: Callable[[Sequence[Sequence[Example]]], Iterable[torch.Tensor]],
    examples: Sequence[Example],
) -> float:
    """How far the gradient of a step moves when its examples come one by one: |one by one - all at
    once| / |all at once|.

    gradient_of(batches): the gradient, a tensor for each parameter, of one step that takes these
    batches of examples. Answers of different lengths show the most.
    """
    _need(examples)
    whole, parts = (
        torch.cat([part.detach().flatten().clone() for part in gradient_of(batches)])
        for batches in ([list(examples)], [[example] for example in examples])
    )
    return ((parts - whole).norm() / whole.norm()).item()


def eval_difference(evaluate: Callable[[], float]) -> float:
    """|difference| of two evaluations of one model on the same examples: 0 unless something draws
    random numbers, such as dropout that is still on."""
    return abs(float(evaluate()) - float(evaluate()))


def batch_generation_difference(
    ask: Callable[[list[str]], Sequence[str]], prompts: Sequence[str]
) -> float:
    """Share of prompts that are answered otherwise alone than in one batch; ask: prompts ->
    answers, greedy. Prompts of different lengths need padding."""
    _need(prompts, "a prompt")
    together = ask(list(prompts))
    alone = [ask([prompt])[0] for prompt in prompts]
    return sum(one != other for one, other in zip(together, alone, strict=True)) / len(prompts)


# what became of the weights


def largest_b(model: PreTrainedModel) -> float:
    """Largest |entry| of the matrices B of LoRA, this course's or PEFT's. 0 says that the adapter
    does nothing: B begins at 0."""
    sizes = [
        weight.detach().abs().max().item()
        for name, weight in model.named_parameters()
        if ".lora_B." in name
    ]
    _need(sizes, "a LoRA layer in the model")
    return max(sizes)


def logit_difference(one: PreTrainedModel, other: PreTrainedModel) -> float:
    """Largest |difference| of the logits of two models on the same random tokens."""
    rows, length = PROBED
    vocabulary = min(len(m.get_input_embeddings().weight) for m in (one, other))
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (rows, length), generator=draw)
    scores = []
    for model in (one, other):
        with undisturbed(model), torch.no_grad():
            logits = model(input_ids=ids.to(model.device)).logits
        scores.append(logits[..., :vocabulary].float().cpu())
    return (scores[0] - scores[1]).abs().max().item()


def reload_difference(
    model: PreTrainedModel, folder: Path | str, load: Callable[[Path | str], PreTrainedModel]
) -> float:
    """Largest |difference| of the logits of the trained `model` and of what `load` makes of the
    folder in which it was saved."""
    return logit_difference(model, load(folder))


def merge_difference(
    model: PreTrainedModel,
    merge: Callable[[PreTrainedModel], PreTrainedModel] = merge_lora,
) -> float:
    """Largest |difference| of the logits of a model with its adapter, and of a copy into which
    `merge` added the adapter."""
    return logit_difference(model, merge(copy.deepcopy(model)))


def resume_jump(losses: Sequence[float], step: int, *, window: int = WINDOW) -> float:
    """Mean loss of the `window` steps behind `step` (counted from 1, the last before the
    interruption) minus the mean of the `window` steps up to it, in nats."""
    before, after = losses[max(0, step - window) : step], losses[step : step + window]
    if not len(before) or not len(after):
        raise ValueError(
            f"{len(losses)} losses and a resume behind step {step}: steps on both sides are needed"
        )
    return sum(after) / len(after) - sum(before) / len(before)


def resume_difference(losses: Sequence[float], resumed: Sequence[float]) -> float:
    """Largest |difference| of the losses, step by step, of a run in one piece and of one that was
    interrupted and resumed. Both have the same steps."""
    _need(losses, "a loss")
    return max(abs(one - other) for one, other in zip(losses, resumed, strict=True))


@torch.no_grad()
def _score(
    model: PreTrainedModel, examples: Sequence[Example]
) -> Iterator[tuple[Example, torch.Tensor]]:
    """Every example with the model's scores of it, (T, V); row t scores token t + 1."""
    _need(examples)
    with undisturbed(model):
        for example in examples:
            ids = torch.tensor([example.input_ids], device=model.device)
            yield example, model(input_ids=ids, use_cache=False).logits[0].float()


def _need(found: Sequence, what: str = "an example") -> None:
    if not len(found):
        raise ValueError(f"nothing to probe: {what} is needed, and there is none")
