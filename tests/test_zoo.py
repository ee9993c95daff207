"""The bug zoo: every bug is one exchanged piece of a station, a repeated case falls into its
record, and the rules of the table are as chapter 18c states them."""

import math

import pytest
import torch

from sft_lab import diagnostics
from sft_lab.batches import pack as library_pack
from sft_lab.batches import pad_batch
from sft_lab.course import zoo
from sft_lab.course.results import Results, read_results
from sft_lab.course.zoo import Pipeline, draw_talks
from sft_lab.course.zoo_bugs import BUGS, DECOYS, exchange, plant, show_lines
from sft_lab.course.zoo_files import (
    CASES,
    CLINIC,
    ELSEWHERE,
    alarms,
    contradictions,
    judge_diagnosis,
    open_file,
)
from sft_lab.course.zoo_table import (
    BATTERY,
    CURVE,
    HEALTHY,
    PROBES,
    bands,
    is_outside,
    lost_and_added,
    measure_case,
    seen_by,
    share_seen,
    widen,
)
from sft_lab.examples import Example
from sft_lab.labels import encode_conversation
from sft_lab.losses import response_loss
from sft_lab.models import load


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


@pytest.fixture(scope="module")
def results():
    return read_results("18c_zoo")


def made_up(values: dict[str, list[float | None]], probe: str) -> Results:
    rows = [
        {"case": case, "seed": seed, probe: value}
        for case, column in values.items()
        for seed, value in enumerate(column)
    ]
    return Results("", "", "", "", "", rows)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_is_an_exchanged_piece_of_its_station(bug):
    pipeline = plant(bug)
    changed = {bug.station, *(station for station, _, _ in bug.also)}
    for station in zoo.STATIONS:
        is_healthy = getattr(pipeline, station) is getattr(zoo, station)
        assert is_healthy == (station not in changed)
    assert "#" in bug.thread and bug.cause and show_lines(bug).count("\n") >= 1


def test_a_piece_that_does_not_stand_there_once_is_refused():
    with pytest.raises(ValueError, match="0 times"):
        exchange("merge", "no such line", "pass")
    with pytest.raises(ValueError, match="expected 1"):
        exchange("merge", "model", "pass")


def test_names_are_one_of_a_kind_and_every_case_has_a_place():
    names = [case.name for case in (*BUGS, *DECOYS)]
    assert len(set(names)) == len(names) == len(CLINIC) + len(ELSEWHERE)
    assert len(BUGS) >= 20 and len(DECOYS) == 2 and set(names) == set(CASES)
    assert len({case.cause for case in CASES.values()}) == len(names)


# the healthy stations against the library


def test_healthy_rows_are_those_of_the_library(atlas):
    _, tokenizer = atlas
    talks = draw_talks("train", 200, seed=7)
    compared = 0
    for talk in talks:
        example = zoo.encode(talk, tokenizer, zoo.write_turn, 10**6)
        library = encode_conversation(talk, tokenizer)
        assert example.input_ids == [tokenizer.pad_token_id, *library.input_ids]
        assert example.labels[1:] == library.labels
        compared += 1
    assert compared == 200


