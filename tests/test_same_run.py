"""Chapter 07: TRL's trainer repeats our loop, each planted keyword makes another run, and three
steps of a real model were recorded."""

import pytest

from sft_lab.chat import encode_chat
from sft_lab.course import same_run
from sft_lab.course.results import read_results
from sft_lab.course.views.ladder import TOLERANCE, differences
from sft_lab.models import load

STEPS = same_run.SHOWN_STEPS


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


@pytest.fixture(scope="module")
def rows(atlas):
    return same_run.short_rows_of(3, same_run.FAULTY_ROWS, atlas[1])


@pytest.fixture(scope="module")
def ours(atlas, rows):
    return same_run.plain_losses(*atlas, rows, STEPS)


def test_rows_are_short_and_drawn_by_the_seed(atlas, rows):
    _, tokenizer = atlas
    assert len(rows) == same_run.FAULTY_ROWS
    assert max(len(encode_chat(row, tokenizer)) for row in rows) <= 40
    assert same_run.short_rows_of(3, same_run.FAULTY_ROWS, tokenizer) == rows
    assert same_run.short_rows_of(4, same_run.FAULTY_ROWS, tokenizer) != rows
    with pytest.raises(ValueError, match="conversations are short, 50 asked for"):
        same_run.short_rows_of(0, 50, tokenizer, longest=12)


def test_trl_repeats_our_loop_and_leaves_its_evidence(atlas, rows, ours):
    found = same_run.trl_run(*atlas, rows, {}, STEPS)
    assert differences(ours, found.losses).max() < TOLERANCE
    assert len(found.losses) == len(found.rates) == STEPS and found.rates[1] == same_run.RATE
    assert found.rows == len(rows) and found.text == f"{rows[0][-1]['content']}<|im_end|>"
    said = same_run.describe("ours", found)
    assert f"{found.losses[0]:.4f}" in said and f"{found.graded} tokens graded" in said


@pytest.mark.parametrize("name", same_run.FAULTS)
def test_each_planted_keyword_makes_another_run(atlas, rows, ours, name):
    found = same_run.faulty_run(name, *atlas, rows)
    assert differences(ours, found.losses).max() > 20 * TOLERANCE
    right = (same_run.SAME | {"assistant_only_loss": True, "max_length": 1024})[
        next(iter(same_run.FAULTS[name]))
    ]
    mended = dict.fromkeys(same_run.FAULTS[name], right)
    again = same_run.faulty_run(name, *atlas, rows, mended)
    assert differences(ours, again.losses).max() < TOLERANCE


def test_the_real_model_was_recorded_with_three_seeds_an_arm():
    recorded = read_results("07_smollm2")
    for arm in ("our loop", "TRL, token ids", "TRL, prompt and completion"):
        losses = recorded.measured("losses", arm=arm)
        assert [len(one) for one in losses] == [3, 3, 3], arm
