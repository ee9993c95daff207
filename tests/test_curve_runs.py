"""Chapter 18: rows, masks, the plain loop and the curves against slow references, and a recorded
point once more."""

import copy
import math
import random

import pandas as pd
import pytest
import torch

from sft_lab.course.curve_runs import (
    BATCH,
    CAUSES,
    LOST,
    STEPS,
    Cause,
    Curves,
    batches_of,
    distances,
    encode,
    exam_rows,
    graded_mean,
    last_graded,
    masked_mean,
    mean_loss,
    only_stop,
    plain_run,
    rates_of,
    rows_of,
    run_cause,
    smooth,
    unknown_rows,
    without_stop,
)
from sft_lab.course.exercises.ch18 import RECORDED, border_falls, judge, largest_jump
from sft_lab.course.results import Results, read_results
from sft_lab.course.views.curves import draw_gallery, draw_ladder, draw_smoothing, draw_table
from sft_lab.examples import IGNORE_INDEX
from sft_lab.losses import response_loss
from sft_lab.models import load
from sft_lab.rendering import stop_token_id
from sft_lab.train import train

HEALTHY = Cause()


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


def graded_text(example, tokenizer):
    return tokenizer.decode([label for label in example.labels if label != IGNORE_INDEX])


def test_smoothing_equals_pandas_where_every_step_grades_as_much():
    for seed in range(1000):
        rng = random.Random(seed)
        losses = [rng.uniform(0, 9) for _ in range(rng.randint(1, 40))]
        beta = rng.uniform(0.05, 0.98)
        expected = pd.Series(losses).ewm(alpha=1 - beta, adjust=True).mean()
        assert smooth(losses, [7] * len(losses), beta) == pytest.approx(expected.tolist())


def test_smoothing_equals_the_two_sums_of_its_definition():
    for seed in range(1000):
        rng = random.Random(seed)
        graded = [rng.randint(1, 400), *(rng.choice((0, 20, 300)) for _ in range(20))]
        losses = [rng.uniform(0, 9) if tokens else math.nan for tokens in graded]
        beta = rng.uniform(0.3, 0.98)
        for t, value in enumerate(smooth(losses, graded, beta)):
            parts = [(beta ** (t - s) * graded[s], losses[s]) for s in range(t + 1) if graded[s]]
            assert value == pytest.approx(sum(w * x for w, x in parts) / sum(w for w, _ in parts))


def test_every_cause_differs_from_the_healthy_run_in_what_its_name_says(atlas):
    _, tokenizer = atlas
    rows = rows_of(HEALTHY, 0)
    plain = encode(rows[:20], tokenizer, HEALTHY)
    assert len(rows) == STEPS * BATCH
    assert all(graded_text(one, tokenizer).endswith("<|im_end|>") for one in plain)
    shifted = rows_of(CAUSES["answers of other rows"], 0)
    assert [row[-1] for row in shifted[1:]] == [row[-1] for row in rows[:-1]]
    assert [row[0] for row in shifted] == [row[0] for row in rows]
    whole = encode(rows[:20], tokenizer, CAUSES["prompt graded"])
    assert all(one.labels == one.input_ids for one in whole)
    other = encode(rows[:20], tokenizer, CAUSES["other template"])
    for row, one in zip(rows, other, strict=False):
        said = tokenizer.decode(one.input_ids)
        assert said == f"Question: {row[0]['content']}\nAnswer: {row[1]['content']}<|im_end|>"
        assert graded_text(one, tokenizer) == f" {row[1]['content']}<|im_end|>"
    assert len(rows_of(CAUSES["few rows again"], 0)) == 32
    topics = rows_of(CAUSES["not shuffled"], 0)
    assert sorted(map(str, topics)) == sorted(map(str, rows)) and topics != rows


def test_stop_token_and_the_rest_are_all_that_is_graded(atlas):
    base, tokenizer = atlas
    exam = encode(exam_rows(), tokenizer, HEALTHY)
    stop = stop_token_id(tokenizer)
    for one in exam:
        assert one.labels[last_graded(one.labels)] == stop
        assert stop not in without_stop(one).labels
        assert [label for label in only_stop(one).labels if label != IGNORE_INDEX] == [stop]
    pad = tokenizer.pad_token_id
    whole, words, ends = (
        mean_loss(base, [cut(one) for one in exam], pad)
        for cut in (lambda one: one, without_stop, only_stop)
    )
    share = len(exam) / sum(label != IGNORE_INDEX for one in exam for label in one.labels)
    assert whole == pytest.approx((1 - share) * words + share * ends, abs=1e-4)


def test_the_rows_of_the_exam_are_not_trained_on():
    exam = {row[0]["content"] for row in exam_rows()}
    for seed in range(5):
        same = exam & {row[0]["content"] for row in rows_of(HEALTHY, seed)}
        assert all("+" in question or "plus" in question or "and" in question for question in same)
    known, unknown = unknown_rows(0)
    assert len(known) == 112 and len(unknown) == 93


def test_batches_hold_every_row_once_an_epoch(atlas):
    _, tokenizer = atlas
    examples = encode(rows_of(HEALTHY, 0), tokenizer, HEALTHY)
    batches = batches_of(examples, HEALTHY, 0)
    assert [len(batch) for batch in batches] == [BATCH] * STEPS
    assert sorted(id(one) for batch in batches for one in batch) == sorted(map(id, examples))
    few = batches_of(examples[:32], CAUSES["few rows again"], 0)
    for epoch in range(0, STEPS, 2):
        assert {id(one) for batch in few[epoch : epoch + 2] for one in batch} == {
            id(one) for one in examples[:32]
        }
    lost = batches_of(examples, CAUSES["one batch lost"], 0)
    empty = [all(set(one.labels) == {IGNORE_INDEX} for one in batch) for batch in lost]
    assert empty == [step == LOST for step in range(STEPS)]


