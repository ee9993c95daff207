"""Chapter 06: the task, the fast ruler and the recorded runs."""

import importlib.util
from pathlib import Path

import pytest
import torch
from tiny import make_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from sft_lab.course.part_runs import (
    RANDOM_RATE,
    RATES,
    build,
    build_random_prefix,
    exact_match,
    give_stop_a_row,
    load_task,
    logits_of_users,
    operations_of_step,
)
from sft_lab.course.results import read_results
from sft_lab.course.views.parts import draw_methods, draw_rates, draw_real
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.models import load

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def base():
    return load("atlas-base")[0]


@pytest.fixture(scope="module")
def task():
    return load_task(load("atlas-base")[1])


def load_experiment(name: str):
    path = ROOT / "tools" / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(rows, tokenizer):
    return {tokenizer.decode(row.input_ids) for row in rows}


def test_no_row_is_trained_and_asked_or_asked_twice(task):
    parts = [texts(rows, task.tokenizer) for rows in (task.examples, task.held_out, task.choosing)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert len(task.held_out) == len(task.choosing) == 150


def test_exact_match_is_that_of_the_full_logits():
    torch.manual_seed(0)
    model = make_model()
    rows = []
    for length in (3, 9, 5, 7):
        input_ids = torch.randint(2, 60, (length,)).tolist()
        labels = [IGNORE_INDEX, *input_ids[1:]]
        rows.append(Example(input_ids, labels))
    greedy = rows[1]
    with torch.no_grad():  # the answer that the model itself would write
        ids = greedy.input_ids[:4]
        for _ in range(4):
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
    rows[1] = Example(ids, [IGNORE_INDEX] * 4 + ids[4:])
    expected = []
    for row in rows:
        with torch.no_grad():
            guesses = model(torch.tensor([row.input_ids])).logits[0].argmax(-1)[:-1].tolist()
        graded = [(g, y) for g, y in zip(guesses, row.labels[1:], strict=True) if y >= 0]
        expected.append(all(guess == label for guess, label in graded))
    assert expected[1]
    for at_once in (1, 3, 64):
        assert exact_match(model, rows, 0, at_once=at_once).tolist() == expected


def test_the_stop_token_gets_a_row_that_no_other_token_has(base, task):
    model = build(base, "full", task, seed=0)
    before = model.get_input_embeddings().weight.detach().clone()
    give_stop_a_row(model, task.tokenizer)
    table = model.get_input_embeddings().weight.detach()
    stop = task.tokenizer.convert_tokens_to_ids("<|im_end|>")
    changed = (table != before).any(dim=1).nonzero()[:, 0].tolist()
    assert changed == [stop]
    alike = torch.nn.functional.cosine_similarity(table, table[stop][None])
    assert (alike > 0.6).sum() == 1
    old = torch.nn.functional.cosine_similarity(before, before[stop][None])
    assert (old > 0.6).sum() > 5


@pytest.mark.parametrize("size", [1, 5, 40])
def test_a_size_is_the_number_of_positions(base, task, size):
    assert build(base, "prefix", task, seed=0, size=size).prefix.keys_values.shape[3] == size
    assert len(build(base, "prompt", task, seed=0, size=size).prompt.embeddings) == size


def test_without_a_size_the_start_is_the_solved_example(base, task):
    assert len(build(base, "prompt", task, seed=0).prompt.embeddings) == len(task.start)
    with pytest.raises(ValueError, match="method is 'IA3'; there are full, LoRA"):
        build(base, "IA3", task, seed=0)


def test_each_user_gets_the_logits_of_their_own_prefix(base, task):
    users = [build_random_prefix(base, task, seed=seed).eval() for seed in range(3)]
    prefixes = torch.stack([user.prefix.keys_values.detach() for user in users])
    input_ids = torch.randint(5, 500, (3, 6))
    together = logits_of_users(base, prefixes, input_ids)
    for row, user in enumerate(users):
        with torch.no_grad():
            alone = user(input_ids=input_ids[row : row + 1]).logits
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-3, atol=1e-3)


