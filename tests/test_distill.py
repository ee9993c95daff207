"""The distillation loss is torch's, TRL's and its own gradient; a student moves to its teacher."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import make_examples, make_model, make_tokenizer
from torch.testing import assert_close

from sft_lab.batches import pad_batch
from sft_lab.distill import distill, distillation_loss
from sft_lab.losses import graded_logits

CASES = 500


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Logits of a student and a teacher, (N, V), and a temperature; some teachers are certain."""
    rng = torch.Generator().manual_seed(seed)
    rows, width = 1 + seed % 5, 2 + seed % 9
    student = 4 * torch.randn(rows, width, generator=rng)
    teacher = 4 * torch.randn(rows, width, generator=rng)
    if seed % 4 == 0:
        teacher[0, 0] = 500.0
    return student, teacher, 0.5 + 4 * torch.rand((), generator=rng).item()


def test_it_is_torchs_kl_divergence_times_the_square_of_the_temperature():
    for seed in range(CASES):
        student, teacher, t = draw(seed)
        wanted = t**2 * F.kl_div(
            (student / t).log_softmax(-1), (teacher / t).softmax(-1), reduction="batchmean"
        )
        assert_close(
            distillation_loss(student, teacher, temperature=t), wanted, rtol=1e-4, atol=1e-5
        )


def test_it_is_trls_loss_at_beta_0_which_leaves_the_square_out():
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    for seed in range(CASES):
        student, teacher, t = draw(seed)
        wanted = GKDTrainer.generalized_jsd_loss(
            student[None], teacher[None], beta=0, temperature=t, reduction="sum"
        ) / len(student)
        ours = distillation_loss(student, teacher, temperature=t) / t**2
        assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_its_gradient_is_t_times_the_difference_of_the_probabilities():
    for seed in range(CASES):
        student, teacher, t = draw(seed)
        student.requires_grad_()
        (gradient,) = torch.autograd.grad(
            distillation_loss(student, teacher, temperature=t), student
        )
        q, p = (student / t).softmax(-1), (teacher / t).softmax(-1)
        assert_close(gradient, t * (q - p).detach() / len(student), rtol=1e-4, atol=1e-6)


def test_it_is_zero_for_equal_logits_and_never_negative():
    for seed in range(50):
        student, teacher, t = draw(seed)
        assert distillation_loss(teacher, teacher, temperature=t).item() == pytest.approx(
            0, abs=1e-5
        )
        assert distillation_loss(student, teacher, temperature=t).item() >= -1e-5


def test_no_gradient_reaches_the_teacher():
    student, teacher, t = draw(1)
    teacher.requires_grad_()
    assert not distillation_loss(student, teacher, temperature=t).requires_grad


@pytest.mark.parametrize(
    ("student", "teacher", "temperature"),
    [
        ((2, 3), (2, 4), 1.0),
        ((2, 3, 4), (2, 3, 4), 1.0),
        ((0, 3), (0, 3), 1.0),
        ((2, 3), (2, 3), 0),
    ],
)
def test_what_cannot_be_compared_is_refused(student, teacher, temperature):
    with pytest.raises(ValueError, match="logits|temperature"):
        distillation_loss(torch.zeros(student), torch.zeros(teacher), temperature=temperature)


def distance(student, teacher, examples) -> float:
    batch = pad_batch(examples, make_tokenizer().pad_token_id)
    with torch.no_grad():
        return distillation_loss(
            graded_logits(student, batch)[0], graded_logits(teacher, batch)[0]
        ).item()


def test_a_student_comes_near_its_teacher_which_stays_as_it_was():
    student, teacher, examples = make_model(seed=0), make_model(seed=1), make_examples(32)
    kept, before = copy.deepcopy(teacher.state_dict()), distance(student, teacher, examples)
    losses = distill(student, teacher, make_tokenizer(), examples, learning_rate=3e-3, epochs=8)
    assert len(losses) == 16 and all(map(math.isfinite, losses))
    assert distance(student, teacher, examples) < 0.6 * before
    assert all(torch.equal(kept[name], value) for name, value in teacher.state_dict().items())
    assert not student.training


def test_the_labels_say_where_to_look_and_not_what_to_say():
    """Other graded tokens at the same places, with the same inputs, give the same student."""
    examples, found = make_examples(16), []
    for shift in (0, 7):
        changed = [
            type(e)(
                e.input_ids,
                [label if label < 0 else 2 + (label + shift) % 50 for label in e.labels],
            )
            for e in examples
        ]
        student = make_model(seed=0)
        found.append(
            distill(student, make_model(seed=1), make_tokenizer(), changed, temperature=2.0)
        )
    assert found[0] == pytest.approx(found[1], rel=1e-4)
