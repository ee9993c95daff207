"""The folder of a run: nothing of the reader's is lost in it, what can be known is known before the
first step, and two runs never share it."""

import contextlib
import errno
import json
import linecache
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from file_calls import Killed
from test_files import FOREIGN, put, snapshot
from test_train import TOKENIZER, before_step, kill, run, same_weights
from tiny import make_model
from transformers import AutoModelForCausalLM, PreTrainedModel

import sft_lab.loop.checkpoints
import sft_lab.loop.output
import sft_lab.loop.process
import sft_lab.train
from sft_lab.files import OutputError
from sft_lab.loop.output import RESULT_FILES, UnsavedError, bytes_needed
from sft_lab.loop.process import lock_folder
from sft_lab.lora import add_lora, load_adapter, save_adapter

ROOT = Path(__file__).resolve().parent.parent
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@contextlib.contextmanager
def no_step():
    """Fail when a run makes a step."""
    steps = []
    with before_step(1, lambda: steps.append(1)):
        yield
    assert not steps, "the error came after the first step"


def tuned_folder(folder: Path) -> None:
    run(make_model(), output_dir=folder, epochs=1)


# --- nothing of the reader's is lost
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.old", "checkpoint.new", "result.new"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_a_run_did_not_write_is_refused_before_the_first_step(kind, name, resume, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    put(kind, folder / name, tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    with no_step(), pytest.raises(OutputError, match=f"run/{name} is a .* not written by this"):
        run(output_dir=folder, resume=resume)
    assert snapshot(tmp_path) == before


def name_like(pattern: str) -> str:
    return pattern.replace("*", "-00001-of-00002")


@pytest.mark.parametrize("pattern", [*RESULT_FILES, "written_files.json"])
def test_a_model_that_no_run_wrote_is_not_replaced(pattern, tmp_path):
    name = name_like(pattern)
    (tmp_path / name).write_text("of the reader")
    (tmp_path / "notes.md").write_text("of the reader")
    before = snapshot(tmp_path)
    refused = f"{name} was not written by this program|holds an adapter \\({name}\\)"
    with no_step(), pytest.raises((OutputError, ValueError), match=refused):
        run(output_dir=tmp_path)
    assert snapshot(tmp_path) == before


def test_every_file_that_a_run_leaves_is_looked_for_before_the_next(tmp_path):
    """Otherwise a foreign file of that name would be found only after the run."""
    tuned_folder(tmp_path / "full")
    with_adapter = add_lora(make_model(), rank=2)
    run(with_adapter, output_dir=tmp_path / "adapter", epochs=1)
    for folder in (tmp_path / "full", tmp_path / "adapter"):
        written = {path.name for path in folder.iterdir()} - {"written_files.json"}
        known = {path.name for pattern in RESULT_FILES for path in folder.glob(pattern)}
        assert written == known and len(written) >= 4


def test_a_second_run_replaces_the_result_of_the_first_and_nothing_else(tmp_path):
    (tmp_path / "notes.md").write_text("of the reader")
    tuned_folder(tmp_path)
    before = snapshot(tmp_path)
    with no_step(), pytest.raises(ValueError, match="holds a whole model"):
        run(add_lora(make_model(), rank=2), output_dir=tmp_path, epochs=1)
    assert snapshot(tmp_path) == before
    _, tuned = run(make_model(seed=1), output_dir=tmp_path, epochs=1)
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), tuned)
    assert (tmp_path / "notes.md").read_text() == "of the reader"


def test_a_second_adapter_replaces_the_first(tmp_path):
    for seed in (0, 1):
        tuned = add_lora(make_model(seed=seed), rank=2)
        run(tuned, output_dir=tmp_path, epochs=1)
    assert same_weights(load_adapter(make_model(seed=1), tmp_path), tuned)


