"""Every architecture is trained on its own loss or refused in one line: a dozen kinds here, all of
them in `make test-architectures`."""

import re

import pytest
from architectures import (
    MODEL_TYPES,
    NOT_BUILT,
    Verdict,
    classify,
    judge,
    make_examples,
    make_tiny,
    try_type,
)

import sft_lab.losses
import sft_lab.train

# Of each kind one: what the loop does with it padded, and packed.
KINDS = {
    "qwen3": ("right", "right"),
    "gpt2": ("right", "right"),  # learned positions
    "opt": ("right", "refused"),  # learned positions, counted by the mask
    "bloom": ("right", "refused"),  # ALiBi
    "gemma2": ("right", "right"),  # soft cap, sliding windows
    "granite": ("right", "right"),  # four multipliers
    "mixtral": ("right", "right"),  # experts, with a loss of their own in model(labels=…)
    "deepseek_v3": ("right", "right"),  # a latent for keys and values
    "gpt_oss": ("right", "refused"),  # attention sinks
    "llama4_text": ("right", "right"),  # get_decoder gives the whole model
    "mamba": ("right", "refused"),  # a state
    "qwen3_next": ("right", "refused"),  # states and attention
    "recurrent_gemma": ("right", "refused"),  # states, and a soft cap under a name of its own
    "roberta": ("right", "refused"),  # more layers behind the decoder
    "whisper": ("right", "right"),  # a decoder without its encoder
    "xlnet": ("refused", "refused"),  # sees both sides
    "reformer": ("refused", "refused"),  # rows of certain lengths alone
    "gemma4_unified_assistant": ("refused", "refused"),  # reads another model's states
}


@pytest.mark.parametrize("model_type", KINDS)
def test_each_kind_is_trained_on_its_own_loss_or_refused(model_type):
    verdicts = try_type(model_type)
    assert tuple(verdict.word for verdict in verdicts.values()) == KINDS[model_type], verdicts
    for verdict in verdicts.values():
        if verdict.word == "refused":
            assert len(verdict.note) < 400 and re.search("[Tt]rain without|[Tt]ake a", verdict.note)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("model_type", ["qwen3", "gemma2", "mixtral", "bloom", "xlnet"])
def test_half_precision_changes_no_verdict(model_type, dtype):
    words = tuple(verdict.word for verdict in try_type(model_type, dtype).values())
    assert words == KINDS[model_type]


def test_a_bert_that_is_no_decoder_is_refused():
    model = make_tiny("bert", is_decoder=False)
    assert judge(model, make_examples()) is None
    verdict = classify(model, None, "padded", {})
    assert verdict.word == "refused" and "BertLMHeadModel looks ahead" in verdict.note


def test_what_cannot_be_built_is_listed_with_a_reason_and_exists():
    assert NOT_BUILT.keys() <= set(MODEL_TYPES)
    for model_type in NOT_BUILT:
        assert {*try_type(model_type).values()} == {Verdict("not built", NOT_BUILT[model_type])}


# --- the judge can condemn
# ---------------------------------------------------------------------------------------------


@pytest.fixture
def unprobed(monkeypatch):
    monkeypatch.setattr(sft_lab.train, "check_model", lambda *_: None)


@pytest.mark.parametrize("model_type", ["bloom", "mamba", "gpt_oss"])
def test_without_the_probe_a_leak_is_silent_and_found(model_type, unprobed):
    verdicts = try_type(model_type)
    assert verdicts["padded"].word == "right"
    assert verdicts["packed"].word == "silent" and "instead of" in verdicts["packed"].note


@pytest.mark.parametrize("model_type", ["gemma2", "granite", "roberta"])
def test_with_the_head_taken_for_the_last_thing_the_loss_is_wrong_and_found(
    model_type, unprobed, monkeypatch
):
    class AlwaysLast(dict):
        __missing__ = lambda self, model: True  # noqa: E731
        __contains__ = lambda self, model: True  # noqa: E731

    monkeypatch.setattr(sft_lab.losses, "_HEAD_IS_LAST", AlwaysLast())
    assert try_type(model_type)["padded"].word == "silent"
