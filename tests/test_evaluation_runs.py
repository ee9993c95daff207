"""Chapter 16c: an exam without leaks, evaluators that are wrong on purpose, intervals against
formulas, and recorded points once more."""

import math
import random

import numpy as np
import pytest
import torch

from sft_lab.course.evaluation_runs import (
    ARMS,
    GROUPS,
    MORE,
    as_outcomes,
    as_text,
    build_exam,
    choose_best,
    clustered_error,
    count_letters,
    lessons_of,
    measure_evaluators,
    part_of,
    plain_texts,
    questions_needed,
    read_batches,
    simulate_power,
    take_battery,
)
from sft_lab.course.results import read_results
from sft_lab.duplicates import near_duplicates
from sft_lab.models import load
from sft_lab.perplexity import bits_per_byte, perplexity, score_texts


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


def questions(exam) -> list[str]:
    return [talk[0]["content"] for group in exam.values() for talk in group]


def test_the_exam_has_every_group_and_its_parts_share_no_question():
    parts = [build_exam(part) for part in ("validation", "test")]
    assert [tuple(exam) for exam in parts] == [GROUPS] * 2
    assert {len(talks) for exam in parts for talks in exam.values()} == {60}
    assert not set(questions(parts[0])) & set(questions(parts[1]))
    assert questions(build_exam("test")) == questions(parts[1])


@pytest.mark.parametrize("arm", ARMS)
def test_no_lesson_asks_what_the_exam_asks(arm):
    lessons = [talk[0]["content"] for seed in range(3) for talk in lessons_of(arm, seed=seed)]
    for part in ("validation", "test"):
        assert not near_duplicates(questions(build_exam(part)), lessons, threshold=1.0)


def test_a_sum_is_of_one_part_whatever_its_wording_and_order():
    talks = [
        [{"content": text.format(a, b)}]
        for text in ("What is {} + {}?", "Add {} and {}.")
        for a, b in ((3, 14), (14, 3))
    ]
    assert len({part_of(talk) for talk in talks}) == 1


def test_the_second_round_and_its_control_have_as_many_lessons():
    first, repaired, more = (lessons_of(arm, seed=0) for arm in ("first", "repaired", "more"))
    assert len(repaired) == len(more) == len(first) + MORE
    assert repaired[: len(first)] == more[: len(first)] == first


def test_evaluators_agree_with_plain_loops_on_1000_random_sets_of_batches():
    rng = random.Random(0)
    for _ in range(1000):
        batches, rows = [], []
        for _ in range(rng.randint(1, 4)):
            lengths = [rng.randint(1, 6) for _ in range(rng.randint(1, 4))]
            nats = torch.rand(len(lengths), max(lengths), dtype=torch.float64) * 5
            mask = torch.tensor([[int(t < n) for t in range(max(lengths))] for n in lengths])
            batches.append((nats, mask))
            rows.append([nats[i, :n].tolist() for i, n in enumerate(lengths)])
        means = [sum(map(sum, b)) / sum(map(len, b)) for b in rows]
        tokens = [x for batch in rows for row in batch for x in row]
        all_nats = [x for nats, _ in batches for x in nats.flatten().tolist()]
        assert measure_evaluators(batches) == pytest.approx(
            {
                "right": math.exp(sum(tokens) / len(tokens)),
                "mean of means": math.exp(sum(means) / len(means)),
                "mean of perplexities": sum(map(math.exp, means)) / len(means),
                "padding scored": math.exp(sum(all_nats) / len(all_nats)),
            }
        )


def test_only_the_right_evaluator_is_the_librarys_for_every_batch_size(atlas):
    model, tokenizer = atlas
    texts = plain_texts(16)
    expected = perplexity(score_texts(model, tokenizer, texts))
    for size in (1, 4, 16):
        found = measure_evaluators(read_batches(model, tokenizer, texts, size))
        assert found["right"] == pytest.approx(expected, rel=1e-4)
        assert size == 1 or found["padding scored"] > 2 * expected


def test_the_letters_behind_a_context_share_the_whole_probability():
    text = "the cat sat on the mat. " * 3 + "an ant."
    for order in (0, 1, 3):
        bits = count_letters(text, order)
        known = sorted(set(text))
        for before in ("the ", "zzz", "", "at"):
            p = [2 ** -bits(before + letter)[-1] for letter in [*known, "Z"]]
            assert sum(p) == pytest.approx(1)
    assert count_letters(text, 3)(text).sum() < count_letters(text, 0)(text).sum()


@pytest.mark.parametrize("disagree", [0.05, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("difference", [0.02, 0.03])
def test_simulated_exams_keep_what_the_formula_promises(disagree, difference):
    needed = round(questions_needed(disagree, difference))
    power = simulate_power(disagree, difference, needed, exams=20_000)
    assert abs(power - 0.8) < 0.035
    assert simulate_power(disagree, difference, needed // 4) < 0.5


def test_a_clustered_error_is_the_plain_one_without_clusters_and_that_of_one_copy_with_copies():
    values = np.random.default_rng(0).normal(size=300)
    plain = values.std() / math.sqrt(300)
    assert clustered_error(values, [str(i) for i in range(300)]) == pytest.approx(plain)
    five = np.tile(values, 5)
    assert clustered_error(five, [str(i) for i in range(300)] * 5) == pytest.approx(plain)


def test_clustered_errors_match_resampled_clusters():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(200), 4)
    values = rng.normal(size=200)[cluster] + rng.normal(size=800)
    drawn = rng.integers(0, 200, (4000, 200))
    means = values.reshape(200, 4).mean(1)[drawn].mean(1)
    assert clustered_error(values, cluster.astype(str)) == pytest.approx(means.std(), rel=0.06)


def test_runs_that_are_equal_by_chance_look_better_on_what_chose_them_only():
    rng = np.random.default_rng(2)
    own, fresh = choose_best(rng.random((10, 4000)) < 0.7, 50, splits=1000)
    # the largest of ten means with standard deviation s lies 1.54 s above them
    assert own == pytest.approx(1.54 * math.sqrt(0.7 * 0.3 / 50), abs=0.012)
    assert abs(fresh) < 0.012


def test_outcomes_survive_being_written_down():
    outcome = np.random.default_rng(3).random((4, 30)) < 0.5
    np.testing.assert_array_equal(as_outcomes([as_text(row) for row in outcome]), outcome)


def test_the_recorded_base_line_is_measured_again(atlas):
    model, tokenizer = atlas
    [row] = [r for r in read_results("16c_rounds", model).rows if r["arm"] == "base"][:1]
    found = take_battery(model, tokenizer)
    for name, share in found.items():
        assert abs(share - row[name]) < 0.04, name
    bits = bits_per_byte(score_texts(model, tokenizer, plain_texts()))
    assert bits == pytest.approx(row["bits per byte"], abs=1e-3)
