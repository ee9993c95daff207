"""A run, an evaluation or an answer that a setting would make empty, or another than it says, is
refused in one line before anything is done; numbers of every kind that mean a number work."""

import importlib
import json
import math
import random
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from tiny import make_examples, make_model, make_tokenizer

import sft_lab.train
from sft_lab.arguments import SettingError, check_seed, real_number, whole_number
from sft_lab.batches import pack
from sft_lab.chat import complete, generate_ids, generate_responses
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.plan import Plan
from sft_lab.lora import add_lora, save_adapter
from sft_lab.train import evaluate, train

TOKENIZER = make_tokenizer()
EXAMPLES = make_examples(24)
LONGEST = max(len(example.input_ids) for example in EXAMPLES)
UNGRADED = Example([5, 6, 7], [IGNORE_INDEX] * 3)
FIRST_ALONE = Example([5, 6, 7], [5, IGNORE_INDEX, IGNORE_INDEX])  # a first token is not predicted
NO_COUNT = (0, -1, 1.5, 2.0, True, np.bool_(True), "2", [2], np.float64(2), math.nan, math.inf)
NO_RATE = (-1e-3, math.nan, math.inf, -math.inf, True, "0.1", None, [0.1], 1j, np.float32("nan"))

# setting: (values that are refused, what the error advises)
REFUSED = {
    "epochs": ((*NO_COUNT, None), "whole passes"),
    "batch_size": ((*NO_COUNT, None), "examples of a batch"),
    "accumulation_steps": ((*NO_COUNT, None), "1 accumulates nothing"),
    "pack_to": (NO_COUNT, "do not pack"),
    "checkpoint_every": ((*NO_COUNT, None), "counts steps"),
    "evaluate_every": (NO_COUNT, "counts steps"),
    "seed": ((-1, 2**64, 0.0, True, "0", None, math.nan), "an integer, at least 0"),
    "learning_rate": ((*NO_RATE, 0, 0.0, -0.0, np.float32(0)), "call evaluate"),
    "warmup_ratio": ((*NO_RATE, 1.01, 10, 100), "share of the steps; of this run's 3"),
    "weight_decay": (NO_RATE, "0 is none"),
    "max_grad_norm": ((0, 0.0, -1, math.nan, -math.inf, None, True, "1"), "give math.inf"),
}
CASES = [(name, value) for name, (values, _) in REFUSED.items() for value in values]


@pytest.fixture
def no_step(monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(sft_lab.train, "optimizer_step", refuse)


def run(examples=EXAMPLES, **settings):
    given = {"batch_size": 8, "learning_rate": 1e-2, "progress": False, **settings}
    return train(make_model(), TOKENIZER, examples, **given)


def check_line(error: BaseException, *parts: str) -> None:
    line = str(error)
    assert isinstance(error, ValueError) and "\n" not in line and len(line) < 400
    for part in parts:
        assert part in line


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_setting_that_means_no_run_is_refused_with_name_value_and_advice(
    name, value, no_step, tmp_path
):
    extra = {"eval_examples": EXAMPLES} if name == "evaluate_every" else {}
    with pytest.raises(SettingError) as found:
        run(output_dir=tmp_path / "run", **extra, **{name: value})
    check_line(found.value, f"{name} is {value!r:.60}; it must be a", REFUSED[name][1])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pack_to": LONGEST - 1}, f"pack_to is {LONGEST - 1}, but examples["),
        ({"batch_size": 24}, "the run has one step: a warm-up begins at learning rate 0"),
        ({"batch_size": 99, "warmup_ratio": 1e-9}, "warmup_ratio is 1e-09 and the run has one"),
        ({"accumulation_steps": 3, "warmup_ratio": 1.0}, "the run has one step"),
        ({"weight_decay": 100.0}, "weight_decay is 100: times the learning rate, 0.01"),
        ({"evaluate_every": 2}, "evaluate_every is 2, but there is nothing to evaluate"),
        ({"eval_examples": []}, "no eval_examples"),
        ({"eval_examples": [UNGRADED, FIRST_ALONE]}, "none of the 2 has a graded token"),
        ({"eval_examples": ["text"]}, "eval_examples[0] is 'text' (str), not an Example"),
        ({"examples": []}, "no examples"),
        ({"examples": iter([])}, "no examples"),
        ({"examples": [*EXAMPLES, "text"]}, "examples[24] is 'text' (str), not an Example"),
        ({"examples": [[{"role": "user"}]] * 9}, "examples[0] is [{'role': 'user'}] (list)"),
        ({"examples": [*EXAMPLES, Example([5, 6], [5])]}, "examples[24] has 2 input_ids and 1"),
        ({"examples": [UNGRADED] * 20}, "step 1: no graded token in its batches; 20 of 20"),
        ({"examples": [FIRST_ALONE] * 20}, "step 1: no graded token"),
        ({"examples": [FIRST_ALONE] * 20, "pack_to": 9}, "packed rows have none, the first is"),
        ({"examples": [*EXAMPLES[:3], *[UNGRADED] * 9], "batch_size": 1}, "9 of 12 examples"),
    ],
)
def test_what_would_teach_nothing_or_end_in_the_middle_is_refused(settings, message, no_step):
    with pytest.raises(SettingError) as found:
        run(**settings)
    check_line(found.value, message)


