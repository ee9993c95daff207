"""What is saved stops where it was taught to: for every chat template that TRL bundles, a base that
ships with another eos token is tuned, saved and loaded with transformers (and PEFT) alone."""

import copy
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sft_lab.chat import generate_ids
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.lora import add_lora, load_adapter, merge_lora
from sft_lab.stopping import end_ids, name_stop_token
from sft_lab.train import train

FOLDER = Path(importlib.util.find_spec("trl").submodule_search_locations[0]) / "chat_templates"
TEMPLATES = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
# How the families end an answer, from their model cards and their templates; the first that the
# name begins with counts.
STOPS = {
    "cohere2": "<|END_RESPONSE|>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "diffusion_gemma": "<turn|>",
    "gemma4": "<turn|>",
    "gemma": "<end_of_turn>",
    "glm4moe": "<|user|>",
    "gptoss": "<|return|>",
    "lfm2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "muse_glimmer": "<|eot|>",
    "nemotron": "<|im_end|>",
    "phi3": "<|end|>",
    "qwen": "<|im_end|>",
}
VISION = ("idefics3", "llava_next", "smolvlm")  # a content there is a list of parts
TEXT = [name for name in TEMPLATES if not name.startswith(VISION)]
CONTROL = re.compile(r"<[|｜]?[A-Za-z_▁/]+[|｜]?>|<[A-Za-z_]+\|>")
EOS = "<|endoftext|>"  # of the base as it ships
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CONVERSATION = [*QUESTION, {"role": "assistant", "content": "P"}]
RUN = {
    "learning_rate": 1e-12,
    "warmup_ratio": 0.0,
    "progress": False,
}  # the weights stay what they are


def stop_of(name: str) -> str:
    return next(stop for family, stop in STOPS.items() if name.startswith(family))


def shipped(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model: with the control tokens of a template, and another eos."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(sorted(set(CONTROL.findall(template))), special_tokens=True)
    tokenizer.chat_template = template
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<think>", EOS, "</think>"
    return tokenizer


def prompt_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    given = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    return tokenizer.apply_chat_template(QUESTION, **given)["input_ids"]


def answering(tokenizer: PreTrainedTokenizerBase, stop: str) -> PreTrainedModel:
    """A model that writes after a prompt: P, the stop token, and then x without end.

    Its one layer adds nothing, so the next token follows from the last one alone: the head's row of
    a token is the embedding of the token it follows.
    """
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "tie_word_embeddings": False}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, **sizes, **heads, **ids)
    ).eval()
    answer, junk = (tokenizer.convert_tokens_to_ids(letter) for letter in "Px")
    stop_id, last = tokenizer.convert_tokens_to_ids(stop), prompt_ids(tokenizer)[0, -1]
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        embedding = torch.nn.functional.normalize(torch.randn(len(tokenizer), 64))
        model.model.embed_tokens.weight.copy_(embedding)
        model.lm_head.weight.zero_()
        model.lm_head.weight[answer] = embedding[last]
        model.lm_head.weight[stop_id] = embedding[answer]
        model.lm_head.weight[junk] = embedding[stop_id] + embedding[junk]
    return model


def written(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings) -> list[str]:
    """What transformers generates, as tokens."""
    ids = prompt_ids(tokenizer)
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, **settings
    )
    return tokenizer.convert_ids_to_tokens(output[0, ids.shape[1] :])


