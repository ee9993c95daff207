"""`sft-lab` as it is typed in a shell: help that comes before torch, errors of one line, and
commands that answer."""

import copy
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from sft_lab import cli, compare_command
from sft_lab.cli import COMMANDS, main
from sft_lab.lora import add_lora, save_adapter

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def exam(tmp_path) -> Path:
    path = tmp_path / "exam.jsonl"
    rows = [
        {"question": f"What is {n} plus {n}?", "answer": f"{n} plus {n} is {2 * n}."}
        for n in range(1, 7)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_command_is_installed_under_its_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"sft-lab": "sft_lab.cli:main"}


def test_without_a_command_it_says_what_there_is(capsys):
    main([])
    told = capsys.readouterr().out
    assert all(f"sft-lab {name}" in told for name in COMMANDS)


@pytest.mark.parametrize("typed, meant", [("docter", "doctor"), ("compair", "compare")])
def test_a_wrong_command_is_told_what_was_meant(typed, meant, capsys):
    with pytest.raises(SystemExit) as stop:
        main([typed])
    assert stop.value.code == 2 and f"Did you mean `sft-lab {meant}`?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples_and_does_not_wait_for_torch(name):
    script = (
        "import sys; from sft_lab.cli import main\n"
        f"try: main([{name!r}, '--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"sft-lab {name}" in done.stdout


def test_every_command_is_a_module_that_takes_arguments():
    for module in COMMANDS.values():
        assert callable(cli.importlib.import_module(module).main)


def test_compare_writes_the_table_and_both_reports(exam, tmp_path, capsys):
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    arguments = ["atlas-base", "atlas-base", "--data", str(exam), "--max-new-tokens", "12"]
    compare_command.main([*arguments, "--html", str(page), "--json", str(numbers)])
    told = capsys.readouterr().out
    assert "right answers" in told and str(page) in told
    assert len(json.loads(numbers.read_text(encoding="utf-8"))["answers"]) == 6
    assert "What is 1 plus 1?" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"--data": "missing.jsonl"}, "missing.jsonl"),
        ({"--measures": "blue"}, "there is no such measure"),
    ],
)
def test_a_wrong_option_of_compare_is_one_line(exam, change, words):
    options = {"--data": str(exam)} | change
    flat = [part for pair in options.items() for part in pair]
    with pytest.raises(SystemExit) as stop:
        compare_command.main(["atlas-base", "atlas-base", *flat])
    assert stop.value.code != 0 and words in str(stop.value.code)


def test_a_base_and_an_adapter_are_named_with_a_plus(model, tmp_path):
    adapted = add_lora(copy.deepcopy(model), rank=2)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    save_adapter(adapted, tmp_path / "adapter")
    loaded, tokenizer = compare_command.load_with_adapter(f"atlas-base+{tmp_path / 'adapter'}")
    ids = torch.tensor([tokenizer("Kenya is a country").input_ids])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, adapted.eval()(ids).logits)