def test_the_folder_a_model_was_loaded_from_is_not_its_output(tmp_path):
    make_model().save_pretrained(tmp_path)
    before = snapshot(tmp_path)
    with no_step(), pytest.raises(OutputError, match="was not written by this program"):
        run(AutoModelForCausalLM.from_pretrained(tmp_path), output_dir=tmp_path)
    assert snapshot(tmp_path) == before


def test_notes_in_a_checkpoint_outlive_the_run(tmp_path):
    def write_notes() -> None:
        (tmp_path / "checkpoint" / "notes.txt").write_text("of the reader")

    with before_step(5, write_notes):
        _, model = run(output_dir=tmp_path)
    assert (tmp_path / "checkpoint" / "notes.txt").read_text() == "of the reader"
    assert os.listdir(tmp_path / "checkpoint") == ["notes.txt"]
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_an_output_folder_may_be_a_link_to_a_folder(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    _, model = run(output_dir=tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path / "disk"), model)


def test_the_home_folder_is_meant_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    tuned = add_lora(make_model(), rank=2)
    run(tuned, output_dir="~/run", log_dir="~/log", epochs=1)
    save_adapter(tuned, "~/adapter")
    for name in ("~/run", "~/adapter"):
        assert same_weights(load_adapter(make_model(), name), tuned)
    _, whole = run(output_dir="~/whole", epochs=1)
    assert whole.name_or_path == str(tmp_path / "home" / "whole")
    assert os.listdir(tmp_path) == ["home"]
    assert sorted(os.listdir(tmp_path / "home")) == ["adapter", "log", "run", "whole"]


# --- a damaged checkpoint
# ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    with before_step(8, kill), pytest.raises(BaseException, match="^$"):
        run(output_dir=folder)
    return folder


def lose(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).unlink()


def cut(name: str, share: float) -> Callable[[Path], None]:
    def write(checkpoint: Path) -> None:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: int(len(content) * share)])

    return write


def change(**state) -> Callable[[Path], None]:
    def write(checkpoint: Path) -> None:
        path = checkpoint / "state.json"
        changed = json.loads(path.read_text()) | state
        path.write_text(json.dumps({key: value for key, value in changed.items() if value != "-"}))

    return write


def become(content: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / "state.json").write_text(content)


def alter(key: str, place: int, **numbers) -> Callable[[Path], None]:
    """Change, or with "-" take away, numbers of one step, or of an evaluation that is put there."""

    def write(checkpoint: Path) -> None:
        state = json.loads((checkpoint / "state.json").read_text())
        if key == "evaluations":
            made = {"step": 2, "loss": 1.0, "accuracy": 0.5, "perplexity": 2.7, "graded": 3}
            state[key] = [made]
        entry = state[key][place] | numbers
        state[key][place] = {name: value for name, value in entry.items() if value != "-"}
        (checkpoint / "state.json").write_text(json.dumps(state))

    return write


def keep_steps(choose: Callable[[list], list]) -> Callable[[Path], None]:
    def write(checkpoint: Path) -> None:
        steps = json.loads((checkpoint / "state.json").read_text())["steps"]
        change(steps=choose(steps))(checkpoint)

    return write