def test_healthy_batches_and_losses_are_those_of_the_library(atlas):
    base, tokenizer = atlas
    rows = [zoo.encode(talk, tokenizer, zoo.write_turn) for talk in draw_talks("train", 9, seed=1)]
    rows = [row for row in rows if row is not None]
    batch, library = zoo.collate(rows, tokenizer), pad_batch(rows, tokenizer.pad_token_id)
    for name, tensor in library.items():
        assert torch.equal(batch[name], tensor)
    with torch.no_grad():
        logits = base(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        found = zoo.loss(base, batch)
        packed = zoo.loss(base, zoo.pack(rows, tokenizer))
    torch.testing.assert_close(found, response_loss(logits, batch["labels"]))
    torch.testing.assert_close(packed, found, rtol=1e-4, atol=1e-5)
    (one,) = library_pack(rows, 10**6)
    assert one["input_ids"].numel() == zoo.pack(rows, tokenizer)["input_ids"].numel()


def test_lost_and_added_count_places():
    examples = [Example([3, 5, 9], [-100, 5, 9]), Example([3, 7], [-100, 7])]
    labels = torch.tensor([[-100, 5, -100], [-100, 7, 2]])
    assert lost_and_added(examples, labels) == (1, 1)


# the rule


def test_a_band_is_widened_by_its_own_width_or_the_least():
    assert widen([1.0, 3.0], 0.1) == (-1.0, 5.0)
    assert widen([1.0, 1.0], 0.1) == pytest.approx((0.9, 1.1))


def test_what_is_no_number_lies_outside_and_an_edge_inside():
    assert is_outside(None, (0, 1)) and is_outside(1.1, (0, 1))
    assert not is_outside(1.0, (0, 1)) and not is_outside(5.0, (0, math.inf))


def test_a_probe_sees_what_lies_outside_in_every_seed():
    probe = "P(stop)"
    found = made_up({"healthy": [0.9, 0.95], "a": [0.1, 0.2], "b": [0.1, 0.9], "c": [1, 1]}, probe)
    allowed = bands(found, [probe])[probe]
    assert allowed == (pytest.approx(0.85), math.inf)
    outside = {
        case: [is_outside(row[probe], allowed) for row in found.select(case=case)] for case in "abc"
    }
    assert outside == {"a": [True, True], "b": [True, False], "c": [False, False]}


def test_every_probe_stands_in_every_row(results):
    for row in results.rows:
        assert set(BATTERY) | set(CURVE) <= set(row)
    for case in (*CASES, *HEALTHY):
        assert len(results.select(case=case)) >= 3


def test_no_healthy_run_is_accused_by_the_others(results):
    """Each healthy run against the band of the other eight."""
    rows = [row for row in results.rows if row["case"] in HEALTHY]
    accused = 0
    for left in rows:
        rest = Results("", "", "", "", "", [row for row in rows if row is not left])
        allowed = bands(rest, BATTERY)
        accused += sum(is_outside(left[name], allowed[name]) for name in BATTERY)
    assert accused <= 0.02 * len(rows) * len(BATTERY)


def test_claims_of_the_chapter(results):
    assert min(share_seen(results, BATTERY)) >= 0.9 > 0.6 > max(share_seen(results, CURVE))
    for decoy in DECOYS:
        assert not seen_by(results, decoy.name, BATTERY)
        assert seen_by(results, decoy.name, CURVE)


# the clinic


def test_a_right_diagnosis_is_right_and_a_wrong_one_contradicted(results):
    assert judge_diagnosis(results, "tied merge", "tied merge")[0]
    right, words = judge_diagnosis(results, "tied merge", "typed control")
    assert not right and '"control tokens" contradicts you' in words
    assert "merge" in contradictions(results, "tied merge", "typed control")


def test_two_that_the_battery_cannot_tell_apart_are_said_to_be(results):
    right, words = judge_diagnosis(results, "fresh adapter", "keys do not meet")
    assert not right and words.startswith("No probe contradicts you")


def test_a_file_holds_what_an_engineer_gets(results):
    for case in CASES:
        file = open_file(results, case)
        assert len(file.outputs) == 10 and len(file.evals) == 4 and file.batch
        assert len(file.losses) == len(file.rates) == len(file.norms) >= 32
        for ids, marks in file.batch:
            assert len(ids) == len(marks) and set(marks) <= set("-+")


def test_one_point_again(atlas, results):
    """The cheapest full case: made anew, its alarms are the recorded ones."""
    row = measure_case("stop row frozen", *atlas, seed=0)
    recorded = results.select(case="stop row frozen")[0]
    allowed = bands(results)
    now = {name for name in BATTERY if is_outside(row[name], allowed[name])}
    assert set(alarms(results, "stop row frozen")) <= now
    assert abs(row["loss 4/4"] - recorded["loss 4/4"]) < 0.1
    assert row["log loss"].split()[0] == recorded["log loss"].split()[0]


def test_the_healthy_pipeline_trains_nothing_but_the_adapter(atlas):
    base, _ = atlas
    model = Pipeline().adapt(base)
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert names and all(".lora_" in name for name in names)
    assert diagnostics.largest_b(model) == 0


def test_probes_are_named_once_and_said_when():
    assert len({probe.name for probe in PROBES}) == len(PROBES)
    assert [probe.when for probe in PROBES] == sorted(
        (probe.when for probe in PROBES), key=("before", "step 0", "after").index
    )
