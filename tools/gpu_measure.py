"""The measurements of `make gpu` (tools/gpu.py): each builds its model, trains some steps, and
returns its figures."""

import copy
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from sft_lab.batches import join_rows, pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.kernels.head import HeadLoss
from sft_lab.loop.update import mixed_precision, optimizer_step
from sft_lab.lora import add_lora
from sft_lab.models import ATLAS_FOLDER, ModelError
from sft_lab.shapes import count_parameters, query_width

if TYPE_CHECKING:  # slow to import, and only one measurement needs it
    from trl import SFTConfig

RANK, WARMUP, STEPS = 16, 3, 6


def matrix_ceiling(device: torch.device, dtype: torch.dtype, size: int, repeats: int = 10) -> float:
    """Operations a second of a product of two square matrices."""
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    return 2 * size**3 / median_seconds(lambda: a @ b, device, repeats)


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """Median seconds of one call, the device's queue empty before and after."""
    seconds = []
    for _ in range(3 + repeats):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def operations_a_token(
    config: PreTrainedConfig, length: int, method: str, graded: float = 1.0
) -> float:
    """Operations of a training step for each token of a row of `length` tokens (convention: above).

    Qwen3-0.6B at 2,048 tokens: 4.28e9 for full tuning, 3.15e9 for LoRA of rank 16.
    """
    counts = count_parameters(config, RANK)
    matrices = counts["linear"] + graded * config.vocab_size * config.hidden_size
    # q k^T and weights times v
    scores = 4 * length / 2 * query_width(config) * config.num_hidden_layers
    return 3 * scores + (6 * matrices if method == "full" else 4 * matrices + 6 * counts["lora"])


def build(
    config: PreTrainedConfig,
    method: str,
    dtype: torch.dtype,
    device: torch.device,
    attention: str = "sdpa",
    checkpointing: bool = False,
    rank: int = RANK,
) -> PreTrainedModel:
    """The architecture with random weights: float32 for full tuning, frozen in `dtype` beside
    LoRA."""
    config = copy.deepcopy(config)
    config._attn_implementation = attention
    with device:
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32 if method == "full" else dtype
        )
        if method == "lora":
            add_lora(model, rank=rank)
    if checkpointing:
        model.activation_checkpointing_enable()
    return model.train()


def random_rows(
    config: PreTrainedConfig, rows: int, length: int, graded: float, seed: int
) -> dict[str, torch.Tensor]:
    """One document a row, random tokens, the last `graded` share of each row graded."""
    ids = torch.randint(
        1000 % config.vocab_size,
        config.vocab_size,
        (rows, length),
        generator=torch.Generator().manual_seed(seed),
    )
    labels = ids.clone()
    labels[:, : round((1 - graded) * length)] = IGNORE_INDEX
    return {"input_ids": ids, "labels": labels}


def measure_steps(
    config: PreTrainedConfig,
    batches: list[dict[str, torch.Tensor]],
    *,
    method: str,
    device: torch.device,
    dtype: torch.dtype,
    attention: str = "sdpa",
    head: str = "graded",
    checkpointing: bool = False,
    compiled: bool = False,
    fused: bool = True,
    rank: int = RANK,
) -> dict:
    """Tokens/s, seconds a step and peak memory of sft_lab's update on these batches in turn."""
    model = build(config, method, dtype, device, attention, checkpointing, rank)
    if compiled:
        model.get_decoder().compile()  # the part that graded_loss calls
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, fused=fused)
    update = optimizer_step if head == "graded" else all_scores_step
    with mixed_precision(model) as (autocast, scaler):
        if method == "full" and dtype != torch.float32:
            # the weights are float32 already, as mixed_precision makes those of a half-precision
            # model, so it cannot tell which format the products shall have
            autocast = torch.autocast(device.type, dtype=dtype)
            scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        for number in range(WARMUP + STEPS):
            if number == WARMUP:
                start_peak(device)
                wait(device)
                started = time.perf_counter()
            update(
                model,
                optimizer,
                parameters,
                [batches[number % len(batches)]],
                max_grad_norm=1.0,
                step=number,
                autocast=autocast,
                scaler=scaler,
            )
        wait(device)
        seconds = time.perf_counter() - started
    return speed_and_peak(batches, seconds, device)


def all_scores_step(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    batches: list[dict[str, torch.Tensor]],
    *,
    max_grad_norm: float,
    step: int,
    autocast: torch.autocast,
    scaler: torch.amp.GradScaler,
) -> None:
    """An update as optimizer_step's, through model(labels=…), which holds the scores of every
    position."""
    (batch,) = batches
    with autocast:
        on_device = {name: tensor.to(parameters[0].device) for name, tensor in batch.items()}
        loss = model(**on_device, use_cache=False).loss
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def speed_and_peak(
    batches: list[dict[str, torch.Tensor]], seconds: float, device: torch.device
) -> dict:
    """The figures of STEPS steps after WARMUP, on these batches in turn."""
    timed = range(WARMUP, WARMUP + STEPS)
    tokens = sum(real_tokens(batches[number % len(batches)]) for number in timed)
    return {
        "tokens_per_second": tokens / seconds,
        "seconds_a_step": seconds / STEPS,
        "peak_gib": read_peak(device),
    }