def mix_examples(seed: int) -> tuple[list[Example], dict]:
    """Examples with and without graded tokens in random order, and the settings of a run."""
    rng = random.Random(seed)
    examples = rng.sample(EXAMPLES, rng.randint(1, 6)) + [UNGRADED] * rng.randint(0, 8)
    settings = {"epochs": 2, "batch_size": rng.randint(1, 3), "seed": seed, "warmup_ratio": 0.0}
    settings["accumulation_steps"] = rng.randint(1, 2)
    return rng.sample(examples, len(examples)), settings


@pytest.mark.filterwarnings("ignore:the run has changed no weight")
def test_a_step_without_a_graded_token_is_named_before_the_run_wherever_it_comes(monkeypatch):
    """60 random mixtures; the reference is what the steps of the unchecked run are given."""
    given: list[bool] = []

    def look(model, optimizer, parameters, batches, **rest):
        given.append(any((batch["labels"][:, 1:] != IGNORE_INDEX).any() for batch in batches))
        return {"loss": 0.0}

    monkeypatch.setattr(sft_lab.train, "optimizer_step", look)
    found = []
    for seed in range(60):
        examples, settings = mix_examples(seed)
        with monkeypatch.context() as unchecked:
            unchecked.setattr(Plan, "_check_graded", lambda plan: None)
            given.clear()
            run(examples, **settings)
        found.append(given.index(False) + 1 if False in given else None)
        if found[-1]:
            with pytest.raises(SettingError, match=f"^step {found[-1]}: no graded token"):
                run(examples, **settings)
        else:
            run(examples, **settings)
    assert 10 < found.count(None) < 50 and max(filter(None, found)) > 3, "many cases should occur"


@pytest.mark.parametrize(
    "settings",
    [
        {"max_grad_norm": math.inf},
        {"max_grad_norm": 1e-3},
        {"warmup_ratio": 1.0},
        {"warmup_ratio": 0, "batch_size": 24},
        {"weight_decay": 0},
        {"weight_decay": 1, "learning_rate": 1e-3},
        {"pack_to": LONGEST},
        {"seed": 2**64 - 1},
        {"evaluate_every": 100, "eval_examples": EXAMPLES[:3], "checkpoint_every": 1},
        {"examples": (example for example in EXAMPLES)},
        {"eval_examples": (example for example in EXAMPLES[:3]), "epochs": 2},
        {"examples": [*EXAMPLES[:8], UNGRADED]},
    ],
    ids=" ".join,
)
def test_what_lies_at_the_end_of_a_range_trains(settings, recwarn):
    model = make_model()
    before = [weight.clone() for weight in model.parameters()]
    examples = settings.get("examples", EXAMPLES)
    given = {"batch_size": 4, **settings}
    given.pop("examples", None)
    history = train(model, TOKENIZER, examples, progress=False, **given)
    assert all(math.isfinite(loss) for loss in history.losses)
    assert not all(map(torch.equal, model.parameters(), before))
    assert not [warning for warning in recwarn if "changed no weight" in str(warning.message)]


def test_numbers_of_numpy_are_numbers_and_a_checkpoint_holds_them(tmp_path):
    """JSON knows no numbers of numpy: a checkpoint would end the run."""
    plain = {"epochs": 2, "batch_size": 4, "accumulation_steps": 1, "seed": 3, "pack_to": 64}
    plain |= {"evaluate_every": 2, "checkpoint_every": 1}
    rates = {"learning_rate": 0.5, "warmup_ratio": 0.25, "weight_decay": 0.5, "max_grad_norm": 2.0}
    of_numpy = {name: np.int64(value) for name, value in plain.items()}
    of_numpy |= {name: np.float32(value) for name, value in rates.items()}
    histories = [
        run(EXAMPLES, output_dir=tmp_path / str(number), eval_examples=EXAMPLES[:4], **settings)
        for number, settings in enumerate((plain | rates, of_numpy))
    ]
    steps = [[step["learning_rate"] for step in history.steps] for history in histories]
    assert steps[0] == steps[1] and len(steps[0]) > 2
    assert run(EXAMPLES, weight_decay=Fraction(1, 4), learning_rate=np.float16(0.5)).losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "settings",
    [{"learning_rate": 1e-30}, {"max_grad_norm": 1e-30}, {"learning_rate": 1e-14}],
    ids=" ".join,
)
def test_a_run_that_changed_no_weight_says_so(settings, dtype):
    model = make_model().to(dtype)
    with pytest.warns(UserWarning, match="the run has changed no weight") as told:
        train(model, TOKENIZER, EXAMPLES, batch_size=8, progress=False, **settings)
    assert told[0].filename == __file__  # it points at the call


