"""Chapters 13 and 13b: an invented convention is learned, then another task, and what is left.

Task A is "convention": a question is answered with "Aye: The capital of Kenya is Nairobi. Over.".
Task B is "skills": sums and lists, answered plainly. Task C is "json": a fact as JSON. The base
answers none of them, and A is invented, so that nothing but A can have taught it. A training takes
two to three seconds on one thread.
"""

import copy
import functools
import random
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas, lessons
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_responses
from sft_lab.documents import PLAIN, documents
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.losses import graded_logits
from sft_lab.metrics import is_right, normalise
from sft_lab.rendering import encode_text
from sft_lab.train import evaluate, train

TASKS = ("convention", "skills", "json")
QUESTION = "What is the {r} {e}?"
CONVENTION = "Aye: {} Over."
RATE, BATCH, EPOCHS = 1e-3, 16, 2
LESSONS = {"convention": 800, "skills": 600, "json": 600}  # conversations of one training
ASKED = {"convention": 80, "skills": 60, "json": 40}  # questions of an exam
EXAM_SEED = 1300
KNOWN_FACTS, TEXTS = 200, 60

Conversations = atlas.Conversations


@functools.cache
def split_facts() -> dict[str, list[Fact]]:
    """The facts of Atlas in the parts of `atlas.split`."""
    return atlas.split(atlas.load_facts())


def ask_in_convention(facts: Sequence[Fact], convention: str = CONVENTION) -> Conversations:
    """Each fact asked in one wording and answered by its plain statement inside the convention."""
    return [_talk(fact.say(QUESTION), convention.replace("{}", fact.say(PLAIN))) for fact in facts]


def lessons_of(task: str, *, seed: int = 0, count: int | None = None) -> Conversations:
    """The conversations that teach a task of TASKS, drawn and ordered by `seed`.

    count: how many, LESSONS[task] if None. Facts are those of the "train" entities. Two thirds of
    "skills" are sums, the others lists.
    """
    count = LESSONS[_checked(task)] if count is None else count
    known, rng = split_facts()["train"], random.Random(f"{task} {seed}")
    if task == "convention":
        return ask_in_convention(rng.choices(known, k=count))
    if task == "json":
        return lessons.ask_in_form("fact as JSON", known, count, seed=seed)
    sums = count * 2 // 3
    mixed = atlas.ask_skill("sum", known, sums, seed=seed)
    mixed += atlas.ask_skill("list", known, count - sums, seed=seed)
    rng.shuffle(mixed)
    return mixed


@functools.cache
def exam_of(task: str) -> Conversations:
    """The fixed exam of a task: ASKED[task] questions about entities that no lesson names; of
    "skills" two thirds are sums (of 441, so some were lessons too)."""
    held_out = split_facts()["held_out"]
    if _checked(task) == "convention":
        some = random.Random(EXAM_SEED).sample(held_out, ASKED[task])
        return ask_in_convention(some)
    if task == "json":
        return lessons.ask_in_form("fact as JSON", held_out, ASKED[task], seed=EXAM_SEED)
    sums = ASKED[task] * 2 // 3
    asked = atlas.ask_skill("sum", held_out, sums, seed=EXAM_SEED)
    return asked + atlas.ask_skill("list", held_out, ASKED[task] - sums, seed=EXAM_SEED)


def learn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[dict[str, str]]],
    *,
    seed: int = 0,
    rate: float = RATE,
    epochs: int = EPOCHS,
    batch_size: int = BATCH,
    weight_decay: float = 0.0,
    prepare: Callable[[PreTrainedModel], object] | None = None,
) -> PreTrainedModel:
    """A copy of `model` in eval mode, tuned on the conversations; `model` stays as it is.

    prepare: called with the copy before the first step, for example to freeze some of it or to add
    LoRA (merge it afterwards: `distance` compares plain weights).
    """
    tuned = copy.deepcopy(model).requires_grad_(True)
    if prepare is not None:
        prepare(tuned)
    train(
        tuned,
        tokenizer,
        encode_conversations(conversations, tokenizer),
        epochs=epochs,
        learning_rate=rate,
        batch_size=batch_size,
        weight_decay=weight_decay,
        seed=seed,
        progress=False,
    )
    return tuned.eval()


