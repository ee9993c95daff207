"""The plain loop of chapter 04 is `sft_lab.train` step for step; a recorded point of its sweep
comes out again; chapter 04b's resumed runs lack what they say, and nothing else."""

import pytest
import torch
from tiny import PAD, make_examples, make_model, make_tokenizer
from torch.testing import assert_close

from sft_lab.course import plain_loop
from sft_lab.course.results import read_results
from sft_lab.course.resume_runs import LOSSES, resumed_run
from sft_lab.models import load
from sft_lab.train import train


@pytest.mark.numeric
@pytest.mark.parametrize("accumulation", [1, 3])
def test_its_losses_are_those_of_train(accumulation):
    ours, theirs, examples = make_model(), make_model(), make_examples(41)
    settings = {"epochs": 2, "batch_size": 4, "seed": 5}
    losses, values = plain_loop.sft(
        ours, examples, PAD, accumulation=accumulation, peak=1e-2, **settings
    )
    history = train(
        theirs,
        make_tokenizer(),
        examples,
        learning_rate=1e-2,
        accumulation_steps=accumulation,
        progress=False,
        **settings,
    )
    assert_close(losses, history.losses, rtol=1e-3, atol=1e-4)
    assert values == []


def test_it_evaluates_before_training_and_after_every_epoch_with_dropout_off():
    modes = []

    def evaluate(model) -> float:
        modes.append(model.training)
        return float(len(modes))

    model = make_model(attention_dropout=0.5)
    _, values = plain_loop.sft(model, make_examples(9), PAD, evaluate=evaluate, epochs=3)
    assert values == [1.0, 2.0, 3.0, 4.0]
    assert modes == [False] * 4


def test_a_batch_without_graded_tokens_adds_nothing():
    examples = make_examples(4)
    blind = [plain_loop.Example(one.input_ids, [-100] * len(one.labels)) for one in examples]
    batches = [plain_loop.pad_batch(rows, PAD) for rows in (examples, blind)]
    moved = []
    for part in (batches[:1], batches):
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        plain_loop.step(model, optimizer, part, 0.1)
        moved.append([weight.detach() for weight in model.parameters()])
    assert_close(*moved)


def test_a_function_is_shown_as_it_stands_in_its_file():
    text = plain_loop.show_function(plain_loop.EXAMPLES / "sft.py", "sft")
    assert text.startswith("def sft(") and "optimizer.step()" in text and "def main" not in text
    with pytest.raises(ValueError, match="no function nothing in"):
        plain_loop.show_function(plain_loop.EXAMPLES / "sft.py", "nothing")


def test_a_recorded_rate_comes_out_again():
    base, tokenizer = load("atlas-base", dtype=torch.float32)
    results = read_results("04_rates", base)
    assert {(row["rate"], row["seed"]) for row in results.rows} == {
        (rate, seed) for rate in plain_loop.RATES for seed in range(5)
    }
    band = results.measured("loss", rate=3e-3)
    found = plain_loop.try_rate(base, tokenizer, rate=3e-3, seed=2)
    assert min(band) - 0.03 < found["loss"] < max(band) + 0.03
    assert found["before"] == pytest.approx(results.rows[0]["before"], abs=1e-3)


CUT, STEPS = 5, 10


@pytest.fixture(scope="module")
def runs() -> dict:
    base, examples = make_model(), make_examples(48, seed=1)
    settings = {"cut": CUT, "steps": STEPS, "batch_size": 4, "peak": 1e-2}
    return {lost: resumed_run(base, examples, PAD, lost=lost, **settings) for lost in LOSSES}


def differing(runs: dict, lost: str, name: str) -> list[int]:
    """The steps in which a measure differs from the run that lost nothing."""
    pairs = zip(runs["nothing"], runs[lost], strict=True)
    return [i for i, (one, other) in enumerate(pairs) if one[name] != other[name]]


@pytest.mark.parametrize("lost", LOSSES)
def test_a_resumed_run_is_unbroken_up_to_the_cut(runs, lost):
    for name in ("loss", "rate", "rows", "moved"):
        assert all(step >= CUT for step in differing(runs, lost, name))


def test_each_fault_shows_where_it_must(runs):
    assert differing(runs, "weights", "loss")[0] == CUT
    assert differing(runs, "order", "loss")[0] == CUT
    assert differing(runs, "averages", "loss")[0] == CUT + 1
    assert differing(runs, "schedule", "loss")[0] == CUT + 1
    assert differing(runs, "schedule", "rate") and differing(runs, "order", "rows")
    for lost in ("weights", "averages"):
        assert not differing(runs, lost, "rate") and not differing(runs, lost, "rows")


def test_without_averages_a_sign_step_follows(runs):
    assert 0.9 < runs["averages"][CUT]["moved"] < 1.001 > 1.2 * runs["nothing"][CUT]["moved"]


def test_nothing_lost_is_a_run_that_was_never_cut():
    base, examples = make_model(), make_examples(48, seed=1)
    settings = {"steps": STEPS, "batch_size": 4, "peak": 1e-2}
    early, late = (resumed_run(base, examples, PAD, cut=cut, **settings) for cut in (2, 7))
    assert early == late


@pytest.mark.parametrize(("lost", "cut"), [("mind", 3), ("nothing", 0), ("nothing", STEPS)])
def test_a_resume_that_makes_no_sense_is_refused(lost, cut):
    with pytest.raises(ValueError, match="a cut inside the run"):
        resumed_run(make_model(), make_examples(8), PAD, lost=lost, cut=cut, steps=STEPS)
