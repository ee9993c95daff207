"""Chapter 16d: the pairs of a probe differ in one thing, the audit finds it, and recorded points
again."""

import numpy as np
import pytest

from sft_lab.course.judge_runs import (
    ARMS,
    JURORS,
    PROBES,
    ProbePair,
    audit,
    blind_sheet,
    changes_its_mind,
    count_votes,
    count_words,
    draw_contest,
    draw_pairs,
    everyday_pairs,
    fill,
    interval,
    jury_votes,
    lean_to_first,
    lean_to_treated,
    name_bias,
    read_table,
    read_votes,
    real_pairs,
    run_audits,
    run_jury,
    run_repair,
    share_same,
    vote_by_programs,
    wins_of_second,
    write_judging,
    write_table,
)
from sft_lab.course.results import read_results
from sft_lab.judges import BIASES, OWN_STYLE, make_judge, merit
from sft_lab.metrics import repeated_units, split_sentences


def test_filling_has_exactly_so_many_words_and_says_nothing_twice():
    for words in range(3, 81):
        text = fill(words, seed=words)
        assert count_words(text) == words
        assert repeated_units(split_sentences(text)) == 0
        assert merit("Tell me about Kenya.", text) == 0
    for words in (2, 81):
        with pytest.raises(ValueError, match="words of filling"):
            fill(words, seed=0)


@pytest.mark.parametrize("probe", PROBES)
def test_the_pairs_of_a_probe_differ_in_one_thing(probe):
    for question, plain, treated in draw_pairs(probe, 40, seed=3):
        extra = 1 if probe == "noise" else 0
        assert merit(question, treated) == merit(question, plain) + extra > 1
        words = count_words(treated) / count_words(plain)
        if probe in ("repetition", "self-preference"):
            assert words == 1
        repeats = [repeated_units(split_sentences(text)) for text in (plain, treated)]
        assert repeats == [0, 0.5 if probe == "repetition" else 0]
        own = [text.startswith(OWN_STYLE[:4]) for text in (plain, treated)]
        assert own == [False, probe == "self-preference"]
        if probe == "length":
            assert treated.startswith(plain) and words == 2


def test_without_controls_two_probes_mix_two_things():
    for question, plain, treated in draw_pairs("self-preference", 20, seed=0, controlled=False):
        assert merit(question, treated) == merit(question, plain) + 1
    for _, plain, treated in draw_pairs("repetition", 20, seed=0, controlled=False):
        assert treated == f"{plain} {plain}"
    with pytest.raises(ValueError, match="no probe 'vanity'"):
        draw_pairs("vanity", 3, seed=0)


def test_the_measures_of_judges_that_always_say_the_same():
    pair = ProbePair("Q", "a", "b")
    assert lean_to_first(lambda *call: "first", pair) == 1
    assert lean_to_treated(lambda *call: "first", pair) == 0
    assert (
        lean_to_treated(lambda q, first, second, seed: "first" if first == "b" else "tie", pair)
        == 0.5
    )
    assert changes_its_mind(lambda q, a, b, seed: ("first", "tie")[seed % 2], pair) == 1
    assert changes_its_mind(lambda *call: "tie", pair) == 0


@pytest.mark.parametrize("bias", [*BIASES, "honest"])
def test_an_audit_names_a_strong_bias(bias):
    strength = 0.0 if bias == "honest" else 1.6
    judge = make_judge(bias, strength)
    named = [name_bias(audit(judge, count=48, seed=seed)) for seed in range(5)]
    assert named.count(bias) >= 4, named
    if bias == "position":
        assert name_bias(audit(make_judge(bias, -1.6), count=48, seed=0)) == bias


def test_an_interval_is_so_many_standard_errors_wide():
    values = [0.0, 1.0, 0.5, 0.5, -1.0, 0.0]
    found = interval(values, 2.0)
    assert found.mean == pytest.approx(np.mean(values))
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert found.high - found.mean == pytest.approx(2 * error) == found.mean - found.low


def test_everyday_pairs_have_the_truth_and_both_answers_win():
    calls, truth = everyday_pairs(300, seed=5)
    for (question, first, second), right in zip(calls, truth, strict=True):
        better = "first" if merit(question, first) > merit(question, second) else "second"
        assert right == better and merit(question, first) != merit(question, second)
    assert 0.4 < truth.count("first") / 300 < 0.6


def test_jurors_vote_as_named_and_err_as_planted():
    votes, truth = jury_votes(2000, seed=3)
    assert list(votes) == list(JURORS)
    alike = share_same(votes["Ada"], votes["Ben"])
    assert alike > share_same(votes["Ada"], votes["Eli"]) + 0.1
    assert all(0.6 < share_same(said, truth) < 0.84 for said in votes.values())


