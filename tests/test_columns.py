"""A new column changes nothing until it trains, nothing else trains, and with the column off the
old model answers as before; it trains, packs and generates as a model does."""

import copy

import pytest
import torch
from tiny import PAD, make_examples, make_model, make_tokenizer
from tolerances import LOGITS, assert_same_answer
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel

from sft_lab.arguments import SettingError
from sft_lab.batches import pad_batch
from sft_lab.chat import continue_ids
from sft_lab.columns import add_column, use_column
from sft_lab.forgetting import ewc, l2_to_start
from sft_lab.losses import graded_logits
from sft_lab.train import evaluate, train

pytestmark = pytest.mark.numeric

TOKENIZER = make_tokenizer()
EXAMPLES, OTHERS = make_examples(24), make_examples(24, seed=5)
RUN = {"batch_size": 8, "learning_rate": 1e-2, "progress": False, "epochs": 4}
PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4], [11]]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [20, 21, 22, 23, 24, 25, 26]])
every_architecture = pytest.mark.parametrize("architecture", ["qwen3", "llama"])


@torch.no_grad()
def scores(model) -> torch.Tensor:
    return model(IDS).logits


def with_two_columns(architecture: str = "qwen3"):
    """Two tasks, a column each: the second of them narrower."""
    model = add_column(make_model(architecture), width=16)
    train(model, TOKENIZER, EXAMPLES, **RUN)
    train(add_column(model, width=8, seed=1), TOKENIZER, OTHERS, **RUN)
    return model


@every_architecture
def test_a_new_column_begins_as_the_old_model(architecture):
    model = make_model(architecture)
    before = scores(model)
    assert_close(scores(add_column(model, width=16)), before, rtol=0, atol=0)
    assert_close(scores(add_column(model, width=8)), before, rtol=0, atol=0)


@every_architecture
def test_switched_off_the_old_model_and_each_old_column_answer_as_before(architecture):
    plain = make_model(architecture)
    model = add_column(copy.deepcopy(plain), width=16)
    train(model, TOKENIZER, EXAMPLES, **RUN)
    first = scores(model)
    assert (first - scores(plain)).abs().max() > 0.1
    train(add_column(model, width=8), TOKENIZER, OTHERS, **RUN)
    second = scores(model)
    assert (second - scores(plain)).abs().max() > 0.1
    for number, wanted in ((0, scores(plain)), (1, first), (2, second), (0, scores(plain))):
        assert torch.equal(scores(use_column(model, number)), wanted)
    answers = [continue_ids(one, TOKENIZER, PROMPTS, max_new_tokens=8) for one in (plain, model)]
    assert answers[0] == answers[1]


@every_architecture
def test_only_the_weights_of_the_active_column_train(architecture):
    model = with_two_columns(architecture)
    for number in (0, 1, 2):
        use_column(model, number)
        trains = {name for name, weight in model.named_parameters() if weight.requires_grad}
        place = f"columns.columns.{number - 1}."
        assert trains == {n for n, _ in model.named_parameters() if n.startswith(place)}
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    train(use_column(model, 1), TOKENIZER, OTHERS, **RUN)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) == (not name.startswith("columns.columns.0."))
    with pytest.raises(ValueError, match="everything is frozen"):
        train(use_column(model, 0), TOKENIZER, OTHERS, **RUN)


def test_a_column_learns_its_task_and_the_next_one_another():
    model = make_model()
    before = [evaluate(model, TOKENIZER, rows)["loss"] for rows in (EXAMPLES, OTHERS)]
    settings = RUN | {"epochs": 20}
    train(add_column(model, width=16), TOKENIZER, EXAMPLES, **settings)
    first = evaluate(model, TOKENIZER, EXAMPLES)["loss"]
    train(add_column(model, width=16), TOKENIZER, OTHERS, **settings)
    second = evaluate(model, TOKENIZER, OTHERS)["loss"]
    assert first < 0.7 * before[0] and second < 0.7 * before[1]
    assert evaluate(use_column(model, 1), TOKENIZER, EXAMPLES)["loss"] == pytest.approx(first)


def test_every_weight_of_a_column_has_a_gradient_once_it_speaks():
    model = with_two_columns()
    logits, targets = graded_logits(model, pad_batch(OTHERS, PAD))
    torch.nn.functional.cross_entropy(logits, targets).backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None and bool(weight.grad.any())) == weight.requires_grad, name


def test_a_later_column_looks_at_the_model_and_at_the_column_before_it():
    model = with_two_columns()
    wanted = scores(model)
    _, second = model.columns.columns
    for place in (0, 1):
        with torch.no_grad():
            kept = second.lateral_gates[:, place].clone()
            second.lateral_gates[:, place] = 0
        assert (scores(model) - wanted).abs().max() > 1e-3
        with torch.no_grad():
            second.lateral_gates[:, place] = kept
    with torch.no_grad():
        second.gate.zero_()  # the gate shut: the old model
    assert torch.equal(scores(model), scores(use_column(model, 0)))


