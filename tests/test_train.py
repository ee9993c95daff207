"""The loop is the textbook's: equal to a plain loop and to TRL, exact on resume, and clear when it
must stop."""

import contextlib
import copy
import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import PAD, make_examples, make_model, make_tokenizer
from tolerances import LOGITS, LOSS, right_answers
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, PreTrainedModel, get_cosine_schedule_with_warmup

import sft_lab.loop.checkpoints
import sft_lab.train
from sft_lab.batches import group_by_length, pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.update import mixed_precision, optimizer_step
from sft_lab.lora import add_lora
from sft_lab.losses import graded_loss
from sft_lab.train import History, evaluate, learning_rate_at, train

EXAMPLES = make_examples(24)
TOKENIZER = make_tokenizer()
# 3 steps an epoch, 12 in all; a checkpoint after steps 3, 6 and 9
RUN = {
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "checkpoint_every": 3,
    "progress": False,
}


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    others = weights_of(other)
    return all(torch.equal(tensor, others[name]) for name, tensor in weights_of(one).items())


def run(model: PreTrainedModel | None = None, **settings) -> tuple[History, PreTrainedModel]:
    model = model if model is not None else make_model(attention_dropout=0.2)
    return train(model, TOKENIZER, EXAMPLES, **{**RUN, **settings}), model


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def before_step(number: int, action):
    """Run `action` when the optimiser step `number` begins, counted over the whole run."""
    real = sft_lab.train.optimizer_step

    def step(*arguments, **settings):
        if settings["step"] == number:
            action()
        return real(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft_lab.train, "optimizer_step", step)
        yield


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill() -> None:
    raise Killed


# --- the schedule, the step and the loop against references
# ---------------------------------------------------------


def test_the_learning_rate_is_transformers_cosine_schedule_on_200_random_settings():
    for seed in range(200):
        rng = random.Random(seed)
        total, peak = rng.randint(1, 300), 10 ** rng.uniform(-6, -1)
        warmup = rng.randint(0, total)
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
        theirs = get_cosine_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0]
        for step in range(total + 1):
            ours = learning_rate_at(step, total, peak=peak, warmup_steps=warmup)
            assert math.isclose(ours, peak * theirs(step), rel_tol=1e-12, abs_tol=1e-18), (
                total,
                warmup,
                step,
            )


@pytest.mark.parametrize(
    ("warmup_share", "longest"),
    [
        (0.0, 300),
        (0.1, 300),
        (0.5, 300),
        (1.0, 300),
        (0.1, 3),
    ],
    ids=["without warm-up", "a tenth", "half", "warm-up only", "one to three steps"],
)
def test_the_learning_rate_is_transformers_for_each_family_of_40_random_schedules(
    warmup_share, longest
):
    for seed in range(40):
        rng = random.Random(seed)
        total, peak = rng.randint(1, longest), 10 ** rng.uniform(-6, -1)
        warmup = math.ceil(warmup_share * total)
        optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=peak)
        schedule = get_cosine_schedule_with_warmup(optimizer, warmup, total)
        for step in range(total):
            ours = learning_rate_at(step, total, peak=peak, warmup_steps=warmup)
            assert math.isclose(ours, schedule.get_last_lr()[0], rel_tol=1e-12, abs_tol=1e-18), (
                total,
                warmup,
                step,
            )
            optimizer.step()
            schedule.step()


