"""Chapter 16b: three tasks whose truth a program knows, real outputs for them, and their scores.

The chapter, its checks and `tools/experiments/16b_*.py` share these functions, so that a recorded
row can be run again. An output is what a model wrote for a task.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np
import torch
from matplotlib.axes import Axes
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import plots
from sft_lab.alignment import meteor
from sft_lab.atlas import STATEMENTS, Fact, load_facts, split
from sft_lab.chat import generate_responses
from sft_lab.course.results import read_results
from sft_lab.course.short_runs import tune_on
from sft_lab.documents import PLAIN, QUESTIONS
from sft_lab.facts import RELATIONS
from sft_lab.invented import Names, made_up_name
from sft_lab.metrics import answer_f1, exact_match, repeated_share
from sft_lab.overlap import bleu, chrf, rouge_l, rouge_n, rouge_s, rouge_w, split_words

KINDS = ("answers", "summaries", "translations")
TRAINED = {"answers": 800, "summaries": 600, "translations": 240}  # tasks in the tuning set
EPOCHS = {"answers": 1, "summaries": 2, "translations": 8}
PART = 0.3  # of the tuning set, that the half-tuned model sees
ASKED = {"answers": 200, "summaries": 100, "translations": 120}  # tasks no model was tuned on
KEPT = {"base": 10, "half-tuned": 10, "tuned": 40}  # of these tasks, the outputs are recorded
SAMPLES = {"base": 1, "half-tuned": 1, "tuned": 4}  # outputs of a model for a task
TEMPERATURE = 0.7
REFERENCES = (1, 2, 3, 5)  # of an answer
LONGEST = {"answers": 40, "summaries": 90, "translations": 24}  # tokens of an output
TOLD_OF = ("countries", "elements", "animals", "planets")  # whose entities have three facts or more

TIMES = {"Yesterday": "昨天", "Today": "今天", "Tomorrow": "明天"}
SUBJECTS = {"I": "我", "you": "你", "he": "他", "she": "她"}
VERBS = {"love": "爱", "like": "喜欢", "look at": "看", "miss": "想"}
OBJECTS = {"the book": "书", "China": "中国", "the water": "水", "the flower": "花"} | {
    "the mountain": "山",
    "the sea": "海",
    "you": "你",
    "me": "我",
}


@dataclass(frozen=True)
class Task:
    """A question, one right output for it, and what a program needs to know to judge any other.

    wanted: the things that an output shall say, each with all the ways to say it rightly.
    """

    kind: str
    question: str
    reference: str
    wanted: tuple[tuple[str, ...], ...]
    passage: str = ""


def subject_of(task: Task) -> str:
    """Whom a summary shall be about, as its question names it."""
    return task.question.rpartition("told about ")[2].removesuffix(".")


def say_all_ways(fact: Fact) -> tuple[str, ...]:
    """The fact in each of the five wordings of Atlas, the plain one first."""
    return tuple(fact.say(wording) for wording in STATEMENTS)


def make_tasks(kind: str, count: int, *, part: str, seed: int) -> list[Task]:
    """Tasks of one kind, decided by `seed`; part: "train", or "held_out" for questions about
    entities, and pairs of words, that no training task has."""
    rng = random.Random(f"{kind} {part} {seed}")
    facts = split(load_facts())[part]
    if kind == "answers":
        return [_ask(rng, fact) for fact in rng.sample(facts, k=min(count, len(facts)))]
    if kind == "summaries":
        return [_ask_for_summary(rng, Names.of(facts)) for _ in range(count)]
    sentences = [
        (time, subject, verb, thing)
        for time in TIMES
        for subject in SUBJECTS
        for verb in VERBS
        for thing in OBJECTS
        if SUBJECTS[subject] != OBJECTS[thing]
    ]
    random.Random("translations").shuffle(sentences)
    cut = TRAINED["translations"]
    some = sentences[:cut] if part == "train" else sentences[cut:]
    return [_ask_to_translate(rng, words) for words in rng.sample(some, k=min(count, len(some)))]


def _ask(rng: random.Random, fact: Fact) -> Task:
    question = fact.say(rng.choice((*QUESTIONS, fact.relation.question)))
    return Task("answers", question, fact.say(rng.choice(STATEMENTS)), (say_all_ways(fact),))


def _ask_for_summary(rng: random.Random, names: Names) -> Task:
    """Three facts about one invented entity and two about another, mixed: tell the three, each in
    another wording than the notes have."""
    domain = rng.choice(TOLD_OF)
    columns = [column for place, column in RELATIONS if place == domain]
    entities = [made_up_name(rng) for _ in range(2)]
    notes = [
        Fact(domain, entity, column, rng.choice(names.values[domain, column]))
        for entity, count in zip(entities, (3, 2), strict=True)
        for column in rng.sample(columns, count)
    ]
    asked = notes[:3]
    rng.shuffle(notes)
    wordings = {fact: rng.choice(STATEMENTS) for fact in notes}
    passage = "Notes: " + " ".join(fact.say(wordings[fact]) for fact in notes)
    others = {fact: [w for w in STATEMENTS if w != wordings[fact]] for fact in asked}
    ordered = [fact for fact in notes if fact in asked]
    reference = " ".join(fact.say(rng.choice(others[fact])) for fact in ordered)
    question = f"{passage}\nSay in other words what is told about {asked[0].subject}."
    return Task("summaries", question, reference, tuple(map(say_all_ways, ordered)), passage)


def _ask_to_translate(rng: random.Random, words: tuple[str, str, str, str]) -> Task:
    time, subject, verb, thing = words
    third = subject in ("he", "she")
    told = {"look at": "looks at", "miss": "misses"}.get(verb, verb + "s") if third else verb
    english = f"{time} {subject} {told} {thing}."
    when, who, does, what = TIMES[time], SUBJECTS[subject], VERBS[verb], OBJECTS[thing]
    chinese = rng.choice((f"{when}{who}{does}{what}。", f"{who}{when}{does}{what}。"))
    question = f"Translate into Chinese: {english}"
    wanted = ((when,), (f"{who}…",), (does,), (f"…{what}",))
    return Task("translations", question, chinese, wanted)


# the truth: what an output says


def list_said(kind: str, output: str) -> list[str]:
    """What an output says, piece by piece: sentences; of a translation, the words, marked as who
    ("我…", before the verb) or whom ("…我", behind it)."""
    if kind != "translations":
        parts = re.split(r"(?<=\.)\s+|\n+", output)
        return [part.strip() for part in parts if part.strip()]
    pieces, verb_came = [], False
    for word in WORDS.findall(output):
        if word in VERBS.values():
            verb_came = True
        elif word not in TIMES.values():
            word = f"…{word}" if verb_came else f"{word}…"
        pieces.append(word)
    return pieces


# words of several characters first, then any other character
WORDS = re.compile("|".join((*TIMES.values(), *VERBS.values(), *OBJECTS.values(), r"[^\s。.]")))


def find_truth(task: Task, output: str) -> float:
    """How true an output is, 0 to 1: F1 of what is said and what shall be said.

    A piece counts once, in any of its wordings; one that is wrong, beside the matter, broken or
    said again is said in vain.
    """
    said = list_said(task.kind, output)
    right = sum(not said_so.isdisjoint(said) for said_so in map(set, task.wanted))
    return 2 * right / (len(said) + len(task.wanted))


# real outputs


def tune_models(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: str, *, seed: int
) -> dict[str, PreTrainedModel]:
    """The base, a copy tuned on a part of the tasks, and one tuned on all, by name."""
    tasks = make_tasks(kind, TRAINED[kind], part="train", seed=seed)
    talks = [as_conversation(task) for task in tasks]
    few = talks[: int(PART * len(talks))]
    return {
        "base": base,
        "half-tuned": tune_on(base, tokenizer, few, epochs=EPOCHS[kind], seed=seed),
        "tuned": tune_on(base, tokenizer, talks, epochs=EPOCHS[kind], seed=seed),
    }


def as_conversation(task: Task) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": task.question},
        {"role": "assistant", "content": task.reference},
    ]


def write_outputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    *,
    samples: int,
    seed: int,
) -> list[list[str]]:
    """For each task `samples` outputs, drawn at TEMPERATURE."""
    prompts = [task.question for task in tasks for _ in range(samples)]
    torch.manual_seed(seed)
    said = generate_responses(
        model,
        tokenizer,
        prompts,
        max_new_tokens=LONGEST[tasks[0].kind],
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
    )
    return [said[start : start + samples] for start in range(0, len(said), samples)]


# scores

SCORES = (
    *("exact match", "token F1", "BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-S", "ROUGE-W"),
    *("METEOR", "chrF", "distinct-1", "no repeats"),
)


def score_output(
    output: str, references: Sequence[str], *, language: str = "en"
) -> dict[str, float]:
    """Every score of one output, 0 to 1; more is better. METEOR aligns as nltk does.

    The last two read the output alone: the share of words, and of pairs of neighbours, that did not
    stand in it before.
    """
    ours = split_words(output, language=language)
    wanted = [split_words(reference, language=language) for reference in references]
    return {
        "exact match": float(exact_match(output, references, language=language)),
        "token F1": answer_f1(output, references, language=language),
        "BLEU": bleu([ours], [wanted], effective_order=True) / 100,
        "ROUGE-1": rouge_n(ours, wanted, 1).f1,
        "ROUGE-2": rouge_n(ours, wanted, 2).f1,
        "ROUGE-L": rouge_l(ours, wanted).f1,
        "ROUGE-S": rouge_s(ours, wanted).f1,
        "ROUGE-W": rouge_w(ours, wanted).f1,
        "METEOR": meteor(ours, wanted, rule="greedy"),
        "chrF": chrf([output], [references]) / 100,
        "distinct-1": 1 - repeated_share(ours, 1),
        "no repeats": 1 - repeated_share(ours, 2),
    }


def language_of(kind: str) -> str:
    return "zh" if kind == "translations" else "en"


@dataclass(frozen=True)
class Judged:
    """An output with its truth and its scores."""

    task: Task
    output: str
    truth: float
    scores: dict[str, float]


def judge_outputs(tasks: Sequence[Task], rows: Sequence[Sequence[str]]) -> list[list[Judged]]:
    """The outputs for each task, with truth and scores."""
    return [
        [
            Judged(
                task,
                output,
                find_truth(task, output),
                score_output(output, [task.reference], language=language_of(task.kind)),
            )
            for output in row
        ]
        for task, row in zip(tasks, rows, strict=True)
    ]


@cache
def read_judged(kind: str, seed: int, model: str = "tuned") -> list[list[Judged]]:
    """The recorded outputs of a model for the first KEPT held-out tasks, with truth and scores."""
    (row,) = read_results("16b_outputs").select(kind=kind, seed=seed)
    return judge_outputs(held_out_tasks(kind, seed)[: KEPT[model]], row[model])


@cache
def held_out_tasks(kind: str, seed: int) -> list[Task]:
    return make_tasks(kind, ASKED[kind], part="held_out", seed=seed)


def pair_up(groups: Sequence[Sequence[Judged]]) -> Iterator[tuple[Judged, Judged]]:
    """Every two outputs for one task whose truths differ, the truer one first."""
    for group in groups:
        for one, other in combinations(group, 2):
            if one.truth != other.truth:
                yield (one, other) if one.truth > other.truth else (other, one)


def share_ordered(groups: Sequence[Sequence[Judged]], score: Callable[[Judged], float]) -> float:
    """Share of pairs whose truer output has the higher score; a tie counts half."""
    gaps = [score(better) - score(worse) for better, worse in pair_up(groups)]
    return sum((gap > 0) + (gap == 0) / 2 for gap in gaps) / len(gaps)


def mean_of(groups: Sequence[Sequence[Judged]], score: Callable[[Judged], float]) -> float:
    """The mean of a score, or of the truth, over all outputs."""
    found = [score(judged) for group in groups for judged in group]
    return sum(found) / len(found)


def corpus_bleu(groups: Sequence[Sequence[Judged]]) -> float:
    """BLEU, 0 to 1, of all outputs together."""
    judged = [one for group in groups for one in group]
    language = language_of(judged[0].task.kind)
    ours = [split_words(one.output, language=language) for one in judged]
    wanted = [[split_words(one.task.reference, language=language)] for one in judged]
    return bleu(ours, wanted) / 100


# one point of the recorded sweep


def run_scores(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, kind: str, seed: int
) -> dict[str, float | list[list[str]]]:
    """Tune, let the three models write for held-out tasks, and score.

    Measured: for every score its share of pairs of the tuned model that it orders rightly ("BLEU"),
    its mean for each model ("base BLEU"), the mean truth ("base truth"), BLEU of all together
    ("base corpus BLEU"), the number of pairs; and
    for each model the outputs for the first tasks. For answers, the shares with more references.
    """
    tasks, found = held_out_tasks(kind, seed), {}
    for model, tuned in tune_models(base, tokenizer, kind, seed=seed).items():
        rows = write_outputs(tuned, tokenizer, tasks, samples=SAMPLES[model], seed=seed)
        groups = judge_outputs(tasks, rows)
        found[model] = rows[: KEPT[model]]
        found[f"{model} truth"] = mean_of(groups, lambda judged: judged.truth)
        found[f"{model} corpus BLEU"] = corpus_bleu(groups)
        for name in SCORES:
            found[f"{model} {name}"] = mean_of(groups, lambda judged, n=name: judged.scores[n])
    found["pairs"] = sum(1 for _ in pair_up(groups))
    for name in SCORES:  # of the last model, the tuned one
        found[name] = share_ordered(groups, lambda judged, n=name: judged.scores[n])
    return found | (with_more_references(groups) if kind == "answers" else {})


def with_more_references(groups: Sequence[Sequence[Judged]]) -> dict[str, float]:
    """Shares of pairs of answers that scores order rightly when each answer has two, three or five
    references, the fact in so many wordings: "BLEU 3"."""
    found = {}
    for count in REFERENCES[1:]:
        again = []
        for group in groups:
            ways, reference = group[0].task.wanted[0], group[0].task.reference
            place = ways.index(reference)
            some = (ways[place:] + ways[:place])[:count]
            again.append([replace(one, scores=score_output(one.output, some)) for one in group])
        for name in SCORES:
            found[f"{name} {count}"] = share_ordered(again, lambda one, n=name: one.scores[n])
    return found


# attacks: outputs that are there to be scored

ATTACKS: dict[str, Callable[[Task, str], str]] = {
    "one common word": lambda task, output: "the",
    "that word 30 times": lambda task, output: " ".join(["the"] * 30),
    "its first sentence": lambda task, output: output.partition(". ")[0].rstrip(".") + ".",
    "said twice": lambda task, output: f"{output} {output}",
    "copy the passage": lambda task, output: task.passage.removeprefix("Notes: "),
    "its words, shuffled": lambda task, output: shuffle_words(output),
}


def shuffle_words(output: str) -> str:
    words = output.split()
    return " ".join(random.Random(output).sample(words, k=len(words)))


def attack_summaries(name: str, seed: int) -> dict[str, float]:
    """Mean truth, mean scores and mean precision and recall of ROUGE-1 of an attack on the tuned
    model's recorded summaries; "honest": of the summaries themselves."""
    change = ATTACKS.get(name, lambda task, output: output)
    found: dict[str, list[float]] = {}
    for one in (judged for group in read_judged("summaries", seed) for judged in group):
        output, reference = change(one.task, one.output), one.task.reference
        single = rouge_n(split_words(output), [split_words(reference)], 1)
        numbers = {"truth": find_truth(one.task, output)} | score_output(output, [reference])
        numbers |= {"ROUGE-1 P": single.precision, "ROUGE-1 R": single.recall}
        for key, number in numbers.items():
            found.setdefault(key, []).append(number)
    return {key: sum(numbers) / len(numbers) for key, numbers in found.items()}


