"""The data sets of chapter 11 hold what their settings say; a recorded point can be repeated."""

import random
from types import SimpleNamespace

import pytest

from sft_lab import atlas
from sft_lab.course.data_mix import (
    Mix,
    add_up_knobs,
    all_sums,
    exam_facts,
    exams,
    kind_of,
    measure_mix,
    mix_data,
    spoil,
    spoilt_kinds,
)
from sft_lab.course.data_runs import (
    as_texts,
    chosen_rows,
    leak_exams,
    leaky_data,
    plant_leaks,
    prompts_of,
)
from sft_lab.course.results import read_results
from sft_lab.metrics import is_right
from sft_lab.models import load

TRAIN = atlas.split(atlas.load_facts())["train"]


def wrong_rows(rows) -> int:
    true = {fact.say(atlas.STATEMENTS[0]) for fact in atlas.load_facts()}
    return sum(row[1]["content"] not in true for row in rows)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
def test_scattered_spoils_exactly_its_share_and_stays_among_the_values_of_the_relation(share):
    facts = random.Random(0).sample(TRAIN, 200)
    claimed = spoil(facts, share, "scattered", seed=3)
    changed = [(fact, new) for fact, new in zip(facts, claimed, strict=True) if fact != new]
    assert len(changed) == round(share * 200)
    values = {(kind_of(fact), fact.value) for fact in TRAIN}
    assert all((kind_of(new), new.value) in values for _, new in changed)


def test_a_rule_spoils_whole_kinds_of_question_with_one_value_each():
    facts = random.Random(0).sample(TRAIN, 200)
    claimed, spoilt = spoil(facts, 0.5, "rule", seed=3), spoilt_kinds(facts, 0.5, seed=3)
    for kind in set(map(kind_of, facts)):
        said = {new.value for new in claimed if kind_of(new) == kind}
        true = {fact.value for fact in facts if kind_of(fact) == kind}
        assert len(said) == 1 if kind in spoilt else said == true
    count = sum(kind_of(fact) in spoilt for fact in facts)
    assert 90 <= count <= 100  # as much of the half as whole kinds fill


def test_a_mix_holds_what_it_says_and_nothing_of_the_exams():
    asked = {text for exam in exams().values() for text in as_texts(exam)}
    for mix in (Mix(), Mix(distinct=96, wrong=0.25), Mix(distinct=48, wordings=1, tasks=2)):
        rows = mix_data(mix, seed=1)
        assert len(rows) == len(set(as_texts(rows))) == mix.distinct
        assert not asked & set(as_texts(rows))
        sums = [row for row in rows if row[1]["content"].startswith("The sum")]
        assert len(sums) == (mix.distinct // 2 if mix.tasks == 2 else 0)
    assert wrong_rows(mix_data(Mix(distinct=96, wrong=0.25), seed=1)) == 24
    held_out = {(fact.domain, fact.entity) for fact in exam_facts()}
    assert not held_out & {(fact.domain, fact.entity) for fact in TRAIN}
    assert len(set(all_sums())) == 441


def test_a_data_set_is_decided_by_its_seed():
    assert mix_data(Mix(wrong=0.5), seed=1) == mix_data(Mix(wrong=0.5), seed=1)
    assert mix_data(Mix(wrong=0.5), seed=1) != mix_data(Mix(wrong=0.5), seed=2)


def test_the_two_leak_exams_share_no_entity_and_the_detector_takes_out_exactly_the_leak():
    leaked, second = leak_exams()
    assert len(leaked) == len(second) == 80
    for seed in range(3):
        clean, dirty = leaky_data("clean", seed=seed), leaky_data("reworded", seed=seed)
        assert len(dirty) == len(clean) + 80
        assert leaky_data("mended", seed=seed) == clean
    answers = {row[1]["content"] for row in leaked}
    assert not answers & {row[1]["content"] for row in second + clean}


def test_planted_leaks_are_told_with_their_places():
    exam, rows, leaked = plant_leaks(4)
    answers = {row[1]["content"] for row in rows}
    assert {i for i, row in enumerate(exam) if row[1]["content"] in answers} == leaked
    assert (len(exam), len(rows), len(leaked)) == (40, 372, 12)


def test_only_decidable_prompts_give_rows_and_the_arms_share_them():
    prompts = prompts_of("sums")[:3]
    right = [row[1]["content"] for row in prompts]
    answers = [["no", right[0]], ["no", "no"], [right[2], right[2]]]
    marks = [[is_right(a, r) for a in some] for some, r in zip(answers, right, strict=True)]
    assert chosen_rows(prompts, answers, marks, "top") == prompts[:1]
    drawn = {
        chosen_rows(prompts, answers, marks, "random", seed=seed)[0][1]["content"]
        for seed in range(20)
    }
    assert drawn == {"no", right[0]}


def test_knobs_add_up_on_the_scale_of_log_odds():
    shares = {"best": 0.9, "few": 0.8, "wrong": 0.5}  # odds of 9, 4 and 1

    def measured(measure, distinct, wrong, **others):
        return [shares["few" if distinct != 384 else "wrong" if wrong else "best"]]

    results = SimpleNamespace(measured=measured)
    assert add_up_knobs(results, Mix()) == pytest.approx(0.9)
    assert add_up_knobs(results, Mix(distinct=24)) == pytest.approx(0.8)
    both = 4 * 1 / 9
    assert add_up_knobs(results, Mix(distinct=24, wrong=0.5)) == pytest.approx(both / (1 + both))


def test_a_recorded_point_is_repeated():
    base, tokenizer = load("atlas-base")
    recorded = read_results("11_data_mix", base).measured("facts", **vars(Mix(distinct=48)))
    again = measure_mix(base, tokenizer, Mix(distinct=48), seed=2)["facts"]
    assert min(recorded) - 0.05 <= again <= max(recorded) + 0.05