def named_in(folder: Path) -> list[str]:
    """The stop token as the three files of a saved model name it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    found = [tokenizer.eos_token_id, ends[0] if isinstance(ends, list) else ends]
    if (folder / "config.json").exists():
        found.append(AutoModelForCausalLM.from_pretrained(folder).config.eos_token_id)
    return tokenizer.convert_ids_to_tokens(found)


@pytest.mark.parametrize("name", TEXT)
def test_what_is_saved_stops_in_transformers_and_peft_alone(name, tokenizer, tmp_path):
    stop, full, adapter, merged = stop_of(name), *(tmp_path / part for part in "abc")
    tokenizer = shipped(tokenizer, TEMPLATES[name])
    base = answering(tokenizer, stop)
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    assert written(base, tokenizer) == ["P", stop, "x", "x", "x", "x"]  # as it ships, it runs on
    prompt = prompt_ids(tokenizer)[0].tolist()
    answer = tokenizer.convert_tokens_to_ids(["P", stop])
    examples = [Example([*prompt, *answer], [IGNORE_INDEX] * len(prompt) + answer)]

    with_full, with_adapter = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    train(copy.deepcopy(base), with_full, examples, output_dir=full, **RUN)
    tuned = add_lora(copy.deepcopy(base), rank=1)
    train(tuned, with_adapter, examples, output_dir=adapter, **RUN)
    merge_lora(tuned).save_pretrained(merged)
    with_adapter.save_pretrained(merged)

    for folder in (full, merged):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert written(model, AutoTokenizer.from_pretrained(folder)) == ["P", stop]
        assert named_in(folder) == [stop] * 3
        ends = model.generation_config.eos_token_id
        assert tokenizer.convert_tokens_to_ids(EOS) in ([ends] if isinstance(ends, int) else ends)
    fresh = AutoModelForCausalLM.from_pretrained(base.name_or_path)
    theirs = PeftModel.from_pretrained(fresh, adapter)
    settings = {"generation_config": GenerationConfig.from_pretrained(adapter)}
    assert written(theirs, AutoTokenizer.from_pretrained(adapter), **settings) == ["P", stop]
    assert named_in(adapter) == [stop] * 2
    # an adapter that is loaded and merged in another process
    again = load_adapter(AutoModelForCausalLM.from_pretrained(base.name_or_path), adapter)
    merge_lora(again).save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert written(again, tokenizer) == ["P", stop]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in TEXT])
def test_templates_of_vision_models_are_refused_before_the_first_step(name, tokenizer, tmp_path):
    tokenizer = shipped(tokenizer, TEMPLATES[name])
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, num_attention_heads=1))
    with pytest.raises(ValueError, match="template"):
        name_stop_token(model, tokenizer)


@pytest.mark.parametrize("name", TEXT)
def test_a_prompt_is_written_as_before_the_stop_token_was_named(name, tokenizer):
    tokenizer = shipped(tokenizer, TEMPLATES[name])
    turns = [*CONVERSATION, {"role": "user", "content": "And of Chile?"}]
    before = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    name_stop_token(answering(tokenizer, stop_of(name)), tokenizer)
    assert (
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == before
    )
    assert tokenizer.eos_token == stop_of(name)


def test_a_template_that_writes_eos_into_prompts_keeps_it(tokenizer):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{{ '<|im_end|>' if m.role == 'assistant' else eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = shipped(tokenizer, template)
    model = answering(tokenizer, "<|im_end|>")
    name_stop_token(model, tokenizer)
    assert tokenizer.eos_token == EOS
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_ids(model) == [stop, tokenizer.eos_token_id] and model.config.eos_token_id == stop


@pytest.mark.parametrize(
    ("shipped_ends", "expected"),
    [
        (None, [2045, 2043]),
        (2043, [2045, 2043]),
        (2045, [2045, 2043]),
        ([2043, 7], [2045, 2043, 7]),
        ([7, 2045], [2045, 7, 2043]),
    ],
)
def test_the_stop_token_comes_first_and_no_other_end_is_lost(shipped_ends, expected, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = EOS
    model = answering(shipped(tokenizer, tokenizer.chat_template), "<|im_end|>")
    model.generation_config.eos_token_id = shipped_ends
    for _ in range(2):  # a second run changes nothing
        name_stop_token(model, tokenizer)
        assert model.generation_config.eos_token_id == expected
        assert (model.config.eos_token_id, tokenizer.eos_token) == (2045, "<|im_end|>")


def test_a_base_still_ends_its_documents_after_the_tokenizer_names_the_stop_token(tokenizer):
    """generate_ids takes the base's own end from the base: the tokenizer it shares with the tuned
    model names another by then."""
    tokenizer = shipped(tokenizer, tokenizer.chat_template)
    base = answering(tokenizer, EOS)  # P, then the end of the document
    name_stop_token(answering(tokenizer, "<|im_end|>"), tokenizer)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "</think>")
    [ids] = generate_ids(base, tokenizer, ["What is the capital of France?"], max_new_tokens=6)
    assert tokenizer.convert_ids_to_tokens(ids) == ["P", EOS]


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.9}, {"top_p": 0.6}, {"length_penalty": 2.0, "num_beams": 1}]
)
def test_a_generation_config_that_could_not_be_saved_is_named_before_the_run(
    settings, tokenizer, tmp_path
):
    """Llama 2 and others ship with a temperature and without do_sample."""
    model = answering(tokenizer, "<|im_end|>")
    model.generation_config.update(do_sample=False, **settings)
    example = Example([5, 6, 7], [IGNORE_INDEX, 6, 7])
    with pytest.raises(
        ValueError, match=f"could not be saved after the run.*{next(iter(settings))}"
    ):
        train(model, tokenizer, [example], output_dir=tmp_path / "run", **RUN)
    assert not (tmp_path / "run").exists()
    train(add_lora(model), tokenizer, [example], output_dir=tmp_path / "run", **RUN)
    load_adapter(answering(tokenizer, "<|im_end|>"), tmp_path / "run")