# pictures


def draw_pair(reference: str, outputs: Mapping[str, str], *, title: str) -> Axes:
    """Reference and outputs, a row each and named at its left; words that the reference has, as
    often as it has them, are blue, others orange."""
    rows = {"reference": reference, **outputs}
    ax = plots.new_figure((8.4, 0.5 + 0.45 * len(rows))).subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), title=title)
    for y, (name, text) in enumerate(rows.items()):
        ax.text(0, y, name, va="center", fontsize=9)
        left, x = Counter(split_words(reference)), 0.16
        for word in split_words(text):
            shared = left[word] > 0
            left[word] -= 1
            colour = plots.CYCLE[0] if shared else plots.CYCLE[1]
            box = {"boxstyle": "round,pad=0.25", "facecolor": colour, "alpha": 0.35, "lw": 0}
            ax.text(x, y, word, va="center", fontsize=9, family="monospace", bbox=box)
            x += 0.0123 * len(word) + 0.025
    return ax


def draw_changes(
    changes: Mapping[str, Sequence[float]], columns: Sequence[str], *, title: str
) -> Axes:
    """A table of attacks by scores: what each adds to the honest score; orange where it goes up."""
    ax = plots.new_figure((2.2 + 0.72 * len(columns), 1.5 + 0.42 * len(changes))).subplots()
    table = np.array(list(changes.values()))
    ax.imshow(table, cmap="PuOr_r", vmin=-0.8, vmax=0.8, aspect="auto")
    for (row, column), change in np.ndenumerate(table):
        text = "0" if abs(change) < 0.005 else f"{change:+.2f}"
        colour = "white" if change < -0.4 else plots.INK
        weight = "bold" if change > 0.005 else "normal"
        ax.text(
            column, row, text, ha="center", va="center", color=colour, fontsize=9, fontweight=weight
        )
    ax.set_yticks(range(len(changes)), changes)
    ax.set_xticks(range(len(columns)), columns, rotation=40, ha="left", fontsize=9)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set_title(title, pad=12)
    return ax