# valid JSON that no run has written
ODD = (None, True, 7, -1, 1.5, "x", [], [7], ["x"], [None], {}, {"x": "y"}, 10**400)
KEYS = ("run", "model", "frozen", "rng", "scaler", "steps", "evaluations", "seconds", "tokens")
STEP = ("step", "loss", "accuracy", "learning_rate", "grad_norm", "graded")
MEANT = {  # and what may stand there, or has an error of its own: other settings
    **{key: ({}, {"x": "y"}) for key in ("run", "model")},
    **{"scaler": ({},), "evaluations": ([],), "seconds": (7, 1.5), "tokens": (7,)},
}
NONSENSE = [
    *[become(text) for text in ("7", "null", "[]", "{}", '["run"]', '"run"', "NaN", "[" * 10**5)],
    *[change(**{key: "-"}) for key in KEYS],
    *[change(**{key: value}) for key in KEYS for value in ODD if value not in MEANT.get(key, ())],
    *[alter("steps", 3, **{name: value}) for name in STEP for value in ("-", "1", None, True, [])],
    *[alter("steps", 3, step=step) for step in (-4, 0, 3, 5, 4.0, 4.5, 10**400)],
    *[alter("steps", 3, graded=count) for count in (-1, 1.5)],
    *[alter("evaluations", 0, step=step) for step in (-1, 0, 7, 1.0, "2")],
    *[alter("evaluations", 0, **{name: "-"}) for name in ("step", "loss", "perplexity")],
    *[keep_steps(choose) for choose in (lambda steps: [], lambda steps: steps[1:])],
    keep_steps(lambda steps: [steps[0] | {"step": step} for step in range(1, 13)]),  # of 12
]


@pytest.mark.parametrize("damage", NONSENSE)
def test_a_state_that_no_run_has_written_is_a_damaged_checkpoint(damage, killed_run, tmp_path):
    shutil.copytree(killed_run, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoint")
    before = snapshot(tmp_path / "run")
    model = make_model(attention_dropout=0.2)
    with no_step(), pytest.raises(ValueError, match="resume=False to start afresh") as error:
        run(model, output_dir=tmp_path / "run", resume=True)
    said = str(error.value)
    assert said.startswith(f"{tmp_path / 'run' / 'checkpoint' / 'state.json'} is damaged (")
    assert "likely changed by hand or copied in part" in said and "\n" not in said
    assert snapshot(tmp_path / "run") == before
    assert same_weights(model, make_model(attention_dropout=0.2)), "the model was changed"


CHECKPOINT_FILES = ("state.json", "weights.safetensors", "optimizer.safetensors")


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        *[(lose(name), name) for name in CHECKPOINT_FILES],
        *[(cut(name, share), name) for name in CHECKPOINT_FILES for share in (0, 0.001, 0.5, 0.99)],
        *[(change(**{key: "-"}), "state.json") for key in ("run", "rng", "frozen", "steps")],
        *[(change(**{key: 7}), "state.json") for key in ("run", "model")],
        *[(change(rng=rng), "state.json") for rng in (None, [], [7], ["x"], ["00"])],
    ],
)
def test_a_damaged_checkpoint_is_one_line_with_its_file_and_what_to_do(
    damage, name, killed_run, tmp_path
):
    shutil.copytree(killed_run, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoint")
    before = snapshot(tmp_path / "run" / "checkpoint")
    with no_step(), pytest.raises(ValueError, match="resume=False to start afresh") as error:
        run(output_dir=tmp_path / "run", resume=True)
    said = str(error.value)
    assert said.startswith(str(tmp_path / "run" / "checkpoint" / name)) and "\n" not in said
    assert snapshot(tmp_path / "run" / "checkpoint") == before
    assert len(run(output_dir=tmp_path / "run", epochs=1)[0].steps) == 3  # afresh


# --- known before the first step
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["output_dir", "log_dir"])
@pytest.mark.parametrize("place", ["file", "file/run", "link", "/proc/run"])
def test_a_folder_that_cannot_be_one_is_refused_before_the_first_step(place, setting, tmp_path):
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    (tmp_path / "file").write_text("of the reader")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with no_step(), pytest.raises(OutputError, match="nothing can be written in"):
        run(**{setting: tmp_path / place})
    assert (tmp_path / "file").read_text() == "of the reader"


@pytest.mark.parametrize("setting", ["output_dir", "log_dir"])
@pytest.mark.parametrize("name", ["x" * 256, "a\0b", 7, False])
def test_what_no_folder_can_be_called_is_refused_before_the_first_step(name, setting):
    with no_step(), pytest.raises(OutputError, match=f"^{setting} is .* no folder can be called"):
        run(**{setting: name})


