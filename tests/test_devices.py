"""Where models run, and that nothing of the course mixes devices: on a pretended accelerator."""

from pathlib import Path

import pytest
import torch
from chapter_source import Cell, read_chapter
from pretended_accelerator import ACCELERATOR, pretended_accelerator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

import sft_lab.models
from sft_lab.adapters import add_adapters, add_biases, add_prefix, add_prompt
from sft_lab.chat import complete, generate_responses
from sft_lab.compare import compare
from sft_lab.labels import encode_conversation
from sft_lab.lora import add_lora, load_adapter, merge_lora, remove_lora, save_adapter
from sft_lab.models import ATLAS_FOLDER, choose_device, load
from sft_lab.token_losses import dft, focal, smoothed, weighted
from sft_lab.train import evaluate, train

CHAPTERS = sorted((Path(__file__).resolve().parents[1] / "chapters").glob("[0-9][0-9]*_*.py"))
QUESTIONS = [("What is the capital of Kenya?", "Nairobi."), ("What is 2 + 2?", "4.")]
RUN = {"epochs": 2, "batch_size": 2, "checkpoint_every": 1, "progress": False}


def make_stand_in(tokenizer: PreTrainedTokenizerBase, *, seed: int = 0) -> PreTrainedModel:
    """Qwen3's architecture with random weights, 74 thousand of them, on the current CPU."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    config = Qwen3Config(
        vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes, **heads, eos_token_id=None
    )
    config.pad_token_id = tokenizer.pad_token_id
    return Qwen3ForCausalLM(config).eval()


@pytest.fixture
def accelerator():
    with pretended_accelerator():
        yield


@pytest.fixture
def stand_in(accelerator, tokenizer) -> PreTrainedModel:
    return make_stand_in(tokenizer).to(ACCELERATOR)


@pytest.fixture
def examples(tokenizer):
    return [
        encode_conversation(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            tokenizer,
        )
        for question, answer in QUESTIONS * 2
    ]


# --- the pretended device
# -------------------------------------------------------------------------------------------------

MIXES = {
    "adding": lambda here, there: here + there,
    "adding in place": lambda here, there: here.add_(there),
    "joining": lambda here, there: torch.cat((here, there)),
    "comparing": lambda here, there: torch.where(here > 0, here, there),
    "a product": lambda here, there: here @ there,
    "a number here": lambda here, there: here.sum() * there,
    "a view here": lambda here, there: here[1:] * there[1:],
    "an index here": lambda here, there: there[here.long()],
    "a layer there": lambda here, there: nn.Linear(3, 2)(here),
    "a gradient": lambda here, there: here.requires_grad_().square().backward(there),
    "numpy": lambda here, there: here.numpy(),
    "a hook in backward": lambda here, there: register_mix(here, there).sum().backward(),
}


def register_mix(here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """A tensor whose gradient, made on the accelerator, is multiplied by one of the CPU."""
    product = here.requires_grad_() * 2
    product.register_hook(lambda gradient: gradient * there)
    return product


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_the_pretended_device_refuses_a_mix(accelerator, mix):
    with pytest.raises((RuntimeError, TypeError), match=r"mps:0"):
        mix(torch.ones(3, device=ACCELERATOR), torch.ones(3))


def test_what_a_real_device_allows_is_allowed(accelerator):
    here = torch.arange(3.0, device=ACCELERATOR)
    assert here.device == ACCELERATOR and here.is_mps and not here.is_cpu
    assert (here * torch.tensor(2.0)).tolist() == [0, 2, 4]  # a number meets any tensor
    assert here[torch.tensor([2, 0])].tolist() == [2, 0]  # indices may come from the CPU
    assert torch.ones(3).copy_(here).device.type == "cpu"
    assert (here.cpu() + torch.ones(3)).tolist() == [1, 2, 3]
    for made in (here.new_zeros(2), torch.zeros_like(here), here.double(), here[1:], -here):
        assert made.device == ACCELERATOR
    assert torch.zeros_like(here, device="cpu").device.type == "cpu"
    assert torch.ones(2).to(here).device == ACCELERATOR


def test_gradients_are_those_of_the_cpu_and_go_back_through_a_move(accelerator):
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    weight.to(ACCELERATOR).square().sum().backward()
    assert weight.grad.device.type == "cpu" and weight.grad.tolist() == [2, 4]
    layer = nn.Linear(2, 1).to(ACCELERATOR)
    layer(torch.ones(2, device=ACCELERATOR)).backward()
    assert layer.weight.grad.device == ACCELERATOR and layer.weight.grad.tolist() == [[1, 1]]


# --- the library on it
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"pack_to": 64}, {"accumulation_steps": 2}], ids=str)
def test_a_run_and_its_evaluation_stay_on_the_device(stand_in, tokenizer, examples, settings):
    history = train(
        stand_in, tokenizer, examples, eval_examples=examples[:2], **{**RUN, **settings}
    )
    assert history.losses and stand_in.device == ACCELERATOR
    assert evaluate(stand_in, tokenizer, examples)["graded"] > 0
    assert {parameter.device for parameter in stand_in.parameters()} == {ACCELERATOR}


@pytest.mark.parametrize("name", ["weighted", "focal", "smoothed", "dft"])
def test_a_run_with_another_loss_stays_on_the_device(stand_in, tokenizer, examples, name):
    size = stand_in.config.vocab_size
    losses = {
        "weighted": weighted([1.0] * (size - 1) + [2.0]),
        "focal": focal(2),
        "smoothed": smoothed(0.1),
        "dft": dft(),
    }
    on_cpu = train(make_stand_in(tokenizer), tokenizer, examples, loss=losses[name], **RUN)
    here = train(stand_in, tokenizer, examples, loss=losses[name], **RUN)
    assert here.losses == pytest.approx(on_cpu.losses, abs=1e-5) and stand_in.device == ACCELERATOR


def test_a_run_on_the_device_resumes_there(stand_in, tokenizer, examples, tmp_path, monkeypatch):
    whole = train(stand_in, tokenizer, examples, **RUN).losses
    real = sft_lab.train.optimizer_step

    def stop_at_step_3(*arguments, **settings):
        if settings["step"] == 3:
            raise KeyError("stopped")
        return real(*arguments, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(sft_lab.train, "optimizer_step", stop_at_step_3)
        fresh = make_stand_in(tokenizer).to(ACCELERATOR)
        train(fresh, tokenizer, examples, output_dir=tmp_path, **RUN)
    again = make_stand_in(tokenizer).to(ACCELERATOR)
    resumed = train(again, tokenizer, examples, output_dir=tmp_path, resume=True, **RUN)
    assert len(resumed.losses) == 4 and resumed.losses == whole  # the same path twice


def test_answers_come_from_the_device(stand_in, tokenizer):
    questions = [question for question, _ in QUESTIONS]
    for settings in ({}, {"do_sample": True, "temperature": 0.7}, {"num_beams": 2}):
        assert len(generate_responses(stand_in, tokenizer, questions, max_new_tokens=5)) == 2
        assert len(complete(stand_in, tokenizer, questions, max_new_tokens=5, **settings)) == 2


def test_two_models_of_two_devices_are_compared(stand_in, tokenizer):
    on_cpu = make_stand_in(tokenizer, seed=1)
    pairs = (on_cpu, tokenizer), (stand_in, tokenizer)
    assert len(compare(*pairs, QUESTIONS, max_new_tokens=5).rows) == 2


def test_lora_is_added_trained_saved_loaded_and_merged_on_the_device(
    stand_in, tokenizer, examples, tmp_path
):
    train(add_lora(stand_in, rank=2, dropout=0.1), tokenizer, examples, **RUN)
    save_adapter(stand_in, tmp_path)
    load_adapter(remove_lora(stand_in), tmp_path)
    assert {parameter.device for parameter in stand_in.parameters()} == {ACCELERATOR}
    assert merge_lora(stand_in).device == ACCELERATOR


ADDED = {
    "adapters": add_adapters,
    "prefix": lambda model: add_prefix(model, [5, 6]),
    "prompt": lambda model: add_prompt(model, [5, 6]),
    "biases": add_biases,
}


@pytest.mark.parametrize("add", ADDED.values(), ids=ADDED)
def test_what_is_added_to_a_model_stands_on_its_device(stand_in, tokenizer, examples, add):
    train(add(stand_in), tokenizer, examples, **RUN)
    assert {parameter.device for parameter in stand_in.parameters()} == {ACCELERATOR}
    assert len(generate_responses(stand_in, tokenizer, ["Hi"], max_new_tokens=3)) == 1


# --- where models go
# -------------------------------------------------------------------------------------------------


@pytest.fixture
def with_an_accelerator(accelerator, monkeypatch):
    monkeypatch.setattr(
        sft_lab.models, "local_device", lambda: (ACCELERATOR, choose_device(None)[1])
    )


def test_atlas_stays_on_the_cpu_in_float32_where_an_accelerator_is(with_an_accelerator, tmp_path):
    model, tokenizer = load("atlas-base")
    model.save_pretrained(tmp_path / "tuned")
    tokenizer.save_pretrained(tmp_path / "tuned")
    for source in ("atlas-base", ATLAS_FOLDER, tmp_path / "tuned"):
        model, _ = load(source)
        assert (model.device.type, model.dtype) == ("cpu", torch.float32), source


def test_a_real_model_goes_to_the_accelerator(with_an_accelerator, tokenizer, tmp_path, capsys):
    model = make_stand_in(tokenizer)
    model.resize_token_embeddings(160_000)  # 20 MB
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path)[0].device == ACCELERATOR
    assert "on mps, float32" in capsys.readouterr().out


# --- the cells of a chapter that take a real model
# -------------------------------------------------------------------------------------------------


def has_real_cells(path: Path) -> bool:
    return any("real" in cell.tags for cell in read_chapter(path))


def run_real_cells(
    path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch, name: str = "qwen3-0.6b-base"
) -> int:
    """Execute the set-up and the `real` cells of a chapter, which use no name of other cells, with
    SFT_LAB_MODEL = `name` and a stand-in on the accelerator for every model but atlas-base; returns
    how many `real` cells ran.

    Their assertions are left out and runs are cut to 24 examples: what random weights learn shows
    nothing.
    """
    stand_ins, real_load, real_train = [], sft_lab.models.load, sft_lab.train.train

    def load_stand_in(wanted=None, **settings):
        if wanted == "atlas-base":
            return real_load(wanted, **settings)
        stand_ins.append(make_stand_in(tokenizer, seed=len(stand_ins)).to(ACCELERATOR))
        return stand_ins[-1], tokenizer

    def train_briefly(model, tokenizer, examples, **settings):
        return real_train(model, tokenizer, examples[:24], **settings)

    monkeypatch.setattr(sft_lab.models, "load", load_stand_in)
    monkeypatch.setattr(sft_lab.train, "train", train_briefly)
    monkeypatch.setenv("SFT_LAB_MODEL", name)
    names = {"__name__": f"chapter_{path.stem}", "display": lambda *_: None}
    cells = [cell for cell in read_chapter(path) if cell.kind == "code"]
    real = [cell for cell in cells if "real" in cell.tags]
    with pretended_accelerator():
        for cell in (cell for cell in cells if {"setup", "real"} & set(cell.tags)):
            run(cell, path, names)
    assert stand_ins, f"{path.name}: no cell loaded a real model, so this shows nothing"
    return len(real)


def run(cell: Cell, path: Path, names: dict) -> None:
    """Execute a cell without its assert statements; a traceback points to the chapter's line."""
    source = "\n" * cell.line + cell.source
    exec(compile(source, str(path), "exec", dont_inherit=True, optimize=1), names)