# outputs made by a program, to ask a score about


def plant_answers(*, seed: int) -> list[list[Judged]]:
    """For each question of `held_out_tasks` two answers: the right one in another wording than the
    reference has, and the reference with another value of its relation."""
    tasks, rng = held_out_tasks("answers", seed), random.Random(seed)
    values = Names.of(load_facts()).values
    asked = {fact.say(PLAIN): fact for fact in load_facts()}
    rows = []
    for task in tasks:
        fact, ways = asked[task.wanted[0][0]], task.wanted[0]
        others = [value for value in values[fact.domain, fact.column] if value != fact.value]
        wrong = replace(fact, value=rng.choice(others))
        wording = STATEMENTS[ways.index(task.reference)]
        rows.append(
            [rng.choice([way for way in ways if way != task.reference]), wrong.say(wording)]
        )
    return judge_outputs(tasks, rows)


def plant_summaries(tasks: Sequence[Task], *, seed: int) -> list[list[Judged]]:
    """For each summary task outputs made from its right statements: all of them in other wordings
    and orders; a wrong value; two values exchanged; one left out, said twice, or added that was not
    asked; one alone; the right words in any order."""
    rng = random.Random(seed)
    rows = []
    for task in tasks:
        told = [rng.choice(ways) for ways in task.wanted]
        others = [rng.choice(ways) for ways in task.wanted]
        strange = [rng.choice(ways) for ways in held_out_tasks("summaries", seed % 5)[0].wanted]
        words = " ".join(told).replace(".", "").split()
        values = [_value_of(ways) for ways in task.wanted]
        swapped = [
            _in_wording(ways, value, rng)
            for ways, value in zip(task.wanted, values[1:] + values[:1], strict=True)
        ]
        wrong = [_in_wording(task.wanted[0], made_up_name(rng), rng), *told[1:]]
        rows.append(
            [
                *(" ".join(rng.sample(some, k=3)) for some in (told, others, wrong)),
                " ".join(swapped),
                *(" ".join(some) for some in (told[:2], told[:1], [*told, told[0]])),
                *(" ".join(some) for some in ([*told[:2], strange[0]], [*others, strange[1]])),
                " ".join(rng.sample(words, k=len(words))) + ".",
            ]
        )
    return judge_outputs(tasks, rows)