@pytest.mark.parametrize("pattern", RESULT_FILES)
def test_a_link_that_leads_nowhere_is_refused_before_the_first_step(pattern, tmp_path):
    (tmp_path / name_like(pattern)).symlink_to("nowhere")
    with no_step(), pytest.raises((OutputError, ValueError), match="was not written|holds an"):
        run(output_dir=tmp_path)
    assert os.listdir(tmp_path) == [name_like(pattern)]


def test_a_folder_that_may_not_be_written_is_refused_before_the_first_step(tmp_path, monkeypatch):
    """Root may write everywhere, so the refusal of the system is played."""

    def refuse(*arguments, **settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with no_step(), pytest.raises(OutputError, match=r"written in .* \(Permission denied\)"):
        run(output_dir=tmp_path)


def test_a_full_disk_is_refused_before_the_first_step_with_what_is_needed_and_free(small_disk):
    with (
        no_step(),
        pytest.raises(
            OutputError,
            match=r"has \d.* free, and this run needs about \d.* MB for its checkpoints",
        ),
    ):
        (small_disk / "filling").write_bytes(bytes(3_500_000))
        run(output_dir=small_disk / "run")
    (small_disk / "filling").unlink()
    run(output_dir=small_disk / "run")


@pytest.mark.parametrize("trained", ["all", "LoRA", "half", "bfloat16"])
@pytest.mark.parametrize("checkpoint_every", [1, 7, 12])
@pytest.mark.parametrize("again", [False, True], ids=["fresh", "over an old checkpoint"])
def test_the_room_that_is_asked_for_is_the_room_that_is_used(
    trained, checkpoint_every, again, tmp_path, monkeypatch
):
    """Measured whenever something is renamed or deleted, and compared up to the small files."""
    monkeypatch.setattr(sft_lab.loop.output, "SMALL_FILES", 0)
    model = make_model().bfloat16() if trained == "bfloat16" else make_model()
    if trained == "LoRA":
        add_lora(model, rank=8)
    if trained == "half":
        model.model.embed_tokens.requires_grad_(False)
    settings = {"output_dir": tmp_path, "checkpoint_every": checkpoint_every}
    if again:
        with before_step(9, kill), contextlib.suppress(Killed, BaseException):
            run(model, **{**settings, "checkpoint_every": 3})
    sizes = []

    def size() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))

    def measured(function):
        def call(*arguments, **given):
            sizes.append(size())
            return function(*arguments, **given)

        return call

    for name in ("replace", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, measured(getattr(os, name)))
    before = size()
    needed = bytes_needed(
        model, TOKENIZER, steps=12, checkpoint_every=checkpoint_every, replaced=before
    )
    run(model, **settings)
    used = max(sizes) - before
    headers = 40_000  # names and shapes, in up to three files
    assert used - headers < needed < used + headers


# --- what fails later
# ------------------------------------------------------------------------------------------


def refusing(function, *, below: Path):
    """`function`, to which the disk of `below` is full."""

    def call(*arguments, **settings):
        if any(str(argument).startswith(str(below)) for argument in arguments):
            raise NO_SPACE
        return function(*arguments, **settings)

    return call


