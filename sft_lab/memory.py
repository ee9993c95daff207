"""Before renting a card: the memory of one training step, predicted by counting.

A step holds five kinds of bytes: weights, gradients, the optimizer's averages, the activations that
backward will ask for, and the scores of the vocabulary (logits). The counts are those of models
built like Qwen2, Qwen3 and Llama, and of the loops of this course: fused AdamW; full tuning in
float32, or with float32 weights under autocast; LoRA with A and B in float32 beside frozen weights.
What no tensor holds is not counted: the driver and libraries of a GPU (0.5 to 1 GB), and
fragmentation. `sft_lab.memory_meter` measures the same step; chapter 08 derives and compares.
"""

from transformers import PreTrainedConfig, Qwen2Config, Qwen3Config

from sft_lab.kernels.head import SCORES_AT_ONCE

PARTS = ("weights", "gradients", "optimizer", "activations", "logits")
METHODS = ("full", "lora", "qlora")
HEADS, ATTENTION = ("all", "graded"), ("sdpa", "eager")
# name: (hidden, layers, heads, key-value heads, head_dim, intermediate, vocabulary, tied), from the
# public config.json
SHAPES = {
    "Qwen3-0.6B": (1024, 28, 16, 8, 128, 3072, 151936, True),
    "Qwen3-1.7B": (2048, 28, 16, 8, 128, 6144, 151936, True),
    "Qwen3-4B": (2560, 36, 32, 8, 128, 9728, 151936, True),
    "Qwen3-8B": (4096, 36, 32, 8, 128, 12288, 151936, False),
    "Qwen2.5-7B": (3584, 28, 28, 4, 128, 18944, 152064, False),
}
# Bytes a weight of a 4-bit layer: half a byte, a 1-byte scale for 64 weights, and a 4-byte scale
# for 256 scales. Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs",
# arXiv:2305.14314, double quantization.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def named_config(name: str) -> PreTrainedConfig:
    """The architecture of one of SHAPES as a transformers config, built here: no network, no
    weights."""
    if name not in SHAPES:
        raise ValueError(f"no shape named {name!r}; known: {', '.join(SHAPES)}")
    hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary, tied = SHAPES[name]
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 32768,
    }
    return (
        Qwen3Config(head_dim=head_dim, **sizes)
        if name.startswith("Qwen3")
        else Qwen2Config(**sizes)
    )


def count_weights(config: PreTrainedConfig, rank: int = 0) -> dict[str, int]:
    """Numbers in the model: "linear" (the layers' matrices), "embedding" (and an untied head),
    "other", "lora".

    lora: A and B of this rank beside every linear layer except the head, rank · (in + out) each.
    Raises ValueError for an architecture that is counted otherwise.
    """
    if config.model_type not in ("qwen2", "qwen3", "llama"):
        raise ValueError(
            f"model_type is {config.model_type!r}; only qwen2, qwen3 and llama are counted here"
        )
    D, L, queries, keys = config.hidden_size, config.num_hidden_layers, *_widths(config)
    matrices = [
        (D, queries),
        (D, keys),
        (D, keys),
        (queries, D),
        *[(D, config.intermediate_size)] * 3,
    ]
    norms = 2 * D + (
        2 * queries // config.num_attention_heads if config.model_type == "qwen3" else 0
    )
    bias = queries + 2 * keys if config.model_type == "qwen2" else 0
    return {
        "linear": L * sum(inputs * outputs for inputs, outputs in matrices),
        "embedding": config.vocab_size * D * (1 if config.tie_word_embeddings else 2),
        "other": L * (norms + bias) + D,
        "lora": L * rank * sum(inputs + outputs for inputs, outputs in matrices),
    }


