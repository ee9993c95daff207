"""What chapter 14b measures: perplexity is torch's cross-entropy, drawn settings follow their seed,
a recorded point measured again falls into its band."""

import math
import random

import pytest
import torch
from tiny import make_model

from sft_lab import atlas
from sft_lab.course import decoding_runs as runs
from sft_lab.course.results import read_results
from sft_lab.models import load


@pytest.fixture(scope="module")
def world():
    base, tokenizer = load("atlas-base")
    return base, tokenizer, atlas.split(atlas.load_facts())


@pytest.mark.numeric
def test_perplexity_is_exp_of_the_mean_cross_entropy_of_all_written_tokens():
    model, rng = make_model(seed=1), random.Random(0)
    contexts = [rng.choices(range(61), k=rng.randint(1, 6)) for _ in range(12)]
    written = [rng.choices(range(61), k=rng.randint(1, 9)) for _ in range(12)]
    losses = []
    for context, ids in zip(contexts, written, strict=True):
        row = torch.tensor([context + ids])
        labels = torch.tensor([[-100] * len(context) + ids])
        losses += [model(input_ids=row, labels=labels).loss.item()] * len(ids)
    wanted = math.exp(sum(losses) / len(losses))
    found = runs.perplexity(model, [*contexts, [3]], [*written, []])  # an empty text counts nothing
    assert found == pytest.approx(wanted, rel=1e-4)
    assert math.isnan(runs.perplexity(model, [[3]], [[]]))


def test_the_first_tokens_of_all_texts_together_are_as_many_as_asked():
    assert runs.first_tokens([[1, 2, 3], [4, 5], [6, 7]], 5) == [[1, 2, 3], [4, 5]]
    assert runs.first_tokens([[1, 2, 3], [4, 5, 6], [7]], 5) == [[1, 2, 3], [4, 5]]
    assert runs.first_tokens([[1, 2]], 5) == [[1, 2]]


def test_openings_are_decided_by_the_seed_and_go_on_as_the_documents_do(world):
    _, tokenizer, facts = world
    openings, endings = runs.draw_openings(tokenizer, facts, 0, count=5)
    again, _ = runs.draw_openings(tokenizer, facts, 0, count=5)
    others, _ = runs.draw_openings(tokenizer, facts, 1, count=5)
    assert openings == again and openings != others
    assert all(len(ids) == runs.OPENING for ids in openings) and all(endings)


def test_every_setting_writes_and_a_draw_follows_its_seed(world):
    base, tokenizer, facts = world
    openings, _ = runs.draw_openings(tokenizer, facts, 0, count=3)
    texts = {}
    for setting in runs.SETTINGS:
        first, second = (
            runs.write_ids(base, tokenizer, openings, setting, max_new_tokens=8, seed=4)
            for _ in range(2)
        )
        assert first == second and all(first), setting
        texts[setting] = first
    other = runs.write_ids(base, tokenizer, openings, "T 1", max_new_tokens=8, seed=5)
    assert other != texts["T 1"] != texts["greedy"]
    with pytest.raises(KeyError):
        runs.write_ids(base, tokenizer, openings, "T 7", max_new_tokens=8)


def test_the_spared_token_keeps_its_logit_and_all_others_are_punished():
    ids, scores = torch.tensor([[1, 2, 3]]), torch.tensor([[1.0, 2.0, -2.0, 4.0, 5.0]])
    spare = runs.penalise(2.0, "all but the stop token", 3)
    spare.begin(torch.ones(1, 3))
    torch.testing.assert_close(spare(ids, scores), torch.tensor([[1.0, 1.0, -4.0, 4.0, 5.0]]))


def test_a_recorded_point_of_open_text_is_measured_again(world):
    base, tokenizer, facts = world
    recorded = read_results("14b_settings", base)
    found = runs.measure_open(base, tokenizer, facts, "greedy", 0)
    band = recorded.measured("rep-4", use="open", setting="greedy")
    row = recorded.select(use="open", setting="greedy")[0]
    assert min(band) - 0.05 <= found["rep-4"] <= max(band) + 0.05
    assert found["perplexity"] == pytest.approx(row["perplexity"], rel=0.1)


def test_the_recorded_penalties_stand_for_every_arm_and_seed():
    for name, penalties in (
        ("14b_settings", (1.1, 1.2, 1.3, 1.4, 1.5)),
        ("14b_smollm2", (1.1, 1.2, 1.5)),
    ):
        results = read_results(name)
        for counted in runs.COUNTED:
            for penalty in penalties:
                arm = {"use": "stops", "penalty": penalty, "counted": counted}
                assert len(results.measured("stops", **arm)) == 3