def _value_of(ways: Sequence[str]) -> str:
    """The value of a fact, from its plain wording, "The capital of Tavoru is Nairobi."."""
    beginning = ways[4].removeprefix("We know that ")  # "… the capital of Tavoru is Nairobi."
    return beginning.rpartition(" is ")[2].removesuffix(".")


def _in_wording(ways: Sequence[str], value: str, rng: random.Random) -> str:
    """A statement of the same thing with another value."""
    true = _value_of(ways)
    place = rng.choice((0, 2, 3, 4))  # in wording 1 the value begins the sentence
    return ways[place].removesuffix(f"{true}.") + f"{value}."


def plant_translations(*, count: int, seed: int) -> list[list[Judged]]:
    """For Chinese sentences outputs made from the right one: both orders, who and whom exchanged,
    one or two words wrong, the time left out, a word too many."""
    rng = random.Random(seed)
    tasks = [
        task
        for task in make_tasks("translations", 1000, part="train", seed=seed)
        if list_said("translations", task.reference)[-1][1:] in SUBJECTS.values()
    ]
    rows = []
    for task in tasks[:count]:
        when, who, does, what = (ways[0].strip("…") for ways in task.wanted)
        other = {
            "when": rng.choice([word for word in TIMES.values() if word != when]),
            "who": rng.choice([word for word in SUBJECTS.values() if word not in (who, what)]),
            "does": rng.choice([word for word in VERBS.values() if word != does]),
            "what": rng.choice([word for word in OBJECTS.values() if word not in (who, what)]),
        }
        rows.append(
            [
                f"{when}{who}{does}{what}。",
                f"{who}{when}{does}{what}。",
                f"{when}{what}{does}{who}。",
                f"{what}{when}{does}{who}。",
                f"{who}{does}{what}。",
                f"{who}{when}{other['does']}{what}。",
                f"{when}{who}{does}{other['what']}。",
                f"{other['when']}{other['who']}{does}{what}。",
                f"{other['who']}{when}{other['does']}{other['what']}。",
                f"{when}{who}{does}{what}{other['what']}。",
            ]
        )
    return judge_outputs(tasks[:count], rows)