@pytest.mark.numeric
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.3},
        {"max_grad_norm": 0.1},
        {"max_grad_norm": math.inf},
        {"warmup_ratio": 0.0},
        {"warmup_ratio": 0.5},
        {"accumulation_steps": 2},
        {"accumulation_steps": 3, "weight_decay": 0.1},
        {"batch_size": 1, "accumulation_steps": 4, "max_grad_norm": 0.5},
    ],
    ids=lambda settings: (
        ", ".join(f"{name} {value}" for name, value in settings.items()) or "as it comes"
    ),
)
def test_losses_are_those_of_torch_adamw_and_transformers_schedule(settings):
    """3 random data sets each; the reference joins the batches of a step into one and takes the
    model's own loss."""
    for seed in range(3):
        given = {"epochs": 3, "batch_size": 4, "learning_rate": 2e-3, **settings}
        examples, theirs = make_examples(21, seed=50 + seed), make_model(seed=seed).train()
        history = train(
            make_model(seed=seed), TOKENIZER, examples, seed=seed, progress=False, **given
        )

        window = given.get("accumulation_steps", 1)
        total = math.ceil(math.ceil(21 / given["batch_size"]) / window) * 3
        optimizer = torch.optim.AdamW(
            theirs.parameters(), lr=2e-3, weight_decay=given.get("weight_decay", 0.0)
        )
        warmup = math.ceil(given.get("warmup_ratio", 0.1) * total)
        schedule, losses = get_cosine_schedule_with_warmup(optimizer, warmup, total), []
        for epoch in range(3):
            batches = group_by_length(
                [len(example.input_ids) for example in examples],
                given["batch_size"],
                seed=1_000_003 * seed + epoch,
            )
            for start in range(0, len(batches), window):
                joined = [examples[i] for batch in batches[start : start + window] for i in batch]
                loss = theirs(**pad_batch(joined, PAD)).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(theirs.parameters(), given.get("max_grad_norm", 1.0))
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                losses.append(loss.item())
        assert len(losses) == total
        assert_close(history.losses, losses, **LOSS)


