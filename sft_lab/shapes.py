"""Under "spare": what a config alone says of a decoder's size, before any model is loaded.

The counts are those of decoders built like Llama, Qwen2 and Qwen3; tests compare them with the real
classes. Memory (`sft_lab.memory`) and the parameters that a method trains are sums over them.
"""

from transformers import PreTrainedConfig, Qwen2Config, Qwen3Config

KINDS = ("qwen2", "qwen3", "llama")
# name: sizes in this order, from the public config.json of each
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
)
SHAPES = {
    "Qwen3-0.6B": (1024, 28, 16, 8, 128, 3072, 151936, True),
    "Qwen3-1.7B": (2048, 28, 16, 8, 128, 6144, 151936, True),
    "Qwen3-4B": (2560, 36, 32, 8, 128, 9728, 151936, True),
    "Qwen3-8B": (4096, 36, 32, 8, 128, 12288, 151936, False),
    "Qwen2.5-7B": (3584, 28, 28, 4, 128, 18944, 152064, False),
}


def named_config(name: str) -> PreTrainedConfig:
    """The architecture of one of SHAPES as a transformers config, built here: no network, no
    weights."""
    if name not in SHAPES:
        raise ValueError(f"no shape named {name!r}; known: {', '.join(SHAPES)}")
    sizes = dict(zip(SIZES, SHAPES[name], strict=True)) | {"max_position_embeddings": 32768}
    if name.startswith("Qwen3"):
        return Qwen3Config(**sizes)
    del sizes["head_dim"]  # not a setting of Qwen2: there it is the width shared by the heads
    return Qwen2Config(**sizes)


def check_kind(config: PreTrainedConfig) -> None:
    """ValueError for an architecture that is counted otherwise."""
    if config.model_type not in KINDS:
        raise ValueError(
            f"model_type is {config.model_type!r}; only qwen2, qwen3 and llama are counted here"
        )


def head_dim(config: PreTrainedConfig) -> int:
    """Numbers of one attention head; older configs leave it out where heads share the width."""
    given = getattr(config, "head_dim", None)
    return given or config.hidden_size // config.num_attention_heads


def query_width(config: PreTrainedConfig) -> int:
    """Numbers of a token's queries in one layer."""
    return config.num_attention_heads * head_dim(config)


def key_width(config: PreTrainedConfig) -> int:
    """Numbers of a token's keys, and of its values, in one layer: fewer with grouped heads."""
    return config.num_key_value_heads * head_dim(config)


def linear_shapes(config: PreTrainedConfig) -> list[tuple[int, int]]:
    """(out, in) of the linear layers of one decoder layer: q, k, v, o, gate, up, down."""
    width, middle = config.hidden_size, config.intermediate_size
    queries, keys = query_width(config), key_width(config)
    attention = [(queries, width), (keys, width), (keys, width), (width, queries)]
    return [*attention, (middle, width), (middle, width), (width, middle)]


def count_parameters(config: PreTrainedConfig, rank: int = 0) -> dict[str, int]:
    """Numbers in the model: "linear" (the layers' matrices), "embedding" (and an untied head),
    "other" (norms and biases), "lora".

    lora: A and B of this rank beside every linear layer except the head, rank · (in + out) each.
    Raises ValueError for an architecture that is counted otherwise.
    """
    check_kind(config)
    layers, width, matrices = config.num_hidden_layers, config.hidden_size, linear_shapes(config)
    small = 2 * width  # the norms before attention and MLP
    if config.model_type == "qwen3":  # and those of the queries and of the keys of a head
        small += 2 * head_dim(config)
    if config.model_type == "qwen2":  # biases of q, k and v
        small += query_width(config) + 2 * key_width(config)
    tables = 1 if config.tie_word_embeddings else 2
    return {
        "linear": layers * sum(rows * columns for rows, columns in matrices),
        "embedding": tables * config.vocab_size * width,
        "other": layers * small + width,  # the norm after the last layer
        "lora": layers * rank * sum(rows + columns for rows, columns in matrices),
    }
