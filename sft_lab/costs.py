"""Under "spare": what a way of tuning costs, from a config alone: training, storage, serving.

Derived in chapter 06. The counts are those of decoders built like Llama, Qwen2 and Qwen3; tests
compare every one with real modules. `sft_lab.memory` predicts the memory of a whole training step.
"""

from typing import NamedTuple

from transformers import PreTrainedConfig

from sft_lab.adapters import count_trained
from sft_lab.shapes import key_width, linear_shapes, query_width

ADAM_BYTES = 8  # AdamW in float32: a mean and a mean of squares for each trained parameter
FLOAT32, BFLOAT16 = 4, 2  # bytes of a number


class Cost(NamedTuple):
    """What a method costs. Operations: a multiplication and an addition of a matrix product count
    as two."""

    trained: int  # parameters
    optimizer_bytes: int  # averages of AdamW
    file_bytes: int  # what is kept for each task, in float32
    cache_bytes: int  # more keys and values for each request, in bfloat16
    operations: int  # more of them for each token that is read or written; LoRA before a merge


def method_cost(method: str, size: int, config: PreTrainedConfig) -> Cost:
    """All five costs of a method of `sft_lab.adapters.METHODS`; errors as in `count_trained`.

    size: rank, width or positions (`sft_lab.adapters.SIZE_NAMES`).
    """
    trained = count_trained(method, size, config)
    positions = size if method in ("prefix", "prompt") else 0
    keys_and_values = config.num_hidden_layers * 2 * key_width(config) * positions
    return Cost(
        trained,
        ADAM_BYTES * trained,
        FLOAT32 * trained,
        BFLOAT16 * keys_and_values,
        count_operations(method, size, config),
    )


def count_operations(method: str, size: int, config: PreTrainedConfig) -> int:
    """Operations in matrix products that the method adds for each token; additions of biases are
    left out."""
    layers, width = config.num_hidden_layers, config.hidden_size
    if method == "LoRA":  # x A, then B: two a parameter
        return 2 * count_trained(method, size, config)
    if method == "adapter":  # two adapters a layer, down and up in each, two operations a weight
        return layers * 2 * 2 * (2 * width * size)
    if method in ("prefix", "prompt"):
        # one score and one weighed value for every position, in every head
        return layers * 2 * 2 * query_width(config) * size
    return 0


def model_operations(config: PreTrainedConfig) -> int:
    """Operations in matrix products of the model itself for each token, without attention: two a
    weight."""
    linear = sum(rows * columns for rows, columns in linear_shapes(config))
    return 2 * (config.num_hidden_layers * linear + config.vocab_size * config.hidden_size)