@pytest.mark.numeric
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_24_steps_are_those_of_a_plain_loop_on_the_models_own_loss(architecture):
    examples, epochs, batch_size, rate, seed = make_examples(32), 6, 8, 2e-3, 5
    ours, theirs = make_model(architecture), make_model(architecture).train()
    history = train(
        ours,
        TOKENIZER,
        examples,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=rate,
        seed=seed,
        weight_decay=0.1,
        progress=False,
    )

    optimizer = torch.optim.AdamW(theirs.parameters(), lr=rate, weight_decay=0.1)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.1 * 24), 24)
    lengths, losses = [len(example.input_ids) for example in examples], []
    for epoch in range(epochs):
        for indices in group_by_length(lengths, batch_size, seed=1_000_003 * seed + epoch):
            loss = theirs(**pad_batch([examples[i] for i in indices], PAD)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())

    assert len(history.losses) == len(losses) == 24
    assert losses[-1] < losses[0] - 0.5, "nothing was learned, so equal losses would show little"
    assert_close(history.losses, losses, **LOSS)
    for (name, parameter), (_, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert_close(parameter, other, rtol=0, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.numeric
def test_24_steps_are_those_of_trl(tmp_path):
    """One batch holds the whole data set, so the order in which either loop takes the examples does
    not matter."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    ours, theirs, rate = make_model(), make_model(), 2e-3
    history = train(
        ours,
        TOKENIZER,
        EXAMPLES,
        epochs=24,
        batch_size=len(EXAMPLES),
        learning_rate=rate,
        progress=False,
    )
    trainer = SFTTrainer(
        model=theirs,
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            num_train_epochs=24,
            per_device_train_batch_size=len(EXAMPLES),
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
        ),
        train_dataset=Dataset.from_list(
            [{"input_ids": e.input_ids, "labels": e.labels} for e in EXAMPLES]
        ),
        processing_class=copy.deepcopy(TOKENIZER),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 24 and logs[-1]["loss"] < logs[0]["loss"] - 0.5
    assert_close(history.losses, [entry["loss"] for entry in logs], **LOSS)
    assert_close(
        [step["grad_norm"] for step in history.steps],
        [entry["grad_norm"] for entry in logs],
        rtol=1e-4,
        atol=1e-5,
    )
    assert_close(
        [step["learning_rate"] for step in history.steps],
        [entry["learning_rate"] for entry in logs],
    )


@pytest.mark.numeric
def test_four_batches_of_8_accumulated_are_one_batch_of_32_and_a_mean_of_means_is_not():
    examples = make_examples(32)
    settings = {"epochs": 20, "learning_rate": 2e-3, "progress": False}
    whole = train(make_model(), TOKENIZER, examples, batch_size=32, **settings)
    split = train(make_model(), TOKENIZER, examples, batch_size=8, accumulation_steps=4, **settings)
    assert len(whole.losses) == len(split.losses) == 20
    assert_close(split.losses, whole.losses, **LOSS)

    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    lengths, mean_of_means = [len(example.input_ids) for example in examples], []
    for epoch in range(20):
        optimizer.param_groups[0]["lr"] = learning_rate_at(epoch, 20, peak=2e-3, warmup_steps=2)
        parts = group_by_length(lengths, 8, seed=epoch)
        losses = [model(**pad_batch([examples[i] for i in part], PAD)).loss for part in parts]
        (sum(losses) / 4).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean_of_means.append(sum(losses).item() / 4)
    assert max(abs(a - b) for a, b in zip(mean_of_means, whole.losses, strict=True)) > 1e-3


@pytest.mark.numeric
def test_a_micro_batch_without_graded_tokens_counts_for_nothing():
    examples = [*make_examples(3), Example([5, 6, 7], [IGNORE_INDEX] * 3)]
    history = train(
        make_model(), TOKENIZER, examples, batch_size=1, accumulation_steps=4, progress=False
    )
    with torch.no_grad():
        expected = make_model()(**pad_batch(examples[:3], PAD)).loss.item()
    assert_close(history.losses, [expected], **LOSS)  # row by row, and all in one batch


@pytest.mark.numeric
def test_the_gradient_is_clipped_to_the_given_norm_and_the_norm_before_is_reported():
    arrived = []

    def measure(optimizer, *_):
        parameters = optimizer.param_groups[0]["params"]
        arrived.append(torch.cat([p.grad.flatten() for p in parameters]).norm().item())

    hook = register_optimizer_step_pre_hook(measure)
    limit = 2.0
    history, _ = run(max_grad_norm=limit, epochs=10)
    hook.remove()
    reported = [step["grad_norm"] for step in history.steps]
    assert min(reported) < limit < max(reported), "both cases should occur"
    assert_close(arrived, [min(norm, limit) for norm in reported], rtol=1e-4, atol=0)


def test_a_gradient_left_by_an_earlier_backward_does_not_count():
    fresh, _ = run(make_model())
    model = make_model()
    (100 * model(**pad_batch(EXAMPLES[:2], PAD)).loss).backward()
    assert run(model)[0].losses == fresh.losses


# --- seeds and frozen parameters
# ------------------------------------------------------------------------------------


@pytest.mark.numeric
def test_a_run_is_decided_by_its_seed():
    torch.manual_seed(11)
    first, model = run(seed=3)
    torch.manual_seed(12)
    again, other = run(seed=3)
    assert again.steps == first.steps and same_weights(model, other)
    assert run(seed=4)[0].losses != first.losses


def test_the_seed_decides_the_order_also_without_dropout():
    assert run(make_model(), seed=3)[0].losses != run(make_model(), seed=4)[0].losses


def test_frozen_parameters_stay_untouched_and_all_others_move(tmp_path):
    def frozen_model():
        model = make_model(attention_dropout=0.2)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("self_attn" in name)
        return model

    before = weights_of(frozen_model())
    unbroken, model = run(frozen_model())
    for name, tensor in weights_of(model).items():
        assert torch.equal(tensor, before[name]) == ("self_attn" not in name), name

    with before_step(8, kill), pytest.raises(Killed):
        run(frozen_model(), output_dir=tmp_path)
    resumed, again = run(frozen_model(), output_dir=tmp_path, resume=True)
    assert resumed.losses == unbroken.losses and same_weights(again, model)


def test_bfloat16_weights_learn_from_updates_that_bfloat16_would_round_away():
    small = {
        "learning_rate": 2e-5,
        "epochs": 8,
    }  # on weights above 0.1, half a bfloat16 step is 2e-4 and more
    model = make_model().bfloat16()
    before = weights_of(model)
    history, _ = run(model, **small)
    in_float32, _ = run(make_model(), **small)
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    moved = [
        (before[name] != tensor).float().mean()
        for name, tensor in weights_of(model).items()
        if tensor.dim() == 2
    ]
    assert min(moved) > 0.1
    assert_close(torch.tensor(history.losses), torch.tensor(in_float32.losses), rtol=0, atol=0.05)

    alone = make_model().bfloat16()  # the same updates made in bfloat16 itself: nothing large moves
    optimizer = torch.optim.AdamW(alone.parameters(), lr=2e-5)
    for batch in (pad_batch(EXAMPLES, PAD) for _ in range(24)):
        alone(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    large = {name: before[name].abs() > 0.1 for name in before if before[name].dim() == 2}
    assert all(
        torch.equal(before[name][mask], weights_of(alone)[name][mask])
        for name, mask in large.items()
    )


@pytest.mark.numeric
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_resume_exactly(tmp_path, dtype):
    unbroken, model = run(make_model().to(dtype))
    with before_step(8, kill), pytest.raises(Killed):
        run(make_model().to(dtype), output_dir=tmp_path)
    resumed, again = run(make_model().to(dtype), output_dir=tmp_path, resume=True)
    assert resumed.losses == unbroken.losses and same_weights(again, model)
    assert [step.get("loss_scale") for step in resumed.steps] == [
        step.get("loss_scale") for step in unbroken.steps
    ]


@pytest.mark.numeric
@pytest.mark.parametrize("trained", ["all", "LoRA"])
def test_float16_trains_as_float32_does(trained):
    model, in_float32 = make_model().half(), make_model()
    for each in (model, in_float32) if trained == "LoRA" else ():
        torch.manual_seed(0)
        add_lora(each, rank=4)
    history, _ = run(model)
    right, _ = run(in_float32)
    assert {
        parameter.dtype for name, parameter in model.named_parameters() if "lora" not in name
    } == {torch.float16}
    assert right.losses[-1] < right.losses[0] - 0.3
    assert_close(torch.tensor(history.losses), torch.tensor(right.losses), rtol=0, atol=0.02)
    assert {step["loss_scale"] for step in history.steps} == {65536.0}


def test_a_float16_gradient_that_overflows_costs_one_update_and_half_of_the_scale():
    model = make_model().half()
    before = weights_of(model)
    with mixed_precision(model) as (autocast, scaler):
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-2, fused=True)
        settings = {"max_grad_norm": 1.0, "autocast": autocast, "scaler": scaler}
        scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**40})
        batch = pad_batch(EXAMPLES, PAD)
        measured = optimizer_step(model, optimizer, parameters, [batch], step=1, **settings)
        assert not math.isfinite(measured["grad_norm"]) and math.isfinite(measured["loss"])
        assert measured["loss_scale"] == 2.0**40 and scaler.get_scale() == 2.0**39
        kept = weights_of(model)
        assert all(torch.equal(kept[name], tensor.float()) for name, tensor in before.items())
        scaler.load_state_dict({**scaler.state_dict(), "scale": 1.0})
        with torch.no_grad():
            model.model.norm.weight.fill_(math.inf)
        with pytest.raises(FloatingPointError, match="step 2"):
            optimizer_step(model, optimizer, parameters, [batch], step=2, **settings)


@pytest.mark.numeric
def test_small_float16_gradients_survive_because_the_loss_is_scaled():
    """A loss divided by 1e8 has most gradients below 6e-8: 0 in float16, unless they are scaled up
    meanwhile."""
    lost = {}
    for scaled in (True, False):
        model = make_model().half()
        with mixed_precision(model) as (autocast, scaler), autocast:
            scale = scaler.get_scale() if scaled else 1.0
            graded_loss(model, pad_batch(EXAMPLES, PAD), factor=1e-8 * scale)[0].backward()
            weight = model.model.layers[0].mlp.gate_proj.weight
            lost[scaled] = (weight.grad == 0).float().mean().item()
    assert lost[True] < 0.01 < 0.5 < lost[False]


def test_a_model_in_two_half_precisions_is_refused():
    model = make_model().half()
    model.model.norm.bfloat16()
    with pytest.raises(ValueError, match="both bfloat16 and float16"):
        run(model)


@pytest.mark.numeric
def test_packed_runs_are_a_plain_loop_over_the_same_rows_each_alone():
    """Rows joined into batches, several a step, against one unpadded row at a time through the
    model's own decoder."""
    settings = {"pack_to": 60, "batch_size": 2, "accumulation_steps": 2, "epochs": 2}
    history, model = run(make_model(), **settings)
    rows = pack(EXAMPLES, 60)
    assert (
        len(rows) >= 6 and len({row["input_ids"].shape[1] for row in rows}) > 1
    )  # some rows are padded in a batch
    plain = make_model().train()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=RUN["learning_rate"], weight_decay=0.0)
    steps = math.ceil(math.ceil(len(rows) / 2) / 2)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.1 * 2 * steps), 2 * steps)
    losses = []
    for epoch in range(2):
        batches = group_by_length([row["input_ids"].shape[1] for row in rows], 2, seed=epoch)
        for start in range(0, len(batches), 2):
            taken = [rows[i] for indices in batches[start : start + 2] for i in indices]
            graded = sum(int((row["labels"] >= 0).sum()) for row in taken)
            total = 0.0
            for row in taken:
                logits = plain(
                    input_ids=row["input_ids"], position_ids=row["position_ids"], use_cache=False
                ).logits
                loss = (
                    F.cross_entropy(logits[0, :-1], row["labels"][0, 1:], reduction="sum") / graded
                )
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step(), schedule.step(), optimizer.zero_grad()
            losses.append(total)
    assert_close(torch.tensor(history.losses), torch.tensor(losses), rtol=1e-5, atol=1e-5)
    assert history.tokens == 2 * sum(len(example.input_ids) for example in EXAMPLES)