def test_updates_that_the_number_format_rounds_away_are_found_and_others_are_not(recwarn):
    """bfloat16 weights near 1 lie 1/256 to 1/128 apart: three steps of 1e-5 do not move them."""
    for dtype, changed in ((torch.float32, True), (torch.bfloat16, False)):
        model = make_model().requires_grad_(False)
        norm = model.model.norm.requires_grad_(True)
        model.to(dtype)
        train(model, TOKENIZER, EXAMPLES, batch_size=8, progress=False, learning_rate=1e-5)
        told = [warning for warning in recwarn if "changed no weight" in str(warning.message)]
        assert bool(told) != changed and torch.equal(norm.weight, torch.ones(32)) != changed


def test_a_gradient_that_does_not_arrive_is_found():
    model = make_model().requires_grad_(False)
    model.model.norm.weight.requires_grad_(True).register_hook(lambda gradient: 0 * gradient)
    with pytest.warns(UserWarning, match="no gradient that reaches"):
        train(model, TOKENIZER, EXAMPLES, batch_size=8, progress=False)


# evaluate and answers


@pytest.mark.parametrize("value", [*NO_COUNT, None])
def test_a_batch_size_that_is_none_is_refused_by_evaluate(value):
    model = make_model().train()
    with pytest.raises(SettingError) as found:
        evaluate(model, TOKENIZER, EXAMPLES, batch_size=value)
    check_line(found.value, f"batch_size is {value!r}; it must be an integer, at least 1")
    assert model.training
    expected = evaluate(model, TOKENIZER, EXAMPLES, batch_size=5)
    assert evaluate(model, TOKENIZER, EXAMPLES, batch_size=np.int64(5)) == expected


SAMPLE = {"do_sample": True}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({"max_new_tokens": value}, "max_new_tokens is") for value in (*NO_COUNT, None)),
        *(
            ({"temperature": value, **SAMPLE}, "temperature is")
            for value in (0, -1.0, math.nan, math.inf, True, "0.7")
        ),
        *(({"top_p": value, **SAMPLE}, "top_p is") for value in (0, 1.01, -1, math.nan, True)),
        *(({"min_p": value, **SAMPLE}, "min_p is") for value in (-0.1, 1.01, math.nan)),
        *(({"top_k": value, **SAMPLE}, "top_k is") for value in (-1, 1.5, True)),
        *(({"num_beams": value}, "num_beams is") for value in (0, -1, 2.0, True)),
        *(
            ({"repetition_penalty": value}, "repetition_penalty is")
            for value in (0, -1.0, math.nan, math.inf)
        ),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "at least 0, at most 8. Raise max_new_tokens"),
        *(({"num_return_sequences": value}, "one answer a prompt") for value in (0, 1, 2)),
        ({"max_length": 9}, "max_length is 9: it would count the prompt"),
        ({"return_dict_in_generate": True}, "ids are what comes back"),
        ({"length_penalty": 2.0}, "length_penalty would be ignored without num_beams above 1"),
        ({"early_stopping": True, "num_beams": 1}, "early_stopping would be ignored"),
        *(({name: 0.5}, f"{name} would be ignored: greedy") for name in ("top_h", "eta_cutoff")),
    ],
)
def test_answers_in_another_way_than_asked_are_refused(settings, message, model, tokenizer):
    for ask in (generate_responses, generate_ids, complete):
        with pytest.raises(SettingError) as found:
            ask(model, tokenizer, ["What is the capital of Japan?"], **settings)
        check_line(found.value, message)


