"""Chapter 17b's runs: task, rewards, imitation, preferences; a recorded point comes out again."""

import copy
import types

import pytest
import torch

from sft_lab.course import reward_runs as runs
from sft_lab.course.results import read_results
from sft_lab.labels import encode_conversations
from sft_lab.models import load
from sft_lab.train import evaluate

TASK = [
    {"role": "user", "content": "What is 3 + 4?"},
    {"role": "assistant", "content": "The sum of 3 and 4 is 7."},
]


PARTS = {"exam": 140, "practice": 240, "shown": 24}


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load("atlas-base")


def test_no_sum_is_in_two_parts():
    parts = {part: {talk[0]["content"] for talk in runs.sums_of(part)} for part in PARTS}
    assert {part: len(asked) for part, asked in parts.items()} == PARTS
    assert len(set.union(*parts.values())) == sum(PARTS.values())


@pytest.mark.parametrize("wordy", (False, True))
def test_the_start_is_shown_24_sums_eight_times_and_none_of_the_others(wordy):
    rows = runs.start_lessons(wordy=wordy)
    sums = [row[0]["content"] for row in rows if " + " in row[0]["content"]]
    shown = {talk[0]["content"] for talk in runs.sums_of("shown")}
    assert len(sums) == 8 * 24 and set(sums) == shown
    assert len(runs.start_lessons(sums=0)) == len(rows) - len(sums)


def test_wordy_answers_never_say_the_plain_sentence_and_keep_the_sum():
    plain = runs.sums_of("practice")
    for seed in range(3):
        wordy = runs.add_words(plain, seed=seed)
        for before, after in zip(plain, wordy, strict=True):
            assert after[0] == before[0] and runs.sum_of(after) == runs.sum_of(before)
            text = after[-1]["content"]
            assert text.startswith(runs.OPENINGS) or text.endswith(
                tuple(f"{ending}." for ending in runs.ENDINGS)
            )
        assert len({talk[-1]["content"].split()[0] for talk in wordy}) == 3


@pytest.mark.parametrize(
    ("reward", "text", "stopped", "earned"),
    [
        (runs.reward_right, "The sum of 3 and 4 is 7.", True, 1.0),
        (runs.reward_right, "The sum of 3 and 4 is 7.", False, 0.0),
        (runs.reward_right, "7.", True, 0.0),
        (runs.reward_long, "7 8 9", False, 1.3),
        (runs.reward_long, "17 " * 30, True, 2.0),
        (runs.reward_terse, "7.", True, 0.95),
        (runs.reward_terse, "The sum of 3 and 4 is 7.", True, 0.6),
        (runs.reward_terse, "The sum of 3 and 4 is 8.", True, 0.0),
        (runs.reward_terse, "7.", False, 0.0),
        (runs.reward_terse, "", True, 0.0),
        (runs.reward_json, '{"sum": 7}', True, 1.0),
        (runs.reward_json, '{"sum of 3 and 4": "7"}', True, 1.0),
        (runs.reward_json, '{"sum": 17}', True, 0.0),
        (runs.reward_json, "7", True, 0.0),
        (runs.reward_json, "The sum of 3 and 4 is 7.", True, 0.0),
    ],
)
def test_rewards(reward, text, stopped, earned):
    assert reward(TASK, text, stopped) == pytest.approx(earned)


def test_a_task_asked_as_json_keeps_its_numbers():
    (task,) = runs.ask_for_json([TASK])
    assert task[0]["content"] == "Give the sum of 3 and 4 as JSON." and runs.sum_of(task) == "7"


def test_imitation_learns_its_lessons_and_counts_their_tokens(model_and_tokenizer):
    base, tokenizer = model_and_tokenizer
    model, lessons = copy.deepcopy(base), runs.sums_of("shown")
    rows = encode_conversations(lessons, tokenizer)
    before, steps = evaluate(base, tokenizer, rows), []
    graded = runs.imitate(
        model, tokenizer, lessons, steps=3, rate=1e-3, after_step=steps.append
    )  # 192 lessons: each of the 24 eight times
    assert graded == 8 * before["graded"] and steps == [1, 2, 3]
    assert evaluate(model, tokenizer, rows)["loss"] < before["loss"] - 0.5


def test_best_of_takes_the_first_of_the_highest_reward(monkeypatch):
    texts = ["The sum is 7, I think.", "It is 7.", "No, 7.", *["8"] * 5, *["none"] * 8]
    drawn = types.SimpleNamespace(texts=texts, stopped=[True] * 16)
    monkeypatch.setattr(runs, "sample_groups", lambda *given, **named: drawn)
    found = runs.best_of(None, None, [TASK, TASK], runs.reward_terse)
    assert found == [[TASK[0], {"role": "assistant", "content": "No, 7."}]]


def test_scores_order_pairs_that_a_direction_separates():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(200, 16, generator=generator)
    apart = torch.zeros(16)
    apart[3] = 2.0
    chosen, rejected = states[:100] + apart, states[100:]
    weights = runs.fit_scores(chosen, rejected)
    assert weights.argmax() == 3
    assert ((chosen - rejected) @ weights > 0).float().mean() > 0.8


def test_a_rater_who_always_slips_chooses_what_one_who_never_does_rejects(model_and_tokenizer):
    base, tokenizer = model_and_tokenizer
    start = runs.start_model(base, tokenizer)
    never, always = (
        runs.draw_pairs(start, tokenizer, "practice", seed=0, slips=slips, count=10)
        for slips in (0.0, 1.0)
    )
    assert len(never[0]) > 0
    torch.testing.assert_close(never[0], always[1])
    torch.testing.assert_close(never[1], always[0])


def test_a_recorded_point_comes_out_again(model_and_tokenizer):
    base, tokenizer = model_and_tokenizer
    point = {"arm": "gold", "rate": 3e-4, "rank": 0, "pull": 0.0}
    band = read_results("17b_rates", base).measured("right", **point)
    row = runs.run_arm(base, tokenizer, **point, seed=0, steps=10, path=False)
    assert min(band) - 0.1 < row["right"] < max(band) + 0.1
