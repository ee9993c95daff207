"""Chapter 16c: one evaluation, all six steps: its exam, its runs, and what is counted of them."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas, battery, plots
from sft_lab.chat import complete
from sft_lab.course.short_runs import answer, tune_on
from sft_lab.metrics import expected_calibration_error, is_right, self_consistency
from sft_lab.perplexity import bits_per_byte, score_texts, start_token_id
from sft_lab.records import Conversation
from sft_lab.rendering import encode_text
from sft_lab.significance import Z, questions_needed

Exam = dict[str, list[Conversation]]  # the questions of each group
GROUPS = ("facts", "sum", "list", "json", "read", "notes")
FIRST, MORE = 1200, 300  # lessons of the first round; lessons added in the second
ARMS = ("first", "repaired", "more", "narrow")
PER_GROUP, TEXTS, ITEMS, SAMPLES = 60, 60, 150, 5


# the exam


def build_exam(part: str, *, count: int = PER_GROUP, seed: int = 0) -> Exam:
    """`count` questions of each group for "validation" or "test": the held-out entities, halved."""
    facts = atlas.split(atlas.load_facts())["held_out"]
    names = sorted({(fact.domain, fact.entity) for fact in facts})
    random.Random("16c").shuffle(names)
    half = len(names) // 2
    mine = set({"validation": names[:half], "test": names[half:]}[part])
    own = [fact for fact in facts if (fact.domain, fact.entity) in mine]
    rng = random.Random(f"{part} {seed}")
    exam = {"facts": atlas.ask(rng.sample(own, count), seed=rng.randrange(10**6))}
    for skill in atlas.SKILLS:
        drawn = atlas.ask_skill(skill, own, 12 * count, seed=rng.randrange(10**6))
        kept = {t[0]["content"]: t for t in drawn if skill != "sum" or part_of(t) == part}
        exam[skill] = list(kept.values())[:count]
    return exam


def part_of(talk: Conversation) -> str:
    """ "train", "validation" or "test": a sum has no entity, so the pair of its numbers decides."""
    pair = sorted(re.findall(r"\d+", talk[0]["content"]))
    place = random.Random(" ".join(pair)).random()
    return "validation" if place < 0.15 else "test" if place < 0.3 else "train"


def lessons_of(arm: str, *, seed: int) -> list[Conversation]:
    """The tuning set of an arm: the first round; the same with MORE JSON lessons ("repaired") or
    with MORE of its own mixture ("more"); "narrow": sums alone. No sum of the exam is in any."""
    known = atlas.split(atlas.load_facts())["train"]
    if arm == "narrow":
        mixture = atlas.ask_skill("sum", known, 2 * FIRST, seed=seed)
    else:
        mixture = atlas.training_conversations(seed=seed)
    mixture = [talk for talk in mixture if not _is_sum(talk) or part_of(talk) == "train"]
    if arm == "repaired":
        return mixture[:FIRST] + atlas.ask_skill("json", known, MORE, seed=seed)
    return mixture[: FIRST + (MORE if arm == "more" else 0)]


def _is_sum(talk: Conversation) -> bool:
    return talk[1]["content"].startswith("The sum of ")


def tune_arm(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arm: str, *, seed: int
) -> PreTrainedModel:
    """One epoch; the narrow arm at three times the rate: it is there to lose something."""
    rate = 3e-3 if arm == "narrow" else 1e-3
    lessons = lessons_of(arm, seed=seed)
    return tune_on(base, tokenizer, lessons, seed=seed, learning_rate=rate)


# what is measured


def ask_exam(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, exam: Exam
) -> dict[str, np.ndarray]:
    """Whether each greedy answer is right, by group, (n,) bool."""
    talks = [talk for group in exam.values() for talk in group]
    said = iter(answer(model, tokenizer, talks, max_new_tokens=40))
    return {
        name: np.array([is_right(next(said), talk[-1]["content"]) for talk in group])
        for name, group in exam.items()
    }


def plain_texts(count: int = TEXTS, *, seed: int = 0) -> list[str]:
    """Documents of the kind that the base read, newly drawn."""
    facts = atlas.split(atlas.load_facts())
    known = facts["train"] + facts["held_out"]
    return list(islice(atlas.documents(known, seed=f"16c {seed}"), count))


def take_battery(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, count: int = ITEMS, seed: int = 0
) -> dict[str, float]:
    """Share right of each task, by either rule; the calibration error over all items ("ece"); and
    the share right of "yes or no"."""
    found, sure, right = {}, [], []
    for task, items in battery.build_battery(count, seed=seed).items():
        scores = battery.score_choices(model, tokenizer, items)
        hits = battery.outcomes(items, scores)
        found[task] = float(hits.mean())
        found[f"{task} by byte"] = float(battery.outcomes(items, scores, "byte").mean())
        sure.extend(battery.confidence(scores))
        right.extend(hits)
    found["ece"] = expected_calibration_error(sure, right)
    asked = battery.draw_items(battery.yes_or_no, count, seed=seed)
    scores = battery.score_choices(model, tokenizer, asked)
    return found | {"yes or no": float(battery.outcomes(asked, scores).mean())}


def agree_with_itself(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> float:
    """Self-consistency: facts completed SAMPLES times at temperature 1, in the base's own form; the
    mean share of samples that say what most of them say."""
    facts = atlas.split(atlas.load_facts())["held_out"]
    prompts = [
        atlas.cloze(fact)[0] for fact in random.Random(f"16c {seed}").sample(facts, PER_GROUP)
    ]
    torch.manual_seed(seed)
    said = complete(
        model,
        tokenizer,
        [prompt for prompt in prompts for _ in range(SAMPLES)],
        max_new_tokens=12,
        do_sample=True,
        temperature=1.0,
    )
    ends = [text.split(".")[0] for text in said]
    rows = [ends[i : i + SAMPLES] for i in range(0, len(ends), SAMPLES)]
    return float(np.mean([self_consistency(row) for row in rows]))


def measure_round(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> dict[str, float | str]:
    """A row of the sweep: every dimension of the evaluation, for one model."""
    row: dict[str, float | str] = {}
    for part in ("validation", "test"):
        outcome = ask_exam(model, tokenizer, build_exam(part))
        row |= {f"{part} {group}": float(hits.mean()) for group, hits in outcome.items()}
        row[f"{part} outcomes"] = as_text(np.concatenate(list(outcome.values())))
    row |= take_battery(model, tokenizer)
    row["bits per byte"] = bits_per_byte(score_texts(model, tokenizer, plain_texts()))
    row["consistency"] = agree_with_itself(model, tokenizer, seed=seed)
    return row


def as_text(outcome: np.ndarray) -> str:
    """Outcomes as a text of 0 and 1, as they stand in a recorded row."""
    return "".join(str(int(hit)) for hit in outcome)


def as_outcomes(texts: Sequence[str]) -> np.ndarray:
    """The outcomes of recorded rows, (rows, questions) bool."""
    return np.array([[sign == "1" for sign in text] for text in texts])


# perplexity, and what goes wrong with it

Batch = tuple[torch.Tensor, torch.Tensor]  # nats of every position and whether it is text, (B, T)


@torch.inference_mode()
def read_batches(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], size: int
) -> list[Batch]:
    """Nats of every position, padding too, in batches of `size` as they come; mask 1 on text."""
    start, pad = start_token_id(tokenizer), tokenizer.pad_token_id
    rows = [[start, *encode_text(text, tokenizer)] for text in texts]
    batches = []
    for first in range(0, len(rows), size):
        some = rows[first : first + size]
        width = max(map(len, some))
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in some]).to(model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in some])
        logits = model(ids, attention_mask=mask.to(model.device)).logits[:, :-1].float()
        nats = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        batches.append((nats.view(len(some), -1).double().cpu(), mask[:, 1:]))
    return batches


def measure_evaluators(batches: Sequence[Batch]) -> dict[str, float]:
    """Perplexity of the same batches by an evaluator that is right and by three that are not."""
    sums = [(nats * mask).sum().item() for nats, mask in batches]
    counts = [mask.sum().item() for _, mask in batches]
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    everything = sum(nats.sum().item() for nats, _ in batches)
    return {
        "right": math.exp(sum(sums) / sum(counts)),
        "mean of means": math.exp(sum(means) / len(means)),
        "mean of perplexities": sum(map(math.exp, means)) / len(means),
        "padding scored": math.exp(everything / sum(nats.numel() for nats, _ in batches)),
    }


def count_letters(text: str, order: int) -> Callable[[str], np.ndarray]:
    """A model made of counts: bits of each letter of a text, after the `order` letters before it.

    Shorter contexts fill in for rare ones (a mean weighed by how often a context was seen).
    """
    counts: list[dict[str, Counter[str]]] = [{} for _ in range(order + 1)]
    for place, letter in enumerate(text):
        for size in range(min(order, place) + 1):
            seen = counts[size].setdefault(text[place - size : place], Counter())
            seen[letter] += 1
    letters = len(set(text)) + 1

    def bits(other: str) -> np.ndarray:
        found = []
        for place, letter in enumerate(other):
            p = 1 / letters
            for size in range(min(order, place) + 1):
                seen = counts[size].get(other[place - size : place])
                if seen is None:
                    break
                total, weight = seen.total(), len(seen)
                p = (seen[letter] + weight * p) / (total + weight)
            found.append(-math.log2(p))
        return np.array(found)

    return bits


# how sure a number is


def simulate_power(
    disagree: float, difference: float, questions: int, *, exams: int = 2000, seed: int = 0
) -> float:
    """Share of simulated exams in which McNemar's statistic is beyond 1.96, in favour of the second
    model: what `questions_needed` promises, counted."""
    won, lost = (disagree + difference) / 2, (disagree - difference) / 2
    drawn = np.random.default_rng(seed).multinomial(
        questions, [won, lost, 1 - disagree], size=exams
    )
    gained, dropped = drawn[:, 0], drawn[:, 1]
    return float(((gained - dropped) > Z * np.sqrt(gained + dropped)).mean())


def clustered_error(differences: np.ndarray, cluster: Sequence[str]) -> float:
    """Standard error of a mean whose questions hang together in clusters (Miller 2024)."""
    _, place = np.unique(cluster, return_inverse=True)
    sums = np.bincount(place, weights=differences - differences.mean())
    return float(np.sqrt((sums**2).sum()) / len(differences))


def choose_best(
    outcome: np.ndarray, questions: int, *, splits: int = 500, seed: int = 0
) -> tuple[float, float]:
    """What the chosen run scores above its true score, on the questions that chose it and on fresh
    ones; means over random splits.

    outcome: (runs, n) bool. In each split `questions` of the n choose the best run, and as many
    others test it. A run's true score is its share on all n.
    """
    rng, runs = np.random.default_rng(seed), outcome.astype(float)
    true, gains = runs.mean(axis=1), []
    for _ in range(splits):
        order = rng.permutation(outcome.shape[1])
        chosen_on = runs[:, order[:questions]].mean(axis=1)
        best = int(chosen_on.argmax())
        tested = runs[best, order[questions : 2 * questions]].mean()
        gains.append((chosen_on[best] - true[best], tested - true[best]))
    own, fresh = np.mean(gains, axis=0)
    return float(own), float(fresh)


def run_plan(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lessons: dict[str, int],
    *,
    seed: int,
    groups: Sequence[str] = GROUPS,
    count: int = 40,
) -> dict[str, float]:
    """Share right of `groups` on the validation part, after so many lessons of each group."""
    known = atlas.split(atlas.load_facts())["train"]
    rows = atlas.ask(random.Random(seed).choices(known, k=lessons.get("facts", 0)), seed=seed)
    for skill in atlas.SKILLS:
        wanted = lessons.get(skill, 0)
        drawn = atlas.ask_skill(skill, known, 2 * wanted, seed=seed)
        usable = [talk for talk in drawn if not _is_sum(talk) or part_of(talk) == "train"]
        rows += usable[:wanted]
    model = tune_on(base, tokenizer, rows, seed=seed)
    exam = build_exam("validation", count=count)
    outcome = ask_exam(model, tokenizer, {name: exam[name] for name in groups})
    return {name: float(hits.mean()) for name, hits in outcome.items()}


# pictures

STEPS = (
    ("1", "test set", "apart from training"),
    ("2", "base line", "the model before"),
    ("3", "tuned", "the model after"),
    ("4", "metrics", "with intervals"),
    ("5", "analysis", "which group fails?"),
    ("6", "iteration", "mend, run again"),
)


def draw_steps() -> Axes:
    """The six steps, which go round on the validation part, and the test part, read once."""
    ax = plots.new_figure((9.6, 2.7)).subplots()
    for place, (number, name, note) in enumerate(STEPS):
        x = 1.7 * place
        box = FancyBboxPatch((x, 1), 1.3, 0.9, boxstyle="round,pad=0.05", fc="white", ec=plots.INK)
        ax.add_patch(box)
        ax.text(x + 0.65, 1.58, f"{number} {name}", ha="center", fontsize=10.5, fontweight="bold")
        ax.text(x + 0.65, 1.18, note, ha="center", fontsize=8.5, color=plots.MUTED)
        if place:
            ax.annotate("", (x - 0.07, 1.45), (x - 0.33, 1.45), arrowprops={"arrowstyle": "->"})
    turn = {"arrowstyle": "->", "color": plots.TUNED, "connectionstyle": "arc3,rad=-0.18"}
    ax.annotate("", (4.05, 0.92), (9.15, 0.92), arrowprops=turn)
    ax.text(6.6, 0.12, "as often as you like, on the validation part", ha="center", fontsize=10)
    ax.text(9.15, 2.4, "once, at the end: the test part", ha="center", fontsize=10)
    ax.annotate("", (9.15, 1.98), (9.15, 2.36), arrowprops={"arrowstyle": "->"})
    ax.set(xlim=(-0.2, 10.9), ylim=(0, 2.75))
    ax.axis("off")
    return ax


def draw_batch(batch: Batch) -> Axes:
    """The nats of every position of a padded batch: text in blue, padding in orange."""
    nats, mask = (part.numpy() for part in batch)
    ax = plots.new_figure((8.4, 2.6)).subplots()
    for values, shown, colours in ((nats, mask, "Blues"), (nats, 1 - mask, "Oranges")):
        part = np.where(shown > 0, values, np.nan)
        ax.imshow(part, cmap=colours, vmin=-2, vmax=14, aspect="auto", interpolation="none")
    ax.set(xlabel="position", ylabel="text", yticks=[], title="Darker: more nats. Orange: padding")
    ax.grid(visible=False)
    return ax


def draw_power(difference: float, disagreements: Sequence[float], sizes: Sequence[int]) -> Axes:
    """Simulated power over the number of questions; a dot where the formula promises 80 %."""
    ax = plots.curve(
        sizes,
        {
            f"{100 * d:.0f} % differ": [simulate_power(d, difference, n) for n in sizes]
            for d in disagreements
        },
        xlabel="questions",
        ylabel="exams that find it",
        title=f"A difference of {100 * difference:.0f} points: how many questions?",
    )
    for place, d in enumerate(disagreements):
        needed = questions_needed(d, difference)
        if needed <= max(sizes):
            ax.plot(needed, 0.8, "o", color=plots.CYCLE[place], markersize=9)
    ax.axhline(0.8, color=plots.MUTED, linestyle=":")
    ax.set_ylim(0, 1)
    return ax


def draw_battery(shares: dict[str, dict[str, Sequence[float]]], chance: Sequence[float]) -> Axes:
    """Shares of each task for some models, a dot a seed; the dashes are chance."""
    ax = plots.new_figure((8.2, 3.6)).subplots()
    looks = (("o", plots.BASE), ("s", plots.TUNED), ("x", plots.PURPLE))
    for offset, ((name, by_task), (marker, colour)) in enumerate(
        zip(shares.items(), looks, strict=True)
    ):
        for place, seeds in enumerate(by_task.values()):
            y = [place + 0.24 * (offset - 1)] * len(seeds)
            label = name if place == 0 else None
            ax.plot(seeds, y, marker, color=colour, label=label, alpha=0.75, linestyle="none")
    for place, level in enumerate(chance):
        ax.vlines(level, place - 0.42, place + 0.42, color=plots.INK, linestyle="--", linewidth=1.2)
    tasks = list(next(iter(shares.values())))
    ax.set(xlim=(0, 1.03), xlabel="share right (dashes: chance; a mark a seed)")
    ax.set_yticks(range(len(tasks)), tasks)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.set_title("What was kept, and what came")
    return ax
