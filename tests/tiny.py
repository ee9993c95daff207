"""Tiny random models, a word tokenizer and random examples: enough to test what does not depend on
trained weights."""

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sft_lab.examples import IGNORE_INDEX, Example

VOCABULARY = 61
PAD = 0


def make_model(
    architecture: str = "qwen3", *, seed: int = 0, attention_dropout: float = 0.0
) -> PreTrainedModel:
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "tie_word_embeddings": architecture == "qwen3",
        "attention_dropout": attention_dropout,
        "pad_token_id": PAD,
        "bos_token_id": None,
        "eos_token_id": 1,
        "initializer_range": 0.1,
    }
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    return Qwen3ForCausalLM(Qwen3Config(**sizes)).eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<end>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")


def make_examples(
    count: int, *, seed: int = 0, shortest: int = 3, longest: int = 24
) -> list[Example]:
    """Random prompts and graded answers; answers of one token and prompts of one token occur."""
    rng = random.Random(seed)
    examples = []
    for _ in range(count):
        ids = [rng.randrange(2, VOCABULARY) for _ in range(rng.randint(shortest, longest))]
        prompt = rng.randint(1, len(ids) - 1)
        examples.append(Example(ids, [IGNORE_INDEX] * prompt + ids[prompt:]))
    return examples
