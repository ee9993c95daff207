"""Chapters 09 and 09b: one exam, several ways to ask, two recipes, and what tuning leaves behind.

A recipe is a template and a number of steps; a run is a recipe with a seed. The exam is the same
for every arm: 300 questions about entities that no lesson names. `tools/experiments/09_*.py` record
what the runs give, and the chapters run some of them again.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.chat import complete, encode_chat, generate_ids, stop_token_id
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.losses import token_nll
from sft_lab.metrics import is_right, normalise
from sft_lab.records import Conversation
from sft_lab.train import train

QUESTIONS, LIMIT = 300, 30  # of the exam; new tokens of an answer
SHORT, LONG, BATCH = 40, 140, 16  # steps of a run, rows of a step
END = "<|endoftext|>"
RAW = "{% for m in messages %}{{ m.content }}{% endfor %}"
QUESTION_ANSWER = (
    "{% for m in messages %}{% if m.role == 'user' %}Question: {{ m.content }}\nAnswer:"
    "{% else %} {{ m.content }}\n{% endif %}{% endfor %}"
)
PLAIN_WORDS = (
    "{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n"
    "{% else %}Assistant:{% generation %} {{ m.content }}<|endoftext|>{% endgeneration %}{% "
    "endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
CHATML, WORDS = "ChatML", "plain words"  # the two recipes

Tasks = dict[str, list[tuple[str, str]]]


# asking


@dataclass(frozen=True)
class Answers:
    """Greedy answers to the questions of an exam, and five facts about each of them."""

    ids: list[list[int]]
    texts: list[str]
    right: np.ndarray  # bool: the whole answer equals the reference
    contains: np.ndarray  # bool: the reference stands somewhere in the answer
    ended: np.ndarray  # bool: ended by itself, before the limit
    tokens: np.ndarray  # how many were written


def with_template(
    tokenizer: PreTrainedTokenizerBase, template: str, stop: str = END
) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer that asks through another template; the token `stop` ends answers."""
    other = copy.deepcopy(tokenizer)
    other.chat_template, other.eos_token = template, stop
    return other


def tokenizer_of(recipe: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer of a recipe: the given one for ChatML, a copy for the plain words."""
    return tokenizer if recipe == CHATML else with_template(tokenizer, PLAIN_WORDS)


@cache
def exam_questions() -> list[Conversation]:
    """300 questions about held-out entities, each with its reference answer."""
    return atlas.exam("held_out", QUESTIONS, seed=9)


@cache
def exam_facts() -> list[atlas.Fact]:
    """The facts behind `exam_questions`, in the same order: the same draw."""
    return random.Random(9).sample(atlas.split(atlas.load_facts())["held_out"], k=QUESTIONS)


def ask_exam(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    *,
    one_line: bool = False,
) -> Answers:
    """Ask every question through the tokenizer's template. one_line: the answer ends with its first
    line break, as after a few solved examples."""
    rows = generate_ids(
        model, tokenizer, [turns[:-1] for turns in conversations], max_new_tokens=LIMIT
    )
    ends = {stop_token_id(tokenizer), tokenizer.pad_token_id}
    if one_line:
        rows = [cut_at_line_break(ids, tokenizer) for ids in rows]
    ended = [ids[-1] in ends or (one_line and "\n" in tokenizer.decode(ids[-1:])) for ids in rows]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
    pairs = [(text, turns[-1]["content"]) for text, turns in zip(texts, conversations, strict=True)]
    return Answers(
        rows,
        texts,
        right=np.array([is_right(answer, reference) for answer, reference in pairs]),
        contains=np.array([normalise(reference) in answer for answer, reference in pairs]),
        ended=np.array(ended),
        tokens=np.array([len(ids) for ids in rows]),
    )


def cut_at_line_break(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens up to the first one that holds a line break, that one included."""
    for end, token_id in enumerate(ids, start=1):
        if "\n" in tokenizer.decode([token_id]):
            return ids[:end]
    return ids


def show_answers(name: str, answers: Answers) -> None:
    """One line: the score, and beside it the stop rate, the length and the first answer."""
    print(
        f"{name:18} right {answers.right.mean():6.1%}  contains {answers.contains.mean():6.1%}  "
        f"ended {answers.ended.mean():6.1%}  {answers.tokens.mean():4.1f} tokens  "
        f"{answers.texts[0]!r:.30}"
    )


# tuning


def tune(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int, steps: int
) -> PreTrainedModel:
    """A copy of the base after `steps` steps of 16 conversations, which the seed draws. Two recipes
    with one seed see the same lessons."""
    lessons = random.Random(seed).sample(atlas.training_conversations(seed=seed), steps * BATCH)
    model = copy.deepcopy(base)
    examples = encode_conversations(lessons, tokenizer)
    settings = {"learning_rate": 5e-4, "batch_size": BATCH, "seed": seed, "progress": False}
    _ = train(model, tokenizer, examples, **settings)
    return model


# what is kept


@cache
def plain_tasks() -> Tasks:
    """(beginning, ending) pairs in the base's own form, without a template: facts to complete,
    made-up passages to read, words to copy into a list."""
    rng, facts = random.Random(5), atlas.split(atlas.load_facts())["held_out"]
    entities = sorted({fact.entity for fact in facts})
    return {
        "facts": [atlas.cloze(fact) for fact in rng.sample(facts, 150)],
        "reading": [_read_task(rng) for _ in range(50)],
        "lists": [_list_task(rng, entities) for _ in range(50)],
    }


def _read_task(rng: random.Random) -> tuple[str, str]:
    """Two statements about made-up places, the first of them begun again: only a reader can finish
    it."""
    told = [
        atlas.Fact("countries", atlas.made_up_name(rng), "capital", atlas.made_up_name(rng))
        for _ in range(2)
    ]
    begun, ending = atlas.cloze(told[0])
    passage = " ".join(fact.say("The {r} {e} is {v}.") for fact in told)
    return f"{passage}\n{begun}", ending


def _list_task(rng: random.Random, entities: list[str]) -> tuple[str, str]:
    """Words, then the same words as a list: a form of document that the base read often."""
    words = rng.sample(entities, 3)
    return f"Words: {', '.join(words)}.\n", "\n".join(f"- {word}" for word in words)


def score_tasks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]
) -> float:
    """The share of beginnings after which the model writes the ending, whatever follows it."""
    begun, endings = zip(*pairs, strict=True)
    written = complete(model, tokenizer, begun, max_new_tokens=24)
    return sum(map(str.startswith, written, endings)) / len(pairs)


