"""Chapters 09 and 09b: how models are asked, recorded points once more, and pictures that show what
was counted."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

matplotlib.use("Agg")
from sft_lab.chat import generate_ids
from sft_lab.course import recipe_runs as runs
from sft_lab.course.results import read_results
from sft_lab.course.views import exam, sure
from sft_lab.metrics import expected_calibration_error
from sft_lab.models import load
from sft_lab.open_answers import RULES, OpenAnswer, OpenQuestion

SHIPPED, TUNED = "as shipped", "after SFT"


@pytest.fixture(scope="module")
def atlas_base():
    return load("atlas-base")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_another_template_leaves_the_tokenizer_as_it_was(tokenizer):
    before = (tokenizer.chat_template, tokenizer.eos_token)
    other = runs.with_template(tokenizer, runs.PLAIN_WORDS)
    asked = [{"role": "user", "content": "Who?"}]
    text = other.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "User: Who?\nAssistant:"
    assert (tokenizer.chat_template, tokenizer.eos_token) == before


def test_an_answer_of_one_line_ends_with_the_token_that_holds_the_break(tokenizer):
    ids = tokenizer(" is Nairobi.\n The capital").input_ids
    assert tokenizer.decode(runs.cut_at_line_break(ids, tokenizer)) == " is Nairobi.\n"
    whole = tokenizer(" is Nairobi.").input_ids
    assert runs.cut_at_line_break(whole, tokenizer) == whole


def test_the_facts_are_those_of_the_exam():
    for fact, (_, answer) in zip(runs.exam_facts(), runs.exam_questions(), strict=True):
        assert answer["content"] == fact.say("The {r} {e} is {v}.")


def test_outcomes_survive_being_recorded():
    outcomes = np.array([True, False, False, True])
    assert runs.pack(outcomes) == "1001"
    assert (runs.unpack("1001") == outcomes).all()


def test_the_stranger_writes_tokens_of_its_own():
    model, its_tokenizer = runs.make_stranger()
    [ids] = generate_ids(model, its_tokenizer, ["Who?"], max_new_tokens=5)
    assert 1 <= len(ids) <= 5 and max(ids) < len(its_tokenizer)


def test_every_seed_is_recorded(atlas_base):
    recorded = read_results("09_recipes", atlas_base[0])
    for recipe in (runs.CHATML, runs.WORDS):
        rows = recorded.select(arm=recipe)
        assert [row["seed"] for row in rows] == list(range(8))
        assert {len(row["right"]) for row in rows} == {runs.QUESTIONS}
    assert [row["seed"] for row in recorded.select(arm="long")] == list(range(5))


def test_a_recorded_run_comes_out_again(atlas_base):
    recorded = read_results("09_recipes", atlas_base[0]).select(arm=runs.WORDS)[3]
    again = runs.run_short(*atlas_base, runs.WORDS, 3)
    change = runs.unpack(again["right"]) != runs.unpack(recorded["right"])
    assert change.mean() < 0.08  # another processor rounds otherwise
    assert again["ended"] == pytest.approx(recorded["ended"], abs=0.03)


def test_what_the_base_keeps_comes_out_again(atlas_base):
    [recorded] = read_results("09_recipes", atlas_base[0]).select(arm="base")
    again = runs.measure_kept(*atlas_base)
    for name, value in again.items():
        assert value == pytest.approx(recorded[name], abs=0.03), name


def test_the_real_model_was_asked_the_same_questions_by_every_seed():
    recorded = read_results("09_smollm2")
    rows = [*recorded.select(arm=SHIPPED), *recorded.select(arm=TUNED)]
    assert len(rows) == 4 and {len(row["right"]) for row in rows} == {80}


# pictures


def test_the_bins_of_the_picture_are_those_of_the_calibration_error():
    rng = np.random.default_rng(0)
    sure_of = np.concatenate([rng.random(200), np.arange(11) / 10])  # borders and 1.0 as well
    right = rng.random(len(sure_of)) < 0.6
    table = sure.count_bins(sure_of, right)
    assert sum(count for count, *_ in table) == len(sure_of)
    error = sum(count * abs(x - y) for count, x, y in table) / len(sure_of)
    assert error == pytest.approx(expected_calibration_error(sure_of, right))


def test_calibration_writes_the_number_of_answers_below_every_bin():
    sure_of, right = np.array([0.05, 0.07, 0.95]), np.array([False, True, True])
    figure = sure.draw_calibration({"base": (sure_of, right), "tuned": (sure_of, right)})
    counts = [text.get_text() for text in figure.axes[2].texts]
    assert counts == ["2", *["0"] * 8, "1"]


def test_pairs_are_areas_that_add_up():
    before, after = np.array([1, 1, 0, 0, 0], bool), np.array([1, 0, 1, 1, 0], bool)
    [ax] = sure.draw_pairs(before, after, names=("one", "other")).axes
    assert [bar.get_width() for bar in ax.patches] == [1, 2, 1, 1]
    texts = {text.get_text() for text in ax.texts}
    assert {"gained: only other right", "lost: only one right"} <= texts


def test_seeds_are_sorted_and_those_without_zero_stand_out():
    effects = np.array([0.05, 0.01])
    [ax] = sure.draw_seeds(effects, [(0.02, 0.08), (-0.02, 0.04)]).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["seed 1", "seed 0"]
    weaker, stronger = (line.get_color() for line in ax.lines[:2])
    assert weaker != stronger


def test_resamples_show_both_intervals():
    paired, separate = np.linspace(0, 4, 401), np.linspace(-4, 8, 401)
    figure = sure.draw_resamples(paired, separate)
    texts = [ax.texts[0].get_text() for ax in figure.axes]
    assert texts[0].endswith("+0.1 to +3.9") and texts[1].endswith("-3.7 to +7.7")


def test_arms_are_sorted_and_every_seed_is_a_dot():
    [ax] = exam.draw_arms({"tuned": [0.7, 0.8], "base": [0.0]}, title="x").axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base", "tuned"]
    assert [len(dots.get_offsets()) for dots in ax.collections] == [1, 2]


def test_what_is_kept_is_drawn_for_base_and_seeds():
    base = {"facts": 1.0, "lists": 1.0, "nats": 1.2}
    tuned = {"facts": [0.9, 1.0], "lists": [0.5, 0.7], "nats": [1.6, 1.8]}
    left, right = exam.draw_kept(base, tuned).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["facts", "lists"]
    assert right.get_xlim()[1] > 1.8


QUESTIONS = (OpenQuestion("Who?", one_sentence=True), OpenQuestion("2 + 2?", number="4"))
ANSWERS = {
    SHIPPED: {"raw question": [OpenAnswer("It is me.", True), OpenAnswer("4", True)]},
    TUNED: {"raw question": [OpenAnswer("", False), OpenAnswer("It is $5.", True)]},
}


def test_marks_count_the_answers_that_a_rule_applies_to():
    [ax] = exam.draw_marks(ANSWERS, QUESTIONS).axes
    texts = [text.get_text() for text in ax.texts]
    first, second = texts[: len(RULES)], texts[len(RULES) :]
    assert first == ["2 of 2", "2 of 2", "1 of 1", "none", "1 of 1"]
    assert second == ["1 of 2", "1 of 2", "0 of 1", "none", "0 of 1"]  # an empty answer passes none


def test_cards_show_both_answers_and_their_marks():
    [ax] = exam.draw_cards(QUESTIONS[0], ANSWERS, "raw question").axes
    texts = " ".join(text.get_text() for text in ax.texts)
    for part in (SHIPPED, TUNED, "It is me.", "(nothing)", "✓ one sentence", "✗ ended"):
        assert part in texts
