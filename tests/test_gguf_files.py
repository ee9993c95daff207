"""A model written as GGUF is the same model when it is read, by readers nobody here wrote."""

import copy
import random

import pytest
import torch
from gguf import GGUFReader, TokenType
from tiny import make_model, make_tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from sft_lab.chat import encode_chat, generate_responses
from sft_lab.gguf_files import write_gguf
from sft_lab.lora import add_lora
from sft_lab.models import load

SHAPES = 12  # random sizes of a Qwen3 model
TEXTS = ["A question?", "1 + 12 = 13", "naïve 我爱你 😀", "  two  spaces\n\n", "it's I'M <b>"]


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


def draw_model(seed: int) -> Qwen3ForCausalLM:
    rng = random.Random(seed)
    heads = rng.choice([1, 2])
    config = Qwen3Config(
        vocab_size=2048,
        hidden_size=32 * rng.randint(1, 3),
        num_hidden_layers=rng.randint(1, 4),
        num_attention_heads=2 * heads,
        num_key_value_heads=heads,
        head_dim=rng.choice([8, 16, 32, 128]),
        intermediate_size=32 * rng.randint(1, 4),
        max_position_embeddings=64,
        tie_word_embeddings=bool(seed % 2),
        rope_parameters={"rope_type": "default", "rope_theta": rng.choice([1e4, 1e6])},
        rms_norm_eps=rng.choice([1e-5, 1e-6]),
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for values in model.parameters():  # norms too, which begin as ones
            values.add_(0.05 * torch.randn_like(values))
    return model


@pytest.mark.parametrize("seed", range(SHAPES))
def test_a_random_model_has_the_same_logits_when_transformers_reads_it_back(seed, atlas, tmp_path):
    model, (_, tokenizer) = draw_model(seed), atlas
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    again, _ = load(tmp_path)
    ids = torch.randint(2040, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert again.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert again.config.head_dim == model.config.head_dim


def test_the_tokenizer_template_and_ends_come_back(atlas, tmp_path):
    model, tokenizer = atlas
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    again, theirs = load(tmp_path)
    for text in TEXTS:
        talk = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        assert encode_chat(talk, theirs) == encode_chat(talk, tokenizer)
    assert theirs.chat_template == tokenizer.chat_template
    assert (theirs.eos_token, theirs.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert again.generation_config.eos_token_id == tokenizer.eos_token_id
    assert generate_responses(again, theirs, ["Hi"]) == generate_responses(model, tokenizer, ["Hi"])


def test_a_model_read_from_gguf_can_be_saved_as_safetensors(atlas, tmp_path):
    model, tokenizer = atlas
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    packed, theirs = load(tmp_path)
    packed.save_pretrained(tmp_path / "plain")
    theirs.save_pretrained(tmp_path / "plain")
    again, _ = load(tmp_path / "plain")
    for name, values in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], values, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "most"), [("f16", 2**-10), ("q8_0", 1 / 127)])
def test_a_smaller_format_is_off_by_its_rounding(kind, most, atlas, tmp_path):
    model, tokenizer = atlas
    path = write_gguf(model, tokenizer, tmp_path / "model.gguf", kind=kind)
    again, _ = load(tmp_path)
    for name, values in model.state_dict().items():
        found = again.state_dict()[name]
        allowed = 0 if values.ndim == 1 else most * values.abs().max().item()
        assert (found - values).abs().max().item() <= allowed, name
    (tmp_path / "whole").mkdir()
    whole = write_gguf(model, tokenizer, tmp_path / "whole" / "model.gguf")
    assert path.stat().st_size < 0.6 * whole.stat().st_size


def test_control_tokens_words_and_unused_ids_are_told_apart(atlas, tmp_path):
    model, tokenizer = atlas
    wider = copy.deepcopy(model)
    wider.resize_token_embeddings(2056, mean_resizing=False)
    reader = GGUFReader(write_gguf(wider, tokenizer, tmp_path / "model.gguf", stop_id=2043))
    types = reader.get_field("tokenizer.ggml.token_type").contents()
    assert types[2045] == types[2043] == TokenType.CONTROL and types[5] == TokenType.NORMAL
    assert types[2046] == TokenType.USER_DEFINED and types[2050] == TokenType.UNUSED
    assert reader.get_field("tokenizer.ggml.eos_token_id").contents() == 2043


def test_what_cannot_be_written_is_refused_and_leaves_no_file(atlas, tmp_path):
    model, tokenizer = atlas
    path = tmp_path / "model.gguf"
    with pytest.raises(ValueError, match="known: f32, f16, q8_0"):
        write_gguf(model, tokenizer, path, kind="q4")
    with pytest.raises(ValueError, match="qwen3 alone"):
        write_gguf(make_model("llama"), tokenizer, path)
    with pytest.raises(ValueError, match="merge_lora"):
        write_gguf(add_lora(copy.deepcopy(model)), tokenizer, path)
    with pytest.raises(ValueError, match="does not split texts"):
        write_gguf(model, make_tokenizer(), path)
    with pytest.raises(ValueError, match="q8_0 wants 32s"):
        write_gguf(make_model(), tokenizer, path, kind="q8_0")
    assert not list(tmp_path.iterdir())
