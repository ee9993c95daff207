"""LLaMA-Factory beside the course: the same labels, the same merge, and both token accuracies.

One process of its environment does everything that these tests need. Without the environment they
are skipped: `make llamafactory` builds it.
"""

import copy
import json
import random
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from chapter_source import read_chapter

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.chat import encode_chat
from sft_lab.course import factory
from sft_lab.course.exercises.ch10 import _encode
from sft_lab.course.exercises.kit import random_conversation
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversation
from sft_lab.lora import load_adapter, merge_lora
from sft_lab.models import load

ROOT = Path(__file__).resolve().parents[1]
needs_environment = pytest.mark.skipif(
    not factory.is_installed(), reason="LLaMA-Factory is not installed: make llamafactory"
)
SHARED = {
    "model_name_or_path": "base",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset_dir": "data",
    "template": "qwen3_nothink",
    "cutoff_len": 1024,
    "bf16": False,
    "use_cpu": True,
    "output_dir": "out",
    "report_to": "none",
}
ADAPTED = {"model_name_or_path": "base", "finetuning_type": "lora", "template": "qwen3_nothink"}


def random_lengths(count: int) -> list[list[int]]:
    """Triples of prompt, answer and cutoff_len; a third of them at a border of the rule."""
    rng = random.Random(0)
    rows = []
    for number in range(count):
        prompt, response = rng.randint(1, 60), rng.randint(1, 60)
        near = [2 * prompt, 2 * response, prompt + response]
        limit = rng.randint(1, 150) if number % 3 else rng.choice(near) + rng.randint(-1, 1)
        rows.append([prompt, response, max(limit, 1)])
    return rows


@pytest.fixture(scope="module")
def base():
    return load("atlas-base")


@pytest.fixture(scope="module")
def conversations():
    """200 random conversations of one to three rounds, with and without a system turn."""
    random.seed(0)
    return [random_conversation(number % 3 + 1, system=number % 2 == 0) for number in range(200)]


@pytest.fixture(scope="module")
def made(tmp_path_factory, base, conversations):
    """The answers of one LLaMA-Factory process, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("factory")
    model, tokenizer = base
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    data = folder / "data"
    data.mkdir()
    rounds = atlas.training_conversations(seed=0)
    rows = [{"instruction": q["content"], "input": "", "output": a["content"]} for q, a in rounds]
    tags = {f"{name}_tag": name for name in ("user", "assistant", "system")}
    tags |= {"role_tag": "role", "content_tag": "content"}
    info = {
        "all": {"file_name": "all.json"},
        "few": {"file_name": "few.json"},
        "talks": {
            "file_name": "talks.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags,
        },
    }
    talks = [{"messages": turns} for turns in conversations]
    for name, value in {
        "all": rows,
        "few": rows[:40],
        "talks": talks,
        "dataset_info": info,
    }.items():
        (data / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    watched = {"eval_dataset": "few", "eval_strategy": "epoch", "compute_accuracy": True}
    questions = {
        "all": {**SHARED, "command": "rows", "dataset": "all"},
        "talks": {**SHARED, "command": "rows", "dataset": "talks"},
        "fit": {"command": "fit", "lengths": random_lengths(2000)},
        "train": {
            **SHARED,
            **watched,
            "command": "train",
            "dataset": "few",
            "max_steps": 5,
            "learning_rate": 5e-3,
            "per_device_eval_batch_size": 40,
        },
        "export": {
            **ADAPTED,
            "command": "export",
            "adapter_name_or_path": "out",
            "export_dir": "merged",
        },
    }
    answers = factory.ask_worker(questions, folder, record="test")
    assert not [answer["error"] for answer in answers.values() if "error" in answer]
    return answers, folder


def with_line_break(example, tokenizer) -> list[int]:
    """Our labels, and the line break after each graded stop token graded too."""
    (line_break,) = tokenizer("\n").input_ids
    labels = list(example.labels)
    for t in range(1, len(labels)):
        if example.labels[t - 1] == tokenizer.eos_token_id and example.input_ids[t] == line_break:
            labels[t] = line_break
    return labels


@needs_environment
def test_ids_and_labels_of_the_whole_tuning_set_are_ours_but_for_a_line_break(made, base):
    answers, tokenizer = made[0], base[1]
    ours = [encode_conversation(turns, tokenizer) for turns in atlas.training_conversations(seed=0)]
    theirs = answers["all"]["rows"]
    assert len(theirs) == len(ours) > 6000
    assert [row["input_ids"] for row in theirs] == [example.input_ids for example in ours]
    assert [row["labels"] for row in theirs] == [with_line_break(x, tokenizer) for x in ours]


@needs_environment
def test_ids_and_labels_of_200_random_conversations_are_ours_but_for_a_line_break(
    made, base, conversations
):
    tokenizer = base[1]
    ours = [encode_conversation(turns, tokenizer) for turns in conversations]
    theirs = made[0]["talks"]["rows"]
    assert [row["input_ids"] for row in theirs] == [example.input_ids for example in ours]
    assert [row["labels"] for row in theirs] == [with_line_break(x, tokenizer) for x in ours]


@needs_environment
def test_the_rule_of_cutoff_len_is_theirs_in_2000_cases(made):
    chapter = (ROOT / "chapters" / "10_llamafactory.py").read_text("utf-8")
    names: dict = {}
    exec(re.search(r"^def fit\(.*?^    return [^\n]*\n", chapter, re.S | re.M)[0], names)
    ours = [list(names["fit"](*lengths)) for lengths in random_lengths(2000)]
    assert ours == made[0]["fit"]["left"]


@needs_environment
def test_the_merged_export_is_our_merge(made, base):
    folder, tokenizer = made[1], base[1]
    model = load(folder / "base")[0]
    ids = torch.tensor([encode_chat(turns, tokenizer) for turns in atlas.exam("held_out", 1)])
    adapted = load_adapter(copy.deepcopy(model), folder / "out")
    exported = load(folder / "merged")[0]
    with torch.inference_mode():
        theirs = exported(input_ids=ids).logits
        beside = adapted(input_ids=ids).logits
        ours = merge_lora(adapted)(input_ids=ids).logits
        before = model(input_ids=ids).logits
    assert (theirs - before).abs().max() > 0.1  # something was learned
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(beside, theirs, rtol=0, atol=1e-4)


@needs_environment
def test_their_adapter_loads_in_peft(made, base):
    from peft import PeftModel

    folder, tokenizer = made[1], base[1]
    model = load(folder / "base")[0]
    ids = torch.tensor([encode_chat(turns, tokenizer) for turns in atlas.exam("held_out", 1)])
    with torch.inference_mode():
        ours = load_adapter(copy.deepcopy(model), folder / "out")(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(copy.deepcopy(model), folder / "out")(
            input_ids=ids
        ).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def accuracies(model, examples, pad: int) -> tuple[float, float]:
    """Mean of the rows' accuracies, and accuracy over all graded tokens."""
    batch = pad_batch(examples, pad)
    labels = batch.pop("labels")[:, 1:]
    with torch.inference_mode():
        ranked = model(**batch).logits.argmax(dim=-1)[:, :-1]
    hits, graded = (ranked == labels).sum(dim=1), (labels != IGNORE_INDEX).sum(dim=1)
    return (hits / graded).mean().item(), (hits.sum() / graded.sum()).item()


