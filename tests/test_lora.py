"""LoRA by hand is PEFT's LoRA: losses, merges, counts and files; and it trains, resumes and refuses
as it should."""

import copy
import functools
import json
import os
import random
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import make_examples, make_model, make_tokenizer
from tolerances import LOGITS, LOSS, assert_same_answer
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

import sft_lab.lora
from sft_lab.files import OutputError
from sft_lab.lora import LoRALinear, add_lora, load_adapter, merge_lora, remove_lora, save_adapter
from sft_lab.train import train

pytestmark = pytest.mark.numeric

LEAVES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EXAMPLES, TOKENIZER = make_examples(24), make_tokenizer()
IDS = torch.randint(2, 61, (3, 11), generator=torch.Generator().manual_seed(0))
CASES = range(24)


def random_settings(seed: int) -> dict:
    rng = random.Random(seed)
    targets = (
        "all-linear" if rng.random() < 0.3 else rng.sample(LEAVES, rng.randint(1, len(LEAVES)))
    )
    return {
        "rank": rng.choice([1, 2, 3, 4, 8, 16, 40]),
        "alpha": rng.choice([1, 5, 8, 16, 32, 7.5]),
        "targets": targets,
        "dropout": rng.choice([0.0, 0.0, 0.1, 0.5]),
    }


@functools.cache
def made(seed: int) -> PreTrainedModel:
    return make_model("llama" if seed % 3 == 0 else "qwen3", seed=seed)


def base(seed: int) -> PreTrainedModel:
    """Qwen3 with tied embeddings, or Llama without; a copy, which costs less than to make one."""
    return copy.deepcopy(made(seed))