def test_the_plain_loop_does_what_train_does(atlas):
    base, tokenizer = atlas
    examples = encode(rows_of(HEALTHY, 0), tokenizer, HEALTHY)[:BATCH]
    mine, theirs = copy.deepcopy(base), copy.deepcopy(base)
    rates = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    curves = plain_run(mine, tokenizer.pad_token_id, [examples] * 4, rates)
    history = train(
        theirs,
        tokenizer,
        examples,
        epochs=4,
        learning_rate=1e-3,
        warmup_ratio=0.0,
        progress=False,
    )
    assert curves.losses == pytest.approx(history.losses, abs=1e-3)
    assert curves.graded == [step["graded"] for step in history.steps]
    norms = [step["grad_norm"] for step in history.steps]
    assert curves.norms == pytest.approx(norms, rel=1e-2)


def test_two_ways_to_write_the_mean_part_where_nothing_is_graded(atlas):
    base, _ = atlas
    torch.manual_seed(0)
    ids = torch.randint(10, 500, (3, 12))
    labels = ids.clone()
    labels[:, :5] = IGNORE_INDEX
    batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    expected = response_loss(base(ids).logits, labels).item()
    assert graded_mean(base, batch).item() == pytest.approx(expected, abs=1e-4)
    assert masked_mean(base, batch).item() == pytest.approx(expected, abs=1e-4)
    batch["labels"] = torch.full_like(ids, IGNORE_INDEX)
    assert graded_mean(base, batch).item() == 0.0
    assert masked_mean(base, batch).isnan()


def test_a_bad_resume_begins_its_rates_and_rows_anew(atlas):
    _, tokenizer = atlas
    cause = CAUSES["resumed badly"]
    rates = rates_of(cause)
    assert rates[20:] == rates[:20] == rates_of(HEALTHY)[:20]
    batches = batches_of(encode(rows_of(cause, 0), tokenizer, cause), cause, 0)
    assert batches[20:] == batches[:20]


def test_distances_leave_the_run_s_own_seed_out():
    rows = [
        {"cause": cause, "seed": seed, "evals": [level + 0.1 * seed] * 3}
        for cause, level in (("healthy", 1.0), ("ill", 2.0))
        for seed in range(3)
    ]
    results = Results("", "", "", "", "", rows)
    healthy = distances(results, "healthy", "evals", uniform=7.6)
    assert healthy == pytest.approx([0.15, 0.0, 0.15], abs=1e-5)
    assert distances(results, "ill", "evals", uniform=7.6) == pytest.approx(
        [0.85, 1.0, 1.15], abs=1e-5
    )
    rows[3]["evals"] = [None] * 3
    assert distances(results, "ill", "evals", uniform=7.6)[0] == pytest.approx(6.45, abs=1e-5)


def test_the_judge_is_far_from_its_borders_on_the_recorded_runs():
    for row in read_results("18_causes").rows:
        if row["cause"] not in RECORDED:
            continue
        losses = [math.nan if loss is None else loss for loss in row["losses"]]
        word = RECORDED[row["cause"]]
        assert judge(losses, STEPS) == word
        if word in ("nan", "zero"):
            continue
        end = sum(losses[-5:]) / 5
        assert not 0.5 < end / losses[0] < 1.05
        if word in ("healthy", "saw-tooth"):
            assert not 0.35 < largest_jump(losses) / (losses[0] - end) < 0.65
            assert border_falls(losses, STEPS) == 0


@pytest.mark.parametrize("cause", ["healthy", "stop not graded"])
def test_a_recorded_run_comes_out_again(atlas, cause):
    base, tokenizer = atlas
    row = read_results("18_causes", base).select(cause=cause)[2]
    again = run_cause(base, tokenizer, cause=cause, seed=row["seed"])
    assert again["losses"] == pytest.approx(row["losses"], abs=0.1)
    assert again["evals"] == pytest.approx(row["evals"], abs=0.05)
    assert again["right"] == pytest.approx(row["right"], abs=0.1)


def test_the_pictures_show_every_run():
    losses = [3.0, 2.0, math.nan]
    runs = {f"cause {i}": Curves(losses, [1, 1, 0], losses, []) for i in range(6)}
    band = [[1.0, 1.0, 1.0], [2.0, 1.5, 1.2]]
    for names in (False, True):
        figure = draw_gallery(runs, band, names=names)
        titles = [ax.get_title("left") or ax.get_title() for ax in figure.axes[:6]]
        assert titles == [f"{x} · cause {i}" if names else x for i, x in enumerate("ABCDEF")]
    bars = draw_ladder({"low": 1.0, "high": 3.0})
    assert [text.get_text() for text in bars.get_yticklabels()] == ["low", "high"]
    lines = draw_smoothing([3.0, 2.0], {"one": [3.0, 2.5]}).get_lines()
    assert [line.get_label() for line in lines] == ["raw", "one"]
    table = draw_table({"cause": ["held", "not shown 5%"]}, ["loss", "answers"], "title")
    assert [text.get_text().strip() for text in table.texts] == ["cause", "held", "not shown 5%"]
