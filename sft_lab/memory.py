"""Before renting a card: the memory of one training step, predicted by counting.

A step holds five kinds of bytes: weights, gradients, the optimizer's averages, the activations that
backward will ask for, and the scores of the vocabulary (logits). The counts are those of models
built like Qwen2, Qwen3 and Llama, and of the loops of this course: fused AdamW; full tuning in
float32, or with float32 weights under autocast; LoRA with A and B in float32 beside frozen weights;
"freeze", in which the last layers alone are tuned, in float32 beside frozen ones.
What no tensor holds is not counted: the driver and libraries of a GPU (0.5 to 1 GB), and
fragmentation. `sft_lab.memory_meter` measures the same step; chapter 08 derives and compares.
"""

from typing import NamedTuple

from transformers import PreTrainedConfig

from sft_lab.kernels.head import SCORES_AT_ONCE
from sft_lab.shapes import check_kind, count_parameters, key_width, query_width

PARTS = ("weights", "gradients", "optimizer", "activations", "logits")
METHODS = ("full", "lora", "qlora")  # those that chapter 08 compares
ALL_METHODS = (*METHODS, "freeze")
HEADS, ATTENTION = ("all", "graded"), ("sdpa", "eager")
FLOAT32, HALF = 4, 2  # bytes of a number
ADAMW = 2 * FLOAT32  # its two running averages of each trained number
LINEAR_LAYERS = 7  # of a decoder layer: q, k, v, o, gate, up, down
# Bytes a weight of a 4-bit layer: half a byte, a 1-byte scale for 64 weights, and a 4-byte scale
# for 256 scales. Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs",
# arXiv:2305.14314, double quantization.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


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
    check_kind(config)
    width, full = config.hidden_size, method in ("full", "freeze")
    queries, keys = query_width(config), key_width(config)
    product = HALF if half else FLOAT32  # a number that leaves a matrix product
    # RMSNorm keeps its input and its scale in float32; if its weight is trained, also the
    # normalised input, in the format of what one layer hands to the next
    handed = product if method == "freeze" else FLOAT32
    norm = FLOAT32 * width + (handed * width if full else 0) + FLOAT32
    a_token = {
        "two norms": 2 * norm,
        # in half precision every layer that reads them casts anew: q, k, v, and gate, up
        "inputs of q k v, gate up": width * product * (5 if half else 2),
        "norms of q and k": 0,
        "q k v, rotated": product * (queries + 2 * keys),
        # in half precision LoRA casts its own copy of what the output projection reads
        "attention": product * queries * (2 if half and not full else 1),
        "gate, silu, up, product": product * 4 * config.intermediate_size,
        "inside LoRA": 0 if full else product * rank * LINEAR_LAYERS,
    }
    if config.model_type == "qwen3":
        normed = FLOAT32 + (product if full else 0)
        scales = FLOAT32 * (config.num_attention_heads + config.num_key_value_heads)
        a_token["norms of q and k"] = (queries + keys) * normed + scales
    if attention == "sdpa":
        # one number a row of scores, from which backward makes the row again
        a_token["attention"] += FLOAT32 * config.num_attention_heads
    else:
        # keys and values repeated for every query head that shares them
        a_token["q k v, rotated"] += product * 2 * (queries - keys)
        # softmax is computed in float32; the product with the values reads a half copy of it
        a_token["attention"] += (
            length * config.num_attention_heads * (FLOAT32 + HALF if half else FLOAT32)
        )
    # autocast casts every trained weight, and backward reads the cast again
    counts = count_parameters(config, rank)
    cast = counts["linear" if full else "lora"] // config.num_hidden_layers if half else 0
    kept = {name: tokens * size for name, size in a_token.items()}
    return kept | {"trained weights in half": HALF * cast}


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
    trained_layers: int = 2,
) -> dict[str, dict[str, int]]:
    """The parts, in bytes, at each moment of a step that can be its peak; the settings are those of
    predict_memory."""
    check_settings(
        config, method, head, attention, batch_size, length, rank, graded, trained_layers
    )
    # what lies below the first trained layer keeps nothing for backward
    layers = trained_layers if method == "freeze" else config.num_hidden_layers
    tokens = batch_size * length
    settings = {"method": method, "rank": rank, "half": half, "attention": attention}
    kept = count_layer(config, tokens, length, **settings)
    scored = tokens if head == "all" else round(graded * tokens)
    step = _Step(config, rows=batch_size, length=length, scored=scored, layer=kept, **settings)
    sums = _sum(step, head, trained_layers)
    layer = sum(kept.values())
    # checkpointing keeps the input of each layer, and backward makes one layer at a time again
    held = layers * (sums.stream if checkpointing else layer)
    held += sums.last - (0 if checkpointing else sums.unkept)
    again = layer if checkpointing else 0
    # autocast remembers its casts of the weights until the forward pass ends, although
    # checkpointing drops the rest
    casts = layers * kept["trained weights in half"] if checkpointing else 0
    # the output of model(labels=…) holds all scores until the step is over
    remaining = step.product * tokens * config.vocab_size if head == "all" else 0
    in_forward = held - sums.last + again + casts + sums.forward_inside
    all_gradients = FLOAT32 * sums.trained + sums.tied_gradients
    moments = _score_moments(step, sums, head, held, casts) | {
        "forward, the last layer": (0, in_forward, 0),
        "backward, the last layer": (sums.table_gradient, held + again + sums.inside, remaining),
        "backward, the first layer": (
            sums.first_gradients,
            layer + sums.inside + sums.stream,
            remaining,
        ),
        "backward, the embedding": (all_gradients, sums.stream, remaining),
    }
    static = {"weights": sums.weights, "optimizer": ADAMW * sums.trained}
    names = ("gradients", "activations", "logits")
    return {
        moment: static | dict(zip(names, sizes, strict=True)) for moment, sizes in moments.items()
    }


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
    trained_layers: int = 2,
) -> dict[str, int]:
    """Bytes of each of PARTS at the peak of one training step on rows of `length` tokens without
    padding.

    method: "full", "lora", "qlora" (4-bit layers), or "freeze" (the last `trained_layers` layers
    are tuned; embedding, head and last norm are not). half: bfloat16 or float16 products (full
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
        trained_layers=trained_layers,
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
    trained_layers: int = 1,
) -> None:
    """ValueError for settings that predict_memory and measure_memory do not know."""
    for name, value, known in (
        ("method", method, ALL_METHODS),
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
    if not 1 <= trained_layers <= config.num_hidden_layers:
        raise ValueError(
            f"trained_layers is {trained_layers}; the model has {config.num_hidden_layers} layers"
        )
    check_kind(config)


class _Step(NamedTuple):
    """The settings of a step, and the sizes that every part of the sums needs."""

    config: PreTrainedConfig
    method: str
    rank: int
    half: bool
    attention: str
    rows: int
    length: int
    scored: int  # positions whose scores over the vocabulary are made
    layer: dict[str, int]  # count_layer

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def product(self) -> int:
        """Bytes of a number that leaves a matrix product."""
        return HALF if self.half else FLOAT32

    @property
    def table(self) -> int:
        """Numbers in the vocabulary's table, the embedding or the head."""
        return self.config.vocab_size * self.config.hidden_size


