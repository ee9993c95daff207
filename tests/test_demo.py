"""The main job end to end, as `make demo` runs it: on Atlas in short, on a reader's own file, and
on a broken one."""

import json
import os
import subprocess
import sys

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer


def run_demo(folder, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "sft_lab.demo", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = run_demo(folder, "--seed", "3")
    assert done.returncode == 0, done.stderr
    return (
        folder,
        done.stdout,
        json.loads((folder / "reports" / "demo.json").read_text(encoding="utf-8")),
    )


def test_a_base_that_cannot_answer_becomes_a_model_that_can(demo):
    _, _, report = demo
    assert report["base"]["accuracy"] <= 0.10 and report["base"]["stop_rate"] <= 0.05
    assert report["tuned"]["accuracy"] >= 0.95 and report["tuned"]["stop_rate"] >= 0.99


def test_the_report_says_how_it_was_made(demo):
    folder, _, report = demo
    assert report["seed"] == 3 and report["examples"] > 1000
    assert report["seconds_training"] > 0 and report["tokens_per_second"] > 0
    assert report["loss_last"] < report["loss_first"]
    page = (folder / "reports" / "demo.html").read_text(encoding="utf-8")
    assert all(
        row["question"] in page for row in report["answers"][:20] if row["question"].isascii()
    )


def test_all_five_steps_are_told(demo):
    _, out, _ = demo
    assert [
        line[0] for line in out.splitlines() if line[:1] in "12345" and line[1:3] == "  "
    ] == list("12345")


def test_the_tuned_model_loads_without_this_package(demo):
    folder, _, _ = demo
    model = AutoModelForCausalLM.from_pretrained(folder / "reports" / "tuned")
    tokenizer = AutoTokenizer.from_pretrained(folder / "reports" / "tuned")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of Japan?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**prompt, max_new_tokens=20)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(written) == "The capital of Japan is Tokyo.<|im_end|>"


def test_a_readers_own_file_is_learned(tmp_path):
    rows = [
        {"instruction": f"Say the word {word}.", "output": "Gladly."}
        for word in map(str, range(60))
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    done = run_demo(tmp_path, "--data", "mine.jsonl", "--epochs", "12")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "reports" / "demo.json").read_text(encoding="utf-8"))
    assert report["examples"] == 54 and report["questions"] == 6 and report["data"] == "mine.jsonl"
    assert report["tuned"]["accuracy"] == 1.0 and report["base"]["accuracy"] == 0.0


def test_a_broken_file_is_named_by_row_and_nothing_is_written(tmp_path):
    (tmp_path / "mine.jsonl").write_text(
        '{"instruction": "Hi", "output": ""}\n{"instruction": 5}\n', encoding="utf-8"
    )
    done = run_demo(tmp_path, "--data", "mine.jsonl")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "mine.jsonl, row 1" in done.stderr and "mine.jsonl, row 2" in done.stderr
    assert not (tmp_path / "reports").exists()


def test_an_answer_of_weight_0_is_neither_learned_nor_asked(tmp_path):
    user, good = "Say the word {}.", {"role": "assistant", "content": "Gladly."}
    bad = {"role": "assistant", "content": "Never.", "weight": 0}
    rows = [
        [{"role": "user", "content": user.format(word)}, bad, {"role": "user", "content": "And?"}]
        + ([good, {"role": "user", "content": "Once more?"}, bad] if word % 2 else [good])
        for word in range(60)
    ]
    lines = [json.dumps({"messages": row, "notes": "n"}) for row in rows]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = run_demo(tmp_path, "--data", "mine.jsonl", "--epochs", "12")
    assert done.returncode == 0, done.stderr
    assert "mine.jsonl: not read, though it holds text: 'notes' in 60 of 60 rows" in done.stderr
    report = json.loads((tmp_path / "reports" / "demo.json").read_text(encoding="utf-8"))
    assert {row["reference"] for row in report["answers"]} == {"Gladly."}
    assert report["tuned"]["accuracy"] == 1.0


def test_a_row_too_long_is_named_as_the_file_counts_it(tmp_path):
    rows = [
        {"instruction": f"Say {n}.", "output": "word " * (1200 if n == 20 else 2)}
        for n in range(1, 41)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    done = run_demo(tmp_path, "--data", "mine.jsonl")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "mine.jsonl, row 20: " in done.stderr and done.stderr.count(", row ") == 1
