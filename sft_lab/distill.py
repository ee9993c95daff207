"""Station "learn": a student learns a teacher's probabilities instead of its words (chapter 11)."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.arguments import real_number
from sft_lab.examples import Example
from sft_lab.loop.plan import Plan
from sft_lab.losses import graded_logits
from sft_lab.train import learning_rate_at

WARMUP = 0.1  # of the steps, as in `train`


def distillation_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """T² · KL(teacher ‖ student), both softened by the temperature T; the mean over rows, in nats.

    Logits: (N, V), a row for each graded position. The gradient with respect to the student's
    logits is T · (q − p) / N, with q the student's and p the teacher's softened probabilities;
    without T² it would shrink as 1/T². No gradient reaches the teacher. Raises ValueError for other
    shapes, and for no rows: their mean is not a loss. Source: Hinton, Vinyals and Dean 2015.
    """
    temperature = real_number("temperature", temperature, above=0)
    if student_logits.shape != teacher_logits.shape or student_logits.ndim != 2:
        raise ValueError(
            f"logits of the student {tuple(student_logits.shape)} and the teacher "
            f"{tuple(teacher_logits.shape)}: both must be (N, V), of one tokenizer"
        )
    if not len(student_logits):
        raise ValueError("no row of logits: are any tokens of the examples graded?")
    log_q = (student_logits.float() / temperature).log_softmax(dim=-1)
    log_p = (teacher_logits.detach().float() / temperature).log_softmax(dim=-1)
    per_row = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return temperature**2 * per_row.mean()


def distill(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    temperature: float = 1.0,
    learning_rate: float = 3e-4,
    batch_size: int = 16,
    epochs: int = 1,
    seed: int = 0,
    max_grad_norm: float = 1.0,
) -> list[float]:
    """Tune `student` in place towards `teacher` at the graded tokens; returns the loss of each
    step.

    The labels say only where to look: what to say there comes from the teacher, which must have the
    same tokenizer. Batches, learning rate and clipping as in `train`.
    """
    plan = Plan(examples, None, epochs, batch_size, 1, seed)
    torch.manual_seed(seed)  # dropout, where a model or an adapter has it
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.0, weight_decay=0.0)
    warmup = int(WARMUP * plan.total_steps + 0.999)
    was_training, losses = student.training, []
    student.train()
    for step, window in enumerate(plan.windows(0)):
        (batch,) = plan.gather(window, tokenizer.pad_token_id)
        batch = {name: tensor.to(student.device) for name, tensor in batch.items()}
        with torch.no_grad():
            wanted, _ = graded_logits(teacher.eval(), batch)
        scores, _ = graded_logits(student, batch)
        loss = distillation_loss(scores, wanted, temperature=temperature)
        optimizer.param_groups[0]["lr"] = learning_rate_at(
            step, plan.total_steps, peak=learning_rate, warmup_steps=warmup
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    student.train(was_training)
    return losses
