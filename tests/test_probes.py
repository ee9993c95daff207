"""Before the first step: a model that the loop would score otherwise than the model itself does is
refused, all others are let through, and nothing of the model is changed."""

import copy
import random

import peft
import pytest
import torch
from tiny import PAD, VOCABULARY, make_examples, make_model, make_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

import sft_lab.kernels.head
import sft_lab.losses
import sft_lab.train
from sft_lab.examples import Example
from sft_lab.kernels import short_rows
from sft_lab.loop.plan import Plan
from sft_lab.loop.probes import check_model, check_packing, check_scores
from sft_lab.loop.update import mixed_precision, optimizer_step
from sft_lab.lora import add_lora
from sft_lab.train import evaluate, train

pytestmark = pytest.mark.numeric

real_optimizer_step = optimizer_step
ARCHITECTURES = ("qwen3", "llama")


def plan_for(examples: list[Example], *, pack_to: int | None = 60, batch_size: int = 2) -> Plan:
    return Plan(examples, pack_to, 1, batch_size, 1, 0)


# --- faults of a model, planted in a layer; each says what the layer's output becomes
# ---------------------------------------------------------------------------------------------


def plant(model: torch.nn.Module, change) -> torch.nn.Module:
    """`change` acts on the first layer's output, (B, T, D)."""
    model.get_decoder().layers[0].register_forward_hook(
        lambda layer, inputs, states: change(states)
    )
    return model


def shifted(states: torch.Tensor, places: int) -> torch.Tensor:
    """Position t shows what was at t - places; zeros where nothing was."""
    moved = states.roll(places, dims=1)
    if places > 0:
        moved[:, :places] = 0
    else:
        moved[:, places:] = 0
    return moved


FAULTS = {
    "a convolution over the row": lambda states: states + 0.3 * shifted(states, 1),
    "a long convolution": lambda states: states + 0.3 * shifted(states, 3),
    "a running state": lambda states: states + 0.1 * states.cumsum(dim=1),
    "a state that forgets": lambda states: (
        states + sum(0.5**k * shifted(states, k) for k in range(1, 6)) / 4
    ),
    "positions of the row": lambda states: (
        states * (1 + torch.arange(states.shape[1]) / 20)[:, None]
    ),
}


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("fault", FAULTS)
def test_neighbours_that_are_seen_are_found_and_padded_batches_stay_allowed(
    fault, architecture, batch_size
):
    for seed in range(3):
        model = plant(make_model(architecture, seed=seed), FAULTS[fault])
        examples = make_examples(9, seed=seed)
        check_model(model, plan_for(examples, pack_to=None), PAD)
        with pytest.raises(ValueError, match="does not keep packed examples apart.*without pack_t"):
            check_model(model, plan_for(examples, batch_size=batch_size), PAD)


LOOKS_AHEAD = {
    "at the next token": lambda states: states + 0.2 * shifted(states, -1),
    "two tokens on": lambda states: states + 0.2 * shifted(states, -2),
    "at the whole row": lambda states: states + 0.2 * states.mean(dim=1, keepdim=True),
}


@pytest.mark.parametrize("ahead", LOOKS_AHEAD)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_looks_ahead_is_refused(ahead, architecture, dtype):
    for seed in range(3):
        model = plant(make_model(architecture, seed=seed).to(dtype), LOOKS_AHEAD[ahead])
        with pytest.raises(ValueError, match=f"{type(model).__name__} looks ahead.*causal model"):
            check_scores(model, make_examples(9, seed=seed), PAD)


@pytest.mark.parametrize("way", ["train", "evaluate", "resume"])
def test_train_resume_and_evaluate_ask_before_they_begin(way, tmp_path, monkeypatch):
    run = {"output_dir": tmp_path / "run", "checkpoint_every": 1, "progress": False}
    model, tokenizer, examples = make_model("llama"), make_tokenizer(), make_examples(40)
    if way == "resume":
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            patch.setattr(sft_lab.train, "optimizer_step", killed_in_step(2))
            train(copy.deepcopy(model), tokenizer, examples, **run)
        assert (tmp_path / "run" / "checkpoint").is_dir()
    plant(model, LOOKS_AHEAD["at the next token"])
    monkeypatch.setattr(sft_lab.train, "optimizer_step", killed_in_step(1))  # it gets no step
    with pytest.raises(ValueError, match="looks ahead"):
        if way == "evaluate":
            evaluate(model, tokenizer, examples)
        else:
            train(model, tokenizer, examples, **run, resume=way == "resume")


def killed_in_step(number: int):
    def optimizer_step(*inputs, step, **settings):
        if step == number:
            raise RuntimeError("killed")
        return real_optimizer_step(*inputs, step=step, **settings)

    return optimizer_step


# --- faults of the loop
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.9, 1.01, 3.0])
def test_a_head_kernel_with_another_loss_is_found(factor, monkeypatch):
    real = sft_lab.kernels.head.HeadLoss.apply

    class Wrong:
        @staticmethod
        def apply(*inputs):
            loss, correct = real(*inputs)
            return loss * factor, correct

    monkeypatch.setattr(sft_lab.losses, "HeadLoss", Wrong)
    for architecture in ARCHITECTURES:
        with pytest.raises(ValueError, match="nats per token, but.*chapter 04"):
            check_scores(make_model(architecture), make_examples(9), PAD)


def test_a_decoder_written_out_wrongly_is_found(monkeypatch):
    real = short_rows.graded_states
    monkeypatch.setattr(short_rows, "graded_states", lambda *inputs: real(*inputs) * 1.01)
    with pytest.raises(ValueError, match="two short rows"):
        check_scores(make_model(), make_examples(9), PAD)