def test_a_contest_of_filling_is_a_draw_and_one_of_facts_is_not():
    for more, wins in (("filling", 0.5), ("facts", 0.85)):
        calls, extra = draw_contest(200, seed=1, more=more)
        found = np.mean(wins_of_second(make_judge("honest", noise=0.01), calls, 0))
        assert found == pytest.approx(wins, abs=0.05) and np.mean(extra) > 5


def test_a_recorded_audit_again():
    runs = read_results("16d_audits")
    assert {row["arm"] for row in runs.rows} == set(ARMS) and len(runs.rows) == 45
    again = run_audits(arm="controls, 2.5 errors", questions=12, seed=1)
    recorded = runs.select(arm="controls, 2.5 errors", questions=12)[1]
    assert {key: recorded[key] for key in again} == pytest.approx(again, abs=0.04)


def test_a_jury_of_one_bias_gains_less_than_one_of_five():
    alike, different = (run_jury(kind, seed=0) for kind in ("five of one bias", "five biases"))
    gains = [row["majority"] - row["member"] for row in (alike, different)]
    assert gains[0] < 0.06 < 0.1 < gains[1] and alike["kappa"] > 0.6 > 0.4 > different["kappa"]


def test_both_orders_repair_the_place_and_not_the_length():
    place, length = run_repair("position", 2.0, seed=0), run_repair("length", 2.0, seed=0)
    assert place["both wrong"] < 0.02 < 0.1 < place["once wrong"]
    assert length["both wrong"] > 0.6 * length["once wrong"] > 0


def test_a_real_pair_is_true_against_false_or_short_against_filled():
    for question, plain, treated in real_pairs("truth", 10, seed=0):
        assert (merit(question, plain), merit(question, treated)) == (-3, 3)
    for question, plain, treated in real_pairs("length", 10, seed=0):
        assert merit(question, plain) == merit(question, treated) == 3
        assert count_words(treated) == 2 * count_words(plain)
    text = write_judging(("Q?", "first text", "second text"), ("B", "A"))
    assert "Answer B: first text\n\nAnswer A: second text" in text


def test_the_recorded_real_judge_has_every_point():
    runs = read_results("16d_smollm2")
    assert len(runs.rows) == 24 and {row["seed"] for row in runs.rows} == {0, 1, 2}
    assert min(runs.measured("first", kind="truth", naming="A, B")) > 0.9


PAIRS = [(f"Question {i}?", f"mine {i}", f"yours {i}") for i in range(40)]


def test_a_sheet_hides_names_and_order_and_the_key_tells_them():
    sheet, key = blind_sheet(PAIRS, ("my model", "your model"), seed=2)
    assert "model" not in str(sheet)
    order = [row["question"] for row in sheet]
    assert sorted(order) == sorted(question for question, *_ in PAIRS)
    assert order != [question for question, *_ in PAIRS]
    for row, by in zip(sheet, key, strict=True):
        names = {"mine": "my model", "yours": "your model"}
        assert [names[row[f"answer {i}"].split()[0]] for i in (1, 2)] == [
            by[f"answer {i} by"] for i in (1, 2)
        ]
    first = sum(by["answer 1 by"] == "my model" for by in key)
    assert 10 < first < 30
    assert (sheet, key) == blind_sheet(PAIRS, ("my model", "your model"), seed=2)
    assert sheet != blind_sheet(PAIRS, ("my model", "your model"), seed=3)[0]


def test_a_sheet_survives_its_file_and_votes_are_read(tmp_path):
    texts = [('Says "a, b"?', "one\ntwo", "第一")]
    sheet, key = blind_sheet(texts * 3, ("one", "other"), seed=0)
    write_table(tmp_path / "sheet.csv", sheet)
    assert read_table(tmp_path / "sheet.csv") == sheet
    assert read_votes(sheet) is None
    for row, vote in zip(sheet, ("1", " TIE", "2"), strict=True):
        row["vote"] = vote
    assert read_votes(sheet) == ["first", "tie", "second"]
    counted = count_votes(["first", "tie", "second"], key)
    assert counted["tie"] == 1 and sum(counted.values()) == 3
    assert counted[key[0]["answer 1 by"]] >= 1
    sheet[1]["vote"] = ""
    with pytest.raises(ValueError, match="row 2: ''"):
        read_votes(sheet)


def test_programs_vote_on_a_sheet_as_their_rule_says():
    short = "The capital of Kenya is Nairobi."
    twice = f"{short} {short}"
    sheet, _ = blind_sheet([("Tell me about Kenya.", short, twice)], ("one", "other"), seed=0)
    is_first = sheet[0]["answer 1"] == short
    votes = vote_by_programs(sheet)
    assert votes["right facts"] == ["tie"]
    assert votes["fewer repeats"] == ["first" if is_first else "second"]
    assert votes["more words"] == votes["judge: repetition"] == ["second" if is_first else "first"]
    assert votes["judge: position"] == ["first"]