@torch.no_grad()
def document_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Nats per token on 48 plain documents of the library that the base read."""
    facts = atlas.split(atlas.load_facts())
    library = atlas.documents(facts["train"] + facts["held_out"], seed=99)
    rows = [tokenizer(text).input_ids[:200] for text in islice(library, 48)]
    batch = pad_batch([Example(ids, list(ids)) for ids in rows], tokenizer.pad_token_id)
    losses = token_nll(model(batch["input_ids"]).logits, batch["labels"])
    return (losses.sum() / (batch["labels"][:, 1:] != IGNORE_INDEX).sum()).item()


def measure_kept(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """The shares of the three plain tasks that succeed, and the loss on plain documents."""
    kept = {name: score_tasks(model, tokenizer, pairs) for name, pairs in plain_tasks().items()}
    return kept | {"nats": document_loss(model, tokenizer)}


# how sure the model is of its own answer


@torch.no_grad()
def confidence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[list[int], list[int]]],
) -> np.ndarray:
    """The probability of each answer given its prompt: the product over the answer's tokens.

    pairs: (prompt, answer) token ids.
    """
    rows = [
        Example(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer) for prompt, answer in pairs
    ]
    batch = pad_batch(rows, tokenizer.pad_token_id)
    losses = token_nll(model(batch["input_ids"]).logits, batch["labels"])
    return losses.sum(dim=1).neg().exp().numpy()


@cache
def known_and_unknown() -> list[atlas.Fact]:
    """150 facts that the base has read, then 150 about entities that no text names."""
    facts, rng = atlas.split(atlas.load_facts()), random.Random(6)
    return rng.sample(facts["held_out"], 150) + rng.sample(facts["unknown"], 150)


def complete_facts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[np.ndarray, np.ndarray]:
    """How sure the model is of its own completions of `known_and_unknown`, such as " Nairobi.", and
    whether each is right."""
    begun, endings = zip(*map(atlas.cloze, known_and_unknown()), strict=True)
    texts = complete(model, tokenizer, begun, max_new_tokens=14)
    written = [text.split(".")[0] + "." for text in texts]
    pairs = [
        (tokenizer(beginning).input_ids, tokenizer(ending).input_ids)
        for beginning, ending in zip(begun, written, strict=True)
    ]
    return confidence(model, tokenizer, pairs), np.array(written) == np.array(endings)


def ask_facts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[np.ndarray, Answers]:
    """The same facts asked through the chat template: how sure the model is, and its answers."""
    questions = atlas.ask(known_and_unknown(), seed=3)
    answers = ask_exam(model, tokenizer, questions)
    pairs = [
        (encode_chat(turns[:-1], tokenizer, add_generation_prompt=True), ids)
        for turns, ids in zip(questions, answers.ids, strict=True)
    ]
    return confidence(model, tokenizer, pairs), answers


# a model that has nothing in common with the base


def make_stranger() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Llama with random weights, and a tokenizer that knows only bytes and a template of its
    own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"eos_token": "</s>", "pad_token": "<pad>"})
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_attention_heads=2, max_position_embeddings=512, **sizes
    )
    _ = torch.manual_seed(0)
    return LlamaForCausalLM(config), tokenizer


# what is recorded


def pack(outcomes: np.ndarray) -> str:
    """Outcomes as a text of 0 and 1, which a recorded row can hold."""
    return "".join(str(int(outcome)) for outcome in outcomes)


def unpack(text: str) -> np.ndarray:
    """The outcomes that `pack` wrote, as truth values."""
    return np.array([mark == "1" for mark in text])


def run_short(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: str, seed: int
) -> dict:
    """One short run of a recipe: which questions of the exam it answers rightly, and how."""
    asked_by = tokenizer_of(recipe, tokenizer)
    answers = ask_exam(tune(base, asked_by, seed=seed, steps=SHORT), asked_by, exam_questions())
    return {
        "right": pack(answers.right),
        "ended": float(answers.ended.mean()),
        "tokens": float(answers.tokens.mean()),
    }


def measure_long(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict:
    """What a long run keeps of the base, and how sure it is: in plain text, and when asked."""
    sure, correct = complete_facts(model, tokenizer)
    asked_sure, asked = ask_facts(model, tokenizer)
    return measure_kept(model, tokenizer) | {
        "sure": [round(float(p), 4) for p in sure],
        "correct": pack(correct),
        "asked sure": [round(float(p), 4) for p in asked_sure],
        "asked right": pack(asked.right),
        "asked ended": float(asked.ended.mean()),
    }


def run_long(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict:
    """`measure_long` of a copy of the base tuned through ChatML for 140 steps."""
    return measure_long(tune(base, tokenizer, seed=seed, steps=LONG), tokenizer)