class _Sums(NamedTuple):
    """Bytes in which full tuning and LoRA differ; the moments of a step are the same sums of
    them."""

    weights: int
    trained: int  # numbers that train, not bytes
    stream: int  # what one layer hands to the next
    unkept: int  # of the first layer, what backward never asks for
    last: int  # what the last norm and the head keep
    inside: int  # made and dropped again inside a layer, at its widest moment
    forward_inside: int  # the same, in the forward pass of the last layer
    table_gradient: int
    table_cast: int  # the table in half precision
    chunk_gradient: int  # the table's gradient from one chunk of scores, before it is added
    first_gradients: int  # gradients that are there when backward is in the first layer
    tied_gradients: int  # two gradients of a tied table, beside their sum


def _sum(step: _Step, head: str, trained_layers: int) -> _Sums:
    """The sums of the step's method."""
    if step.method == "full":
        return _sum_full(step)
    if step.method == "freeze":
        return _sum_freeze(step, head, trained_layers)
    return _sum_lora(step, head)


def _sum_full(step: _Step) -> _Sums:
    """Full tuning: weights, gradients and averages in float32."""
    config, counts = step.config, count_parameters(step.config)
    trained, table = sum(counts.values()), step.table
    stream = FLOAT32 * step.tokens * config.hidden_size
    # the norm's input and scale, and the normalised input, which its trained weight asks for
    last_norm = step.tokens * (2 * FLOAT32 * config.hidden_size + FLOAT32)
    # the head's input, and its gradient; in half precision in both formats
    head_input = step.scored * config.hidden_size * (FLOAT32 + HALF if step.half else FLOAT32)
    # two gradients of the MLP's width
    inside = _widest_moment(step, stream, mlp=2 * step.product)
    if step.half:  # a weight's gradient, before it is float32
        inside += HALF * config.hidden_size * config.intermediate_size
    a_layer = counts["linear"] // config.num_hidden_layers
    return _Sums(
        weights=FLOAT32 * trained,
        trained=trained,
        stream=stream,
        unkept=0,
        last=last_norm + head_input,
        inside=inside,
        forward_inside=0,
        table_gradient=FLOAT32 * table,
        table_cast=HALF * table if step.half else 0,
        chunk_gradient=step.product * table,
        # all but those of this layer and of the embedding, which come last; the head's is there
        first_gradients=FLOAT32 * (trained - a_layer - counts["embedding"] + table),
        tied_gradients=2 * FLOAT32 * table if config.tie_word_embeddings else 0,
    )


