"""Prefix and prompt are PEFT's; every added part starts as the promised function, trains alone, and
generates."""

import random

import pytest
import torch
import torch.nn.functional as F
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from tiny import PAD, VOCABULARY, make_examples, make_model, make_tokenizer
from tolerances import assert_same_answer
from torch.testing import assert_close

from sft_lab.adapters import Adapter, add_adapters, add_biases, add_prefix, add_prompt
from sft_lab.batches import pack, pad_batch
from sft_lab.chat import continue_ids
from sft_lab.losses import graded_logits
from sft_lab.train import train

pytestmark = pytest.mark.numeric

START = [5, 9, 17]
ADD = {
    "adapters": lambda model: add_adapters(model, width=4),
    "prefix": lambda model: add_prefix(model, START),
    "prompt": lambda model: add_prompt(model, START),
    "biases": add_biases,
}


def random_batch(seed: int) -> dict[str, torch.Tensor]:
    return pad_batch(make_examples(random.Random(seed).randint(1, 6), seed=seed), PAD)


def architecture(seed: int) -> str:
    return "llama" if seed % 3 == 0 else "qwen3"


def peft_twin(kind: str, seed: int, weights: torch.Tensor):
    config = {"task_type": "CAUSAL_LM", "num_virtual_tokens": len(weights)}
    config = PrefixTuningConfig(**config) if kind == "prefix" else PromptTuningConfig(**config)
    twin = get_peft_model(make_model(architecture(seed), seed=seed), config)
    twin.prompt_encoder["default"].embedding.weight.data.copy_(weights)
    return twin


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_loss_and_gradient_are_those_of_peft_with_copied_weights(kind, seed):
    torch.manual_seed(1000 + seed)
    ours, length = make_model(architecture(seed), seed=seed), random.Random(seed).randint(1, 5)
    start = torch.randint(2, VOCABULARY, (length,)).tolist()
    if kind == "prefix":
        weights = add_prefix(ours, start).prefix.keys_values
    else:
        weights = add_prompt(ours, start).prompt.embeddings
    torch.nn.init.normal_(weights)
    # PEFT's table: one row a position, in it layer after layer the keys of all heads, then the
    # values
    flat = weights.permute(3, 0, 1, 2, 4).flatten(1) if kind == "prefix" else weights
    twin = peft_twin(kind, seed, flat.detach())
    twin.train()  # in inference mode PEFT repeats the table along another dimension
    batch = random_batch(seed)
    loss = F.cross_entropy(*graded_logits(ours, batch))
    theirs = twin(**batch).loss
    assert_close(loss, theirs, rtol=1e-5, atol=2e-6)
    loss.backward()
    theirs.backward()
    gradient = twin.prompt_encoder["default"].embedding.weight.grad
    assert_close(
        weights.grad.permute(3, 0, 1, 2, 4).flatten(1) if kind == "prefix" else weights.grad,
        gradient,
        rtol=1e-3,
        atol=2e-6,
    )


@pytest.mark.parametrize("kind", ["adapters", "biases"])
def test_adapters_and_biases_start_as_the_base_model(kind):
    for seed in range(6):
        batch, model = random_batch(seed), make_model(architecture(seed), seed=seed)
        before = graded_logits(model, batch)[0]
        assert_close(graded_logits(ADD[kind](model), batch)[0], before)


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_prefix_and_prompt_start_as_tokens_in_front(kind):
    for seed in range(6):
        batch, model = random_batch(seed), make_model(architecture(seed), seed=seed)
        in_front = torch.cat(
            (torch.tensor(START).expand(len(batch["labels"]), -1), batch["input_ids"]), dim=1
        )
        right = model(input_ids=in_front).logits[:, len(START) : -1][batch["labels"][:, 1:] >= 0]
        assert_close(graded_logits(ADD[kind](model), batch)[0], right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ADD)
def test_only_the_added_part_trains_and_the_loss_falls(kind):
    model, examples = make_model(), make_examples(16)
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    ADD[kind](model)
    added = {name for name, value in model.named_parameters() if value.requires_grad}
    assert added and not added & frozen.keys() - {name for name in frozen if name.endswith("bias")}
    losses = train(
        model, make_tokenizer(), examples, epochs=12, learning_rate=3e-2, progress=False
    ).losses
    assert losses[-1] < losses[0] - 0.05  # random text: there is little to learn
    now = {name.replace("_proj.0.", "_proj."): value for name, value in model.state_dict().items()}
    assert all(torch.equal(now[name], value) for name, value in frozen.items())


@pytest.mark.parametrize("kind", ADD)
def test_generation_with_a_cache_and_left_padding_is_argmax_step_by_step(kind):
    model, tokenizer = ADD[kind](make_model(seed=3)), make_tokenizer()
    for name, value in model.named_parameters():
        if value.requires_grad:
            torch.nn.init.normal_(value, std=0.5 if "prompt" in name or "prefix" in name else 0.1)
    prompts = [example.input_ids[:5] for example in make_examples(4, seed=5)]
    prompts[1] = prompts[1][:2]
    rows = continue_ids(model, tokenizer, prompts, max_new_tokens=6)
    for prompt, row in zip(prompts, rows, strict=True):
        written = list(prompt)
        for _ in row:
            with torch.no_grad():
                written.append(int(model(input_ids=torch.tensor([written])).logits[0, -1].argmax()))
        assert_same_answer(model, prompt, row, written[len(prompt) :])


def test_an_adapter_computes_its_formula():
    adapter = Adapter(6, 2)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 6)
    inner = x @ adapter.down.weight.T + adapter.down.bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    assert_close(adapter(x), x + gelu @ adapter.up.weight.T + adapter.up.bias)


def test_bad_input_is_refused_with_its_cause():
    with pytest.raises(ValueError, match="width is 0"):
        add_adapters(make_model(), width=0)
    with pytest.raises(ValueError, match="token_ids is empty"):
        add_prefix(make_model(), [])
    with pytest.raises(ValueError, match="has prefix already"):
        add_prompt(add_prefix(make_model(), START), START)
    with pytest.raises(ValueError, match="packed rows"):
        graded_logits(add_prefix(make_model(), START), pack(make_examples(3), 80)[0])


@pytest.mark.parametrize("kind", ADD)
def test_a_run_that_could_not_be_loaded_again_is_refused_before_it_starts(kind, tmp_path):
    with pytest.raises(ValueError, match="load"):
        train(
            ADD[kind](make_model()),
            make_tokenizer(),
            make_examples(4),
            epochs=2,
            output_dir=tmp_path / "run",
            progress=False,
        )
    assert not (tmp_path / "run").exists()
