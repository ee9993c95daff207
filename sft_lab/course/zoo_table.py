"""Chapter 18c: case files, the battery of probes on each, and which probe sees which bug.

A case file is what an engineer gets: the log, the curve, ten outputs, the first batch. The values
of the probes stand beside it. A value is compared with those of healthy runs, which differ in their
seed alone: A against A.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import diagnostics
from sft_lab.course import zoo
from sft_lab.course.results import Results
from sft_lab.course.zoo import AHEAD, Pipeline, Run, count_graded, draw_talks, run_pipeline
from sft_lab.course.zoo_bugs import BUGS, DECOYS, plant
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.metrics import is_right

STOP = "<|im_end|>"
HEALTHY = ("healthy", "healthy, packed")
QUARTERS = tuple(f"loss {k}/4" for k in range(1, 5))
EVALS = tuple(f"eval {k}/4" for k in range(1, 5))
CURVE = (*QUARTERS, *EVALS)


@dataclass(frozen=True)
class Probe:
    """A probe's name, what it measures, when it can be asked first, and a change that is none."""

    name: str
    what: str
    when: str  # "before", "step 0", "after"
    least: float  # the band is widened by at least so much
    bad: str = "both"  # "low" or "high" where the other direction cannot be ill


PROBES = (
    Probe("graded share", "graded tokens / tokens, of the examples", "before", 0.02),
    Probe(
        "graded text",
        "answers graded whole, with their stop token and nothing else",
        "before",
        0.02,
        "low",
    ),
    Probe("batch : examples", "graded tokens in the batch / in its examples", "before", 0.02),
    Probe("asked as taught", "rows that begin as their question is asked", "before", 0.02, "low"),
    Probe("control tokens", "control tokens in a row beyond those of its turns", "before", 0.02),
    Probe(
        "batch sizes", "loss of an evaluation at 1, 4 and 16 rows a batch", "step 0", 1e-3, "high"
    ),
    Probe("accumulation", "gradient of 8 x 1 rows against 1 x 8", "step 0", 1e-3, "high"),
    Probe("P(stop)", "probability of the stop token where an answer ends", "after", 0.02, "low"),
    Probe("first token", "accuracy at the first token of the answer", "after", 0.02, "low"),
    Probe("other tokens", "accuracy at the second to sixth token", "after", 0.02, "low"),
    Probe("next but one", "accuracy against the token after next", "after", 0.02, "high"),
    Probe("two evaluations", "difference of two evaluations", "after", 1e-3, "high"),
    Probe("max |B|", "largest entry of the matrices B", "after", 0.02, "low"),
    Probe("reload", "logits before saving and after loading", "after", 1e-3, "high"),
    Probe("merge", "logits before and after merging", "after", 1e-3, "high"),
    Probe("resume", "losses behind a resume, and without it", "after", 1e-3, "high"),
    Probe("alone : batch", "questions answered otherwise in a batch", "after", 0.02, "high"),
    Probe("answers end", "answers that end with the stop token", "after", 0.02, "low"),
    Probe("answers right", "right answers about held-out facts", "after", 0.02, "low"),
)
BATTERY = tuple(probe.name for probe in PROBES)


def probe_run(run: Run, *, seed: int = 0) -> dict[str, float]:
    """Every probe of the battery on a run."""
    return {
        **probe_data(run),
        **probe_start(run),
        **probe_end(run, seed),
        **probe_answers(run, seed),
    }


def probe_data(run: Run) -> dict[str, float]:
    """What can be asked before a model is there: of 60 rows, and of the first batch."""
    pipeline, tokenizer = run.pipeline, run.tokenizer
    start, stop = tokenizer.convert_tokens_to_ids(["<|im_start|>", STOP])
    controls = {start, stop, tokenizer.pad_token_id}
    whole, asked, extra = [], [], []
    for talk in run.talks[:60]:
        example = pipeline.encode(talk, tokenizer, pipeline.write_turn)
        if example is None:
            continue
        answers = [turn["content"] + STOP for turn in talk if turn["role"] == "assistant"]
        whole.append(diagnostics.graded_text(example, tokenizer) == answers)
        ids = example.input_ids
        extra.append(sum(token in controls for token in ids) - 1 - 2 * len(talk))
        for k in range(1, len(talk), 2):
            before = pipeline.prompt(talk[:k], tokenizer, pipeline.write_turn)
            # a row that was cut inside its prompt is another fault
            asked.append(ids[: len(before)] == before[: len(ids)])
    examples = run.examples[: run.batch_rows]
    graded = sum(label != IGNORE_INDEX for example in examples for label in example.labels[1:])
    return {
        "graded share": diagnostics.graded_share(run.examples),
        "graded text": _mean(whole),
        "batch : examples": count_graded(run.first_batch) / graded if graded else math.nan,
        "asked as taught": _mean(asked),
        "control tokens": _mean(extra),
    }