@pytest.mark.parametrize("step", [3, 6, 9])
def test_a_disk_that_fills_up_costs_a_checkpoint_and_not_the_run(step, tmp_path, monkeypatch):
    expected, expected_model = run()
    real = sft_lab.loop.checkpoints.save_file

    def full_at_step(tensors, path, **settings):
        if full and Path(path).parent.name == "checkpoint.new":
            Path(path).write_bytes(b"half")
            raise NO_SPACE
        return real(tensors, path, **settings)

    full: list[int] = []
    monkeypatch.setattr(sft_lab.loop.checkpoints, "save_file", full_at_step)
    kept = "the one before stays" if step > 3 else "there is none"
    with (
        before_step(step, lambda: full.append(1)),
        before_step(step + 1, lambda: (full.clear(), seen.extend(os.listdir(tmp_path)))),
        pytest.warns(UserWarning, match=f"step {step}: no checkpoint.*No space left.*{kept}"),
    ):
        seen: list[str] = []
        history, model = run(output_dir=tmp_path)
    assert sorted(seen) == ["checkpoint"] * (step > 3) + ["in_use.lock"]
    assert history.steps == expected.steps and same_weights(model, expected_model)
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_ctrl_c_on_a_full_disk_says_that_nothing_new_was_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(sft_lab.loop.checkpoints, "save_file", refusing(print, below=tmp_path))
    with (
        before_step(2, lambda: os.kill(os.getpid(), signal.SIGINT)),
        pytest.warns(UserWarning, match="No space left"),
        pytest.raises(KeyboardInterrupt, match="after step 2 of 12, its checkpoint could not"),
    ):
        run(output_dir=tmp_path)


@pytest.mark.parametrize("trained", ["all", "LoRA"])
@pytest.mark.parametrize("error", [NO_SPACE, RuntimeError("a bug"), Exception("of tokenizers")])
def test_a_result_that_cannot_be_saved_is_saved_elsewhere_and_the_error_says_where(
    error, trained, tmp_path, monkeypatch
):
    model = make_model()
    if trained == "LoRA":
        add_lora(model, rank=2)
    old = tmp_path / "run"
    run(add_lora(make_model(), rank=2) if trained == "LoRA" else make_model(), output_dir=old)
    before = snapshot(old)
    real = sft_lab.loop.output.save_result

    def save(model, tokenizer, folder):
        real(model, tokenizer, folder)
        if Path(folder).is_relative_to(old):
            raise error

    monkeypatch.setattr(sft_lab.loop.output, "save_result", save)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UnsavedError, match=re.escape(f"saved in {old} ({error})")) as raised:
        run(model, output_dir=old)
    saved_in = raised.value.saved_in
    assert str(saved_in) in str(raised.value) and saved_in.parent == tmp_path
    assert "the checkpoint before it is still in" in str(raised.value)
    assert len(raised.value.history.steps) == 12
    loaded = (
        load_adapter(make_model(), saved_in)
        if trained == "LoRA"
        else AutoModelForCausalLM.from_pretrained(saved_in)
    )
    assert same_weights(loaded, model)
    after = snapshot(old)
    assert {path: after[path] for path in before} == before, "the old result was touched"
    monkeypatch.setattr(sft_lab.loop.output, "save_result", real)
    history, again = run(make_model() if trained == "all" else model, output_dir=tmp_path / "new")
    assert len(history.steps) == 12


