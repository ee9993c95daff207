"""Chapter 17b on smollm2-135m: a few GRPO steps on sums, with LoRA (five minutes on one thread).

An answer of at most 16 tokens earns 1 if it ended and its last number is the sum. Drawn at 0.6: at
1 this model is hardly ever right. "Answer in one sentence." was added after a trial without it, in
which 1 of 40 answers to the exam earned anything and none of 32 in two steps: a cold start.
"""

import copy
import random

import torch

from sft_lab.course.results import Row, sweep
from sft_lab.course.reward_runs import numbers_in, rounded, sum_of
from sft_lab.lora import add_lora
from sft_lab.models import load
from sft_lab.records import Conversation
from sft_lab.rollouts import Task, reinforce, sample_groups

NAME, SEEDS = "17b_smollm2", range(3)
HOW = {"temperature": 0.6, "max_new_tokens": 16}
SIZES = {"steps": 8, "prompts_per_step": 4, "samples": 4, "learning_rate": 1e-3}
SILENT = {"role": "system", "content": ""}  # no system turn of the template's own: short rows


def ask_sums() -> list[Conversation]:
    """All sums of two numbers from 2 to 9, in a fixed order; the last turn is for the reward."""
    pairs = [(a, b) for a in range(2, 10) for b in range(2, 10)]
    random.Random(1700).shuffle(pairs)
    return [
        [
            SILENT,
            {"role": "user", "content": f"What is {a} + {b}? Answer in one sentence."},
            {"role": "assistant", "content": f"{a + b}"},
        ]
        for a, b in pairs
    ]


EXAM, PRACTICE = ask_sums()[:20], ask_sums()[20:]


def reward(task: Task, text: str, stopped: bool) -> float:
    """1 for an answer that ended with the sum."""
    return float(stopped and numbers_in(text)[-1:] == [sum_of(task)])


def examine(model, tokenizer, seed: int) -> Row:
    """Two drawn answers to each question of the exam: what they earn, and how many ended."""
    prompts = [task[:-1] for task in EXAM]
    drawn = sample_groups(model, tokenizer, prompts, 2, seed=seed, **HOW)
    pairs = zip(drawn.texts, drawn.stopped, strict=True)
    earned = [reward(EXAM[i // 2], *pair) for i, pair in enumerate(pairs)]
    right = [numbers_in(t)[-1:] == [sum_of(EXAM[i // 2])] for i, t in enumerate(drawn.texts)]
    return {
        "earned": sum(earned) / len(earned),
        "right": sum(right) / len(right),
        "stopped": sum(drawn.stopped) / len(drawn.stopped),
        "said": drawn.texts[:4],
    }


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: Row) -> Row:
        """The exam before and after the steps of one seed."""
        seed = point["seed"]
        model = add_lora(copy.deepcopy(base), rank=8, alpha=16)
        row = {"before": examine(model, tokenizer, seed)}
        how = {**SIZES, **HOW, "seed": seed, "progress": False}
        rows = reinforce(model, tokenizer, PRACTICE, reward, **how)
        row["reward"] = [one["reward"] for one in rows]
        return rounded(row | {"after": examine(model, tokenizer, seed)})

    sweep(NAME, [{"seed": seed} for seed in SEEDS], run, model=base, model_name="smollm2-135m")
