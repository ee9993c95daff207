"""Before the first step: rows that a model cannot take, a pad token that is none and a model
without an output head are refused in one line, and nothing is changed."""

import copy
import random
import sys

import pytest
import torch
from architectures import make_tiny
from tiny import PAD, VOCABULARY, make_examples, make_model, make_tokenizer
from transformers import LlamaForSequenceClassification, LlamaModel

import sft_lab.train
from sft_lab.examples import Example
from sft_lab.loop.limits import check_rows, count_entries, count_positions
from sft_lab.lora import add_lora
from sft_lab.train import evaluate, train

pytestmark = pytest.mark.numeric

RUN = {"progress": False, "batch_size": 4}
POSITIONS = 128  # of every tiny model


def ask(way: str, model, tokenizer, examples: list[Example], **settings):
    """Train on the examples, watch them, or evaluate them alone."""
    if way == "evaluate":
        return evaluate(model, tokenizer, examples)
    if way == "eval_examples":
        return train(model, tokenizer, make_examples(9), eval_examples=examples, **RUN, **settings)
    return train(model, tokenizer, examples, **RUN, **settings)


@pytest.fixture
def no_step(monkeypatch):
    def optimizer_step(*_, **__):
        pytest.fail("a step was taken")

    monkeypatch.setattr(sft_lab.train, "optimizer_step", optimizer_step)


WAYS = ("examples", "eval_examples", "evaluate")


@pytest.mark.parametrize("settings", [{}, {"pack_to": 60, "warmup_ratio": 0.0}])
@pytest.mark.parametrize("way", WAYS)
def test_a_tokenizer_without_a_pad_token_is_named(way, settings, no_step):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="^pad_token_id is None.*models.load sets one$"):
        ask(way, make_model(), tokenizer, make_examples(9), **settings)


# --- token ids
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuned", ["all", "LoRA"])
@pytest.mark.parametrize("way", WAYS)
def test_an_id_beyond_the_embedding_is_named_with_its_place_and_taken_after_resizing(way, tuned):
    rng = random.Random(0)
    for seed in range(3):
        model, examples = make_model("llama", seed=seed), make_examples(9, seed=seed)
        if tuned == "LoRA":
            add_lora(model, rank=2)
        number, wrong = rng.randrange(len(examples)), VOCABULARY + rng.randrange(3)
        place = rng.randrange(len(examples[number].input_ids))
        examples[number].input_ids[place] = wrong
        examples[number].labels[-1] = examples[number].input_ids[-1]
        name = "eval_examples" if way == "eval_examples" else "examples"
        with pytest.raises(ValueError) as refused, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sft_lab.train, "optimizer_step", lambda *_, **__: pytest.fail("a step"))
            ask(way, model, make_tokenizer(), examples)
        assert str(refused.value).startswith(
            f"{name}[{number}] has token id {wrong} at place {place}, but the model's embedding "
            f"has the ids 0 to {VOCABULARY - 1}: "
        )
        assert "model.resize_token_embeddings(len(tokenizer))" in str(refused.value)
    if tuned == "all":
        model.resize_token_embeddings(VOCABULARY + 3)
        ask(way, model, make_tokenizer(), examples)


@pytest.mark.parametrize("label", [-1, -99, VOCABULARY, 10**6])
def test_a_label_that_no_row_of_the_head_answers_to_is_named(label, no_step):
    examples = make_examples(9)
    examples[5].labels[-1] = label
    place = len(examples[5].labels) - 1
    for way in WAYS:
        with pytest.raises(ValueError, match=rf"xamples\[5\] has label {label} at place {place}, "):
            ask(way, make_model(), make_tokenizer(), examples)


@pytest.mark.parametrize("way", WAYS)
def test_a_pad_token_that_was_added_and_has_no_row_is_named(way, no_step):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    with pytest.raises(ValueError, match=f"^the pad token has the id {VOCABULARY}, but.*resize_to"):
        ask(way, make_model(), tokenizer, make_examples(9))


def test_the_smaller_of_embedding_and_head_counts():
    model = make_model("llama")
    assert count_entries(model) == VOCABULARY
    model.lm_head = torch.nn.Linear(32, VOCABULARY - 4, bias=False)
    assert count_entries(model) == VOCABULARY - 4
    assert count_entries(torch.nn.Linear(2, 2)) == sys.maxsize


# --- positions
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model_type", ["gpt2", "opt", "roberta", "camembert", "bert", "whisper", "roformer", "ctrl"]
)
def test_learned_positions_are_counted_as_the_model_itself_takes_them(model_type):
    model = make_tiny(model_type)
    longest = count_positions(model)
    assert POSITIONS - 2 < longest <= POSITIONS

    def read(tokens: int) -> None:
        with torch.no_grad():
            model(input_ids=torch.full((1, tokens), 7), use_cache=False)

    read(longest)
    with pytest.raises((IndexError, RuntimeError)):
        read(longest + 1)