@every_architecture
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}])
def test_it_generates_with_a_cache_in_a_batch_what_it_generates_without(architecture, settings):
    model = with_two_columns(architecture)
    settings = {"max_new_tokens": 8, **settings}
    for number in (1, 2):
        use_column(model, number)
        batch = continue_ids(model, TOKENIZER, PROMPTS, **settings)
        for prompt, answer in zip(PROMPTS, batch, strict=True):
            (alone,) = continue_ids(model, TOKENIZER, [prompt], use_cache=False, **settings)
            if settings.get("num_beams"):
                assert alone == answer
            else:
                assert_same_answer(model, prompt, alone, answer)


def test_a_column_sees_no_padding_and_no_later_token():
    model = with_two_columns()
    examples = make_examples(6, seed=3)
    together, _ = graded_logits(model, pad_batch(examples, PAD))
    alone = [graded_logits(model, pad_batch([example], PAD))[0] for example in examples]
    assert_close(together, torch.cat(alone), **LOGITS)
    changed = IDS.clone()
    changed[:, 5:] = 40
    with torch.no_grad():
        assert_close(model(changed).logits[:, :5], scores(model)[:, :5], **LOGITS)


def test_packed_rows_train_it_as_padded_ones_do():
    losses = []
    for pack_to in (None, 200):  # all examples in one step, either way
        model = with_two_columns()
        settings = RUN | {"epochs": 2, "batch_size": 24, "pack_to": pack_to}
        losses.append(train(model, TOKENIZER, EXAMPLES[:12], **settings).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_copy_has_columns_of_its_own():
    model = with_two_columns()
    wanted, other = scores(model), copy.deepcopy(model)
    assert torch.equal(scores(other), wanted)
    train(other, TOKENIZER, OTHERS, **RUN)
    use_column(other, 0)
    assert torch.equal(scores(model), wanted)
    assert torch.equal(scores(other), scores(make_model()))


def test_a_state_dict_carries_the_columns_to_a_model_with_the_same_ones():
    model = with_two_columns()
    other = add_column(add_column(make_model(seed=4), width=16), width=8)
    other.load_state_dict(model.state_dict())
    assert torch.equal(scores(other), scores(model))


def test_a_run_with_an_output_dir_is_refused_before_its_first_step(tmp_path):
    model = add_column(make_model(), width=16)
    before = scores(model)
    with pytest.raises(ValueError, match=r"columns\.columns\.0\..* is not part of a Qwen3"):
        train(model, TOKENIZER, EXAMPLES, output_dir=tmp_path, **RUN)
    assert torch.equal(scores(model), before)


def test_half_precision_and_a_penalty_train_a_column():
    model = add_column(make_model().bfloat16(), width=16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    penalty = l2_to_start(model, 1e-3)
    history = train(model, TOKENIZER, EXAMPLES, penalty=penalty, **RUN)
    assert history.losses[-1] < history.losses[0] and history.steps[-1]["penalty"] > 0
    with pytest.raises(SettingError, match="none of the .* that train here"):
        name = "model.embed_tokens.weight"
        fisher = {name: torch.ones_like(model.get_parameter(name))}
        train(model, TOKENIZER, EXAMPLES, penalty=ewc(model, fisher, 1.0), **RUN)


def test_a_seed_draws_a_column_and_leaves_the_random_numbers_as_they_are():
    state = torch.get_rng_state()
    one, same, other = (add_column(make_model(), width=8, seed=seed) for seed in (0, 0, 1))
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    add_column(one, width=8)
    assert torch.equal(torch.rand(2), wanted)
    enter = [model.columns.columns[0].enter.weight for model in (one, same, other)]
    assert torch.equal(enter[0], enter[1]) and not torch.equal(enter[0], enter[2])
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add_column(make_model(), width=12), "width is 12; it must be a multiple.*, 8"),
        (lambda: add_column(make_model(), width=0), "width is 0"),
        (lambda: add_column(make_model(), width=8.0), "width is 8.0"),
        (lambda: use_column(make_model(), 0), "has no columns: add_column"),
        (lambda: use_column(add_column(make_model(), width=8), 2), "number is 2.*at most 1"),
        (lambda: use_column(add_column(make_model(), width=8), -1), "number is -1"),
        (
            lambda: add_column(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2))),
            "a GPT2LMHeadModel is not built as Qwen3",
        ),
    ],
)
def test_what_gives_no_column_is_refused(call, message):
    with pytest.raises(SettingError, match=message):
        call()
