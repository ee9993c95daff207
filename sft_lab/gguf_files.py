"""Station "world": a tuned model as one GGUF file: weights, tokenizer, chat template, stop token.

llama.cpp, Ollama and LM Studio read this format, and `models.load` does. The names of the tensors
come from the package `gguf`. llama.cpp's own converter, convert_hf_to_gguf.py, knows a hundred
architectures but recognises a tokenizer by its vocabulary, so it refuses one made for a project;
this module writes the Qwen3 family with any vocabulary whose texts are split as Qwen's are. Source:
github.com/ggml-org/ggml, docs/gguf.md.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gguf import (
    MODEL_ARCH,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    TokenType,
    get_tensor_name_map,
)
from gguf.quants import quantize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.files import whole_file
from sft_lab.rendering import stop_token_id
from sft_lab.templates import find_template

# number formats: of the tensors, and of the file as a whole
KINDS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
BLOCK = 32  # q8_0 scales so many numbers of a row together
# how llama.cpp's "qwen2" splits a text before it looks for tokens
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path | str,
    *,
    kind: str = "f32",
    stop_id: int | None = None,
) -> Path:
    """Write a Qwen3 model and its tokenizer as one GGUF file; returns its path.

    kind: "f32", "f16" or "q8_0", which keeps 8 bits a number and one scale for 32 of them; norms
    stay f32. stop_id: the token that the file names as its end (default: the one that the chat
    template writes after an answer). Raises ValueError for another architecture (merge LoRA
    first), a vocabulary that splits texts in another way, an unknown kind, and rows that q8_0
    cannot divide.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; known: {', '.join(KINDS)}")
    tensors = dict(_name_tensors(model))
    parts = _read_tokenizer(tokenizer)
    number_format, file_type = KINDS[kind]
    with whole_file(path) as partial:
        writer = GGUFWriter(partial, "qwen3")
        writer.add_file_type(file_type)
        _write_sizes(writer, model)
        _write_tokenizer(writer, tokenizer, parts, len(model.get_input_embeddings().weight))
        writer.add_eos_token_id(stop_token_id(tokenizer) if stop_id is None else stop_id)
        for name, values in tensors.items():
            if values.ndim == 1 or kind == "f32":
                writer.add_tensor(name, values)
            elif kind == "q8_0" and values.shape[-1] % BLOCK:
                raise ValueError(f"{name} has rows of {values.shape[-1]}: q8_0 wants {BLOCK}s")
            else:
                writer.add_tensor(name, quantize(values, number_format), raw_dtype=number_format)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(path)


def _name_tensors(model: PreTrainedModel) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight as float32, by its name in GGUF; a tied head is its embedding and is left
    out."""
    if model.config.model_type != "qwen3":
        raise ValueError(f"this is a {model.config.model_type} model; qwen3 alone is written")
    names = get_tensor_name_map(MODEL_ARCH.QWEN3, model.config.num_hidden_layers)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, values in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if there is None:
            raise ValueError(f"{name} has no place in a GGUF file: merge_lora(model) first")
        yield there, values.detach().to("cpu", torch.float32).numpy()


def _write_sizes(writer: GGUFWriter, model: PreTrainedModel) -> None:
    config = model.config
    writer.add_name(Path(config.name_or_path).name or "model")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(model.get_input_embeddings().weight))


def _read_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict:
    """The parts of a fast tokenizer's file; ValueError unless llama.cpp can do the same."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    splits = [
        step["pattern"].get("Regex")
        for step in (parts["pre_tokenizer"] or {}).get("pretokenizers", [])
        if step["type"] == "Split"
    ]
    if parts["model"]["type"] != "BPE" or splits != [QWEN_SPLIT]:
        raise ValueError(
            "this tokenizer does not split texts as Qwen's does: use llama.cpp's own "
            "convert_hf_to_gguf.py, which knows more of them"
        )
    return parts


def _write_tokenizer(
    writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, parts: dict, rows: int
) -> None:
    """Tokens, merges, control tokens and the chat template; ids that no token has are unused."""
    by_id = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    types = [
        TokenType.UNUSED
        if token_id not in by_id
        else TokenType.NORMAL
        if token_id not in added
        else TokenType.CONTROL
        if added[token_id].special
        else TokenType.USER_DEFINED
        for token_id in range(rows)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([by_id.get(token_id, f"[PAD{token_id}]") for token_id in range(rows)])
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in parts["model"]["merges"]])
    writer.add_add_bos_token(False)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(find_template(tokenizer))
