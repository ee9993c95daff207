"""The settings files of configs/llamafactory/ and the lines of an older walk-through, held against
the argument classes of the installed LLaMA-Factory, in its own environment (`make llamafactory`).
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from sft_lab.course.factory_keys import (
    COMMENTS,
    DEEPSPEED,
    FOLDER,
    METHODS,
    MODELS,
    WALK_THROUGH,
    all_files,
    command,
    training_keys,
    write_yaml,
)
from sft_lab.course.views.factory import (
    ACCUMULATIONS,
    BATCH_SIZES,
    CUTOFFS,
    predict_run,
    settings_file,
)

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "llamafactory"
DATA = FOLDER / "data"
PLANTED = {  # a wrong key or value, and what must be said of it
    "a key that is none": ({"lora_ranks": 64}, "lora_ranks: no such argument"),
    "the beginning of a key": ({"cutoff": 2048}, "cutoff: no such argument"),
    "text for a number": ({"cutoff_len": "long"}, "cutoff_len"),
    "a number that YAML takes for text": ({"learning_rate": "1e-4"}, "is text"),
    "half a row": ({"per_device_train_batch_size": 1.5}, "per_device_train_batch_size"),
    "an unknown stage": ({"stage": "soft"}, "stage"),
    "an unknown method": ({"finetuning_type": "qlora"}, "finetuning_type"),
    "an unknown schedule": ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type"),
    "an unknown template": ({"template": "qwen4"}, "template: 'qwen4' is unknown"),
    "an unknown logger": ({"report_to": "tensorbord"}, "report_to: 'tensorbord' is unknown"),
    "neither true nor false": ({"bf16": "perhaps"}, "bf16"),
    "both masks": ({"mask_history": True, "train_on_prompt": True}, "incompatible"),
    "4 bits under full tuning": ({"finetuning_type": "full", "quantization_bit": 4}, "LoRA"),
    "no rows to evaluate": ({"val_size": 0.0}, "eval_dataset"),
    "an engine that is not there": ({"deepspeed": "ds_z2_config.json"}, "no file"),
}


def ask_factory(files: dict[str, dict], lines: list, names: list, to: Path) -> dict:
    """What tests/llamafactory_check.py says, run by LLaMA-Factory's own Python."""
    if not (ENVIRONMENT / "installed").exists():
        pytest.skip("LLaMA-Factory is not installed beside the course: type make llamafactory")
    request = {"files": files, "lines": lines, "data": str(DATA), "names": names}
    request["model"] = str(ROOT / "data" / "models" / "atlas-base")
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", ROOT / "tests" / "llamafactory_check.py", to],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(to.read_text("utf-8"))


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Everything is asked at once, for the start of LLaMA-Factory takes seconds."""
    files = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in yaml_files()}
    for run, setup in view_runs().items():
        files[run] = yaml.safe_load(write_yaml(settings_file(*setup)))
    good = training_keys("Qwen3-0.6B", "lora")
    files |= {name: good | wrong for name, (wrong, _) in PLANTED.items()}
    lines = [split_line(line) for row in WALK_THROUGH for line in (row.old, row.new) if line]
    names = sorted(json.loads(info().read_text("utf-8")))
    return ask_factory(files, lines, names, tmp_path_factory.mktemp("factory") / "answer.json")


def yaml_files() -> list[Path]:
    return sorted(FOLDER.glob("*.yaml"))


def info() -> Path:
    return DATA / "dataset_info.json"


def split_line(line: str) -> tuple[str, object]:
    """The key and the value of one line of YAML."""
    ((key, value),) = yaml.safe_load(line).items()
    return key, value


def yaml_value(text: str) -> object:
    """A number where it is one (5e-5 too, which YAML takes for text), else the text."""
    try:
        return float(text)
    except ValueError:
        return text


def view_runs() -> dict[str, tuple]:
    """Both models, all methods, and every size of the view's sliders at least once."""
    runs = {}
    for model in MODELS:
        for method in METHODS:
            for number, cutoff_len in enumerate(CUTOFFS):
                batch_size = BATCH_SIZES[number % len(BATCH_SIZES)]
                accumulation = ACCUMULATIONS[number % len(ACCUMULATIONS)]
                setup = (model, method, cutoff_len, batch_size, accumulation, number % 2 == 0)
                runs[f"view: {setup}"] = setup
    return runs


def test_the_files_are_those_that_the_module_writes():
    written = {name: text for name, (_, text) in all_files().items()}
    found = {path.name: path.read_text("utf-8") for path in yaml_files()}
    assert found == written, "run: python -m sft_lab.course.factory_keys"
    assert len(found) == len(MODELS) * (len(METHODS) + 2)


def test_every_file_reads_as_its_keys_and_every_key_has_its_words():
    for keys, text in all_files().values():
        assert yaml.safe_load(text) == keys
        for key in keys:
            (line,) = [line for line in text.splitlines() if line.startswith(f"{key}:")]
            assert line.endswith(f"# {COMMENTS[key]}")
            assert "trust_remote_code: false" in text
    with pytest.raises(ValueError, match="no words for lora_ranks"):
        write_yaml({"lora_ranks": 8})


