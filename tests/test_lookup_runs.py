"""Chapter 15b: its lessons, controls, checks and judges, and points of its recorded sweeps."""

import importlib.util
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sft_lab.course import lookup_runs as runs
from sft_lab.course.results import read_results
from sft_lab.course.short_runs import tune_on
from sft_lab.documents import PLAIN
from sft_lab.lessons import add_three
from sft_lab.models import load
from sft_lab.retrieval import NOT_FOUND

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("15b_reading", "15b_remedies", "15b_verifier", "15b_smollm2")


@pytest.fixture(scope="module")
def loaded():
    return load("atlas-base")


def declined(rows) -> list[bool]:
    return [runs.is_declined(row[-1]["content"]) for row in rows]


# lessons


@pytest.mark.parametrize("arm", runs.READ_ARMS)
def test_the_reading_arms_have_as_many_rows_and_name_no_unknown_entity(arm):
    rows = runs.read_lessons(arm, seed=1)
    assert len(rows) == runs.FACT_ROWS + runs.NOTE_ROWS
    share = sum(declined(rows)) / runs.NOTE_ROWS
    assert share == pytest.approx(0.4 if arm.startswith("declining") else 0.0)
    at_start = [row for row in rows if row[-1]["content"] == NOT_FOUND]
    assert bool(at_start) == (arm == "declining at the start")
    assert rows == runs.read_lessons(arm, seed=1) != runs.read_lessons(arm, seed=2)


def test_a_row_says_what_its_notes_say_or_declines_where_they_say_nothing():
    rng, train = random.Random(0), runs.facts_by_part()["train"]
    for row in runs.note_rows(rng, train, 60):
        value = row[-1]["content"].split(" is ", 1)[1].removesuffix(".")
        assert value.lower() in row[0]["content"].lower()
    missing = runs.note_rows(rng, train, 60, missing=runs.DECLINED)
    assert all(declined(missing)) and not any(declined(runs.note_rows(rng, train, 60)))
    told = {(f.entity, f.column): f for f in train}
    for row in runs.note_rows(rng, train, 60, missing=PLAIN):
        parsed = runs.parse_statement(row[-1]["content"])
        assert told[parsed[:2]].value.removeprefix("the ") == parsed[2]


def test_near_misses_never_answer_the_question():
    rng, train = random.Random(3), runs.facts_by_part()["train"]
    for fact in rng.sample(train, 40):
        told = runs.near_misses(rng, fact, train, 4)
        assert len(set(told)) == 4 and fact not in told
        assert all((f.entity, f.column) != (fact.entity, fact.column) for f in told)


def test_the_remedy_arms_differ_in_what_the_prompts_mean():
    plain, heeding, abstaining = (runs.remedy_lessons(arm) for arm in runs.REMEDY_ARMS)
    assert len(plain) == len(heeding) == len(abstaining) == sum(runs.ROWS.values())
    assert sum(declined(plain)) == 0
    assert sum(declined(abstaining)) == runs.ROWS["facts"] // 5
    prompts = Counter(row[0]["content"] for row in heeding if row[0]["role"] == "system")
    assert prompts.keys() == set(runs.PROMPTS.values())
    without = [row for row in heeding if row[0]["role"] != "system"]
    assert not any(declined(without))
    assert {row[0]["content"] for row in plain if row[0]["role"] == "system"} == {
        runs.PROMPTS["source"]
    }


def test_no_arm_that_is_not_there():
    for make in (runs.read_lessons, runs.remedy_lessons):
        with pytest.raises(ValueError, match="no arm 'x'"):
            make("x")
    with pytest.raises(ValueError, match="no exam 'x'"):
        runs.type_exam("x")


# controls and exams


@pytest.mark.parametrize("control", runs.CONTROLS)
def test_a_control_shows_what_its_name_says(control):
    rng, store = random.Random(1), runs.facts_by_part()["unknown"]
    for fact in store[:30]:
        told = runs.CONTROLS[control](rng, fact, store)
        assert (fact in told) == control.startswith("right")
        places = {"right note first": 0, "right note second": 1, "right note last": 2}
        if control in places:
            assert told.index(fact) == places[control] and len(told) == 3
        others = [f for f in told if f != fact]
        if control in ("other notes", *places):
            assert all(f.entity != fact.entity and f.value != fact.value for f in others)
        if control == "same relation":
            assert [f.column for f in told] == [fact.column] and told[0].value != fact.value
        if control == "same entity":
            assert told[0].entity == fact.entity and told[0].column != fact.column
        if control == "false note":
            assert (told[0].entity, told[0].column) == (fact.entity, fact.column)


def test_sums_of_an_exam_are_in_no_lesson_of_its_seed():
    for seed in range(3):
        taught = {row[0]["content"] for row in add_three(runs.ROWS["sums"], seed=seed)}
        asked = {one.question for one in runs.type_exam("logic", seed=seed)}
        assert len(asked) == runs.TYPE_ASKED and not taught & asked


