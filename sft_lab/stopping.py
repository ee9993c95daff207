"""Station "say": a tuned model names the token that it was taught to stop at.

A base model often names another: Qwen3's ends a document with <|endoftext|>, and its chat template
ends an answer with <|im_end|>. What is saved without a word of that runs on after the answer:
transformers and vLLM stop at the generation configuration's tokens, GGUF files and vLLM at the
tokenizer's.
"""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.rendering import stop_token_id
from sft_lab.templates import find_template


def end_ids(model: PreTrainedModel) -> list[int]:
    """The token ids at which `model.generate` stops by itself; [] where it names none."""
    named = model.generation_config.eos_token_id
    return [named] if isinstance(named, int) else list(named or [])


def name_stop_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the stop token of the tokenizer's chat template into both of the model's
    configurations and into the tokenizer, in place, for whoever saves them.

    The generation configuration lists it first; the tokens at which the model or the tokenizer
    ended a text before stay behind it. A tokenizer whose template writes `eos_token` into prompts
    keeps its own, because another would change the prompts. Raises ValueError where no stop token
    can be told, as `stop_token_id` does.
    """
    stop = stop_token_id(tokenizer)
    name_end_ids(model, [stop, *end_ids(model), tokenizer.eos_token_id])
    before, prompt = tokenizer.eos_token, _write_prompt(tokenizer)
    if tokenizer.eos_token_id != stop:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stop)
        if _write_prompt(tokenizer) != prompt:
            tokenizer.eos_token = before


def name_end_ids(model: PreTrainedModel, ids: list[int | None]) -> None:
    """Make `model.generate` stop at each of `ids`; the first is the one that ends an answer."""
    ends = list(dict.fromkeys(token_id for token_id in ids if token_id is not None))
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.config.get_text_config().eos_token_id = ends[0]


def _write_prompt(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a model reads before its second answer; "" without a chat template."""
    if not tokenizer.chat_template:
        return ""
    turns = [("user", "A question?"), ("assistant", "An answer."), ("user", "Another?")]
    return tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        chat_template=find_template(tokenizer),
        tokenize=False,
        add_generation_prompt=True,
    )