def test_the_model_comes_back_in_the_mode_it_was_given_in():
    for training in (True, False):
        assert run(make_model().train(training), epochs=1)[1].training is training


# --- kill and resume
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken() -> tuple[History, PreTrainedModel]:
    """The run, with dropout, that no kill interrupts."""
    return run()


def resumes_exactly(folder: Path, unbroken: tuple[History, PreTrainedModel], *, after: int) -> None:
    """Equal in every step and weight, and no step up to `after` is computed again (from the start
    is exact too)."""
    again = []
    with before_step(after, lambda: again.append(after)):
        history, model = run(output_dir=folder, resume=True)
    assert not again, f"the checkpoint of step {after} was lost"
    assert history.steps == unbroken[0].steps
    assert same_weights(model, unbroken[1])
    assert [name for name in os.listdir(folder) if name.startswith("checkpoint")] == []


def test_dropout_is_active_or_the_resume_tests_would_not_see_the_random_state(unbroken):
    assert unbroken[0].losses[0] != run(make_model())[0].losses[0]


@pytest.mark.parametrize("step", range(1, 13))
def test_a_run_killed_before_any_step_resumes_bit_for_bit(step, unbroken, tmp_path):
    with before_step(step, kill), pytest.raises(Killed):
        run(output_dir=tmp_path)
    resumes_exactly(tmp_path, unbroken, after=(step - 1) // 3 * 3)


def test_a_process_killed_by_sigkill_resumes_bit_for_bit_in_another(unbroken, tmp_path):
    script = (
        "import os, signal, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from test_train import before_step, run\n"
        "with before_step(8, lambda: os.kill(os.getpid(), signal.SIGKILL)):\n"
        f"    run(output_dir=Path({str(tmp_path)!r}))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=Path(__file__).parent
    )
    assert process.returncode == -signal.SIGKILL
    assert len(json.loads((tmp_path / "checkpoint" / "state.json").read_text())["steps"]) == 6
    resumes_exactly(tmp_path, unbroken, after=6)


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        *[(sft_lab.loop.checkpoints, "save_file", call) for call in (1, 2, 3, 4)],
        *[(json, "dumps", call) for call in (1, 2, 5)],
        *[(os, "replace", call) for call in range(1, 9)],
        *[(os, "fsync", call) for call in (1, 4, 8)],
        *[(os, "rmdir", call) for call in (1, 2)],
    ],
)
def test_a_kill_anywhere_inside_saving_leaves_the_checkpoint_before_or_the_new_one(
    module, function, call, unbroken, tmp_path, monkeypatch
):
    """The kill comes at the given call of the given function, in the first, second or third
    saving."""
    real, calls, finished = getattr(module, function), [], []
    save = sft_lab.train.save_checkpoint

    def save_and_count(*args):
        save(*args)
        finished.append(args[0])

    def killed_at_its_turn(*args, **settings):
        calls.append(function)
        if len(calls) == call:
            if function == "save_file":
                Path(args[1]).write_bytes(b"half a file")
            raise Killed
        return real(*args, **settings)

    with monkeypatch.context() as patch, before_step(10, kill), pytest.raises(Killed):
        patch.setattr(module, function, killed_at_its_turn)
        patch.setattr(sft_lab.train, "save_checkpoint", save_and_count)
        run(output_dir=tmp_path)
    assert len(calls) == call, "the kill came later: this case shows nothing"
    resumes_exactly(tmp_path, unbroken, after=3 * len(finished))