def test_a_result_that_can_be_saved_nowhere_stays_in_memory(tmp_path, monkeypatch):
    expected, expected_model = run()

    def refuse(*arguments):
        raise NO_SPACE

    monkeypatch.setattr(sft_lab.loop.output, "save_result", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = make_model(attention_dropout=0.2)
    with pytest.raises(
        UnsavedError, match="The tuned model is in memory, and the checkp"
    ) as raised:
        run(model, output_dir=tmp_path / "run")
    assert raised.value.saved_in is None and same_weights(model, expected_model)
    assert raised.value.history.steps == expected.steps
    assert os.listdir(tmp_path) == ["run"] and os.listdir(tmp_path / "run") == ["checkpoint"]
    monkeypatch.undo()
    history, model = run(output_dir=tmp_path / "run", resume=True)
    assert history.steps == expected.steps and same_weights(model, expected_model)


@pytest.mark.parametrize("step", [2, 12])
def test_a_disk_that_is_really_full_costs_neither_the_tuned_model_nor_the_old_result(
    step, small_disk, tmp_path, monkeypatch
):
    """With the errors that safetensors and tokenizers themselves raise."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = small_disk / "run"
    _, old = run(make_model(seed=7), output_dir=folder, epochs=1)

    def fill() -> None:
        with (
            contextlib.suppress(OSError),
            (small_disk / "filling").open("wb", buffering=0) as file,
        ):
            while True:
                file.write(bytes(4096))

    warned = pytest.warns(UserWarning, match="no checkpoint could be written.*No space left")
    with (
        before_step(step, fill),
        warned if step == 2 else contextlib.nullcontext(),
        pytest.raises(UnsavedError, match=r"could not be saved in .*run \(") as raised,
    ):
        run(output_dir=folder)
    expected, expected_model = run()
    assert raised.value.history.steps == expected.steps
    saved_in = raised.value.saved_in
    assert same_weights(AutoModelForCausalLM.from_pretrained(saved_in), expected_model)
    assert same_weights(AutoModelForCausalLM.from_pretrained(folder), old)
    assert "result.new" not in os.listdir(folder), "half a result keeps the space"


def test_a_file_that_appears_during_a_run_is_not_replaced_and_the_result_is_elsewhere(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "run"
    with (
        before_step(7, lambda: (folder / "config.json").write_text("of the reader")),
        pytest.raises(UnsavedError, match="config.json was not written by this") as raised,
    ):
        run(output_dir=folder)
    assert (folder / "config.json").read_text() == "of the reader"
    AutoModelForCausalLM.from_pretrained(raised.value.saved_in)


@pytest.mark.parametrize("method", ["add_scalar", "close"])
def test_a_log_that_cannot_be_written_costs_neither_the_run_nor_its_result(
    method, tmp_path, monkeypatch
):
    from torch.utils.tensorboard import SummaryWriter

    def refuse(*arguments):
        raise NO_SPACE

    expected, _ = run()
    monkeypatch.setattr(SummaryWriter, method, refuse)
    with pytest.warns(UserWarning, match="the log in .*logs ends here: .*No space") as warned:
        history, model = run(output_dir=tmp_path / "run", log_dir=tmp_path / "logs")
    assert len(warned) == 1 and history.steps == expected.steps
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path / "run"), model)


def test_a_checkpoint_that_cannot_be_deleted_costs_nothing(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(sft_lab.loop.output, "remove_folder", refuse)
    with pytest.warns(UserWarning, match="the result is saved in .* could not be deleted .*busy"):
        _, model = run(output_dir=tmp_path)
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_ctrl_c_while_the_result_is_saved_comes_too_late(tmp_path, monkeypatch):
    real = sft_lab.loop.output.save_result

    def save(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        real(*arguments)

    monkeypatch.setattr(sft_lab.loop.output, "save_result", save)
    _, model = run(output_dir=tmp_path)
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)


# --- two runs in one folder
# ------------------------------------------------------------------------------------------


def refused(folder: Path, model: PreTrainedModel | None = None) -> str:
    """The error of a run in a folder that another run has."""
    before = snapshot(folder)
    with no_step(), pytest.raises(OutputError, match="is in use by another run") as raised:
        run(model, output_dir=folder)
    assert snapshot(folder) == before
    return str(raised.value)


def test_a_second_run_in_one_process_is_refused_with_the_name_of_the_first(tmp_path):
    expected, _ = run()
    messages, other = [], make_model()
    with before_step(4, lambda: messages.append(refused(tmp_path, other))):
        history, model = run(output_dir=tmp_path)
    assert f"process {os.getpid()} on " in messages[0] and ", since 20" in messages[0]
    assert history.steps == expected.steps
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)
    assert not (tmp_path / "in_use.lock").exists()


@pytest.mark.parametrize("way", ["a link", "a detour", "a relative path"])
def test_one_folder_by_two_names_is_one_folder(way, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    names = {"a link": tmp_path / "link", "a detour": tmp_path / "run" / ".." / "run"}
    with lock_folder(tmp_path / "run"):
        refused(names.get(way, Path("run")))


def test_runs_in_two_threads_are_two_runs(tmp_path):
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock_folder(tmp_path):
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    refused(tmp_path)
    done.set()
    thread.join()
    run(output_dir=tmp_path, epochs=1)


# --- two runs in one log
# ------------------------------------------------------------------------------------------


def logged(folder: Path, name: str = "train/loss") -> list[float]:
    """What TensorBoard shows, by its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return [round(scalar.value, 4) for scalar in events.Scalars(name)]


def rounded(losses: list[float]) -> list[float]:
    return [round(torch.tensor(loss).item(), 4) for loss in losses]


def refused_log(folder: Path, match: str, **settings) -> None:
    before = sorted(os.listdir(folder))
    with no_step(), pytest.raises(OutputError, match=match) as raised:
        run(log_dir=folder, **settings)
    assert "give another folder" in str(raised.value)
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("seed", [0, 5], ids=["the same settings", "others"])
def test_two_runs_at_once_do_not_write_into_one_log(seed, tmp_path):
    folder, tried = tmp_path / "logs", []

    def try_again() -> None:
        if not tried:
            tried.append(seed)
            refused_log(folder, "logs is in use by another run", seed=seed)

    with before_step(4, try_again):
        history, _ = run(log_dir=folder)
    assert tried and logged(folder) == rounded(history.losses)
    assert not (folder / "in_use.lock").exists()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "other", [{"seed": 5}, {"epochs": 1}, {"model": "LoRA"}], ids=lambda other: str(other)
)
def test_a_log_of_another_run_is_refused_and_stays(other, resume, tmp_path):
    history, _ = run(log_dir=tmp_path / "logs")
    if other.get("model"):
        other = {"model": add_lora(make_model(attention_dropout=0.2), rank=2)}
    with before_step(3, kill), pytest.raises(BaseException, match="^$"):
        run(**other, output_dir=tmp_path / "run", checkpoint_every=1)
    other = {**other, "output_dir": tmp_path / "run", "checkpoint_every": 1, "resume": resume}
    refused_log(tmp_path / "logs", "the events of another run .events.out.tfevents.*", **other)
    assert logged(tmp_path / "logs") == rounded(history.losses)
    own = run(**{**other, "log_dir": tmp_path / "own"})[0]
    assert logged(tmp_path / "own")[-1:] == rounded(own.losses[-1:])


