"""Three experiments of chapter 11 on where data comes from: a leaked exam, a teacher, and the
model's own best answers. `tools/experiments/11_*.py` runs the sweeps, the chapter a point again."""

import copy
import random
from collections.abc import Sequence
from functools import cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.atlas import Conversations
from sft_lab.chat import generate_responses
from sft_lab.course.data_mix import (
    SHOWN,
    WORDINGS,
    Mix,
    add_up,
    all_sums,
    answers_to,
    exam_facts,
    exams,
    mix_data,
    say_each,
    share_right,
    tune,
)
from sft_lab.distill import distill
from sft_lab.duplicates import near_duplicates
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.metrics import is_right, normalise
from sft_lab.train import evaluate

LEAKS = ("clean", "verbatim", "reworded", "mended")
THRESHOLD = 0.4  # of the detector, on question and answer together
TEACHERS = {
    "good": Mix(distinct=768),
    "rule": Mix(distinct=768, wrong=0.5, kind="rule"),
    "scattered": Mix(distinct=768, wrong=0.5, kind="scattered"),
}
SAMPLES, PROMPTS = 8, 200  # of best of K


def as_texts(conversations: Conversations) -> list[str]:
    """Question and answer of each, as one text: what the detector compares."""
    return ["\n".join(turn["content"] for turn in turns) for turns in conversations]


# a leaked exam


def leak_facts() -> tuple[list[Fact], list[Fact]]:
    """Two times 80 facts that the base never read, about 16 entities each; no entity is in both."""
    by_entity: dict[tuple[str, str], list[Fact]] = {}
    for fact in atlas.split(atlas.load_facts())["unknown"]:
        by_entity.setdefault((fact.domain, fact.entity), []).append(fact)
    drawn = random.Random(9).sample(list(by_entity.values()), 32)
    first, second = (sum(half, []) for half in (drawn[:16], drawn[16:]))
    return first, second


def leak_exams() -> tuple[Conversations, Conversations]:
    """Two exams of 80 questions each about entities that the base never read: the one that leaks,
    and a second one that does not."""
    first, second = (atlas.ask(part, template=atlas.UNSEEN_QUESTION) for part in leak_facts())
    return first, second


def leaky_data(arm: str, *, seed: int = 0) -> Conversations:
    """384 rows about train facts and, unless the arm is "clean", the 80 exam questions: "verbatim",
    or "reworded" as training questions are. "mended" is "reworded" without what the detector finds.
    """
    rows = mix_data(Mix(), seed=seed)
    if arm == "verbatim":
        rows = rows + leak_exams()[0]
    elif arm in ("reworded", "mended"):
        rows = rows + say_each(leak_facts()[0], 4, seed=seed)
    if arm == "mended":
        found = near_duplicates(as_texts(leak_exams()[0]), as_texts(rows), threshold=THRESHOLD)
        leaked = {pair.second for pair in found}
        rows = [row for place, row in enumerate(rows) if place not in leaked]
    random.Random(f"leak {seed}").shuffle(rows)
    return rows


def measure_leak(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arm: str, *, seed: int = 0
) -> dict[str, float]:
    """Tune on the leaky data; the scores in the leaked and in the second exam."""
    rows = leaky_data(arm, seed=seed)
    model = tune(base, tokenizer, rows, seed=seed, shown=2 * SHOWN)
    leaked, second = (share_right(answers_to(model, tokenizer, e), e) for e in leak_exams())
    return {"rows": len(rows), "leaked": round(leaked, 4), "second": round(second, 4)}


@cache
def _all_facts() -> tuple[Fact, ...]:
    return tuple(atlas.load_facts())


def plant_leaks(seed: int | str = 0) -> tuple[Conversations, Conversations, set[int]]:
    """An exam of 40 questions in one wording, a tuning set of 372 rows in which some of them stand,
    verbatim or in another wording of the question, and the places of these in the exam.

    The other rows ask about other facts, often in the exam's wording, often about its entities.
    """
    rng = random.Random(f"plant {seed}")
    facts = rng.sample(_all_facts(), 400)
    exam = [atlas.ask([fact], template=WORDINGS[0])[0] for fact in facts[:40]]
    leaked = rng.sample(range(40), 12)
    rows = [atlas.ask([fact], template=rng.choice(WORDINGS[:4]))[0] for fact in facts[40:]]
    for number, place in enumerate(leaked):
        wording = WORDINGS[0] if number < 3 else rng.choice(WORDINGS[1:])
        rows += atlas.ask([facts[place]], template=wording)
    rng.shuffle(rows)
    return exam, rows, set(leaked)


# a teacher


def train_teacher(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: str, *, seed: int = 0
) -> PreTrainedModel:
    """A teacher, tuned on twice as much as a student: "good", or partly wrong in two ways."""
    return tune(base, tokenizer, mix_data(TEACHERS[kind], seed=seed), seed=seed, shown=2 * SHOWN)


def answered_by(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Conversations
) -> Conversations:
    """The same questions with the model's greedy answers; an empty answer is left out."""
    answers = answers_to(model, tokenizer, rows)
    return [
        [row[0], {"role": "assistant", "content": answer}]
        for row, answer in zip(rows, answers, strict=True)
        if answer.strip()
    ]


