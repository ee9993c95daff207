"""TRL's GRPOTrainer on a tiny model, to be asked for its advantages and its loss: no run."""

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from tiny import make_tokenizer
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

LOSS_TYPES = {"token": ("dapo", "bnpo"), "answer": ("grpo",), "length": ("dr_grpo",)}


def make_trainer(model: PreTrainedModel, folder: Any, reward: Callable, **settings) -> GRPOTrainer:
    """A trainer in training mode that takes all rows of a call as one batch."""
    args = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        **{"per_device_train_batch_size": 4, "num_generations": 4, **settings},
    )
    prompts = Dataset.from_dict({"prompt": ["w3 w4", "w5 w6 w7"]})
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=args,
        train_dataset=prompts,
        processing_class=make_tokenizer(),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def trl_loss(
    trainer: GRPOTrainer,
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor | None,
    reference_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """`_compute_loss` of log-probabilities that are there already, (N, T): no model is asked."""
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (
        log_probs,
        torch.zeros_like(log_probs).detach(),
        None,
    )
    count, nothing = len(mask), torch.zeros(len(mask), 1, dtype=torch.long)
    inputs = {
        "prompt_ids": nothing,
        "prompt_mask": nothing + 1,
        "completion_ids": torch.zeros(count, mask.shape[1], dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "num_items_in_batch": mask.sum(),
        "old_per_token_logps": old_log_probs,
        "ref_per_token_logps": reference_log_probs,
    }
    return trainer._compute_loss(trainer.model, inputs)