@pytest.mark.parametrize("kind", runs.EXAMS)
def test_the_check_of_a_type_lets_the_right_answer_pass(kind):
    if kind == "source":
        return
    exam, check = runs.type_exam(kind), runs.checker(kind)
    passed = [check(one, one.reference) for one in exam]
    assert sum(passed) / len(passed) > (0.88 if kind in ("facts", "known") else 0.999)
    assert not check(exam[0], "Nonsense")
    assert all(runs.judge(kind, one, one.reference, []) == "right" for one in exam)
    assert runs.judge(kind, exam[0], exam[1].reference, []) == "wrong"
    assert runs.judge(kind, exam[0], NOT_FOUND, []) == "declined"


def test_a_source_is_judged_by_the_note_that_it_names():
    one = runs.Asked("The capital of Peru?", "The capital of Peru is Lima.")
    note, said = "For Peru, the capital is Lima.", "The capital of Peru is Lima."
    assert runs.judge("source", one, f"{said} Source: {note}", [note]) == "right"
    assert runs.judge("source", one, f"{said} Source: {note}", []) == "wrong"
    assert runs.judge("source", one, f"{said[:-5]}Quito. Source: {note}", [note]) == "wrong"
    assert runs.judge("source", one, said, [note]) == "wrong"
    assert runs.judge("source", one, f"{said} Source: none.", []) == "declined"


def test_every_statement_is_read_back_and_other_texts_are_not():
    for fact in runs.facts_by_part()["unknown"]:
        assert runs.parse_statement(fact.say(PLAIN)) == (fact.entity, fact.column, fact.value)
    assert runs.parse_statement("Lima.") is None
    assert runs.parse_statement("The mayor of Lima is Ana.") is None


def test_a_table_has_gaps_and_errors_and_says_only_what_it_holds():
    table, facts = runs.make_table(seed=2), runs.facts_by_part()["unknown"]
    held = [fact for fact in facts if (fact.entity, fact.column) in table]
    wrong = [fact for fact in held if table[fact.entity, fact.column] != fact.value]
    assert 0.8 < len(held) / len(facts) < 0.97 and 0.005 < len(wrong) / len(held) < 0.12
    fact = next(f for f in held if f not in wrong)
    assert runs.passes_table(table, fact.say(PLAIN))
    assert not runs.passes_table(table, runs.other_value(fact, random.Random(0)).say(PLAIN))
    assert not runs.passes_table(table, "I think so.")
    gap = next(fact for fact in facts if fact not in held)
    assert runs.passes_table(table, gap.say(PLAIN))


def test_most_samples_must_agree():
    assert runs.vote(["A.", "A", "B", "A"], agreed=3) == "A."
    assert runs.vote(["A", "A", "B", "B"], agreed=3) == NOT_FOUND


# judging


def test_calibration_moves_an_overconfident_score_to_its_share():
    rng = np.random.default_rng(0)
    right = rng.random(4000) < 0.7
    curve = runs.platt([0.99] * 4000, right.tolist())
    assert runs.calibrated([0.99], curve)[0] == pytest.approx(right.mean(), abs=0.01)


def test_judges_are_asked_about_as_many_true_as_false_statements(loaded):
    for with_notes in (False, True):
        rows = runs.judge_lessons(with_notes=with_notes)
        counts = Counter(row[-1]["content"] for row in rows)
        assert counts == {runs.TRUE: 800, runs.FALSE: 800}
        assert all(row[0]["content"].startswith("Notes:") == with_notes for row in rows)
    chances = runs.chance_of_true(*loaded, [runs.judge_prompt("The sea is wide.", ["It is."])])
    assert 0 < chances[0] < 1


# the recorded sweeps


def experiment(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools/experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["15b_reading", "15b_remedies", "15b_verifier"])
def test_a_sweep_is_recorded_whole(name):
    rows = read_results(name).rows
    for point in experiment(name).points():
        assert sum(point.items() <= row.items() for row in rows) == 1


def test_the_real_model_was_asked_in_both_states_on_three_seeds():
    rows = read_results("15b_smollm2").rows
    assert sorted((row["model"], row["seed"]) for row in rows) == [
        (state, seed) for state in ("as it is", "taught") for seed in range(3)
    ]


def test_a_point_of_the_recorded_reading_is_measured_again(loaded):
    base, tokenizer = loaded
    recorded = read_results("15b_reading", base)
    model = tune_on(base, tokenizer, runs.read_lessons("declining", seed=1), seed=1)
    for control in ("right note second", "same entity"):
        found = runs.measure_control(model, tokenizer, control, seed=1)
        for what, share in found.items():
            band = recorded.measured(f"{control}: {what}", arm="declining")
            assert min(band) - 0.12 <= share <= max(band) + 0.12


def test_a_remedy_is_judged_by_its_wrong_answers_and_the_cost_by_the_right_ones():
    recorded = read_results("15b_remedies")
    for kind in runs.EXAMS:
        for remedy in runs.REMEDIES:
            parts = [
                runs.remedy_measures(recorded, kind, remedy, what)
                for what in ("right", "declined", "wrong")
            ]
            assert np.sum(parts, axis=0) == pytest.approx(np.ones(3), abs=1e-3)
    verdict = runs.judge_remedy(recorded, "facts", "retrieval")
    none, found = (
        runs.remedy_measures(recorded, "facts", name, "wrong") for name in ("none", "retrieval")
    )
    assert verdict.mean == pytest.approx(np.mean(found) - np.mean(none))