def count_layer(
    config: PreTrainedConfig,
    tokens: int,
    length: int,
    *,
    method: str,
    rank: int,
    half: bool,
    attention: str = "sdpa",
) -> dict[str, int]:
    """Bytes of what autograd keeps of one decoder layer between forward and backward, by kind of
    tensor.

    tokens: B · T. "sdpa" keeps no T x T scores, "eager" does. half: bfloat16 products, otherwise
    float32.
    """
    D, inner, (queries, keys) = config.hidden_size, config.intermediate_size, _widths(config)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    full, e = (
        method == "full",
        2 if half else 4,
    )  # e: bytes of a number that leaves a matrix product
    counts = count_weights(config, 0 if full else rank)
    cast = (counts["linear"] if full else counts["lora"]) // config.num_hidden_layers if half else 0
    kept = {
        # RMSNorm keeps its input in float32; if its weight is trained, also the normalised input
        "two norms": tokens * 2 * (4 * D * (2 if full else 1) + 4),
        # in half precision every layer that reads them casts anew: q, k, v, and gate, up
        "inputs of q k v, gate up": tokens * D * e * (5 if half else 2),
        "norms of q and k": 0,
        "q k v, rotated": tokens * e * (queries + 2 * keys),
        "attention": tokens
        * e
        * queries
        * (2 if half and not full else 1),  # LoRA casts its own copy
        "gate, silu, up, product": tokens * e * 4 * inner,
        "inside LoRA": 0 if full else tokens * e * rank * 7,
        "trained weights in half": 2 * cast,
    }
    if config.model_type == "qwen3":
        kept["norms of q and k"] = tokens * (
            (queries + keys) * (4 + (e if full else 0)) + 4 * (heads + kv_heads)
        )
    if attention == "sdpa":
        kept["attention"] += (
            tokens * 4 * heads
        )  # one number a row of scores, from which backward makes it again
    else:
        kept["q k v, rotated"] += (
            tokens * e * 2 * (queries - keys)
        )  # keys and values repeated for every query head
        kept["attention"] += (
            tokens * length * heads * (6 if half else 4)
        )  # softmax in float32, and its half copy
    return kept