def with_peft(
    model: PreTrainedModel, rank=8, alpha=16, dropout=0.0, targets="all-linear", **options
) -> PeftModel:
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        **options,
    )
    return get_peft_model(model, config)


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    return {
        name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)
    }


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """As if trained: everything that requires gradients takes random values, B too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(IDS).logits


def pair(seed: int) -> tuple[PreTrainedModel, PeftModel]:
    """A copy of made_pair, for a test that changes it."""
    return copy.deepcopy(made_pair(seed))


@functools.cache
def made_pair(seed: int) -> tuple[PreTrainedModel, PeftModel]:
    """The same model with LoRA twice, ours and PEFT's, with PEFT's A and B (B random too) in
    both."""
    settings = random_settings(seed)
    ours, theirs = (
        add_lora(base(seed), **settings),
        trained(with_peft(base(seed), **settings), seed),
    )
    layers = lora_layers(ours)
    tensors = {
        name.split("model.", 2)[2]: value
        for name, value in theirs.named_parameters()
        if value.requires_grad
    }
    assert {
        f"{name}.{part}.default.weight" for name in layers for part in ("lora_A", "lora_B")
    } == tensors.keys()
    with torch.no_grad():
        for name, layer in layers.items():
            layer.lora_A.weight.copy_(tensors[f"{name}.lora_A.default.weight"])
            layer.lora_B.weight.copy_(tensors[f"{name}.lora_B.default.weight"])
    return ours, theirs.eval()


def learn(model: nn.Module, steps: int) -> list[float]:
    torch.manual_seed(0)  # the same dropout for both
    # At ten times this rate the runs are chaotic: 20 steps make 2e-3 of a rounding in a loss.
    optimizer = torch.optim.AdamW(
        [value for value in model.parameters() if value.requires_grad], lr=1e-3
    )
    model.train()
    losses = []
    for step in range(steps):
        ids = torch.randint(2, 61, (4, 9), generator=torch.Generator().manual_seed(step))
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


# --- against PEFT, on 24 random cases each (12 for training): rank, alpha, targets, dropout,
# embeddings tied or not ---


@pytest.mark.parametrize("seed", CASES[:12])
def test_with_the_same_a_and_b_20_adamw_steps_have_pefts_losses(seed):
    ours, theirs = pair(seed)
    assert_close(learn(ours, 20), learn(theirs, 20), **LOSS)  # two libraries may order their sums
    assert_close(logits(ours), logits(theirs), **LOGITS)


def test_logits_before_and_after_a_merge_are_pefts():
    for seed in CASES:
        ours, theirs = pair(seed)
        unmerged = logits(ours)
        assert_close(unmerged, logits(theirs), **LOGITS)  # two libraries
        merged = logits(merge_lora(ours))
        assert_close(merged, logits(theirs.merge_and_unload()), **LOGITS)
        assert_close(merged, unmerged, **LOGITS)  # one product where there were three


def test_the_parameters_to_train_are_as_many_as_pefts_and_frozen_else():
    for seed in CASES:
        ours, theirs = made_pair(seed)
        counts = [
            sum(value.numel() for value in model.parameters() if value.requires_grad)
            for model in (ours, theirs)
        ]
        layers = lora_layers(ours).values()
        by_hand = sum(
            layer.rank * (layer.base_layer.in_features + layer.base_layer.out_features)
            for layer in layers
        )
        assert counts[0] == counts[1] == by_hand


def test_our_files_have_pefts_names_and_its_model_then_has_our_logits(tmp_path):
    for seed in CASES:
        ours, theirs = made_pair(seed)
        save_adapter(ours, tmp_path / "ours")
        theirs.save_pretrained(tmp_path / "theirs")
        saved, reference = (
            load_file(tmp_path / who / "adapter_model.safetensors") for who in ("ours", "theirs")
        )
        assert saved.keys() == reference.keys() and all(
            torch.equal(saved[key], reference[key]) for key in saved
        )
        config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
        reference = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
        assert {key: value for key, value in config.items() if value != reference[key]}.keys() <= {
            "target_modules"
        }
        theirs = PeftModel.from_pretrained(base(seed), tmp_path / "ours")
        assert_close(logits(theirs), logits(ours), **LOGITS)  # two libraries


def test_what_peft_wrote_loads_with_its_logits(tmp_path):
    for seed in CASES:
        _, theirs = made_pair(seed)
        theirs.save_pretrained(tmp_path)
        loaded = load_adapter(base(seed), tmp_path)
        assert_close(logits(loaded), logits(theirs), **LOGITS)  # two libraries
        layer = next(iter(lora_layers(loaded).values()))
        config = theirs.peft_config["default"]
        assert (layer.rank, layer.alpha, layer.lora_dropout.p) == (
            config.r,
            config.lora_alpha,
            config.lora_dropout,
        )


@pytest.mark.parametrize(
    "options",
    [
        {"targets": r".*\.1\..*(q|up)_proj"},
        {"targets": ["q_proj"], "layers_to_transform": [1]},
        {"exclude_modules": ["down_proj"]},
        {"init_lora_weights": "gaussian"},
    ],
)
def test_pefts_ways_to_choose_layers_load_too(options, tmp_path):
    theirs = trained(with_peft(base(1), **options)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_adapter(base(1), tmp_path / "theirs")
    save_adapter(ours, tmp_path / "ours")
    again = PeftModel.from_pretrained(base(1), tmp_path / "ours")
    for model in (ours, again):
        assert_close(logits(model), logits(theirs), **LOGITS)  # two libraries, or layers in files


def test_targets_are_written_as_short_names_where_these_say_the_same(tmp_path):
    one = "model.layers.0.self_attn.q_proj"
    for targets, written in (("all-linear", sorted(LEAVES)), (["0.self_attn.q_proj"], [one])):
        save_adapter(add_lora(base(0), targets=targets), tmp_path)
        assert (
            json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == written
        )


def test_half_precision_weights_get_float32_adapters_and_pefts_logits(tmp_path):
    for dtype in (torch.bfloat16, torch.float16):
        theirs = trained(with_peft(base(1).to(dtype))).eval()
        theirs.save_pretrained(tmp_path)
        ours = load_adapter(base(1).to(dtype), tmp_path)
        assert {value.dtype for value in ours.parameters() if value.requires_grad} == {
            torch.float32
        }
        # two libraries; sixteen roundings of the format, where logits are near 1
        near = 16 * torch.finfo(dtype).eps
        assert_close(logits(ours), logits(theirs), rtol=near, atol=near)
        assert logits(ours).dtype == dtype
        assert {value.dtype for value in merge_lora(ours).parameters()} == {dtype}


# --- what LoRA promises
# -----------------------------------------------------------------------------------------------


def test_at_step_0_the_model_is_the_base_bit_for_bit_and_a_is_drawn_as_in_pefts():
    for seed in CASES:
        model = add_lora(base(seed), **random_settings(seed))
        assert torch.equal(logits(model), logits(base(seed)))  # x + 0 is x: nothing is rounded
    layers = lora_layers(
        add_lora(base(1), targets=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"])
    ).values()
    weights = torch.stack([layer.lora_A.weight for layer in layers])
    bound = 32**-0.5  # kaiming_uniform with a = sqrt(5): 1 / sqrt(in)
    assert 0.99 * bound < weights.abs().max() <= bound
    assert_close(weights.std().item(), bound / 3**0.5, rtol=0.05, atol=0)


def test_a_layer_is_the_papers_formula():
    layer = trained(LoRALinear(nn.Linear(5, 7), rank=2, alpha=3, dropout=0.0))
    x, w, b = torch.randn(4, 6, 5), layer.base_layer.weight, layer.base_layer.bias
    a, bb = layer.lora_A.weight, layer.lora_B.weight
    assert_close(layer(x), x @ w.T + b + 3 / 2 * x @ (bb @ a).T)
    assert_close(layer(x), layer.merge()(x))


def test_dropout_acts_in_training_only_and_on_the_update_only():
    model = trained(add_lora(base(1), dropout=0.5))
    assert not model.training and torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))
    for layer in lora_layers(model).values():
        nn.init.zeros_(layer.lora_B.weight)
    assert_close(logits(model), logits(base(1)), **LOGITS)  # training mode may take other kernels
    assert lora_layers(add_lora(base(1).train()))[
        "model.layers.0.mlp.up_proj"
    ].lora_dropout.training


def test_training_moves_a_and_b_and_nothing_else():
    model = add_lora(make_model())
    before = {name: value.clone() for name, value in model.named_parameters()}
    history = train(
        model, TOKENIZER, EXAMPLES, epochs=5, learning_rate=1e-2, batch_size=8, progress=False
    )
    moved = {
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if ".lora_" in name}
    assert history.losses[-1] < history.losses[0] - 0.1
    assert model.lm_head.weight is model.model.embed_tokens.weight


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_killed_training_goes_on_exactly_and_its_checkpoint_holds_only_a_and_b(
    tmp_path, monkeypatch
):
    settings = {
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "checkpoint_every": 3,
        "progress": False,
    }

    def fresh(seed):
        torch.manual_seed(seed)
        return add_lora(make_model(), rank=4, dropout=0.3)

    whole = fresh(7)
    expected = train(whole, TOKENIZER, EXAMPLES, **settings).losses
    real = sft_lab.train.optimizer_step

    def step(*arguments, **settings):
        if settings["step"] == 8:
            raise Killed
        return real(*arguments, **settings)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sft_lab.train, "optimizer_step", step)
        train(fresh(7), TOKENIZER, EXAMPLES, output_dir=tmp_path, **settings)
    kept = load_file(tmp_path / "checkpoint" / "weights.safetensors")
    assert kept and all(".lora_" in name for name in kept)
    resumed = fresh(8)  # other A: the checkpoint's must take their place
    assert (
        train(resumed, TOKENIZER, EXAMPLES, output_dir=tmp_path, resume=True, **settings).losses
        == expected
    )
    assert torch.equal(logits(resumed), logits(whole))
    assert torch.equal(logits(load_adapter(make_model(), tmp_path)), logits(whole)), (
        "a run leaves its adapter"
    )


def test_a_run_whose_result_no_adapter_could_hold_is_refused_before_it_starts(tmp_path):
    model = add_lora(make_model())
    model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(ValueError, match="cannot hold model.embed_tokens.weight"):
        train(model, TOKENIZER, EXAMPLES, output_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    assert len(train(model, TOKENIZER, EXAMPLES, progress=False).losses) == 2, (
        "without a folder it trains"
    )


def test_a_merged_model_is_plain_and_is_saved_and_loaded_as_any_other(tmp_path):
    for seed in range(3):
        model = trained(add_lora(base(seed), targets=["q_proj", "up_proj"]))
        unmerged = logits(model)
        assert merge_lora(model) is model and not model.training
        assert model.state_dict().keys() == base(seed).state_dict().keys()
        assert {type(module) for module in model.modules()} == {
            type(module) for module in base(seed).modules()
        }
        model.save_pretrained(tmp_path / str(seed))
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / str(seed))
        saved = loaded.state_dict()
        assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
        assert_close(logits(loaded), unmerged, **LOGITS)  # one product where there were three


def test_on_the_shipped_model_generate_and_deepcopy_agree_with_the_merged_one(model, tokenizer):
    tuned = trained(add_lora(copy.deepcopy(model), rank=4))
    ids = tokenizer("The capital of", return_tensors="pt").input_ids
    settings = {"max_new_tokens": 12, "do_sample": False, "use_cache": True}
    other = copy.deepcopy(tuned)
    answers = tuned.generate(ids, **settings)
    assert torch.equal(other.generate(ids, **settings), answers)  # the same path twice
    merged = merge_lora(other).generate(ids, **settings)  # a merge rounds
    assert_same_answer(tuned, [], merged[0].tolist(), answers[0].tolist())
    assert not torch.equal(model.generate(ids, **settings), answers)
    assert len(lora_layers(tuned)) == 28  # the copy was merged, the original was not
    with torch.no_grad():
        assert_close(tuned(ids).logits, other(ids).logits, **LOGITS)


def test_adapters_are_switched_on_one_base_which_comes_back_bit_for_bit(tmp_path):
    for seed in (1, 2):
        save_adapter(trained(add_lora(base(4), rank=seed), seed), tmp_path / str(seed))
    model = load_adapter(base(4), tmp_path / "1")
    first = logits(model)
    second = logits(load_adapter(remove_lora(model), tmp_path / "2"))
    assert not torch.equal(first, second)
    assert torch.equal(logits(load_adapter(remove_lora(model), tmp_path / "1")), first)
    assert torch.equal(logits(remove_lora(model)), logits(base(4)))


# --- what is refused, by name and with the model untouched
# ------------------------------------------------------------


def refused(model: PreTrainedModel, action, *fragments: str, error=ValueError) -> None:
    before = [(name, id(value), value.requires_grad) for name, value in model.named_parameters()]
    with pytest.raises(error) as caught:
        action(model)
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value
    assert before == [
        (name, id(value), value.requires_grad) for name, value in model.named_parameters()
    ]


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ({"rank": 0}, ["rank is 0", "at least 1"]),
        ({"rank": 2.5}, ["rank is 2.5", "integer"]),
        ({"alpha": 0}, ["alpha is 0"]),
        ({"alpha": float("nan")}, ["alpha is nan"]),
        ({"dropout": 1.0}, ["dropout is 1.0"]),
        ({"targets": "q_proj"}, ["'q_proj'", "['q_proj']"]),
        ({"targets": []}, ["[]", "Linear"]),
        (
            {"targets": ["q_proj", "wq"]},
            ["'wq'", "nowhere", "q_proj, k_proj, v_proj, o_proj, gate_proj"],
        ),
        ({"targets": ["proj"]}, ["'proj' is nowhere"]),
        ({"targets": ["lm_head"]}, ["'lm_head' is the output head", "q_proj"]),
        ({"targets": ["embed_tokens"]}, ["'embed_tokens' is Embedding"]),
        ({"targets": ["mlp"]}, ["'mlp' is Qwen3MLP"]),
    ],
)
def test_a_wrong_setting_is_named(settings, fragments):
    refused(make_model(), lambda model: add_lora(model, **settings), *fragments)


def test_lora_is_added_once_and_merged_or_saved_only_where_it_is(tmp_path):
    save_adapter(add_lora(make_model()), tmp_path)
    ours, theirs = add_lora(make_model()), with_peft(make_model()).base_model.model
    for model in (ours, theirs):
        refused(model, add_lora, "LoRA is already there, at model.layers.0.self_attn.q_proj")
        refused(model, lambda model: load_adapter(model, tmp_path), "LoRA is already there")
    for action in (merge_lora, remove_lora, lambda model: save_adapter(model, tmp_path)):
        refused(make_model(), action, "no LoRA layer")


def test_a_model_without_nn_linear_is_told_what_it_is_made_of():
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=8, n_layer=1, n_head=2, n_positions=16))
    refused(gpt2, add_lora, "no nn.Linear", "Conv1D")


def test_an_adapter_that_would_lose_trained_weights_is_not_saved(tmp_path):
    model = add_lora(make_model())
    model.model.embed_tokens.weight.requires_grad_(True)
    refused(
        model,
        lambda model: save_adapter(model, tmp_path),
        "model.embed_tokens.weight",
        "merge_lora",
    )
    model = add_lora(make_model())
    lora_layers(model)["model.layers.0.mlp.up_proj"].alpha = 5
    refused(model, lambda model: save_adapter(model, tmp_path), "the layers differ", "5")
    assert not list(tmp_path.iterdir())


def test_a_kill_while_saving_leaves_a_whole_adapter_or_none(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("kept")
    old, new = (trained(add_lora(base(1), rank=rank), rank) for rank in (2, 4))
    calls = ("save_file", "replace", "write_text", "unlink")

    def interrupt(count: int) -> None:
        """A kill at the `count`-th of the calls that change files."""
        left = [count]

        def killing(function):
            def call(*arguments, **settings):
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
                return function(*arguments, **settings)

            return call

        places = (sft_lab.lora, os, Path, Path)
        for place, name in zip(places, calls, strict=True):
            monkeypatch.setattr(place, name, killing(getattr(place, name)))

    outcomes, count, killed = [], 0, True
    while killed:
        save_adapter(old, tmp_path)
        count, killed = count + 1, False
        interrupt(count)
        try:
            save_adapter(new, tmp_path)
        except Killed:
            killed = True
        monkeypatch.undo()
        try:
            loaded = logits(load_adapter(base(1), tmp_path))
            outcomes.append("old" if torch.equal(loaded, logits(old)) else "new")
            assert torch.equal(loaded, logits(old)) or torch.equal(loaded, logits(new))
        except FileNotFoundError:
            outcomes.append("none")
    assert outcomes == sorted(outcomes, key=["old", "none", "new"].index)
    assert len(outcomes) >= 7 and set(outcomes) == {"old", "none", "new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "notes.txt",
        "written_files.json",
    ]


def config_with(**changes):
    def damage(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def tensors_with(change):
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return damage


def removed(name):
    return lambda folder: (folder / name).unlink()


def truncated(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


UP = "base_model.model.model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("damage", "fragments"),
    [
        (lambda folder: shutil.rmtree(folder), ["adapter_config.json"]),
        (removed("adapter_config.json"), ["no adapter_config.json"]),
        (removed("adapter_model.safetensors"), ["no adapter_model.safetensors", "pickle"]),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), ["not JSON"]),
        (lambda folder: (folder / "adapter_config.json").write_bytes(b"\xff\xfe"), ["not JSON"]),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), ["peft_type", "[]"]),
        (truncated, ["adapter_model.safetensors is damaged"]),
        (config_with(peft_type="PREFIX_TUNING"), ["peft_type", "PREFIX_TUNING"]),
        (config_with(r=None), ["r is None"]),
        (config_with(r=3), ["r = 3", "shape (4, 32)"]),
        (config_with(lora_alpha="16"), ["lora_alpha is '16'"]),
        (config_with(lora_alpha=-1), ["alpha is -1"]),
        (config_with(lora_dropout=2), ["dropout is 2"]),
        (config_with(use_dora=True), ["use_dora = True"]),
        (config_with(use_rslora=True, bias="all"), ["use_rslora = True", "bias = 'all'"]),
        (config_with(modules_to_save=["lm_head"]), ["modules_to_save = ['lm_head']"]),
        (config_with(rank_pattern={"q_proj": 2}), ["rank_pattern"]),
        (config_with(alpha_pattern={"q_proj": 2}), ["alpha_pattern"]),
        (config_with(init_lora_weights="pissa"), ["init_lora_weights = 'pissa'"]),
        (config_with(an_option_of_tomorrow=1), ["an_option_of_tomorrow = 1"]),
        (tensors_with(lambda t: t.clear()), ["holds nothing"]),
        (
            tensors_with(lambda t: t.pop(f"{UP}.lora_B.weight")),
            [f"{UP}.lora_B.weight has shape None", "(48, 4)"],
        ),
        (
            tensors_with(lambda t: t.update({f"{UP}.lora_magnitude_vector": torch.ones(48)})),
            ["lora_magnitude_vector"],
        ),
        (
            tensors_with(lambda t: t.update({f"{UP}.lora_A.weight": torch.ones(4, 31)})),
            ["(4, 31)", "(4, 32)"],
        ),
        (
            tensors_with(lambda t: t.update({"model.layers.9.q.lora_A.weight": torch.ones(4, 32)})),
            ["layers.9.q", "base"],
        ),
        (
            tensors_with(
                lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.ones(4, 32)})
            ),
            ["output head"],
        ),
    ],
)
def test_a_bad_file_is_refused_by_name(damage, fragments, tmp_path):
    save_adapter(add_lora(make_model(), rank=4), tmp_path)
    damage(tmp_path)
    errors = (ValueError, FileNotFoundError)
    refused(make_model(), lambda model: load_adapter(model, tmp_path), *fragments, error=errors)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 2}},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"bias": "all"},
        {"lora_bias": True},
        {"trainable_token_indices": [3]},
        {"layer_replication": [(0, 2), (1, 2)]},
    ],
)
def test_what_peft_writes_with_an_option_that_plain_lora_has_not_is_refused_by_name(
    options, tmp_path
):
    with_peft(make_model("llama"), targets=["q_proj"], **options).save_pretrained(tmp_path)
    refused(make_model("llama"), lambda model: load_adapter(model, tmp_path), *options)


def test_another_base_is_refused_by_name_where_shapes_differ(tmp_path, model):
    small = make_model()
    small.name_or_path = "models/small-base"
    save_adapter(add_lora(small), tmp_path)
    refused(copy.deepcopy(model), lambda model: load_adapter(model, tmp_path), "models/small-base")


# --- the base an adapter needs, and what stands in a folder
# -----------------------------------------------------------------------------------------------


def without_fingerprint(folder: Path) -> None:
    """As PEFT and LLaMA-Factory leave an adapter."""
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def named(model: PreTrainedModel, name: str) -> PreTrainedModel:
    model.name_or_path = name
    return model


def quietly(action):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return action()


def other_bases(seed: int) -> dict[str, PreTrainedModel]:
    """Models of one architecture and one name that are no longer the base."""
    merged = merge_lora(trained(add_lora(base(seed), rank=2), seed))
    tuned, row = base(seed), base(seed)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter += 1e-3 * torch.randn_like(parameter)
        row.model.embed_tokens.weight[7] += 0.1
    another = copy.deepcopy(made(seed + 3))
    return {"merged": merged, "tuned": tuned, "one row": row, "another seed": another}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["merged", "tuned", "one row", "another seed"])
def test_an_adapter_loads_on_its_own_base_and_on_no_other_of_the_same_name(kind, seed, tmp_path):
    own, other = base(seed), other_bases(seed)[kind]
    for there, here in ((own, other), (other, own)):
        tuned = trained(add_lora(named(copy.deepcopy(there), "a/base"), rank=2), 7)
        expected, folder = logits(tuned), tmp_path / str(there is own)
        save_adapter(tuned, folder)
        refused(
            named(copy.deepcopy(here), "a/base"),
            lambda model, folder=folder: load_adapter(model, folder),
            "was trained on a/base, and these are other weights",
        )
        again = quietly(lambda: load_adapter(copy.deepcopy(there), folder))  # noqa: B023
        assert_close(logits(again), expected, **LOGITS)


@pytest.mark.parametrize("there", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("here", [torch.float32, torch.bfloat16, torch.float16])
def test_a_base_may_have_another_name_and_another_number_format(there, here, tmp_path):
    tuned = trained(add_lora(named(base(1).to(there), "owner/base")))
    save_adapter(tuned, tmp_path)
    for name in ("/models/snapshots/0a1b2c", "base", ""):
        again = quietly(lambda name=name: load_adapter(named(base(1).to(here), name), tmp_path))
        near = 16 * max(torch.finfo(dtype).eps for dtype in (there, here))
        assert_close(logits(again).float(), logits(tuned).float(), rtol=near, atol=max(near, 1e-3))


def test_an_adapter_of_a_quantised_base_loads_on_the_original_with_a_warning(tmp_path):
    rounded = base(1)
    with torch.no_grad():
        for parameter in rounded.parameters():
            # as a GGUF file of 8 bits: blocks of 32 with a common scale
            if parameter.dim() > 1 and parameter.shape[1] % 32 == 0:
                blocks = parameter.view(-1, 32)
                scale = blocks.abs().amax(dim=1, keepdim=True).clamp(min=1e-9) / 127
                blocks.copy_((blocks / scale).round() * scale)
    save_adapter(trained(add_lora(rounded)), tmp_path)
    with pytest.warns(UserWarning, match="one of the two is a quantised copy"):
        load_adapter(base(1), tmp_path)


def test_an_adapter_without_a_fingerprint_loads_and_another_name_is_warned_of(tmp_path):
    _, theirs = made_pair(1)
    theirs.save_pretrained(tmp_path / "peft")
    save_adapter(add_lora(named(base(1), "models/small-base")), tmp_path / "stripped")
    without_fingerprint(tmp_path / "stripped")
    quietly(lambda: load_adapter(named(base(1), "anything"), tmp_path / "peft"))
    quietly(lambda: load_adapter(named(base(1), "elsewhere/small-base"), tmp_path / "stripped"))
    with pytest.warns(UserWarning, match="models/small-base.*elsewhere/other-base"):
        load_adapter(named(base(1), "elsewhere/other-base"), tmp_path / "stripped")


def test_what_peft_saves_again_carries_no_fingerprint_of_the_file_it_read(tmp_path):
    save_adapter(trained(add_lora(base(1))), tmp_path / "ours")
    PeftModel.from_pretrained(base(2), tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    quietly(lambda: load_adapter(base(2), tmp_path / "theirs"))


def test_a_merged_and_a_fully_tuned_model_are_not_called_after_the_base_they_were(tmp_path):
    merged = merge_lora(trained(add_lora(named(base(1), "owner/base"))))
    tuned, kept = named(base(1), "owner/base"), named(base(1), "owner/base")
    train(tuned, TOKENIZER, EXAMPLES, progress=False)
    train(kept, TOKENIZER, EXAMPLES, progress=False, output_dir=tmp_path / "kept")
    adapted = add_lora(named(base(1), "owner/base"))
    train(adapted, TOKENIZER, EXAMPLES, progress=False)
    names = [model.name_or_path for model in (merged, tuned, kept, adapted)]
    assert names == ["", "", str(tmp_path / "kept"), "owner/base"]
    # what is trained next names a base that is there
    second = trained(add_lora(kept))
    save_adapter(second, tmp_path / "second")
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "kept")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "second")  # PEFT finds it by itself
    assert_close(logits(loaded), logits(second), **LOGITS)


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
def test_a_folder_holds_a_whole_model_or_an_adapter(shards, tmp_path):
    whole, adapter = tmp_path / "whole", tmp_path / "adapter"
    base(1).save_pretrained(whole, max_shard_size=shards)
    save_adapter(add_lora(base(1)), adapter)
    before = [sorted(path.name for path in folder.iterdir()) for folder in (whole, adapter)]
    settings = {"progress": False, "resume": False}
    for action in (
        lambda: save_adapter(add_lora(base(1)), whole),
        lambda: train(add_lora(base(1)), TOKENIZER, EXAMPLES, output_dir=whole, **settings),
    ):
        with pytest.raises(ValueError, match=r"holds a whole model \(model.*and an adapter beside"):
            action()
    model = base(1)
    with pytest.raises(
        ValueError, match=r"holds an adapter \(adapter_config.*a whole model beside"
    ):
        train(model, TOKENIZER, EXAMPLES, output_dir=adapter, **settings)
    assert torch.equal(logits(model), logits(base(1)))  # refused before the first step
    assert before == [sorted(path.name for path in folder.iterdir()) for folder in (whole, adapter)]
    for path in adapter.iterdir():
        shutil.copy(path, whole)  # as an older version of the course left it, or a copy by hand
    refused(base(1), lambda model: load_adapter(model, whole), "holds a whole model")


def test_the_same_kind_is_written_again_and_other_files_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("kept")
    (tmp_path / "training_args.bin").write_bytes(b"as the Trainer leaves it")
    for _ in range(2):
        train(add_lora(base(1)), TOKENIZER, EXAMPLES, output_dir=tmp_path, progress=False)
    load_adapter(base(1), tmp_path)


def test_an_adapter_that_save_adapter_wrote_is_known_as_ours_and_no_other(tmp_path):
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    save_adapter(add_lora(base(1)), own)
    tuned = load_adapter(base(1), own)
    train(tuned, TOKENIZER, EXAMPLES, output_dir=own, progress=False)
    trained(tuned)
    save_adapter(tuned, own)
    assert (own / "tokenizer.json").is_file()  # of the run before, and kept
    assert_close(logits(load_adapter(base(1), own)), logits(tuned), **LOGITS)
    with_peft(base(1)).save_pretrained(foreign)
    before = {path.name: path.read_bytes() for path in foreign.iterdir()}
    with pytest.raises(OutputError, match="was not written by this program"):
        save_adapter(add_lora(base(1)), foreign)
    assert before == {path.name: path.read_bytes() for path in foreign.iterdir()}


def killed_in_step(number: int):
    """An optimizer_step that is killed when it should make this step."""
    real = sft_lab.train.optimizer_step

    def step(*arguments, **settings):
        if settings["step"] == number:
            raise Killed
        return real(*arguments, **settings)

    return step


# --- a model of PEFT in the loop
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 3])
def test_a_run_on_a_model_of_peft_leaves_an_adapter_for_its_own_base_alone(seed, tmp_path):
    (tmp_path / "README.md").write_text("of the reader")
    tuned_base = base(seed)
    train(tuned_base, TOKENIZER, EXAMPLES, progress=False)
    same = copy.deepcopy(tuned_base)
    for _ in range(2):  # the second replaces the first
        model = with_peft(copy.deepcopy(tuned_base))
        train(model, TOKENIZER, EXAMPLES, output_dir=tmp_path, progress=False)
    assert (tmp_path / "README.md").read_text() == "of the reader"
    ends = json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"]
    assert ends == model.generation_config.eos_token_id
    assert_close(logits(load_adapter(copy.deepcopy(same), tmp_path)), logits(model), **LOGITS)
    assert_close(logits(PeftModel.from_pretrained(same, tmp_path)), logits(model), **LOGITS)
    refused(base(seed), lambda fresh: load_adapter(fresh, tmp_path), "these are other weights")


def test_a_model_of_peft_is_refused_before_a_run_that_would_lose_something(tmp_path):
    train(base(1), TOKENIZER, EXAMPLES, output_dir=tmp_path / "whole", progress=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    with pytest.raises(ValueError, match="holds a whole model"):
        train(with_peft(base(1)), TOKENIZER, EXAMPLES, output_dir=tmp_path / "whole")
    after = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {name: after[name] for name in before} == before
    model = with_peft(base(1))
    model.get_base_model().model.embed_tokens.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="cannot hold .*embed_tokens.weight .*merge_and_unload"):
        train(model, TOKENIZER, EXAMPLES, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    whole_part = with_peft(base(1), targets=["q_proj"], modules_to_save=["embed_tokens"])
    train(whole_part, TOKENIZER, EXAMPLES, output_dir=tmp_path / "run", progress=False)
    again = PeftModel.from_pretrained(base(1), tmp_path / "run")
    assert_close(logits(again), logits(whole_part), **LOGITS)


@pytest.mark.parametrize("other", [{"alpha": 32}, {"dropout": 0.5}, {"use_rslora": True}])
def test_a_run_on_a_model_of_peft_goes_on_with_the_same_settings_alone(other, tmp_path):
    settings = {"output_dir": tmp_path, "batch_size": 8, "checkpoint_every": 2, "progress": False}
    first, whole = (with_peft(base(1), dropout=0.1) for _ in range(2))
    trained(first, 1), trained(whole, 1)
    expected = train(whole, TOKENIZER, EXAMPLES, batch_size=8, progress=False).losses
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sft_lab.train, "optimizer_step", killed_in_step(3))
        train(first, TOKENIZER, EXAMPLES, **settings)
    name = {"alpha": "lora_alpha", "dropout": "lora_dropout"}.get(*other, *other)
    with pytest.raises(ValueError, match=rf"other default\.{name} of the model"):
        changed = with_peft(base(1), **{"dropout": 0.1, **other})
        train(changed, TOKENIZER, EXAMPLES, resume=True, **settings)
    resumed = with_peft(base(1), dropout=0.1)
    history = train(resumed, TOKENIZER, EXAMPLES, resume=True, **settings)
    assert_close(history.losses, expected, **LOSS)


# --- going on with a run
# -----------------------------------------------------------------------------------------------

RUN = {"epochs": 2, "batch_size": 8, "checkpoint_every": 2, "progress": False}


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory) -> Path:
    """A run on add_lora(base(1), rank=2, alpha=8, dropout=0.1), killed in its fourth step."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sft_lab.train, "optimizer_step", killed_in_step(4))
        train(begin(), TOKENIZER, EXAMPLES, output_dir=folder, **RUN)
    return folder