def test_operations_are_two_for_each_weight_forward_and_four_backward():
    """Attention needs few here: one row of two tokens, and a large MLP."""
    config = Qwen3Config(
        vocab_size=16,
        num_hidden_layers=1,
        hidden_size=32,
        intermediate_size=4096,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    batch = {"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[-100, 3]])}
    weights = 3 * 32 * 4096
    assert operations_of_step(model, batch) == pytest.approx(6 * 2 * weights, rel=0.02)
    model.requires_grad_(False)
    model.model.layers[0].input_layernorm.weight.requires_grad_(True)
    assert operations_of_step(model, batch) == pytest.approx(4 * 2 * weights, rel=0.02)


def test_every_point_is_recorded():
    experiment, results = load_experiment("06_methods"), read_results("06_methods")
    assert len(results.rows) == len(experiment.points())
    for point in experiment.points():
        assert len(results.select(**point)) == 1


def mean_of(rows, measure: str) -> float:
    return sum(row[measure] for row in rows) / len(rows)


def test_the_rates_of_the_chapter_are_the_best_on_the_choosing_countries():
    experiment, results = load_experiment("06_methods"), read_results("06_methods")
    for method, rate in {**RATES, experiment.RANDOM: RANDOM_RATE}.items():
        tried = {
            one: results.select(method=method, rate=one)[:3] for one in experiment.TRIED[method]
        }
        most = max(mean_of(rows, "choosing") for rows in tried.values())
        near = {one: rows for one, rows in tried.items() if mean_of(rows, "choosing") > most - 0.01}
        assert rate == min(near, key=lambda one: mean_of(near[one], "choosing_loss")), method


def test_a_point_falls_into_the_recorded_band():
    experiment = load_experiment("06_methods")
    results = read_results("06_methods", experiment.base)
    for method in ("adapter", "prefix"):
        settings = {"method": method, "rate": RATES[method]}
        found = experiment.run({**settings, "seed": 0})
        for measure, margin in (("right", 0.15), ("kept", 0.15), ("documents", 0.3)):
            values = results.measured(measure, **settings)
            assert min(values) - margin <= found[measure] <= max(values) + margin, (method, measure)


def test_on_the_real_model_every_run_ends_below_the_untuned_model():
    results = read_results("06_smollm2")
    untuned = results.select(method="none")[0]["loss"]
    trained = [row for row in results.rows if row["method"] != "none"]
    assert len({row["method"] for row in trained}) >= 2
    assert max(row["loss"] for row in trained) < untuned


def test_the_better_method_stands_above_and_every_seed_is_a_dot():
    runs = {
        "full": [{"right": 0.9, "kept": 1.0, "documents": 1.2}] * 3,
        "prompt": [{"right": 0.1, "kept": 0.5, "documents": 1.5}] * 3,
        "LoRA": [{"right": 0.95, "kept": 0.9, "documents": 1.3}] * 3,
    }
    before = {"right": 0.0, "kept": 1.0, "documents": 1.1}
    figure = draw_methods(runs, {"full": 1000, "prompt": 5, "LoRA": 70}, before)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "prompt",
        "full",
        "LoRA",
    ]
    assert figure.axes[0].get_xscale() == "log"
    assert sum(len(line.get_xdata()) == 3 for line in figure.axes[1].lines) == 3


def test_the_chosen_rate_is_marked():
    tried = {"full": {1e-4: [0.1, 0.3], 1e-3: [0.6, 0.4], 1e-2: [0.0, 0.2]}}
    figure = draw_rates(tried, {"full": 1e-3})
    ax = figure.axes[0]
    assert "chosen: 0.001" in ax.get_title() + ax.get_title("left")


def test_a_real_model_is_compared_with_itself_untuned():
    runs = {"LoRA": [{"loss": 0.5, "trained": 10}], "prefix": [{"loss": 0.9, "trained": 2}]}
    ax = draw_real(runs, before=2.0)
    assert [text.get_text().split("\n")[0] for text in ax.get_yticklabels()] == ["LoRA", "prefix"]
    assert ax.lines[-1].get_xdata()[0] == 2.0