def measure_student(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel,
    *,
    source: str,
    prompts: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, float]:
    """Tune a student on `prompts` questions from a source ("gold", "words", "probabilities").

    right: share of right answers in the exam. own loss: nats per token on exam questions with the
    answers of the same source; gold loss: with the right ones. copied: of the teacher's wrong exam
    answers, the share that the student gives word for word.
    """
    drawn = random.Random(f"student {seed}").sample(
        atlas.split(atlas.load_facts())["train"], prompts
    )
    gold, exam = say_each(drawn, 4, seed=seed), exams()["facts"]
    taught = answered_by(teacher, tokenizer, exam)
    rows = gold if source == "gold" else answered_by(teacher, tokenizer, gold)
    if source == "probabilities":
        student = tune_by_probabilities(base, tokenizer, teacher, rows, temperature, seed)
    else:
        student = tune(base, tokenizer, rows, seed=seed)
    answers = answers_to(student, tokenizer, exam)
    own = exam if source == "gold" else taught
    said = {row[0]["content"]: row[1]["content"] for row in taught}
    wrong = [
        normalise(said[row[0]["content"]]) == normalise(answer)
        for row, answer in zip(exam, answers, strict=True)
        if not is_right(said.get(row[0]["content"], ""), row[1]["content"])
    ]
    return {
        "right": round(share_right(answers, exam), 4),
        "own loss": round(_loss(student, tokenizer, own), 4),
        "gold loss": round(_loss(student, tokenizer, exam), 4),
        "copied": round(sum(wrong) / max(1, len(wrong)), 4),
        "teacher right": round(1 - len(wrong) / len(exam), 4),
    }


def tune_by_probabilities(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel,
    rows: Conversations,
    temperature: float,
    seed: int,
) -> PreTrainedModel:
    """A copy of the base, shown as much as any student, that learns the teacher's probabilities."""
    student = copy.deepcopy(base)
    examples = encode_conversations(rows, tokenizer)
    shown = [examples[i % len(examples)] for i in range(SHOWN)]
    settings = {"temperature": temperature, "learning_rate": 1e-3, "seed": seed}
    _ = distill(student, teacher, tokenizer, shown, **settings)
    return student


def _loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Conversations) -> float:
    return evaluate(model, tokenizer, encode_conversations(rows, tokenizer))["loss"]


# best of K


def start_of_rounds(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> PreTrainedModel:
    """A model that answers questions about facts and adds up unsteadily: 96 facts and 64 sums."""
    rows = mix_data(Mix(distinct=96), seed=seed) + add_up(all_sums()[300:364])
    random.Random(f"start {seed}").shuffle(rows)
    return tune(base, tokenizer, rows, seed=seed)


def prompts_of(skill: str) -> Conversations:
    """The questions to sample answers to: "sums" (not those of the exam) or "facts"."""
    if skill == "sums":
        return add_up(all_sums()[100 : 100 + PROMPTS])
    return say_each(exam_facts(PROMPTS, "train"), 4, seed=9)


def sample_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Conversations,
    *,
    count: int = SAMPLES,
    seed: int = 0,
) -> tuple[list[list[str]], list[list[bool]]]:
    """`count` answers to each prompt, drawn at temperature 1, and which of them are right."""
    torch.manual_seed(seed)
    asked = [row[:-1] for row in prompts for _ in range(count)]
    flat = generate_responses(
        model, tokenizer, asked, max_new_tokens=24, do_sample=True, temperature=1.0
    )
    answers = [flat[i * count : (i + 1) * count] for i in range(len(prompts))]
    right = [
        [is_right(answer, row[-1]["content"]) for answer in some]
        for some, row in zip(answers, prompts, strict=True)
    ]
    return answers, right


def chosen_rows(
    prompts: Conversations,
    answers: Sequence[Sequence[str]],
    right: Sequence[Sequence[bool]],
    arm: str,
    *,
    seed: int = 0,
) -> Conversations:
    """One row for each decidable prompt: "top", its first right answer; "random", any of its
    answers. An empty answer gives no row."""
    rng, rows = random.Random(f"choose {seed}"), []
    for prompt, some, marks in zip(prompts, answers, right, strict=True):
        if not any(marks) or all(marks):
            continue
        luck = rng.choice(list(some))
        answer = some[list(marks).index(True)] if arm == "top" else luck
        if answer.strip():
            rows.append([prompt[0], {"role": "assistant", "content": answer}])
    return rows


def play_rounds(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    skill: str,
    arm: str,
    rounds: int,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Rounds of: sample, choose, tune on what was chosen. Measured before the first round and after
    each: both exams, the decidable fraction and the share of right samples (before each round).

    Every seed begins with the same model: the question is what a given model gains."""
    model, prompts, exam = start_of_rounds(base, tokenizer), prompts_of(skill), exams()
    found: dict[str, list[float]] = {"sums": [], "facts": [], "decidable": [], "sampled": []}
    for number in range(rounds + 1):
        for name in ("sums", "facts"):
            answers = answers_to(model, tokenizer, exam[name])
            found[name].append(round(share_right(answers, exam[name]), 4))
        if number == rounds:
            return found
        answers, right = sample_answers(model, tokenizer, prompts, seed=100 * seed + number)
        mixed = [0 < sum(marks) < len(marks) for marks in right]
        found["decidable"].append(round(sum(mixed) / len(mixed), 4))
        found["sampled"].append(round(sum(map(sum, right)) / (len(right) * SAMPLES), 4))
        rows = chosen_rows(prompts, answers, right, arm, seed=seed)
        if rows:
            run = {"seed": 100 * seed + number, "shown": 240, "learning_rate": 3e-4}
            model = tune(model, tokenizer, rows, **run)
    return found