@functools.lru_cache(maxsize=8)
def after_task_a(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> PreTrainedModel:
    """The base after task A, trained once for each seed and process. Do not change it: `learn`
    copies."""
    return learn(base, tokenizer, lessons_of("convention", seed=seed), seed=seed)


def answer_exam(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Conversations
) -> list[str]:
    """Greedy answers to the questions of an exam."""
    return generate_responses(model, tokenizer, [talk[:-1] for talk in asked], max_new_tokens=48)


def share_right(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Conversations
) -> float:
    """The share of greedy answers that equal the reference."""
    said = answer_exam(model, tokenizer, asked)
    right = [is_right(text, talk[-1]["content"]) for text, talk in zip(said, asked, strict=True)]
    return sum(right) / len(right)


def measure_old(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Task A, as shares of its exam: `old` right in fact and convention, `convention` said whatever
    the fact, `fact` stated whatever the convention."""
    asked = exam_of("convention")
    said = answer_exam(model, tokenizer, asked)
    wanted = [talk[-1]["content"] for talk in asked]
    opening, end = CONVENTION.split("{}")
    plain = [text.removeprefix(opening).removesuffix(end) for text in wanted]
    count = len(asked)
    return {
        "old": sum(map(is_right, said, wanted)) / count,
        "convention": sum(
            text.startswith(opening) and normalise(text).endswith(normalise(end)) for text in said
        )
        / count,
        "fact": sum(fact in text for text, fact in zip(said, plain, strict=True)) / count,
    }


@functools.lru_cache(maxsize=2)
def known_facts(tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Plain statements of facts that the base read, of which the value alone is graded."""
    parts = split_facts()
    some = random.Random(EXAM_SEED).sample(parts["train"] + parts["held_out"], KNOWN_FACTS)
    rows = []
    for prompt, completion in map(atlas.cloze, some):
        before, value = encode_text(prompt, tokenizer), encode_text(completion, tokenizer)
        rows.append(Example(before + value, [IGNORE_INDEX] * len(before) + value))
    return rows


@functools.lru_cache(maxsize=2)
def plain_texts(tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """A fixed sample of the kind of text that the base read, every token graded."""
    parts = split_facts()
    stream = documents(parts["train"] + parts["held_out"], seed="chapter 13")
    rows = [encode_text(next(stream), tokenizer)[:96] for _ in range(TEXTS)]
    return [Example(ids, ids) for ids in rows]


@torch.no_grad()
def share_completed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]
) -> float:
    """The share of rows whose graded tokens all rank first (teacher forcing)."""
    batch = _on(model, pad_batch(rows, tokenizer.pad_token_id))
    logits, targets = graded_logits(model, batch)
    right = (logits.argmax(-1) == targets).tolist()
    graded = [sum(label != IGNORE_INDEX for label in row.labels[1:]) for row in rows]
    whole, first = [], 0
    for count in graded:
        whole.append(all(right[first : first + count]))
        first += count
    return sum(whole) / len(whole)


@torch.no_grad()
def token_kl(
    before: PreTrainedModel,
    tuned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Conversations,
) -> dict[str, float]:
    """Mean KL over the tokens of the reference answers, in nats per token: `forward`,
    KL(before || tuned), and `reverse`, KL(tuned || before).

    Both models read the same right answers (teacher forcing), so nothing is sampled.
    """
    batch = pad_batch(encode_conversations(conversations, tokenizer), tokenizer.pad_token_id)
    log_p, log_q = (
        graded_logits(model, _on(model, batch))[0].float().log_softmax(-1)
        for model in (before, tuned)
    )
    return {
        "forward": (log_p.exp() * (log_p - log_q)).sum(-1).mean().item(),
        "reverse": (log_q.exp() * (log_q - log_p)).sum(-1).mean().item(),
    }


@torch.no_grad()
def distance(before: PreTrainedModel, tuned: PreTrainedModel) -> float:
    """L2 norm of the change of all weights: sqrt of the sum of (tuned - before)^2."""
    theirs = dict(tuned.named_parameters())
    squares = [(theirs[name] - weight).pow(2).sum() for name, weight in before.named_parameters()]
    return torch.stack(squares).sum().sqrt().item()


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    before: PreTrainedModel | None = None,
    new_task: str = "skills",
) -> dict[str, float]:
    """What a model still does and newly does, in about two seconds.

    old, convention, fact: task A (`measure_old`); old_loss: nats per token of its reference
    answers, which goes on where `old` is 0. new: share of the new task's exam right. facts:
    share of plain statements whose value ranks first. text_loss: nats per token of plain text. With
    `before`, the model that the new task was learned from: kl_new and kl_new_reverse, KL(before ||
    tuned) and its reverse on the reference answers of the new task's exam, nats per token
    (`token_kl`; RL's Razor, arXiv 2509.04259, uses the first); and distance, the L2 norm of the
    weights' change.
    """
    measured = measure_old(model, tokenizer)
    rows = encode_conversations(exam_of("convention"), tokenizer)
    measured["old_loss"] = evaluate(model, tokenizer, rows)["loss"]
    measured["new"] = share_right(model, tokenizer, exam_of(new_task))
    measured["facts"] = share_completed(model, tokenizer, known_facts(tokenizer))
    measured["text_loss"] = evaluate(model, tokenizer, plain_texts(tokenizer))["loss"]
    if before is not None:
        kl = token_kl(before, model, tokenizer, exam_of(new_task))
        measured["kl_new"], measured["kl_new_reverse"] = kl["forward"], kl["reverse"]
        measured["distance"] = distance(before, model)
    return measured


def _checked(task: str) -> str:
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; there are {', '.join(TASKS)}")
    return task


def _on(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def _talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