# --- models that are right
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("trained", ["all", "LoRA"])
def test_right_models_pass_in_every_number_format(dtype, trained):
    for seed in range(5):
        for architecture in ARCHITECTURES:
            model = make_model(architecture, seed=seed)
            if trained == "LoRA":
                add_lora(model, rank=2)
            model.to(dtype)
            with mixed_precision(model) as (autocast, _), autocast:
                for batch_size in (1, 3):
                    check_model(model, plan_for(make_examples(9), batch_size=batch_size), PAD)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_in_half_precision_too(dtype, fault):
    model = plant(make_model("llama").to(dtype), FAULTS[fault])
    with (
        mixed_precision(model) as (autocast, _),
        autocast,
        pytest.raises(ValueError, match="apart"),
    ):
        check_model(model, plan_for(make_examples(9)), PAD)


def test_examples_of_a_single_token_are_enough_to_find_a_leak():
    examples = [Example([7] * length, [7] * length) for length in (3, 5, 9)]
    check_packing(make_model(), examples, PAD, batch_size=2)
    model = plant(make_model(), FAULTS["a convolution over the row"])
    with pytest.raises(ValueError, match="apart"):
        check_packing(model, examples, PAD, batch_size=2)


def test_broken_weights_are_left_to_the_first_step_which_names_it():
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(FloatingPointError, match="step 1: loss nan"):
        run = {"pack_to": 60, "warmup_ratio": 0.0, "progress": False}
        train(model, make_tokenizer(), make_examples(9), **run)


def test_a_model_that_changes_its_scores_by_a_hook_is_trained_on_the_changed_ones():
    def train_one_step(model):
        run = {"batch_size": 9, "progress": False, "warmup_ratio": 0.0}
        return train(model, make_tokenizer(), make_examples(9), **run).losses[0]

    def halve(module, inputs, output):
        output.logits = output.logits / 2
        return output

    plain, halved, scaled = (make_model() for _ in range(3))
    halved.register_forward_hook(halve)
    with torch.no_grad():  # the last norm's weights act on nothing but the scores
        scaled.model.norm.weight /= 2
    right = train_one_step(scaled)
    assert abs(train_one_step(halved) - right) < 1e-4 < 0.05 < abs(train_one_step(plain) - right)


# --- nothing is left behind
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_gradients_modes_and_random_state_stay_as_they_are(architecture):
    model = make_model(architecture, attention_dropout=0.3)
    model.train()
    model.get_decoder().layers[1].eval()  # as somebody who freezes a dropout does
    model.get_input_embeddings().weight.grad = torch.ones(VOCABULARY, 32)
    modes = [module.training for module in model.modules()]
    weights = copy.deepcopy(model.state_dict())
    torch.manual_seed(5), random.seed(5)
    expected = torch.rand(3), random.random()
    torch.manual_seed(5), random.seed(5)
    for way in ("passes", "is refused"):
        if way == "is refused":
            plant(model, FAULTS["a running state"])
            with pytest.raises(ValueError, match="apart"):
                check_model(model, plan_for(make_examples(9)), PAD)
        else:
            check_model(model, plan_for(make_examples(9)), PAD)
        assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.rand(3), expected[0]) and random.random() == expected[1]
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            assert torch.equal(parameter.grad, torch.ones(VOCABULARY, 32))
        else:
            assert parameter.grad is None and parameter.requires_grad


def test_it_costs_less_than_300_tokens():
    model, counted = make_model("llama"), []
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: counted.append(inputs[0].numel())
    )
    check_model(model, plan_for(make_examples(9), batch_size=2), PAD)
    assert 0 < sum(counted) < 300, counted


# --- models of PEFT
# ---------------------------------------------------------------------------------------------

PROMPTS = {
    "PROMPT_TUNING": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "PREFIX_TUNING": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "P_TUNING": lambda: peft.PromptEncoderConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("ask", [train, evaluate])
def test_prompt_and_prefix_models_of_peft_are_refused_by_name(kind, ask):
    model = peft.get_peft_model(make_model("llama"), PROMPTS[kind]())
    with pytest.raises(ValueError, match=rf"^this is a {kind} model of PEFT.*add_prefix.*\.$|TRL"):
        ask(model, make_tokenizer(), make_examples(40))


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
        peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"),
        peft.IA3Config(task_type="CAUSAL_LM"),
    ],
    ids=["LoRA", "LoRA on the head", "IA3"],
)
def test_other_models_of_peft_are_trained_on_their_own_loss(config):
    model, examples = peft.get_peft_model(make_model("llama"), config), make_examples(9)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "ia3" in name:
            torch.nn.init.normal_(weight, std=0.3)  # or the adapter would change nothing yet
    alone = [
        model(input_ids=torch.tensor([e.input_ids]), labels=torch.tensor([e.labels])).loss
        * sum(label >= 0 for label in e.labels[1:])
        for e in examples
    ]
    graded = sum(label >= 0 for e in examples for label in e.labels[1:])
    for settings in ({"batch_size": 9}, {"batch_size": 4, "pack_to": 60}):
        history = train(
            copy.deepcopy(model),
            make_tokenizer(),
            examples,
            progress=False,
            warmup_ratio=0.0,
            **settings,
        )
        assert abs(history.losses[0] - sum(alone).item() / graded) < 1e-4


def test_learned_positions_of_gpt2_start_again_with_each_packed_example():
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1)).eval()
    check_model(model, plan_for(make_examples(9)), PAD)


def test_sliding_windows_are_no_neighbours():
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, **window)).eval()
    assert not short_rows.handles(model, {"input_ids": torch.zeros(1, 5, dtype=torch.long)})
    check_model(model, plan_for(make_examples(9)), PAD)