def predict_moments(
    config: PreTrainedConfig,
    *,
    method: str = "lora",
    rank: int = 16,
    batch_size: int = 1,
    length: int = 2048,
    half: bool = True,
    checkpointing: bool = False,
    head: str = "all",
    graded: float = 1.0,
    attention: str = "sdpa",
) -> dict[str, dict[str, int]]:
    """The parts, in bytes, at each moment of a step that can be its peak; the settings are those of
    predict_memory."""
    check_settings(config, method, head, attention, batch_size, length, rank, graded)
    N, D, V, L = (
        batch_size * length,
        config.hidden_size,
        config.vocab_size,
        config.num_hidden_layers,
    )
    full, e = (
        method == "full",
        2 if half else 4,
    )  # e: bytes of a number that leaves a matrix product
    counts = count_weights(config, 0 if full else rank)
    linear, base = counts["linear"], counts["linear"] + counts["embedding"] + counts["other"]
    trained, table = base if full else counts["lora"], V * D
    frozen = e * (base - linear) + (int(linear * NF4_BYTES) if method == "qlora" else e * linear)
    static = {"weights": 4 * base if full else frozen + 4 * trained, "optimizer": 8 * trained}
    kept = count_layer(config, N, length, method=method, rank=rank, half=half, attention=attention)
    layer, stream = (
        sum(kept.values()),
        N * D * (4 if full else e),
    )  # stream: what one layer hands to the next
    scored = N if head == "all" else round(graded * N)
    last = N * (4 * D + 4) + (N * 4 * D if full else 0)  # the last norm
    if head == "graded" or full:
        last += (
            scored * D * ((6 if half else 4) if full else 2 * e)
        )  # the head's input, and its gradient or its cast
    # autocast remembers its casts of the weights until the forward pass ends, although
    # checkpointing drops the rest
    casts = L * kept["trained weights in half"] if checkpointing else 0
    held = (L * stream if checkpointing else L * layer - (0 if full else 4 * N * D)) + last
    # The widest moment inside a layer. Full: two gradients of the MLP's width. LoRA: its update
    # cast, scaled, added.
    inside = 2 * stream + N * config.intermediate_size * (2 * e if full else 6 if half else 8)
    if (
        attention == "eager"
    ):  # or in backward through the scores: two gradients of them, when the MLP's part is gone
        gone = (
            kept["gate, silu, up, product"]
            + kept["two norms"] // 2
            + kept["inputs of q k v, gate up"] * 2 // 5
        )
        scores = batch_size * length * length * config.num_attention_heads * (6 if half else 8)
        inside = max(inside, 2 * stream + scores - gone)
    if method == "qlora" or (
        full and half
    ):  # one layer's weight unpacked, or its gradient before it is float32
        inside += 2 * D * config.intermediate_size
    anew = layer if checkpointing else 0  # the layer that backward is computing a second time
    table_cast = 2 * table if full and half else 0
    if (
        head == "all"
    ):  # bytes of a score: the head's own, float32, softmax; in backward two gradients besides
        losses = {
            "forward, the loss": (held + casts + table_cast, 0, 10 if half else 8),
            "backward, the loss": (held + table_cast, 0, 14 if half else 16),
            "backward, the head": (held + 2 * table_cast, 4 * table if full else 0, 2 * e),
        }
        remaining = N * V * e  # the model's output holds the scores until the step is over
    else:  # in chunks, each turned into its gradient at once
        chunk = min(scored, max(1, SCORES_AT_ONCE // V))
        losses = {
            "forward, the loss": (
                held + casts + table_cast,
                4 * table if full else 0,
                (10 if half else 8) * chunk / scored,
            ),
            "forward, the head": (
                held + casts + table_cast + (e * table if full else 0),
                4 * table if full else 0,
                8 * chunk / scored,
            ),
        }
        remaining = 0
    moments = {
        name: {
            "gradients": gradients,
            "activations": activations,
            "logits": round(scored * V * size),
        }
        for name, (activations, gradients, size) in losses.items()
    }
    head_gradient, tied = 4 * table if full else 0, full and config.tie_word_embeddings
    moments["forward, the last layer"] = {
        "gradients": 0,
        "activations": held - last + anew + casts + (0 if full else inside),
        "logits": 0,
    }
    moments["backward, the last layer"] = {
        "gradients": head_gradient,
        "activations": held + anew + inside,
        "logits": remaining,
    }
    moments["backward, the first layer"] = {
        "gradients": 4 * (trained - linear // L - counts["embedding"] + table)
        if full
        else 4 * trained,
        "activations": layer + inside + stream,
        "logits": remaining,
    }
    moments["backward, the embedding"] = {  # a tied table has two gradients here, and their sum
        "gradients": 4 * trained + (2 * head_gradient if tied else 0),
        "activations": stream,
        "logits": remaining,
    }
    return {name: static | moment for name, moment in moments.items()}


def predict_memory(
    config: PreTrainedConfig,
    *,
    method: str = "lora",
    rank: int = 16,
    batch_size: int = 1,
    length: int = 2048,
    half: bool = True,
    checkpointing: bool = False,
    head: str = "all",
    graded: float = 1.0,
    attention: str = "sdpa",
) -> dict[str, int]:
    """Bytes of each of PARTS at the peak of one training step on rows of `length` tokens without
    padding.

    method: "full", "lora" or "qlora" (4-bit layers). half: bfloat16 or float16 products (full
    tuning then holds its weights in float32). checkpointing: keep the input of every layer, compute
    the layer again in backward. head: "all" scores every position, as model(labels=…) does;
    "graded" those that are graded, a share `graded` of them, in chunks, as `sft_lab.train` does.
    attention: "sdpa" never builds the T x T scores, "eager" does.
    """
    moments = predict_moments(
        config,
        method=method,
        rank=rank,
        batch_size=batch_size,
        length=length,
        half=half,
        checkpointing=checkpointing,
        head=head,
        graded=graded,
        attention=attention,
    )
    peak = max(moments.values(), key=lambda parts: sum(parts.values()))
    return {part: peak[part] for part in PARTS}


def check_settings(
    config: PreTrainedConfig,
    method: str,
    head: str,
    attention: str,
    batch_size: int,
    length: int,
    rank: int,
    graded: float,
) -> None:
    """ValueError for settings that predict_memory and measure_memory do not know."""
    for name, value, known in (
        ("method", method, METHODS),
        ("head", head, HEADS),
        ("attention", attention, ATTENTION),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    for name, value in (("batch_size", batch_size), ("length", length), ("rank", rank)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if not 0 < graded <= 1:
        raise ValueError(
            f"graded is {graded}; it is the share of the positions that are graded, above 0 and "
            "up to 1"
        )
    if config.model_type not in ("qwen2", "qwen3", "llama"):
        raise ValueError(
            f"model_type is {config.model_type!r}; only qwen2, qwen3 and llama are counted here"
        )


def _widths(config: PreTrainedConfig) -> tuple[int, int]:
    """Width of all queries of a token, and of all its keys."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_attention_heads * size, config.num_key_value_heads * size