@pytest.mark.parametrize("model_type", ["bloom", "mamba", "xlnet"])
def test_a_model_without_a_limit_has_none(model_type):
    assert count_positions(make_tiny(model_type)) == sys.maxsize


def long_example(tokens: int) -> Example:
    ids = [5 + place % 40 for place in range(tokens)]
    return Example(ids, list(ids))


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "qwen3", "llama"])
@pytest.mark.parametrize("way", WAYS)
def test_a_row_longer_than_the_positions_is_named_and_one_as_long_is_taken(way, model_type):
    model, examples = make_tiny(model_type), make_examples(9)
    for tokens in (POSITIONS + 1, 200):
        examples[7] = long_example(tokens)
        with pytest.raises(ValueError) as refused, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sft_lab.train, "optimizer_step", lambda *_, **__: pytest.fail("a step"))
            ask(way, model, make_tokenizer(), examples)
        assert f"xamples[7] has {tokens} tokens, but the model has {POSITIONS} posi" in str(
            refused.value
        )
        assert f"encode with max_tokens={POSITIONS}" in str(refused.value)
    examples[7] = long_example(POSITIONS)
    ask(way, model, make_tokenizer(), examples)


def test_a_model_that_reads_further_says_so_in_its_config():
    model = make_model("llama")
    model.config.max_position_embeddings = 200
    assert evaluate(model, make_tokenizer(), [long_example(200)])["graded"] == 199


def test_packed_rows_and_their_padding_may_be_longer_than_the_positions():
    """Three examples in a row of 300 tokens, and beside it a row with 200 tokens of padding."""
    model, examples = make_tiny("gpt2"), [long_example(100) for _ in range(4)]
    run = {"progress": False, "warmup_ratio": 0.0, "batch_size": 2}
    packed = train(copy.deepcopy(model), make_tokenizer(), examples, pack_to=300, **run)
    alone = evaluate(model, make_tokenizer(), examples)
    assert abs(packed.losses[0] - alone["loss"]) < 1e-4


# --- models without an output head
# ---------------------------------------------------------------------------------------------

HEADLESS = {
    "LlamaModel": lambda model: LlamaModel(model.config),
    "LlamaForSequenceClassification": lambda model: LlamaForSequenceClassification(model.config),
    "DataParallel": torch.nn.DataParallel,
}


@pytest.mark.parametrize("kind", HEADLESS)
def test_a_model_without_scores_is_refused_alike_and_nothing_is_changed(kind, no_step, tmp_path):
    plain, tokenizer = make_model("llama"), make_tokenizer()
    tokenizer.eos_token = "w7"
    model = HEADLESS[kind](plain)
    before = copy.deepcopy((plain.config.to_dict(), model.state_dict()))
    advice = "give model.module" if kind == "DataParallel" else "AutoModelForCausalLM.*AutoModel's"
    said = set()
    for way, settings in ((way, {}) for way in WAYS):
        with pytest.raises(ValueError, match=f"^{kind} cannot be trained.*{advice}") as refused:
            ask(way, model, tokenizer, make_examples(9), **settings)
        said.add(str(refused.value))
    with pytest.raises(ValueError, match=advice) as refused:
        ask("examples", model, tokenizer, make_examples(9), output_dir=tmp_path / "run")
    assert said == {str(refused.value)} and "\n" not in str(refused.value)
    assert plain.config.to_dict() == before[0] and tokenizer.eos_token == "w7"
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[1][name])


@pytest.mark.parametrize("refused", [False, True])
def test_model_and_tokenizer_name_another_stop_token_only_when_the_run_begins(refused):
    model, tokenizer = make_model("llama"), make_tokenizer()
    model.generation_config.eos_token_id = 9
    if refused:
        model.model.layers[0].register_forward_hook(lambda layer, inputs, out: out.flip(1))
        with pytest.raises(ValueError, match="looks ahead"):
            train(model, tokenizer, make_examples(9), **RUN)
        assert model.generation_config.eos_token_id == 9
    else:
        train(model, tokenizer, make_examples(9), **RUN)
        assert model.generation_config.eos_token_id == [1, 9]


def test_it_costs_little():
    """The check is one pass over the ids: no step, no tensor."""
    examples, model = make_examples(2000, longest=120), make_model()
    model.forward = lambda *_, **__: pytest.fail("the model was asked")
    check_rows(model, PAD, examples=examples)