def test_ctrl_c_waits_for_the_step_saves_a_checkpoint_and_raises(unbroken, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with (
        before_step(5, lambda: os.kill(os.getpid(), signal.SIGINT)),
        pytest.raises(
            KeyboardInterrupt, match="stopped after step 5 of 12.*resume=True.*checkpoint"
        ),
    ):
        run(output_dir=tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(json.loads((tmp_path / "checkpoint" / "state.json").read_text())["steps"]) == 5
    resumes_exactly(tmp_path, unbroken, after=5)


def test_ctrl_c_without_an_output_dir_says_that_nothing_was_saved():
    with (
        before_step(5, lambda: os.kill(os.getpid(), signal.SIGINT)),
        pytest.raises(KeyboardInterrupt, match="nothing was saved"),
    ):
        run()


def test_resume_takes_up_evaluations_too(tmp_path):
    settings = {"eval_examples": make_examples(7, seed=1), "evaluate_every": 2}
    whole, _ = run(**settings)
    with before_step(8, kill), pytest.raises(Killed):
        run(output_dir=tmp_path, **settings)
    assert run(output_dir=tmp_path, resume=True, **settings)[0].evaluations == whole.evaluations
    assert [evaluation["step"] for evaluation in whole.evaluations] == [2, 3, 4, 6, 8, 9, 10, 12]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 5),
        ("learning_rate", 1e-3),
        ("batch_size", 6),
        ("seed", 1),
        ("accumulation_steps", 2),
        ("warmup_ratio", 0.2),
        ("weight_decay", 0.1),
        ("max_grad_norm", 2.0),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_the_name_of_the_setting(
    setting, value, interrupted
):
    with pytest.raises(ValueError, match=f"belongs to a run with other {setting}:"):
        run(output_dir=interrupted, resume=True, **{setting: value})


def test_a_checkpoint_of_other_examples_or_another_model_is_refused(interrupted):
    with pytest.raises(ValueError, match="a run with other examples:"):
        train(
            make_model(),
            TOKENIZER,
            EXAMPLES[1:] + EXAMPLES[:1],
            output_dir=interrupted,
            resume=True,
            **RUN,
        )
    with pytest.raises(ValueError, match="is of another model"):
        run(make_model("llama"), output_dir=interrupted, resume=True)
    wider = make_model()
    wider.resize_token_embeddings(80)
    with pytest.raises(
        ValueError, match=r"embed_tokens.weight has shape \[61, 32\] there, \[80, 32\] here"
    ):
        run(wider, output_dir=interrupted, resume=True)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    with before_step(8, kill), pytest.raises(Killed):
        run(output_dir=folder)
    return folder


# --- stopping clearly
# -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_the_weights_of_the_step_before():
    model = make_model()
    kept = {}

    def break_the_scores() -> None:
        kept.update(weights_of(model))
        model.lm_head.register_forward_hook(lambda module, inputs, scores: scores * float("nan"))

    with (
        before_step(5, break_the_scores),
        pytest.raises(FloatingPointError, match="step 5: loss nan.*rate too high"),
    ):
        run(model)
    assert kept and all(
        torch.equal(tensor, kept[name]) for name, tensor in weights_of(model).items()
    )
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_gradient_that_is_not_finite_stops_too():
    model = make_model()
    before = weights_of(model)
    model.model.norm.weight.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(FloatingPointError, match="step 1: .*gradient norm"):
        run(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(model).items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"accumulation_steps": 0}, "accumulation_steps is 0"),
        ({"resume": True}, "resume=True needs the output_dir"),
    ],
)
def test_settings_that_make_no_run_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        run(**settings)