def test_the_same_run_again_goes_on_in_its_log(tmp_path):
    """As a cell of a notebook that is run twice."""
    for _ in range(2):
        history, _ = run(log_dir=tmp_path)
    assert logged(tmp_path) == rounded(history.losses)


@pytest.mark.parametrize("step", [2, 8], ids=["before a checkpoint", "after one"])
@pytest.mark.parametrize("logs", ["run", "run/logs"])
def test_a_run_that_goes_on_does_so_in_its_log(step, logs, tmp_path):
    settings = {"output_dir": tmp_path / "run", "log_dir": tmp_path / logs}
    with before_step(step, kill), pytest.raises(BaseException, match="^$"):
        run(**settings)
    history, _ = run(resume=True, **settings)
    assert logged(tmp_path / logs) == rounded(history.losses)
    AutoModelForCausalLM.from_pretrained(tmp_path / "run")


HOLDER = """
import os, sys, time
from pathlib import Path
from sft_lab.loop.process import lock_folder
with lock_folder(Path(sys.argv[1])):
    child = os.fork() if sys.argv[2] == "forks" else 1
    if not child:
        time.sleep(60)  # a worker that outlives its parent
    print(os.getpid(), child, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("way", ["alone", "forks"])
def test_a_killed_process_holds_nothing_also_where_its_children_live_on(way, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), way],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    number, child = map(int, process.stdout.readline().split())
    try:
        assert f"process {number} on " in refused(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / "in_use.lock").exists()
        if way == "forks":
            os.kill(child, 0)  # it lives
        run(output_dir=tmp_path, epochs=1)
        assert not (tmp_path / "in_use.lock").exists()
    finally:
        process.kill()
        if way == "forks":
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_that_leaves_the_block_does_not_open_the_folder(tmp_path):
    child = None
    try:
        with lock_folder(tmp_path):
            child = os.fork()
            if not child:
                raise Killed
            os.waitpid(child, 0)
            refused(tmp_path)
    finally:
        if child == 0:
            os._exit(0)


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt, ValueError, FloatingPointError])
def test_a_run_that_ends_with_an_error_leaves_the_folder_to_the_next(error, tmp_path):
    def fail() -> None:
        raise error

    expected, _ = run()
    kept = []  # a notebook keeps the last error, with all its frames
    for _ in range(3):
        with before_step(8, fail), pytest.raises(error) as raised:
            run(output_dir=tmp_path)
        kept.append(raised)
    history, _ = run(output_dir=tmp_path, resume=True)
    assert history.steps == expected.steps


def interrupted_at(line: int | None, action, places: tuple[str, ...]) -> int:
    """Raise KeyboardInterrupt where `action` reaches its line number `line` in files that end with
    one of `places`; returns how many lines it went through."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.endswith(places):
            return None
        # signals come after calls and at jumps, never at a bare "try:"
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and text != "try:":
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def test_an_interrupt_at_any_line_of_locking_and_letting_go_leaves_the_folder_free(tmp_path):
    """As the stop button of a notebook, in the process that starts the next run."""

    def hold() -> None:
        with lock_folder(tmp_path):
            pass

    places = ("process.py",)
    count = interrupted_at(None, hold, places)
    kept = []  # a notebook keeps the last error, with all its frames
    for line in range(1, count + 1):
        with pytest.raises(KeyboardInterrupt) as raised:
            interrupted_at(line, hold, places)
        kept.append(raised)
        hold()
    assert count > 20


