"""Supervised fine-tuning in one file: PyTorch, transformers, and questions with their answers.

    python examples/sft.py                         # tunes atlas-base on a CPU, under a minute
    python examples/sft.py --data my.jsonl --model FOLDER_OR_HUB_ID --out tuned

my.jsonl: one {"prompt": …, "response": …} a line. Rows with "split": "held_out" are asked before
and after, and never learned; where no row says so, every tenth one is.
"""

import argparse
import json
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, BATCH_SIZE, PEAK, MAX_NORM, SEED = 2, 16, 1e-3, 1.0, 0
IGNORE_INDEX = -100  # the label of a token that is not graded


def read_rows(path: Path) -> tuple[list[dict], list[dict]]:
    """Rows to learn from, and rows to ask."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
            whole = all(rows[-1][key].strip() for key in ("prompt", "response"))
        except (ValueError, TypeError, KeyError, AttributeError):
            whole = False
        if not whole:
            raise ValueError(f'{path}:{number}: no {{"prompt": …, "response": …}}: {line:.60}')
    asked = [row for row in rows if row.get("split") == "held_out"] or rows[::10]
    learned = [row for row in rows if row not in asked]
    if not learned:
        raise ValueError(f"{path} has {len(rows)} rows, and none to learn from: give at least two")
    return learned, asked


def load(name: str) -> tuple:
    """Model and tokenizer, in float32: half precision would round most updates away."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, use_safetensors=True)
    gpus = {"cuda": torch.cuda, "mps": torch.backends.mps}
    gpu = next((name for name, kind in gpus.items() if kind.is_available()), "cpu")
    # any token may pad: the labels, not the ids, say what is graded
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "left"  # a prompt is padded before it, and its answer follows
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    small = model.get_memory_footprint() < 20 * 10**6  # bytes: there a GPU gains nothing
    return model.to("cpu" if small else gpu), tokenizer


def encode(row: dict, tokenizer) -> tuple[list[int], list[int]]:
    """Token ids and labels of a row; the answer and its stop token are graded."""
    text = row["prompt"] + row["response"]
    if forged := [sign for sign in tokenizer.get_added_vocab() if sign in text]:
        raise ValueError(f"{forged} in {text[:60]!r} would end the turn: remove it from the row")
    keys = {"user": "prompt", "assistant": "response"}
    turns = [{"role": role, "content": row[key]} for role, key in keys.items()]
    prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    before, ids = (tokenizer(part, add_special_tokens=False).input_ids for part in (prompt, text))
    start = len(before)
    if ids[:start] != before or tokenizer.eos_token_id not in ids[start:]:
        raise ValueError(f"the chat template parts prompt, answer and {tokenizer.eos_token}")
    end = ids.index(tokenizer.eos_token_id, start) + 1
    return ids[:end], [IGNORE_INDEX] * start + ids[start:end]


def run_batch(model, rows: list[tuple], filler: int) -> tuple[torch.Tensor, int]:
    """Summed loss of the graded tokens of some rows, in nats, and how many they are."""
    longest = max(len(ids) for ids, _ in rows)  # padding on the right disturbs no causal model
    ids = torch.tensor([ids + [filler] * (longest - len(ids)) for ids, _ in rows])
    labels = [marks + [IGNORE_INDEX] * (longest - len(marks)) for _, marks in rows]
    targets = torch.tensor(labels, device=model.device)[:, 1:]  # row t predicts token t + 1
    hidden = model.get_decoder()(ids.to(model.device), use_cache=False).last_hidden_state
    graded = targets != IGNORE_INDEX
    # only graded positions meet the output head: the scores of the others would be thrown away
    logits = model.get_output_embeddings()(hidden[:, :-1][graded])
    return F.cross_entropy(logits, targets[graded], reduction="sum"), int(graded.sum())


def sft(model, examples: list[tuple], filler: int) -> None:
    """Fine-tune all weights of the model in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.0)
    total = EPOCHS * math.ceil(len(examples) / BATCH_SIZE)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.1 * total), total)
    model.train()
    for epoch in range(EPOCHS):
        losses = []
        order = random.Random(f"{SEED} {epoch}").sample(examples, len(examples))
        for first in range(0, len(order), BATCH_SIZE):
            loss, graded = run_batch(model, order[first : first + BATCH_SIZE], filler)
            (loss / graded).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item() / graded)
        print(f"epoch {epoch + 1}: {sum(losses) / len(losses):.3f} nats per graded token")


@torch.inference_mode()
def examine(name: str, model, tokenizer, rows: list[dict]) -> None:
    """Print some greedy answers, and the share that equals the expected ones."""
    model.eval()
    right = 0
    for first in range(0, len(rows), 50):
        part = rows[first : first + 50]
        turns = [[{"role": "user", "content": row["prompt"]}] for row in part]
        texts = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        ids = model.generate(**inputs.to(model.device), max_new_tokens=60, do_sample=False)
        new = ids[:, inputs.input_ids.shape[1] :]  # behind the prompts
        answers = tokenizer.batch_decode(new, skip_special_tokens=True)
        print(f"{name}: {part[0]['prompt']} → {answers[0].strip()[:70]!r}")
        for answer, row in zip(answers, part, strict=True):
            right += answer.strip() == row["response"].strip()
    print(f"{name}: {right} of {len(rows)} held-out questions right, {right / len(rows):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "questions.jsonl")
    parser.add_argument("--model", default=str(ROOT / "data" / "models" / "atlas-base"))
    parser.add_argument("--out", type=Path, help="a new folder for the tuned model")
    options = parser.parse_args()
    try:
        if options.out and options.out.exists():
            raise ValueError(f"{options.out} is there already: name a new folder")
        learned, asked = read_rows(options.data)
        model, tokenizer = load(options.model)
        examples = [encode(row, tokenizer) for row in learned]
    except (OSError, ValueError) as error:
        parser.error(f"{options.model}, {options.data}: {' '.join(str(error).split())}")
    examine("before", model, tokenizer, asked)
    sft(model, examples, tokenizer.pad_token_id)
    examine("after", model, tokenizer, asked)
    if options.out:
        model.save_pretrained(options.out)
        tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
