"""Train atlas-base from nothing: tokenizer, text, model (`make base`); its card has the results.

    python tools/pretrain_base.py                      # the model that ships: seed 0
    python tools/pretrain_base.py --million-tokens 2 --folder build/tiny   # a quick look

Stopped at any moment, the same command goes on from the last checkpoint, to the same weights.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from sft_lab import atlas
from sft_lab.documents import KINDS, documents
from sft_lab.files import check_folder_writable, remove_folder, write_json
from sft_lab.loop.checkpoints import (
    find_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from sft_lab.loop.process import keep_freed_memory, lock_folder
from sft_lab.train import learning_rate_at

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = 2048
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
# How Qwen cuts text before byte-pair merging: contractions, words, single digits, white space.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
        {{- message.content + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
ROWS, ROW_TOKENS, STEPS_PER_CHUNK = 32, 256, 128  # a chunk of text is 1,048,576 tokens
LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY = 4e-3, 100, 0.05


def build_tokenizer(facts: list[atlas.Fact], seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over a sample of the text; control tokens come last, as in Qwen's own."""
    text = documents(facts, seed=f"{seed} tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((next(text) for _ in range(30_000)), trainer)
    tokenizer.add_tokens(
        [AddedToken(t, special="think" not in t, normalized=False) for t in CONTROL_TOKENS]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    assert len(fast) == VOCABULARY, len(fast)
    for text_of_one_token in ("我", "爱", "你", *CONTROL_TOKENS):
        assert len(fast(text_of_one_token).input_ids) == 1, text_of_one_token
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """Qwen3's architecture at about a million parameters, random weights."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            intermediate_size=384,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            dtype="float32",
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def chunk_of_rows(
    facts: list[atlas.Fact], tokenizer: PreTrainedTokenizerFast, seed: int, chunk: int
) -> torch.Tensor:
    """Chunk number `chunk` of the stream, (rows, ROW_TOKENS); <|endoftext|> separates documents."""
    needed = STEPS_PER_CHUNK * ROWS * ROW_TOKENS
    text, ids = documents(facts, seed=f"{seed} chunk {chunk}"), []
    while len(ids) < needed:
        some = [next(text) for _ in range(2_000)]
        for encoding in tokenizer.backend_tokenizer.encode_batch(some, add_special_tokens=False):
            ids += encoding.ids
            ids.append(tokenizer.pad_token_id)
    return torch.tensor(ids[:needed]).view(-1, ROW_TOKENS)


def row_loss(model: Qwen3ForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss of full rows (B, T), nats per token."""
    hidden = model.model(input_ids=rows, use_cache=False).last_hidden_state[:, :-1]
    return F.cross_entropy(model.lm_head(hidden).flatten(0, 1), rows[:, 1:].flatten())


def pretrain(million_tokens: float, seed: int, folder: Path) -> None:
    """Train from nothing, or from the last checkpoint of the same run; save model and tokenizer."""
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts = atlas.split(atlas.load_facts())
    known = parts["train"] + parts["held_out"]  # unknown entities are never written
    tokenizer = build_tokenizer(known, seed)
    model = build_model(tokenizer, seed).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING_RATE,
        betas=(0.9, 0.95),
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    steps = max(1, round(million_tokens * 1e6 / (ROWS * ROW_TOKENS)))
    checkpoint = folder.with_name(folder.name + "-checkpoint")
    run = {
        "seed": seed,
        "steps": steps,
        "facts": len(known),
        "mixture": [share for share, _ in KINDS],
    }
    first = going_on_from(checkpoint, model, optimizer, run)
    started, losses = time.perf_counter(), []
    update = make_update(model, optimizer, steps)
    for step in tqdm(range(first, steps), initial=first, total=steps, unit="step", mininterval=5):
        chunk, position = divmod(step, STEPS_PER_CHUNK)
        if step == first or position == 0:
            rows = chunk_of_rows(known, tokenizer, seed, chunk).to(device)
        losses.append(update(step, rows[position * ROWS : (position + 1) * ROWS]))
        if position == STEPS_PER_CHUNK - 1 and step + 1 < steps:
            tqdm.write(f"step {step + 1}: loss {mean_of_last(losses):.3f}")
            save_checkpoint(checkpoint, model, optimizer, {"run": run, "step": step + 1})
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    summary = {
        **run,
        "tokens": steps * ROWS * ROW_TOKENS,
        "final_loss": round(mean_of_last(losses), 4),
    }
    write_json(folder / "training.json", summary)
    remove_folder(checkpoint)
    minutes = (time.perf_counter() - started) / 60
    print(f"{folder}: {summary}, {minutes:.1f} minutes from step {first}")


def going_on_from(
    checkpoint: Path, model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer, run: dict
) -> int:
    """The step to begin with: 0, or the checkpoint's, whose weights are then in place."""
    if not find_checkpoint(checkpoint):
        return 0
    state = read_state(checkpoint)
    if state["run"] != run:
        raise SystemExit(
            f"{checkpoint} belongs to another run {state['run']}; delete it to start {run}"
        )
    load_checkpoint(checkpoint, model, optimizer)
    print(f"going on from step {state['step']} of {run['steps']}")
    return state["step"]


def make_update(
    model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer, steps: int
) -> Callable[[int, torch.Tensor], float]:
    """(step, rows) -> loss: one AdamW update, compiled where there is a C++ compiler."""
    compiled = shutil.which("c++") is not None
    loss_of = torch.compile(row_loss) if compiled else row_loss
    how = "torch.compile" if compiled else "no torch.compile: there is no C++ compiler"
    print(f"{model.num_parameters():,} parameters, {steps} steps, {model.device}, {how}")

    def update(step: int, rows: torch.Tensor) -> float:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(
                step, steps, peak=LEARNING_RATE, warmup_steps=WARMUP_STEPS
            )
        loss = loss_of(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return update


def mean_of_last(losses: list[float], count: int = 50) -> float:
    return sum(losses[-count:]) / len(losses[-count:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--million-tokens", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "models" / "atlas-base")
    arguments = parser.parse_args()
    check_folder_writable(arguments.folder)
    with lock_folder(arguments.folder):
        pretrain(arguments.million_tokens, arguments.seed, arguments.folder)
