"""Chapter 00's runs: a training that is looked at on its way, and a form of answer that the reader
invents."""

import copy
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.chat import (
    complete,
    decode_response,
    generate_ids,
    generate_responses,
    stop_token_id,
)
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversation, encode_conversations
from sft_lab.records import Conversation
from sft_lab.train import train
from sft_lab.undisturbed import undisturbed

LONGEST = 40  # tokens of an answer; the right ones are shorter
LESSONS, ASKED = 400, 50  # of a form of answer: examples tuned on, questions asked afterwards


@dataclass(frozen=True)
class Moment:
    """What a model says after some steps of training, one entry a question.

    answers: the text it writes. stopped: whether it wrote the stop token by itself. right: whether
    the answer is the wanted one, and ends there. p_stop: probability of the stop token behind the
    wanted answer.
    """

    step: int
    answers: list[str]
    stopped: list[bool]
    right: list[bool]
    p_stop: list[float]


def take_moment(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    step: int,
) -> Moment:
    """Ask the questions of the conversations, each of which ends with the wanted answer; the model
    is left as it was."""
    with undisturbed(model):
        answers, stopped, right = ask(model, tokenizer, conversations)
        p_stop = [stop_probability(model, tokenizer, turns) for turns in conversations]
    return Moment(step, answers, stopped, right, p_stop)


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
) -> tuple[list[str], list[bool], list[bool]]:
    """What the model answers to each question, whether it stopped by itself, and whether the answer
    is the wanted one and ends there."""
    prompts = [turns[:-1] for turns in conversations]
    rows = generate_ids(model, tokenizer, prompts, max_new_tokens=LONGEST)
    answers = [decode_response(ids, tokenizer) for ids in rows]
    stopped = [ids[-1:] == [stop_token_id(tokenizer)] for ids in rows]
    right = [
        ended and answer == turns[-1]["content"]
        for ended, answer, turns in zip(stopped, answers, conversations, strict=True)
    ]
    return answers, stopped, right


def share_known(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact]
) -> float:
    """Share of the facts whose statement the model completes, with no question and no template."""
    beginnings, endings = zip(*map(atlas.cloze, facts), strict=True)
    written = complete(model, tokenizer, beginnings, max_new_tokens=16)
    completed = [text.startswith(end) for text, end in zip(written, endings, strict=True)]
    return sum(completed) / len(facts)


@torch.inference_mode()
def stop_probability(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, conversation: Conversation
) -> float:
    """Probability that the model stops behind the wanted answer, when it has read up to there."""
    input_ids = encode_conversation(conversation, tokenizer).input_ids
    stop = stop_token_id(tokenizer)
    # the last stop token of the conversation ends the answer; what stands before it is read
    end = max(place for place, token_id in enumerate(input_ids) if token_id == stop)
    row = torch.tensor([input_ids[:end]], device=model.device)
    return model(row).logits[0, -1].softmax(dim=-1)[stop].item()


@contextmanager
def looking(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    steps: Collection[int],
) -> Iterator[list[Moment]]:
    """Inside this block, look at the model after these steps of its optimizer: gives the list that
    its moments go into, the one before the first step first."""
    moments, done = [take_moment(model, tokenizer, conversations, 0)], 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        if done in steps:
            moments.append(take_moment(model, tokenizer, conversations, done))

    hook = register_optimizer_step_post_hook(count)
    try:
        yield moments
    finally:
        hook.remove()


def teach_form(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    form: Callable[[str], str],
    *,
    seed: int,
) -> list[tuple[str, str, str]]:
    """Tune a copy of `base` on LESSONS questions that are answered in a form, one pass; then ask
    about entities that no lesson named: (question, answer, wanted answer) of ASKED questions."""
    facts, rng = atlas.split(atlas.load_facts()), random.Random(seed)
    lessons = in_form(atlas.ask(rng.sample(facts["train"], LESSONS), seed=seed), form)
    exam = in_form(atlas.ask(rng.sample(facts["held_out"], ASKED), seed=seed + 1), form)
    model = copy.deepcopy(base)
    examples = encode_conversations(lessons, tokenizer)
    train(model, tokenizer, examples, learning_rate=1e-3, batch_size=8, seed=seed, progress=False)
    prompts = [turns[:-1] for turns in exam]
    answers = generate_responses(model, tokenizer, prompts, max_new_tokens=2 * LONGEST)
    return [
        (turns[0]["content"], answer, turns[-1]["content"])
        for turns, answer in zip(exam, answers, strict=True)
    ]


def in_form(
    conversations: Sequence[Conversation], form: Callable[[str], str]
) -> list[Conversation]:
    """The conversations, with each answer put into the form."""
    return [
        [*turns[:-1], {"role": "assistant", "content": form(turns[-1]["content"])}]
        for turns in conversations
    ]