@needs_environment
def test_their_accuracy_is_the_mean_over_rows(made, base):
    folder, tokenizer = made[1], base[1]
    model = load(folder / "base")[0]
    rounds = atlas.training_conversations(seed=0)[:40]
    examples = [_encode(turns, tokenizer, "qwen3_nothink", 1024)[0] for turns in rounds]
    tuned = load_adapter(copy.deepcopy(model), folder / "out")
    over_rows, over_tokens = accuracies(tuned, examples, tokenizer.pad_token_id)
    logged = [row for row in factory.read_state(folder / "out") if "eval_accuracy" in row][-1]
    assert logged["eval_accuracy"] == pytest.approx(over_rows, abs=2e-3)
    assert logged["eval_accuracy"] != pytest.approx(over_tokens, abs=5e-3)


def test_trls_accuracy_is_over_tokens(base, tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = base
    rounds = atlas.training_conversations(seed=0)[:24]
    examples = [encode_conversation(turns, tokenizer) for turns in rounds]
    over_rows, over_tokens = accuracies(model, examples, tokenizer.pad_token_id)
    rows = [{"input_ids": x.input_ids, "labels": x.labels} for x in examples]
    settings = SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        per_device_eval_batch_size=24,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=copy.deepcopy(model),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    measured = trainer.evaluate()["eval_mean_token_accuracy"]
    assert measured == pytest.approx(over_tokens, abs=2e-3)
    assert measured != pytest.approx(over_rows, abs=5e-3)


# without the environment


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    monkeypatch.setattr(factory, "ENVIRONMENT", tmp_path / "no environment")
    return tmp_path


def test_without_the_environment_the_recording_is_said_to_be_one(nowhere):
    said = factory.say_source()
    assert said.startswith("RECORDED") and factory.INSTALL in said and "\n" not in said


def test_a_recording_is_replayed_for_its_own_settings_alone(nowhere):
    asked = json.loads((factory.RECORDS / "lora" / "asked.json").read_text("utf-8"))
    settings = {name: value for name, value in asked.items() if name not in ("command", "typed")}
    factory.run("train", settings, nowhere, record="lora")
    saved = nowhere / settings["output_dir"]
    assert (saved / "adapter_model.safetensors").exists() and list((saved / "runs").iterdir())
    assert any("loss" in row for row in factory.read_log(saved))
    with pytest.raises(factory.FactoryError, match=factory.INSTALL):
        factory.run("train", {**settings, "lora_rank": 9}, nowhere, record="lora")
    with pytest.raises(factory.FactoryError, match="no recording of 'other'"):
        factory.run("train", settings, nowhere, record="other")


def test_a_recorded_answer_is_refused_for_another_question(nowhere):
    recorded = json.loads((factory.RECORDS / "rows.json").read_text("utf-8"))
    assert factory.ask_worker(recorded["of"], nowhere, record="rows") == recorded["value"]
    with pytest.raises(factory.FactoryError, match="no recording"):
        factory.ask_worker({"other": {}}, nowhere, record="rows")


def test_the_chapter_runs_from_recordings(nowhere, capsys):
    chapter = ROOT / "chapters" / "10_llamafactory.py"
    names: dict = {"__name__": "chapter_10"}
    for cell in read_chapter(chapter):
        if cell.kind == "code" and not cell.role:
            exec(compile("\n" * cell.line + cell.source, str(chapter), "exec"), names)
    plt.close("all")
    assert "RECORDED" in capsys.readouterr().out


def test_nothing_recorded_names_a_machine_or_a_home():
    for path in factory.RECORDS.rglob("*"):
        if path.is_file():
            assert not re.search(rb"/(root|home|work|tmp|Users)/", path.read_bytes()), path


@needs_environment
def test_a_failing_command_ends_with_its_last_lines(tmp_path):
    with pytest.raises(factory.FactoryError, match="no_such_key"):
        factory.run("chat", {**ADAPTED, "no_such_key": 1}, tmp_path, record="fails", typed="exit\n")