@pytest.mark.parametrize("seed", range(6))
def test_an_interrupt_at_any_line_of_a_run_leaves_the_folder_to_the_next(seed, tmp_path):
    places = ("output.py", "process.py", "files.py", "train.py", "checkpoints.py")
    lines = interrupted_at(None, lambda: run(output_dir=tmp_path, epochs=2), places)
    line, kept = random.Random(seed).randint(1, lines), []
    with pytest.raises(KeyboardInterrupt) as raised:
        interrupted_at(line, lambda: run(output_dir=tmp_path, epochs=2), places)
    kept.append(raised)
    expected, _ = run(epochs=2)
    history, model = run(output_dir=tmp_path, epochs=2, resume=True)
    assert history.steps == expected.steps
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path), model)
    assert "in_use.lock" not in os.listdir(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_run_warns(code, tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(sft_lab.loop.process.fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match="cannot be locked .*: see to it that no other run"):
        run(output_dir=tmp_path, epochs=1)


def test_on_a_system_without_flock_a_run_warns(tmp_path, monkeypatch):
    monkeypatch.setattr(sft_lab.loop.process, "fcntl", None)
    with pytest.warns(UserWarning, match="cannot be locked .this system has no flock.: see to it"):
        run(output_dir=tmp_path, epochs=1)


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_lock_that_no_run_wrote_is_left_alone(kind, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    put(kind, folder / "in_use.lock", tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    with no_step(), pytest.raises(OutputError, match=r"in_use.lock .*: move it away"):
        run(output_dir=folder)
    assert snapshot(tmp_path) == before


# --- kills and races, a few of each (many by hand: see kill_runs.py)
# ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_real_kills_and_races_leave_nothing_mixed():
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    command = [sys.executable, str(ROOT / "tests" / "kill_runs.py"), "--kills", "3", "--pairs", "4"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert '"kills": 3' in done.stdout and '"mixed": 0' in done.stdout