def real_tokens(batch: dict[str, torch.Tensor]) -> int:
    return (
        int(batch["attention_mask"].sum())
        if "attention_mask" in batch
        else batch["input_ids"].numel()
    )


def measure_trl(
    config: PreTrainedConfig,
    batches: list[dict[str, torch.Tensor]],
    *,
    method: str,
    device: torch.device,
    dtype: torch.dtype,
) -> dict:
    """The same of TRL's SFTTrainer at its best settings here: half precision, no checkpointing,
    fused AdamW, its default loss, which never holds all scores; the same rows in the same order."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTTrainer

    class Clock(TrainerCallback):
        """The seconds between the end of step WARMUP and the end of the last one."""

        def on_step_end(self, args, state, control, **rest) -> None:
            if state.global_step == WARMUP:
                start_peak(device)
            if state.global_step in (WARMUP, WARMUP + STEPS):
                wait(device)
                seconds.append(time.perf_counter())

    seconds: list[float] = []
    order = [batches[number % len(batches)] for number in range(WARMUP + STEPS)]
    rows = [
        {"input_ids": ids.tolist(), "completion_mask": (labels != IGNORE_INDEX).long().tolist()}
        for batch in order
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    ]
    model, lora = build(config, "full", dtype, device), None
    if method == "lora":
        lora = LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear")
        model.to(dtype)
    # any tokenizer will do: it only pads
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ATLAS_FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        SFTTrainer(
            model=model,
            args=trl_settings(folder, len(order), len(rows) // len(order), device, dtype),
            train_dataset=Dataset.from_list(rows),
            peft_config=lora,
            processing_class=tokenizer,
            callbacks=[Clock()],
        ).train()
    return speed_and_peak(batches, seconds[1] - seconds[0], device)


def trl_settings(
    folder: str, steps: int, rows: int, device: torch.device, dtype: torch.dtype
) -> "SFTConfig":
    """TRL's best settings for `steps` steps of `rows` rows, with nothing written or shown."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=folder,
        use_cpu=device.type == "cpu",
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        activation_checkpointing=False,
        optim="adamw_torch_fused",
        learning_rate=1e-5,
        max_steps=steps,
        per_device_train_batch_size=rows,
        train_sampling_strategy="sequential",
        max_length=None,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        completion_only_loss=True,
    )


def measure_head(
    width: int, vocabulary: int, tokens: int, *, device: torch.device, dtype: torch.dtype
) -> dict:
    """The loss head with the gradients of states and weight: sft_lab's in chunks and torch's at
    once, as multiples of the time of the three bare matrix products."""
    weight = (torch.randn(vocabulary, width, device=device) * 0.02).to(dtype).requires_grad_()
    hidden = torch.randn(tokens, width, device=device).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), device=device)
    part = min(tokens, 2048)  # the bare products in slices too: all scores may not fit

    def products() -> None:
        with torch.no_grad():
            for start in range(0, tokens, part):
                scores = hidden[start : start + part] @ weight.t()
                scores @ weight
                scores.t() @ hidden[start : start + part]

    def ours() -> None:
        HeadLoss.apply(hidden, weight, targets, 1 / tokens)[0].backward()
        hidden.grad = weight.grad = None

    def torchs() -> None:
        F.cross_entropy((hidden @ weight.t()).float(), targets).backward()
        hidden.grad = weight.grad = None

    bare, result = median_seconds(products, device), {}
    for name, run in (("in chunks", ours), ("all at once", torchs)):
        start_peak(device)
        result[name] = {
            "times_bare": median_seconds(run, device) / bare,
            "peak_gib": read_peak(device),
        }
    return {"width": width, "tokens": tokens, "bare_seconds": bare, **result}


def measure_packing(config: PreTrainedConfig, rows: int, length: int, **settings) -> dict:
    """LoRA on examples of 100 to `length` tokens: packed into rows, and padded in random order;
    real tokens/s."""
    rng = random.Random(0)
    lengths = [int(length ** rng.uniform(0.6, 1.0)) for _ in range(16 * rows)]
    examples = []
    for size in lengths:
        ids = [rng.randrange(1000 % config.vocab_size, config.vocab_size) for _ in range(size)]
        examples.append(Example(ids, [IGNORE_INDEX, *ids[1:]]))
    packed = pack(examples, length)
    filled = [join_rows(packed[i : i + rows], 0) for i in range(0, len(packed) - rows + 1, rows)]
    padded = [
        pad_batch(examples[i : i + rows], 0) for i in range(0, len(examples) - rows + 1, rows)
    ]
    share = sum(map(real_tokens, padded)) / sum(batch["input_ids"].numel() for batch in padded)
    result = {"real_tokens_in_padded_batches": share}
    for name, batches in (("padded", padded), ("packed", filled)):
        result[name] = attempt(
            lambda batches=batches: measure_steps(config, batches, method="lora", **settings)
        )
    return result


def attempt(run: Callable[[], dict]) -> dict:
    """The result, or what went wrong as {"failed": …}: a setting that does not fit this card is a
    finding too."""
    try:
        return run()
    except (
        RuntimeError,
        ImportError,
        ValueError,
        ModelError,
    ) as error:  # OutOfMemoryError is a RuntimeError
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]:.200}"}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def start_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def read_peak(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
