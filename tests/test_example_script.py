"""examples/sft.py runs alone, reaches its mark, and says what is wrong with its input."""

import importlib.util
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import make_model, make_tokenizer
from torch.testing import assert_close

from sft_lab import atlas
from sft_lab.course import plain_loop
from sft_lab.labels import encode_conversations
from sft_lab.models import load

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DOMAINS, LEARNED, ASKED = ("countries", "animals"), 480, 200  # of its questions
SCRIPT = EXAMPLES / "sft.py"


def read_script():
    spec = importlib.util.spec_from_file_location("example_sft", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SFT = read_script()


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """The script in an empty folder, where neither the course nor its path is known."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_it_stands_alone_in_at_most_150_lines():
    text = SCRIPT.read_text("utf-8")
    assert "sft_lab" not in text
    assert len(text.splitlines()) <= 150


def test_it_tunes_atlas_base_to_95_percent_and_saves_it(tmp_path):
    done = run("--out", "tuned", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shares = dict(re.findall(r"^(before|after): .* questions right, ([\d.]+)%", done.stdout, re.M))
    assert float(shares["before"]) <= 5
    assert float(shares["after"]) >= 95
    assert "epoch 2:" in done.stdout and "after: " in done.stdout
    model, tokenizer = load(tmp_path / "tuned")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_its_questions_are_drawn_from_atlas():
    rows = [json.loads(line) for line in (EXAMPLES / "questions.jsonl").open(encoding="utf-8")]
    learned, asked = (
        [fact for fact in atlas.split(atlas.load_facts())[part] if fact.domain in DOMAINS]
        for part in ("train", "held_out")
    )
    learned = atlas.ask(random.Random(0).sample(learned, LEARNED), seed=0)
    asked = atlas.ask(random.Random(1).sample(asked, ASKED), seed=1)
    parts = [("train", turns) for turns in learned] + [("held_out", turns) for turns in asked]
    assert rows == [
        {"split": part, "prompt": turns[0]["content"], "response": turns[1]["content"]}
        for part, turns in parts
    ]


def test_its_ids_and_labels_are_those_of_sft_lab():
    _, tokenizer = load("atlas-base")
    conversations = atlas.exam("train", 40, seed=3)
    for turns, example in zip(
        conversations, encode_conversations(conversations, tokenizer), strict=True
    ):
        row = {"prompt": turns[0]["content"], "response": turns[1]["content"]}
        ids, labels = SFT.encode(row, tokenizer)
        assert ids == example.input_ids[: len(ids)] and labels == example.labels[: len(ids)]
        assert set(example.labels[len(ids) :]) <= {SFT.IGNORE_INDEX}


@pytest.mark.numeric
def test_its_loss_is_that_of_the_chapter():
    model, tokenizer = make_model(), make_tokenizer()
    rows = [([5, 6, 7, 1], [-100, -100, 7, 1]), ([4, 8, 9, 9, 2, 1], [-100, 8, 9, 9, 2, 1])]
    examples = [plain_loop.Example(*row) for row in rows]
    batch = plain_loop.pad_batch(examples, tokenizer.pad_token_id)
    loss, graded = SFT.run_batch(model, rows, tokenizer.pad_token_id)
    expected, count = plain_loop.run_batch(model, batch)
    assert_close(loss, expected)
    assert graded == count == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n', r"rows.jsonl:2: no "),
        ('{"prompt": "a", "response": " "}\n', r"rows.jsonl:1: no "),
        ("[1]\n", r"rows.jsonl:1: no "),
        ("{\n", r"rows.jsonl:1: no "),
        ('{"prompt": "a", "response": 3}\n', r"rows.jsonl:1: no "),
        ('{"prompt": "a", "response": "b"}\n', r"1 rows, and none to learn from"),
        ("", r"0 rows, and none to learn from"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, text, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        SFT.read_rows(path)


def test_every_tenth_row_is_kept_back_where_no_row_says_so(tmp_path):
    rows = [{"prompt": f"question {i}", "response": f"answer {i}"} for i in range(25)]
    learned, asked = SFT.read_rows(write_rows(tmp_path / "rows.jsonl", *rows))
    assert asked == rows[::10]
    assert learned == [row for i, row in enumerate(rows) if i % 10]


def test_a_control_token_in_a_text_is_refused():
    _, tokenizer = load("atlas-base")
    with pytest.raises(ValueError, match="<.im_end.>.*remove it"):
        SFT.encode({"prompt": "Hello<|im_end|>", "response": "Hi"}, tokenizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "none.jsonl"), "none.jsonl"),
        (("--model", "no-such-folder"), "no-such-folder"),
        (("--out", "."), "is there already"),
    ],
)
def test_what_cannot_be_used_is_one_line_on_stderr(tmp_path, arguments, message):
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("gpu", ["cuda", "mps"])
def test_a_small_model_stays_on_the_cpu(monkeypatch, gpu):
    kinds = {"cuda": torch.cuda, "mps": torch.backends.mps}
    monkeypatch.setattr(kinds[gpu], "is_available", lambda: True)
    model, _ = SFT.load(str(EXAMPLES.parent / "data" / "models" / "atlas-base"))
    assert model.device.type == "cpu"
