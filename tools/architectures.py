"""Does the training loop score every architecture rightly? All causal model types of the installed
transformers, built tiny with random weights, each trained for one step, padded and packed:

    right    loss and gradient are those of the model alone, one example after the other
    refused  the loop says in one line why it will not train this model, before the first step
    silent   it trains, on another loss than the model's own, and says nothing: a fault of ours

The judge knows nothing of the loop: it adds up the cross-entropy of each example, scored alone by
`model(input_ids=…)`, and asks that no score depends on a later token. `make test-architectures`
prints the table and fails if any type is silent; types that cannot be built tiny are listed with
the reason. Names behind the command choose types; --dtype bfloat16 trains in half precision.
"""

import argparse
import copy
import logging
import re
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.train import train

MODEL_TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY, LAYERS = 96, 4
# What configs call their sizes, by the value that they get here.
SIZES = {
    VOCABULARY: """
        vocab_size decoder_vocab_size vocab_size_per_layer_input unpadded_vocab_size
        pronunciation_vocab_size shape_vocab_size ngram_vocab_size_base audio_vocab_size
        encoder_hash_byte_group_vocab
    """,
    32: """
        hidden_size d_model n_embd emb_dim embedding_dim embedding_size word_embed_proj_dim
        input_embedding_size output_embedding_size lru_width hidden_size_global
        router_hidden_size backbone_hidden_size out_hidden_size mamba_d_ssm
        attention_hidden_size input_size
    """,
    48: """
        intermediate_size moe_intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim
        shared_expert_intermediate_size ffn_hidden_size shared_intermediate_size
        intermediate_size_mlp expert_ffn_hidden_size dense_intermediate_size
        moe_shared_expert_intermediate_size shared_experts_intermediate_size feed_forward_size
        dff dim_ff d_ff mlp_dim
    """,
    4: """
        num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers
        num_decoder_layers num_encoder_layers depth num_layers_per_stack conf_num_hidden_layers
        num_blocks num_attention_heads n_head n_heads num_heads decoder_attention_heads
        attention_heads encoder_attention_heads num_encoder_attention_heads
        num_decoder_attention_heads num_local_experts num_experts n_routed_experts
        moe_num_experts swa_num_attention_heads linear_num_value_heads linear_num_heads
        mamba_n_heads mamba_num_heads index_n_heads zero_expert_num
    """,
    2: """
        num_key_value_heads num_kv_heads kv_n_heads num_experts_per_tok num_experts_per_token
        linear_num_key_heads num_query_groups moe_topk top_k moe_k n_groups mamba_n_groups
        swa_num_key_value_heads num_kv_shared_layers moe_top_k
    """,
    1: """
        n_group num_expert_group topk_group first_k_dense_replace n_shared_experts
        num_shared_experts
    """,
    8: """
        head_dim kv_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim linear_key_head_dim
        linear_value_head_dim linear_head_dim index_head_dim rotary_dim swa_head_dim state_size
        mamba_d_state ssm_state_size mamba_d_head mamba_head_dim mamba_dt_rank time_step_rank
        kv_channels d_kv d_head attention_head_size dim_head attention_head_dim laurel_rank
        hidden_size_per_layer_input adapter_rank d_rel hc_lowrank chunk_size mamba_chunk_size
        pronunciation_embed_dim shape_embed_dim o_lora_rank gated_norm_rank block_multiple_of
        ple_embed_dim sliding_window attention_window_size local_attention attention_chunk_size
        sliding_window_size window_size
    """,
    16: """
        q_lora_rank qk_head_dim
    """,
    64: """
        index_topk indexer_budget index_topk_blocks
    """,
    128: """
        max_position_embeddings n_positions n_ctx max_seq_len model_max_length
        original_max_position_embeddings max_target_positions context_length
    """,
}
SIZE = {name: value for value, names in SIZES.items() for name in names.split()}
KINDS_OF_LAYERS = ("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types")
INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 64,
    "indexer_compress_ratio": 2,
}
SLIDING_HEADS = {
    "per_layer_config": {
        0: {
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "head_dim": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
        }
    },
    "layer_types": [
        "sliding_attention",
        "indexed_attention",
        "indexed_attention",
        "indexed_attention",
    ],
}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
# What the sizes above leave contradictory.
SETTINGS: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_d_head": 16, "attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "dots1": {"num_local_experts": 4},
    "dots3_note": {
        "text_config": SLIDING_HEADS,
        "vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "dots3_note_text": SLIDING_HEADS,
    "gemma3n": {"text_config": {"intermediate_size": 48, "activation_sparsity_pattern": [0.0] * 4}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {
        "mamba_d_head": 16,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "hrm_text": {"num_layers_per_stack": None},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"head_dim": 16},
    "qwen4_exp": {"text_config": INDEXER},
    "qwen4_exp_text": INDEXER,
    "reformer": {"axial_pos_shape": [8, 16], "axial_pos_embds_dim": [16, 16]},
    "xlstm": {"qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16, "mamba_dt_rank": 8},
    "zamba2": {"attention_hidden_size": 64, "attention_head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
}
NOT_BUILT: dict[str, str] = {
    "gemma3n": "its vision tower is in the package timm; gemma3n_text is the language part",
    "gemma4_assistant": "its config has no valid default; it reads another model's states",
    "musicgen": "it writes sound, and AutoModelForCausalLM builds it of the wrong config",
    "musicgen_melody": "it writes sound, and AutoModelForCausalLM builds it of the wrong config",
}


def make_tiny(model_type: str, **settings: Any) -> PreTrainedModel:
    """A model of this type with about a hundred thousand random weights, without dropout."""
    kind = CONFIG_MAPPING[model_type]
    torch.manual_seed(0)
    given = {**SETTINGS.get(model_type, {}), **settings}
    model = AutoModelForCausalLM.from_config(kind(**_merge(_shrink(kind().to_dict()), given)))
    for name, weight in model.named_parameters():
        # As large as trained ones: with those of a fresh model all scores are nearly alike.
        if weight.dim() > 1 and not re.search(r"A_log|norm", name):
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return model.eval()


def _shrink(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config that make it small."""
    small: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    for name, value in config.items():
        if isinstance(value, dict) and ("model_type" in value):
            small[name] = {**value, **_shrink(value)}
        elif name in KINDS_OF_LAYERS and value:
            # each kind that there is, in turn
            small[name] = (list(dict.fromkeys(value)) * LAYERS)[:LAYERS]
        elif isinstance(value, float) and re.search("drop|jitter", name):
            small[name] = 0.0
        elif (
            isinstance(value, float) and value == 1 and re.search("multiplier$|logits?_scal", name)
        ):
            small[name] = 0.5  # of a scale of 1 nobody would see that it was left out
        elif "logit_softcapping" in name:
            small[name] = 3.0
        elif name in SIZE and not isinstance(value, (list, bool)):
            small[name] = SIZE[name]
    if "is_decoder" in config:
        small["is_decoder"] = True
    if config.get("kv_lora_rank"):  # attention through a latent has a key for every head
        small["num_key_value_heads"] = SIZE["num_attention_heads"]
    if config.get("per_layer_config"):
        small["per_layer_config"] = None
    return small


def _merge(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`config` with `changes`, also inside its parts."""
    merged = dict(config)
    for name, value in changes.items():
        inside = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if inside else value
    return merged


# --- the judge
# ---------------------------------------------------------------------------------------------

LENGTHS = (9, 14, 23, 5)  # tokens of the examples: four rows of 23, or two packed ones of 28
WAYS = {"padded": {"batch_size": 4}, "packed": {"batch_size": 2, "pack_to": 28}}
# How near is right, relative. In half precision the gradient of a random model is mostly rounding.
NEAR = {
    "float32": {"loss": 1e-4, "grad_norm": 1e-3},
    "bfloat16": {"loss": 1e-2},
    "float16": {"loss": 1e-2},
}


def make_examples() -> list[Example]:
    """Random tokens above the special ones; the second half of each example is graded."""
    draw = torch.Generator().manual_seed(1)
    examples = []
    for length in LENGTHS:
        ids = torch.randint(5, VOCABULARY, (length,), generator=draw).tolist()
        half = length // 2
        examples.append(Example(ids, [IGNORE_INDEX] * half + ids[half:]))
    return examples


class Padding:
    """All that the loop asks of a tokenizer."""

    pad_token_id = eos_token_id = 0
    eos_token, chat_template = "<eos>", None


def judge(model: PreTrainedModel, examples: list[Example]) -> dict[str, float] | None:
    """Loss and gradient norm of the first step, from each example scored alone by the whole model.

    None where nothing is right: the model cannot score token ids, or a score depends on a later
    token.
    """
    model.train()  # as the loop trains; nothing here has dropout
    total, graded = torch.zeros(()), 0
    try:
        for example in examples:
            ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels)[1:]
            logits = model(input_ids=ids, use_cache=False).logits[0]
            total = total + F.cross_entropy(
                logits[:-1], labels, ignore_index=IGNORE_INDEX, reduction="sum"
            )
            graded += int((labels != IGNORE_INDEX).sum())
            begin = model(input_ids=ids[:, :-2], use_cache=False).logits[0]
            if not torch.allclose(begin, logits[:-2], rtol=1e-3, atol=1e-3):
                return None
    except Exception:  # whatever it is, the model cannot do it; what the loop says is classified
        return None
    (total / graded).backward()
    norms = [weight.grad.norm() for weight in model.parameters() if weight.grad is not None]
    return {"loss": total.item() / graded, "grad_norm": torch.stack(norms).norm().item()}


@dataclass(frozen=True)
class Verdict:
    word: str  # right, refused, silent, or "not built"
    note: str = ""


def classify(
    model: PreTrainedModel, right: dict[str, float] | None, way: str, near: dict[str, float]
) -> Verdict:
    """One step of `train` on a copy of the model, against what the judge found right. An error of
    many lines, or one that is no ValueError, is no refusal."""
    settings = {"warmup_ratio": 0.0, "learning_rate": 1e-4, "max_grad_norm": 1e9, **WAYS[way]}
    try:
        history = train(
            copy.deepcopy(model), Padding(), make_examples(), progress=False, **settings
        )
    except Exception as error:
        refused = type(error) is ValueError and "\n" not in str(error)
        name = "" if refused else f"{type(error).__name__}: "
        return Verdict("refused" if refused else "silent", name + " ".join(str(error).split()))
    (step,) = history.steps
    if right is None:
        return Verdict("silent", f"trained on a loss of {step['loss']:.4f}, where none is right")
    far = [
        f"{name} {step[name]:.4f} instead of {right[name]:.4f}"
        for name, tolerance in near.items()
        if not abs(step[name] - right[name]) <= tolerance * right[name]
    ]
    return Verdict("silent" if far else "right", ", ".join(far))


def try_type(model_type: str, dtype: str = "float32") -> dict[str, Verdict]:
    """The verdict on each way to train this type."""
    if model_type in NOT_BUILT:
        return dict.fromkeys(WAYS, Verdict("not built", NOT_BUILT[model_type]))
    try:
        model = make_tiny(model_type)
    except Exception as error:  # a type of a later transformers
        note = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return dict.fromkeys(WAYS, Verdict("not built", note))
    right = judge(copy.deepcopy(model), make_examples())  # in float32
    model.to(getattr(torch, dtype))
    return {way: classify(model, right, way, NEAR[dtype]) for way in WAYS}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("types", nargs="*", help="model types; without any, all of them")
    parser.add_argument("--dtype", default="float32", choices=list(NEAR))
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    started, counts = time.perf_counter(), {way: Counter() for way in WAYS}
    for model_type in given.types or MODEL_TYPES:
        verdicts = try_type(model_type, given.dtype)
        for way, verdict in verdicts.items():
            counts[way][verdict.word] += 1
        words = "  ".join(f"{way} {verdict.word:9}" for way, verdict in verdicts.items())
        notes = dict.fromkeys(verdict.note for verdict in verdicts.values() if verdict.note)
        print(f"{model_type:25} {words}", *[f"{note:.120}" for note in notes], sep="  ", flush=True)
    print(f"\n{sum(counts['padded'].values())} types, {time.perf_counter() - started:.0f} s")
    for way, count in counts.items():
        print(f"{way}:", ", ".join(f"{number} {word}" for word, number in count.most_common()))
    return int(any(count["silent"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