def test_no_examples_and_no_graded_token_are_errors():
    with pytest.raises(ValueError, match="no examples"):
        train(make_model(), TOKENIZER, [], progress=False)
    with pytest.raises(ValueError, match="step 1: no graded token"):
        train(make_model(), TOKENIZER, [Example([5, 6], [IGNORE_INDEX] * 2)], progress=False)


# --- what a run reports and writes
# ----------------------------------------------------------------------------------


@pytest.mark.numeric
def test_evaluate_is_the_mean_over_all_graded_tokens_computed_one_example_at_a_time():
    model, examples = make_model(), make_examples(30, seed=2)
    measured = evaluate(model, TOKENIZER, examples, batch_size=7)
    scores, targets = [], []
    with torch.no_grad():
        for example in examples:
            logits = model(torch.tensor([example.input_ids])).logits[0]
            for place, label in enumerate(example.labels[1:]):
                if label != IGNORE_INDEX:
                    scores.append(logits[place])
                    targets.append(label)
    scores, targets = torch.stack(scores), torch.tensor(targets)
    assert measured["graded"] == len(targets)
    assert round(measured["accuracy"] * len(targets)) in right_answers(scores, targets)
    assert_close(measured["loss"], F.cross_entropy(scores, targets).item(), **LOSS)
    assert measured["perplexity"] == math.exp(measured["loss"])