def probe_start(run: Run, *, rows: int = 16) -> dict[str, float]:
    """What can be asked of the base with a fresh adapter, before the first step."""
    pipeline, examples = run.pipeline, run.examples[:rows]
    torch.manual_seed(0)
    model = pipeline.adapt(run.base).eval()

    def loss_of(some: Sequence, size: int) -> float:
        batches = [run.gather(some[i : i + size], run.tokenizer) for i in range(0, len(some), size)]
        return pipeline.evaluate(model, batches, pipeline.loss)

    def gradient_of(batches: Sequence[Sequence]) -> list[torch.Tensor]:
        model.eval().zero_grad()
        gathered = [run.gather(some, run.tokenizer) for some in batches]
        pipeline.gradient(model, gathered, pipeline.loss)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        return [torch.zeros(1) if w.grad is None else w.grad for w in weights]

    return {
        "batch sizes": diagnostics.batch_difference(loss_of, examples),
        "accumulation": diagnostics.accumulation_difference(gradient_of, examples[: rows // 2]),
    }


def probe_end(run: Run, seed: int) -> dict[str, float]:
    """What can be asked of the trained model, its file and its merged copy. Held-out rows are
    encoded by the healthy station, or a mistake would be measured with itself."""
    pipeline, model = run.pipeline, run.model
    talks = [talk for talk in draw_talks("held_out", 40, seed=seed + 100) if len(talk) == 2]
    encoded = [zoo.encode(talk, run.tokenizer, zoo.write_turn) for talk in talks]
    examples = [example for example in encoded if example is not None][:24]
    batches = [run.gather(examples, run.tokenizer)]
    places = diagnostics.accuracy_by_position(model, examples)
    resumed = [step["loss"] for step in run.log[run.half : run.half + AHEAD]]
    return {
        "P(stop)": diagnostics.stop_probability(model, run.tokenizer, examples),
        "first token": places[0],
        "other tokens": _mean(places[1:6]),
        "next but one": diagnostics.shifted_accuracy(model, examples)[2],
        "two evaluations": diagnostics.eval_difference(
            lambda: pipeline.evaluate(model, batches, pipeline.loss)
        ),
        "max |B|": diagnostics.largest_b(model),
        "reload": diagnostics.reload_difference(
            model.eval(), "", lambda _: pipeline.load(run.base, run.file, pipeline.adapt)
        ),
        "merge": diagnostics.merge_difference(model, pipeline.merge),
        "resume": diagnostics.resume_difference(run.ahead, resumed),
    }


def probe_answers(run: Run, seed: int) -> dict[str, float]:
    """What the served model writes: 40 questions in one batch, eight alone."""
    talks = [talk for talk in draw_talks("held_out", 80, seed=seed + 200) if fits(talk, run)][:40]
    written = run.ask([talk[:-1] for talk in talks])
    right = [
        is_right(text.removesuffix(STOP), talk[-1]["content"])
        for text, talk in zip(written, talks, strict=True)
    ]
    few = sorted((talk[:-1] for talk in talks), key=lambda talk: len(talk[-1]["content"]))[::5]
    return {
        "alone : batch": diagnostics.batch_generation_difference(run.ask, few),
        "answers end": _mean([text.endswith(STOP) and text.count(STOP) == 1 for text in written]),
        "answers right": _mean(right),
    }


def fits(talk: zoo.Conversation, run: Run) -> bool:
    """Whether a healthy run would have kept the row."""
    example = zoo.encode(talk, run.tokenizer, zoo.write_turn)
    return example is not None


def outputs_of(run: Run, seed: int) -> list[list[str]]:
    """Ten questions and what the served model writes: facts, lists, a long list, a second turn."""
    talks = draw_talks("held_out", 60, seed=seed + 300)
    long = [talk for talk in talks if not fits(talk, run)][:1]
    two = [talk for talk in talks if len(talk) == 4 and fits(talk, run)][:2]
    rest = [talk for talk in talks if len(talk) == 2 and fits(talk, run)][: 10 - len(long + two)]
    chosen = rest + two + long
    return [
        [talk[-2]["content"], text]
        for talk, text in zip(chosen, run.ask([talk[:-1] for talk in chosen]), strict=True)
    ]


def curve_of(log: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What a curve shows, in eight numbers: mean training loss of each quarter of the run, and the
    evaluation at its end."""
    quarter = len(log) // 4
    means = [_mean([step["loss"] for step in log[k * quarter :][:quarter]]) for k in range(4)]
    evals = [step["eval"] for step in log if "eval" in step]
    return dict(zip(CURVE, [*means, *evals], strict=True))


def measure_case(
    name: str, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> dict[str, Any]:
    """Run a case by its name, and return its file with all probes, ready to be recorded."""
    pipeline, settings = find_case(name)
    run = run_pipeline(pipeline, base, tokenizer, seed=seed, **settings)
    row = {**probe_run(run, seed=seed), **curve_of(run.log)}
    row = round_values(row)
    for key in ("loss", "lr", "grad", "eval"):
        row[f"log {key}"] = " ".join(f"{step[key]:.4g}" for step in run.log if key in step)
    if seed == 0:
        row["outputs"] = outputs_of(run, seed)
        row["batch"] = [
            [" ".join(map(str, ids)), "".join("-+"[label != IGNORE_INDEX] for label in labels)]
            for ids, labels in _first_rows(run)
        ]
    return row


def round_values(found: Mapping[str, float]) -> dict[str, float | None]:
    """Values as they are recorded: six places, and None for what is no number."""
    return {key: round(x, 6) if math.isfinite(x) else None for key, x in found.items()}


def lost_and_added(examples: Sequence[Example], labels: torch.Tensor) -> tuple[int, int]:
    """Places graded in the examples and not in their batch (B, T), and the other way round."""
    lost = added = 0
    for example, row in zip(examples, labels.tolist(), strict=True):
        padded = example.labels + [IGNORE_INDEX] * (len(row) - len(example.labels))
        for wanted, found in zip(padded, row, strict=True):
            lost += wanted != IGNORE_INDEX and found == IGNORE_INDEX
            added += wanted == IGNORE_INDEX and found != IGNORE_INDEX
    return lost, added


def find_case(name: str) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline of a case, and its settings."""
    if name in HEALTHY:
        return Pipeline(), {"packed": name != "healthy"}
    for decoy in DECOYS:
        if decoy.name == name:
            return Pipeline(), decoy.settings
    for bug in BUGS:
        if bug.name == name:
            return plant(bug), bug.settings
    raise KeyError(f"no case {name!r}")


def _first_rows(run: Run) -> list[tuple[list[int], list[int]]]:
    batch = run.first_batch
    rows = zip(batch["input_ids"].tolist()[:3], batch["labels"].tolist()[:3], strict=True)
    return [(ids[:100], labels[:100]) for ids, labels in rows]


# which probe sees which bug

Band = tuple[float, float]


def bands(results: Results, probes: Iterable[str] = (*BATTERY, *CURVE)) -> dict[str, Band]:
    """For each of the probes, or points of the curve, the values that a healthy run may have: the
    span of the recorded healthy runs, widened on both sides by its own width, or by the probe's
    least; open on the side that cannot be ill."""
    rows = [row for row in results.rows if row["case"] in HEALTHY]
    known = {probe.name: probe for probe in PROBES}
    found = {}
    for name in probes:
        probe = known.get(name)
        low, high = widen([row[name] for row in rows], probe.least if probe else 0.02)
        low = -math.inf if probe and probe.bad == "high" else low
        found[name] = low, math.inf if probe and probe.bad == "low" else high
    return found


def widen(values: Iterable[float], least: float) -> Band:
    """Lowest and highest of the values, with their distance (at least `least`) added on both
    sides."""
    values = list(values)
    low, high = min(values), max(values)
    width = max(high - low, least)
    return low - width, high + width


def is_outside(value: float | None, band: Band) -> bool:
    """Whether a value is none that a healthy run has; None stands for nan and infinity."""
    return value is None or not band[0] <= value <= band[1]


def seen_by(results: Results, case: str, probes: Iterable[str]) -> list[str]:
    """The probes whose value is outside of the healthy band in every seed of a case."""
    allowed, rows = bands(results), results.select(case=case)
    return [p for p in probes if all(is_outside(row[p], allowed[p]) for row in rows)]


def share_outside(results: Results, case: str, probes: Iterable[str]) -> float:
    """The share of a case's seeds in which one of the probes lies outside of its healthy band."""
    allowed, probes = bands(results), list(probes)
    rows = results.select(case=case)
    return _mean([any(is_outside(row[p], allowed[p]) for p in probes) for row in rows])


def share_seen(results: Results, probes: Iterable[str]) -> list[float]:
    """For each seed the share of the bugs that at least one of the probes sees in that seed."""
    allowed, probes = bands(results), list(probes)
    rows = {bug.name: results.select(case=bug.name) for bug in BUGS}
    seeds = len(next(iter(rows.values())))
    return [
        _mean([any(is_outside(r[s][p], allowed[p]) for p in probes) for r in rows.values()])
        for s in range(seeds)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