def _sum_lora(step: _Step, head: str) -> _Sums:
    """LoRA and QLoRA: A and B in float32 train, beside frozen weights."""
    config, counts = step.config, count_parameters(step.config, step.rank)
    trained, linear = counts["lora"], counts["linear"]
    a_weight = NF4_BYTES if step.method == "qlora" else step.product
    frozen = step.product * (counts["embedding"] + counts["other"]) + int(a_weight * linear)
    stream = step.product * step.tokens * config.hidden_size
    last = step.tokens * (FLOAT32 * config.hidden_size + FLOAT32)  # the norm's input and scale
    if head == "graded":  # the head's input and its gradient
        last += 2 * step.product * step.scored * config.hidden_size
    # the update in float32, scaled, and added
    inside = _widest_moment(step, stream, mlp=FLOAT32 + HALF if step.half else 2 * FLOAT32)
    if step.method == "qlora":  # one layer's weight unpacked
        inside += HALF * config.hidden_size * config.intermediate_size
    return _Sums(
        weights=frozen + FLOAT32 * trained,
        trained=trained,
        stream=stream,
        # nothing before the first A and B trains, so the first norm keeps no input
        unkept=FLOAT32 * step.tokens * config.hidden_size,
        last=last,
        inside=inside,
        forward_inside=inside,
        table_gradient=0,
        table_cast=0,
        chunk_gradient=0,
        first_gradients=FLOAT32 * trained,
        tied_gradients=0,
    )


def _sum_freeze(step: _Step, head: str, trained_layers: int) -> _Sums:
    """The last layers train in float32; the rest, with embedding, head and last norm, is frozen."""
    config, counts = step.config, count_parameters(step.config)
    width = config.hidden_size
    # "other" is the norms and biases of the layers, and the last norm
    a_layer = (counts["linear"] + counts["other"] - width) // config.num_hidden_layers
    trained = trained_layers * a_layer
    stream = step.product * step.tokens * width
    last = step.tokens * (FLOAT32 * width + FLOAT32)  # the last norm's input and scale
    if head == "graded":  # the head's input and its gradient
        last += 2 * step.product * step.scored * width
    inside = _widest_moment(step, stream, mlp=2 * step.product)
    if step.half:  # a weight's gradient, before it is float32
        inside += HALF * width * config.intermediate_size
    return _Sums(
        weights=FLOAT32 * trained + step.product * (sum(counts.values()) - trained),
        trained=trained,
        stream=stream,
        # nothing before the first trained norm trains, so it keeps only what its weight asks for
        unkept=FLOAT32 * step.tokens * width,
        last=last,
        inside=inside,
        forward_inside=0,
        table_gradient=0,
        table_cast=0,
        chunk_gradient=0,
        first_gradients=FLOAT32 * (trained - a_layer),
        tied_gradients=0,
    )


def _widest_moment(step: _Step, stream: int, *, mlp: int) -> int:
    """What is made and dropped again inside a layer: in the MLP, `mlp` bytes a token and number of
    its width, or with "eager" where backward goes through the attention scores."""
    inside = step.tokens * step.config.intermediate_size * mlp
    if step.attention == "eager":
        scores = step.rows * step.length * step.length * step.config.num_attention_heads
        gradients = scores * (FLOAT32 + HALF if step.half else 2 * FLOAT32)
        # backward comes to attention when it has let go of what the MLP, its norm and the casts
        # for gate and up (two of five) kept
        dropped = (
            step.layer["gate, silu, up, product"]
            + step.layer["two norms"] // 2
            + step.layer["inputs of q k v, gate up"] * 2 // 5
        )
        inside = max(inside, gradients - dropped)
    return 2 * stream + inside


def _score_moments(step: _Step, sums: _Sums, head: str, held: int, casts: int) -> dict:
    """(gradients, activations, logits) while scores of the vocabulary are alive."""
    held_in_forward = held + casts + sums.table_cast
    # of every score: the head's own, a float32 copy where that is half, and the log-softmax
    forward = step.product + (FLOAT32 if step.half else 0) + FLOAT32
    if head == "all":
        scores = step.scored * step.config.vocab_size
        # in backward the copy is gone; the log-softmax, its gradient and that of the scores
        backward = step.product + 3 * FLOAT32
        return {
            "forward, the loss": (0, held_in_forward, forward * scores),
            "backward, the loss": (0, held + sums.table_cast, backward * scores),
            # the scores and their gradient, and a cast of the table for each of two products
            "backward, the head": (
                sums.table_gradient,
                held + 2 * sums.table_cast,
                2 * step.product * scores,
            ),
        }
    # in chunks, each turned into its gradient at once
    chunk = min(step.scored, max(1, SCORES_AT_ONCE // step.config.vocab_size))
    scores = chunk * step.config.vocab_size
    # the head's own, their gradient in float32, and that cast to half for the products
    turned = step.product + FLOAT32 + (HALF if step.half else 0)
    return {
        "forward, the loss": (sums.table_gradient, held_in_forward, forward * scores),
        "forward, the head": (
            sums.table_gradient,
            held_in_forward + sums.chunk_gradient,
            turned * scores,
        ),
    }