def begin(start: PreTrainedModel | None = None, **settings) -> PreTrainedModel:
    start = base(1) if start is None else start
    torch.manual_seed(3)  # after base, which seeds when it makes one
    return add_lora(start, **{"rank": 2, "alpha": 8, "dropout": 0.1, **settings})


def with_config(**changes) -> PreTrainedModel:
    model = base(1)
    for name, value in changes.items():
        setattr(model.config, name, value)
    return model


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (lambda: begin(alpha=16), ["other alpha of the model", "[8] there, [16] here"]),
        (lambda: begin(alpha=8.5), ["other alpha", "[8.5] here"]),
        (lambda: begin(dropout=0.0), ["other dropout", "[0.1] there, [0.0] here"]),
        (lambda: begin(rank=4), ["has shape [2, ", "] there, [4, "]),
        (lambda: begin(targets=["q_proj"]), ["of another model, or other"]),
        (
            lambda: begin(with_config(attention_dropout=0.3)),
            ["other attention_dropout", "0.3 here"],
        ),
        (lambda: begin(with_config(rms_norm_eps=1e-3)), ["other rms_norm_eps", "0.001 here"]),
        (lambda: begin(other_bases(1)["merged"]), ["one base, and these are other weights"]),
        (lambda: begin(other_bases(1)["tuned"]), ["one base, and these are other weights"]),
        (lambda: begin(other_bases(1)["one row"]), ["(1 of 24 tensors differ, first model.embed"]),
        (lambda: begin(other_bases(1)["another seed"]), ["one base, and these are other weights"]),
    ],
)
def test_a_run_goes_on_with_the_model_it_had_and_with_no_other(change, fragments, killed_run):
    model = change()
    with pytest.raises(ValueError, match="belongs to|is of another model") as caught:
        train(model, TOKENIZER, EXAMPLES, output_dir=killed_run, resume=True, **RUN)
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value
    assert (killed_run / "checkpoint" / "state.json").exists()


def test_a_run_goes_on_under_another_name_and_in_another_folder(killed_run, tmp_path):
    shutil.copytree(killed_run, tmp_path / "copy")
    model = begin(named(base(1), "elsewhere/base"))
    history = train(model, TOKENIZER, EXAMPLES, output_dir=tmp_path / "copy", resume=True, **RUN)
    whole = begin()
    expected = train(whole, TOKENIZER, EXAMPLES, **RUN).losses
    assert_close(history.losses, expected, **LOSS)