@pytest.mark.numeric
def test_evaluate_leaves_the_mode_and_takes_no_dropout():
    model = make_model(attention_dropout=0.5).train()
    measured, expected = (evaluate(each, TOKENIZER, EXAMPLES) for each in (model, make_model()))
    # a model with dropout goes through transformers, one without through the short-row decoder
    assert_close(measured["loss"], expected["loss"], **LOSS)
    assert evaluate(model, TOKENIZER, EXAMPLES) == measured  # dropout would draw anew
    assert model.training


def test_evaluate_names_an_empty_case_and_survives_a_hopeless_model():
    with pytest.raises(ValueError, match="no examples to evaluate"):
        evaluate(make_model(), TOKENIZER, [])
    with pytest.raises(ValueError, match="no graded token"):
        evaluate(make_model(), TOKENIZER, [Example([5, 6], [IGNORE_INDEX] * 2)])
    model = make_model()
    model.lm_head.register_forward_hook(lambda module, inputs, scores: scores * 1e4)
    assert evaluate(model, TOKENIZER, EXAMPLES)["perplexity"] == math.inf


@pytest.mark.numeric
def test_the_history_counts_tokens_accuracy_and_graded_tokens():
    history, _ = run(make_model(), learning_rate=0.0, epochs=1, batch_size=len(EXAMPLES))
    expected = evaluate(make_model(), TOKENIZER, EXAMPLES)
    assert_close(history.losses, [expected["loss"]], **LOSS)
    assert history.steps[0]["graded"] == expected["graded"]
    # batches of other widths: a tie of two scores may fall otherwise
    one_token = 1.01 / expected["graded"]
    assert history.steps[0]["accuracy"] == pytest.approx(expected["accuracy"], abs=one_token)
    assert history.tokens == sum(len(example.input_ids) for example in EXAMPLES)
    assert history.tokens_per_second == history.tokens / history.seconds > 0


@pytest.mark.numeric
def test_the_model_in_output_dir_loads_with_transformers_and_has_the_same_scores(tmp_path):
    _, model = run(make_model(), output_dir=tmp_path, epochs=1)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert same_weights(loaded, model)
    with torch.no_grad():  # read from a file, the weights lie elsewhere in memory
        assert_close(loaded(ids).logits, model(ids).logits, **LOGITS)


def test_nothing_is_pickled(interrupted, tmp_path):
    run(output_dir=tmp_path / "model", log_dir=tmp_path / "logs", epochs=1)
    written = [folder / name for folder in (tmp_path, interrupted) for name in files_in(folder)]
    assert files_in(interrupted) == [
        f"checkpoint/{name}"
        for name in (
            "optimizer.safetensors",
            "state.json",
            "weights.safetensors",
            "written_files.json",
        )
    ]
    for path in written:
        assert path.suffix in (".safetensors", ".json") or "tfevents" in path.name, path
        assert path.read_bytes()[:1] != b"\x80" and path.read_bytes()[:2] != b"PK", path


def test_tensorboard_reads_what_the_history_holds_also_after_a_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {
        "output_dir": tmp_path,
        "log_dir": tmp_path / "logs",
        "eval_examples": make_examples(5),
    }
    with before_step(8, kill), pytest.raises(Killed):
        run(**settings)
    history, _ = run(resume=True, **settings)
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    for tag, expected in (("train", history.steps), ("eval", history.evaluations)):
        for name in ("loss", "accuracy"):
            scalars = events.Scalars(f"{tag}/{name}")
            assert [scalar.step for scalar in scalars] == [entry["step"] for entry in expected]
            assert_close([scalar.value for scalar in scalars], [entry[name] for entry in expected])
    assert [scalar.step for scalar in events.Scalars("train/learning_rate")] == list(range(1, 13))


def test_the_progress_bar_is_the_only_thing_printed_and_can_be_turned_off(capfd):
    run(epochs=1)
    assert capfd.readouterr() == ("", "")
    run(epochs=1, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "/3 [" in err