@pytest.mark.parametrize(
    "chapter", [path for path in CHAPTERS if has_real_cells(path)], ids=lambda path: path.stem
)
@pytest.mark.parametrize("name", ["qwen3-0.6b-base", "smollm2-135m"])
def test_the_cells_for_a_real_model_mix_no_devices(chapter, name, tokenizer, monkeypatch, capsys):
    assert run_real_cells(chapter, tokenizer, monkeypatch, name) > 0


CHAPTER = """\
# %% [markdown]
# # 97 · A real model

# %% tags=["setup"]
import torch
from sft_lab.models import load

model, tokenizer = load("qwen3-0.6b-base")

# %%
raise SystemExit("this cell is for the CPU alone")

# %% tags=["real"]
input_ids = tokenizer("Hello", return_tensors="pt").input_ids{move}
loss = model(input_ids=input_ids, labels=input_ids).loss
assert loss < 0.1
print("ran to the end")
"""


def test_a_mix_in_a_chapter_is_found_and_without_it_the_same_cells_pass(
    tmp_path, tokenizer, monkeypatch, capsys
):
    path = tmp_path / "97_real.py"
    path.write_text(CHAPTER.format(move=".to(model.device)"), encoding="utf-8")
    assert run_real_cells(path, tokenizer, monkeypatch) == 1
    assert "ran to the end" in capsys.readouterr().out
    path.write_text(CHAPTER.format(move=""), encoding="utf-8")
    with pytest.raises(RuntimeError, match="mps:0 and cpu, in torch.nn.functional.embedding"):
        run_real_cells(path, tokenizer, monkeypatch)


def test_a_chapter_that_loads_no_real_model_is_no_evidence(tmp_path, tokenizer, monkeypatch):
    path = tmp_path / "97_real.py"
    path.write_text(CHAPTER.format(move="").replace("qwen3-0.6b-base", "atlas-base"))
    with pytest.raises(AssertionError, match="no cell loaded a real model"):
        run_real_cells(path, tokenizer, monkeypatch)