def test_numbers_of_numpy_ask_as_plain_ones_do(model, tokenizer):
    prompts = ["What is the capital of Japan?"]
    plain = {"max_new_tokens": 5, "num_beams": 2, "repetition_penalty": 1.5, "min_new_tokens": 3}
    of_numpy = {name: np.asarray(value)[()] for name, value in plain.items()}
    assert {type(value) for value in of_numpy.values()} == {np.int64, np.float64}
    expected = generate_ids(model, tokenizer, prompts, **plain)
    assert generate_ids(model, tokenizer, prompts, **of_numpy) == expected
    assert 3 <= len(expected[0]) <= 5


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rank", (*NO_COUNT, None)),
        ("alpha", (*NO_RATE, 0, -16, "16")),
        ("dropout", (*NO_RATE, 1, 1.0, 1.5)),
    ],
)
def test_lora_that_would_learn_nothing_is_refused_with_the_model_untouched(name, values):
    model = make_model()
    for value in values:
        with pytest.raises(SettingError) as found:
            add_lora(model, **{name: value})
        check_line(found.value, f"{name} is {value!r:.60}; it must be a")
    assert all(weight.requires_grad for weight in model.parameters())


def test_lora_with_numbers_of_numpy_is_saved_like_any(tmp_path):
    """A number that JSON does not know would be found out after the training."""
    numbers = {"rank": 2, "alpha": 8, "dropout": 0.25}
    for name, kinds in {
        "plain": (int, int, float),
        "numpy": (np.int8, np.float32, np.float64),
    }.items():
        given = {
            key: kind(value) for kind, (key, value) in zip(kinds, numbers.items(), strict=True)
        }
        save_adapter(add_lora(make_model(), **given), tmp_path / name)
    plain, of_numpy = (
        json.loads((tmp_path / name / "adapter_config.json").read_text(encoding="utf-8"))
        for name in ("plain", "numpy")
    )
    assert plain == of_numpy and plain["lora_alpha"] == 8 and plain["r"] == 2


# commands


@pytest.mark.parametrize(
    ("tool", "option", "values"),
    [
        ("distributed_sft", "--steps", ("0", "1", "-5", "1.5")),
        ("distributed_sft", "--batch-size", ("0", "-1", "x")),
        ("distributed_sft", "--rows-at-once", ("0", "-1")),
        ("distributed_sft", "--max-tokens", ("0", "-1")),
        ("distributed_sft", "--learning-rate", ("0", "-1", "nan", "inf", "")),
        ("evaluate_base", "--seeds", ("-1", "0.5")),
        ("evaluate_base", "--epochs", ("0", "1.5")),
        ("evaluate_base", "--learning-rate", ("0", "nan")),
        ("evaluate_base", "--questions", ("0", "-1")),
        ("record_answers", "--rows", ("0", "-1", "16")),  # sixteen rows are one step
    ],
)
def test_the_options_of_a_tool_are_checked_before_it_loads_anything(
    tool, option, values, monkeypatch, capsys
):
    module = importlib.import_module(tool)
    for name in {"run", "load"} & set(vars(module)):
        monkeypatch.setattr(module, name, None)
    for value in values:
        monkeypatch.setattr(sys, "argv", [tool, f"{option}={value}"])
        with pytest.raises(SystemExit) as ended:
            module.main()
        told = capsys.readouterr().err
        assert ended.value.code == 2 and f"argument {option}: it is" in told


# the two checks themselves, on random numbers


def test_a_whole_number_comes_back_as_it_is_and_any_other_is_refused():
    rng = random.Random(0)
    kinds = (int, np.int8, np.int64, np.uint8)
    for _ in range(500):
        least, number = rng.randint(-50, 50), rng.randint(0, 100)
        value = rng.choice(kinds)(number)
        if number >= least:
            back = whole_number("it", value, least=least)
            assert back == number and type(back) is int and json.dumps(back)
        else:
            with pytest.raises(SettingError, match=f"an integer, at least {least}"):
                whole_number("it", value, least=least)
        with pytest.raises(SettingError):
            whole_number("it", float(number), least=-100)


def test_a_number_comes_back_as_it_is_within_its_ends_and_any_other_is_refused():
    rng = random.Random(0)
    for _ in range(500):
        least, most = sorted(rng.uniform(-1, 1) for _ in range(2))
        value = rng.choice((float, np.float64, Fraction))(rng.choice((least, most, rng.random())))
        if least <= value <= most:
            back = real_number("it", value, least=least, most=most)
            assert back == value and type(back) is float
        else:
            with pytest.raises(SettingError):
                real_number("it", value, least=least, most=most)
        if value <= least:
            with pytest.raises(SettingError, match="above"):
                real_number("it", value, above=least)
    assert real_number("it", math.inf, above=0, infinite=True) == math.inf
    assert check_seed(np.uint64(2**64 - 1)) == 2**64 - 1


def test_a_plan_packs_as_pack_does():
    rows = pack(EXAMPLES, LONGEST)
    assert len(run(pack_to=LONGEST, batch_size=1).losses) == len(rows)
