"""Chapter 05: what its runs are made of, four models that never stop, and points of its recorded
sweep once more."""

import copy

import pytest
import torch

from sft_lab.chat import stop_token_id
from sft_lab.course.lora_runs import (
    ARMS,
    ASKED,
    MAX_NEW,
    PATIENTS,
    STEPS,
    best_rate,
    chances_at_end,
    country_task,
    cut_to_rank,
    encode_with_marker,
    give_own_row,
    layer_updates,
    make_patients,
    measure,
    rate_points,
    run_point,
    say_verdict,
    tune,
    ungrade,
    with_lora,
    write_on,
)
from sft_lab.course.loss_runs import country_facts
from sft_lab.course.results import read_results
from sft_lab.models import load


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


@pytest.fixture(scope="module")
def task(atlas):
    return country_task(atlas[1])


@pytest.fixture(scope="module")
def patients(atlas, task):
    return make_patients(*atlas, task)


def test_the_exam_asks_about_countries_that_no_run_reads(atlas, task):
    read = {tuple(row.input_ids) for row in task.examples}
    assert len(task.exam) == len(task.held_out) == ASKED
    assert not read & {tuple(row.input_ids) for row in task.held_out}


def test_a_row_of_its_own_changes_one_row_and_is_like_no_other(atlas):
    base, tokenizer = atlas
    stop = stop_token_id(tokenizer)
    old, new = (m.get_input_embeddings().weight for m in (base, give_own_row(base, stop)))
    changed = (old != new).any(dim=1).nonzero().flatten().tolist()
    cosines = torch.cosine_similarity(new, new[stop : stop + 1])
    assert changed == [stop] and (cosines > 0.5).sum() == 1


def test_ungrading_a_token_leaves_all_other_labels(atlas, task):
    stop = stop_token_id(atlas[1])
    for row, other in zip(task.examples[:5], ungrade(task.examples[:5], stop), strict=True):
        assert stop in row.labels and stop not in other.labels
        assert other.input_ids == row.input_ids
        assert [a for a, b in zip(row.labels, other.labels, strict=True) if a != b] == [stop]


def test_a_marker_takes_the_place_of_the_graded_stop_token_alone(atlas, task):
    _, tokenizer = atlas
    stop, marker = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<think>"])
    (row,) = encode_with_marker(country_facts()["train"][:1], tokenizer, "<think>")
    assert row.labels.count(marker) == 1 and stop not in row.labels
    assert row.input_ids.count(stop) == 2  # those of the system turn and of the question stay


def test_an_update_cut_to_full_rank_is_the_update_and_to_rank_zero_the_base(atlas):
    base, _ = atlas
    tuned = copy.deepcopy(base)
    torch.manual_seed(0)
    with torch.no_grad():
        tuned.model.layers[0].mlp.up_proj.weight.add_(0.01 * torch.randn(384, 128))
    updates = layer_updates(tuned, base)
    assert [name for name, update in updates.items() if update.any()] == [
        "model.layers.0.mlp.up_proj"
    ]
    for rank, expected in ((128, tuned), (0, base)):
        for name, parameter in cut_to_rank(tuned, base, rank).named_parameters():
            torch.testing.assert_close(parameter, expected.get_parameter(name), atol=1e-5, rtol=0)


def test_no_patient_stops_each_for_the_cause_that_it_has(atlas, task, patients):
    base, tokenizer = atlas
    stop, causes = stop_token_id(tokenizer), {}
    for letter, (model, rows) in patients.items():
        ids = write_on(model, tokenizer, task.exam[0][:-1])
        assert len(ids) == MAX_NEW
        chance = chances_at_end(model, tokenizer, task.held_out)[:, stop].mean()
        head = model.get_output_embeddings().weight
        alike = (torch.cosine_similarity(head, head[stop : stop + 1]) > 0.99).sum()
        if all(stop not in row.labels for row in rows):
            causes[letter] = "mask"
        elif model.generation_config.eos_token_id != stop:
            causes[letter] = "config"
            assert chance > 0.8
        else:
            causes[letter] = "head" if alike > 100 else "steps"
        assert causes[letter] == "config" or chance < 0.05
    assert causes == PATIENTS and sorted(causes.values()) == ["config", "head", "mask", "steps"]


def test_the_patient_of_too_few_steps_stops_after_more(atlas, task):
    base, tokenizer = atlas
    model = with_lora(give_own_row(base, stop_token_id(tokenizer)), 0)
    tune(model, tokenizer, task.examples, seed=0, rate=1.2e-3, epochs=3)
    assert measure(model, tokenizer, task)["stops"] > 0.8


def test_the_sweep_has_every_point(atlas):
    recorded = read_results("05_rates", atlas[0])
    points = rate_points(range(5))
    names = ("arm", "epochs", "rate", "seed")
    assert [{name: row[name] for name in names} for row in recorded.rows] == points
    for arm in ARMS:
        rates = {point["rate"] for point in points if point["arm"] == arm}
        assert min(rates) < best_rate(recorded, arm, 1) < max(rates)  # a U: both ends are seen


@pytest.mark.parametrize("arm", ["full", "attention, rank 8"])
def test_a_point_of_the_sweep_falls_into_its_band_again(atlas, arm):
    recorded = read_results("05_rates", atlas[0])
    point = {"arm": arm, "epochs": 1, "rate": 5e-3}
    again, band = run_point(*atlas, point | {"seed": 3}), recorded.measured("report", **point)
    assert min(band) - 0.05 < again["report"] < max(band) + 0.05
    assert again["trained"] == recorded.select(**point)[0]["trained"]


def test_a_verdict_is_said_with_its_numbers(capsys):
    assert say_verdict("it falls", [1.0, 1.1, 1.0], [0.1, 0.1, 0.2], "lower") == "held"
    assert capsys.readouterr().out == "it falls: held (-0.900, noise floor 0.100)\n"


def test_a_run_has_as_many_steps_as_it_says(atlas, task):
    model = with_lora(atlas[0], 0)
    assert len(tune(model, atlas[1], task.examples, seed=0)) == STEPS