def test_the_files_of_one_model_differ_only_where_the_method_asks_for_it():
    def change(run: str) -> set[str]:
        files = {name: keys for name, (keys, _) in all_files().items()}
        plain, other = files["qwen2.5_7b_lora.yaml"], files[f"qwen2.5_7b_{run}.yaml"]
        return {key for key in plain | other if plain.get(key) != other.get(key)} - {"output_dir"}

    lora = {"lora_target", "lora_rank", "lora_alpha", "lora_dropout"}
    assert change("full") == lora | {"finetuning_type", "learning_rate"}
    assert change("freeze") - change("full") == {
        "freeze_trainable_layers",
        "freeze_trainable_modules",
    }
    assert change("zero2") - change("full") == {"deepspeed"}
    assert all("quantization" in key for key in change("qlora"))


def test_the_readme_names_every_run_and_the_memory_that_chapter_08_predicts_for_it():
    text = (FOLDER.parent / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `…_(\w+)\.yaml` \| ([\d.]*) ?\| ([\d.]*) ?\|", text, re.MULTILINE)
    assert {f"{short}_{run}.yaml" for run, *_ in rows for *_, short in MODELS.values()} == set(
        all_files()
    )
    for run, *sizes in rows:
        if run in METHODS:
            needs = [sum(predict_run(model, run, 2048, 2, True).values()) for model in MODELS]
            assert sizes == [f"{need:.1f}" for need in needs], run
        else:
            assert sizes == ["", ""], run


def test_the_command_starts_what_the_file_asks_for():
    lora, zero = (training_keys("Qwen3-0.6B", "full", zero=zero) for zero in (False, True))
    assert command(lora, "a.yaml") == "llamafactory-cli train a.yaml"
    assert command(zero, "a.yaml") == "FORCE_TORCHRUN=1 llamafactory-cli train a.yaml"
    assert (ROOT / DEEPSPEED).is_file() and zero["deepspeed"] == DEEPSPEED


def test_the_installed_version_takes_every_key_and_value_of_every_file(answer):
    found = {path.name: answer["files"][path.name] for path in yaml_files()}
    assert found == dict.fromkeys(found, [])


def test_it_takes_what_the_view_shows(answer):
    found = {run: answer["files"][run] for run in view_runs()}
    assert len(found) > 40 and found == dict.fromkeys(found, [])


def test_only_one_of_two_keys_switches_checkpointing_off(answer):
    assert answer["checkpointing"] == {
        "{}": True,
        '{"gradient_checkpointing": false}': True,
        '{"disable_gradient_checkpointing": true}': False,
    }


def test_chat_refuses_a_training_file_and_takes_the_one_for_export(answer):
    (said,) = answer["chat"]["qwen2.5_7b_lora.yaml"]
    assert "Some keys are not used by the HfArgumentParser" in said and "do_train" in said
    assert answer["chat"]["qwen2.5_7b_export.yaml"] == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_wrong_key_or_value_is_found(planted, answer):
    _, said = PLANTED[planted]
    assert said in " ".join(answer["files"][planted]), answer["files"][planted]


def test_the_data_sets_are_registered_with_columns_that_their_rows_have(answer):
    entries = json.loads(info().read_text("utf-8"))
    assert set(answer["data"]) == set(entries) and "my_custom_sft" in entries
    for name, registered in answer["data"].items():
        path = DATA / registered["dataset_name"]
        text = path.read_text("utf-8")
        jsonl = path.suffix == ".jsonl"
        rows = [json.loads(line) for line in text.splitlines()] if jsonl else json.loads(text)
        for column in entries[name]["columns"]:
            assert all(registered[column] in row for row in rows), (name, column)
        if registered["formatting"] == "sharegpt":
            turns = [turn for row in rows for turn in row[registered["messages"]]]
            roles = {registered[f"{role}_tag"] for role in ("user", "assistant", "system")}
            assert {turn[registered["role_tag"]] for turn in turns} <= roles
            assert all(turn[registered["content_tag"]] for turn in turns)


def test_the_lines_of_the_walk_through_fare_as_the_table_says(answer):
    fates = iter(answer["lines"])
    for row in WALK_THROUGH:
        fate = next(fates)
        key, value = split_line(row.old)
        assert fate["known"] == (row.fate != "refused"), row
        if fate["known"]:
            assert fate["wrong"] == [] and fate["warns"] == (row.fate == "warns"), row
            assert (fate["default"] == value) == (row.fate == "default"), (row, fate)
            if named := re.search(r"the default is ([\w.-]+)", row.why):
                assert yaml_value(named[1]) == fate["default"], (row, fate)
        if row.new:
            new = next(fates)
            assert new["known"] and not new["wrong"] and not new["warns"], row
    assert {row.fate for row in WALK_THROUGH} == {
        "kept",
        "default",
        "warns",
        "useless",
        "missing",
        "refused",
    }
