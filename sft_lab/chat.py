"""Station "say": prompts become ids as `rendering` makes them, and a model answers.

Training (labels.py) and inference (`generate_responses`) take their ids from the same place, so
that a model is asked exactly as it was taught.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from transformers import (
    BatchEncoding,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sft_lab.arguments import SettingError, real_number, whole_number
from sft_lab.reasoning import write_reasoning
from sft_lab.records import Conversation
from sft_lab.rendering import encode_text, render_conversation, stop_token_id
from sft_lab.stopping import end_ids
from sft_lab.templates import check_turns, find_template

BATCH_SIZE = 64  # prompts answered at once: on two CPU cores 22 times the speed of one at a time
# Settings of `model.generate` that only one way of decoding reads; the others pass over them.
SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("top_h", "epsilon_cutoff", "eta_cutoff"),
)
BEAMS = ("length_penalty", "early_stopping")
RANGES = {  # outside of them transformers decodes in another way than was asked, or fails inside
    "temperature": partial(real_number, above=0, advice="For the likeliest token: do_sample=False"),
    "top_k": partial(whole_number, least=0),
    "top_p": partial(real_number, above=0, most=1),
    "min_p": partial(real_number, least=0, most=1),
    "typical_p": partial(real_number, above=0, most=1),
    "num_beams": whole_number,
    "repetition_penalty": partial(real_number, above=0),
    "no_repeat_ngram_size": partial(whole_number, least=0),
}
REFUSED = {  # what does not fit one row of ids for each prompt
    "max_length": "it would count the prompt; give max_new_tokens",
    "num_return_sequences": "there is one answer a prompt; repeat the prompt in the list",
    "return_dict_in_generate": "ids are what comes back",
    "logits_processor": "give processors=[…]; they are told where each prompt ends",
}
Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # input_ids, scores -> scores


def render(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    *,
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
) -> str:
    """The conversation as the text of the tokenizer's own chat template; nothing is tokenised,
    nothing is marked.

    add_generation_prompt: end with the opening of an answer ("<|im_start|>assistant\\n"), as
    inference does. enable_thinking: read by templates such as Qwen3's, where False writes an empty
    think block into that opening. Raises ValueError when there is no template or a turn is
    malformed.
    """
    return tokenizer.apply_chat_template(
        write_reasoning(check_turns(conversation), tokenizer),
        chat_template=find_template(tokenizer),
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        enable_thinking=enable_thinking,
    )


def encode_chat(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    *,
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
    template: str | None = None,
) -> list[int]:
    """Token ids of `render(...)`, in which the text of a message never becomes a control token.

    Equal to ordinary tokenisation unless a text holds a control token's letters (they stay letters)
    or an answer would merge with the end of its prompt, as a line break does with the one before
    it: a model writes it as a token of its own. template: a Jinja text to use instead of the
    tokenizer's own.
    Raises ValueError as `render` does, and when the template refuses the conversation.
    """
    return render_conversation(
        conversation,
        tokenizer,
        template or find_template(tokenizer),
        add_generation_prompt=add_generation_prompt,
        enable_thinking=enable_thinking,
    ).ids


# inference


def generate_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Conversation],
    *,
    system: str | None = None,
    max_new_tokens: int = 100,
    enable_thinking: bool = False,
    processors: Sequence[Processor] = (),
    **decoding,
) -> list[str]:
    """Answer every prompt: texts without control tokens, otherwise exactly as written (spaces are
    kept).

    prompts: questions, or conversations that end with a user turn; [] gives []. system: put before
    every prompt. Greedy unless `decoding` says otherwise; it goes to `model.generate`
    (do_sample=True, temperature=0.7, num_beams=4). processors: what bends the logits of each step,
    in this order: those of `sft_lab.decoding`, or any function of (input_ids, scores); they come
    after transformers' own penalties and before its temperature and filters. do_sample=True draws
    among the 50 likeliest tokens unless top_k=0 is given. The batch and the padding do not change
    an answer (fp32). Errors as in `generate_ids`.
    """
    rows = generate_ids(
        model,
        tokenizer,
        prompts,
        system=system,
        max_new_tokens=max_new_tokens,
        enable_thinking=enable_thinking,
        processors=processors,
        **decoding,
    )
    return [decode_response(ids, tokenizer) for ids in rows]


def decode_response(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a row of `generate_ids`, without special tokens and without the stop token at its
    end, which need not be a special one."""
    stopped = bool(ids) and ids[-1] in _find_stops(tokenizer)
    return tokenizer.decode(
        ids[:-1] if stopped else ids,
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def generate_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Conversation],
    *,
    system: str | None = None,
    max_new_tokens: int = 100,
    enable_thinking: bool = False,
    processors: Sequence[Processor] = (),
    **decoding,
) -> list[list[int]]:
    """New token ids of every prompt, up to and including the stop token where the model wrote one.

    A row that ends with `stop_token_id(tokenizer)` stopped by itself; one that ends with
    <|endoftext|> (or another eos or pad token) ended its document; any other ran into
    max_new_tokens.
    Raises TypeError when `prompts` is a single prompt, ValueError for a prompt that ends with an
    answer, a second system turn, a prompt longer than the model's positions, sampling settings
    without do_sample=True, a setting out of its range, or a processor that is none.
    """
    encoded = encode_prompts(tokenizer, prompts, system=system, enable_thinking=enable_thinking)
    return continue_ids(
        model,
        tokenizer,
        encoded,
        max_new_tokens=max_new_tokens,
        processors=processors,
        **decoding,
    )


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Conversation],
    *,
    system: str | None = None,
    enable_thinking: bool = False,
) -> list[list[int]]:
    """The ids with which each prompt is asked, the opening of an answer at their end. Errors as in
    `generate_ids`."""
    if isinstance(prompts, str) or any(isinstance(prompt, dict) for prompt in prompts):
        raise TypeError(
            f"prompts is a single prompt, {str(prompts)[:60]!r}: put it into a list, [prompt]"
        )
    return [
        encode_chat(
            _as_conversation(prompt, system),
            tokenizer,
            add_generation_prompt=True,
            enable_thinking=enable_thinking,
        )
        for prompt in prompts
    ]


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_new_tokens: int = 30,
    processors: Sequence[Processor] = (),
    **decoding,
) -> list[str]:
    """What a model writes after each plain text, with no chat template: what base models are for.

    Control tokens in a text stay letters. Greedy unless `decoding` says otherwise, as in
    `generate_responses`.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts is a single text, {texts[:60]!r}: put it into a list, [text]")
    encoded = [encode_text(text, tokenizer) for text in texts]
    rows = continue_ids(
        model,
        tokenizer,
        encoded,
        max_new_tokens=max_new_tokens,
        processors=processors,
        **decoding,
    )
    return [decode_response(ids, tokenizer) for ids in rows]


@torch.inference_mode()
def continue_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: list[list[int]],
    *,
    max_new_tokens: int,
    processors: Sequence[Processor] = (),
    **decoding,
) -> list[list[int]]:
    """The ids that follow each encoded prompt: batches of similar length, padded on the left, cut
    after the first stop."""
    max_new_tokens = check_lengths(model, encoded, max_new_tokens)
    _check_rows(model, tokenizer, encoded)
    decoding = _check_decoding(decoding, max_new_tokens)
    bend = LogitsProcessorList(map(_Checked, _check_processors(processors)))
    stops = _find_stops(tokenizer) | set(end_ids(model))
    pad = min(stops) if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    settings = {"max_new_tokens": max_new_tokens, "do_sample": False, "use_cache": True}
    settings |= {"eos_token_id": sorted(stops), "pad_token_id": pad} | decoding
    settings |= {"logits_processor": bend}
    responses: list[list[int]] = [[] for _ in encoded]
    # Prompts of similar length stand together, so that every batch has little padding.
    by_length = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    with _ready_to_generate(model):
        for first in range(0, len(by_length), BATCH_SIZE):
            indices = by_length[first : first + BATCH_SIZE]
            batch = _pad_left([encoded[index] for index in indices], pad)
            for one in bend:
                one.begin(batch["attention_mask"])
            output = model.generate(**batch.to(model.device), **settings)
            width = batch["input_ids"].shape[1]
            for index, row in zip(indices, output[:, width:].tolist(), strict=True):
                # A row that has stopped is padded until the longest of its batch stops.
                end = next((t + 1 for t, token_id in enumerate(row) if token_id in stops), len(row))
                responses[index] = row[:end]
    return responses


def _find_stops(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """A base model ends a document, not an answer, so its eos and pad tokens end a row as well."""
    return {stop_token_id(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}


def _check_decoding(decoding: dict, max_new_tokens: int) -> dict:
    """The settings as plain numbers; SettingError for one that would be ignored or means nothing
    here."""
    given = {name for name, value in decoding.items() if value is not None}
    for name, advice in REFUSED.items():
        if name in given:
            raise SettingError(f"{name} is {decoding[name]!r:.60}: {advice}")
    ignored = [name for name in SAMPLING if name in decoding]
    if ignored and not decoding.get("do_sample"):
        raise SettingError(
            f"{', '.join(ignored)} would be ignored: greedy decoding draws nothing. Add "
            "do_sample=True."
        )
    checked = {name: check(name, decoding[name]) for name, check in RANGES.items() if name in given}
    ignored = [name for name in BEAMS if name in given]
    if ignored and checked.get("num_beams", 1) == 1:
        raise SettingError(f"{', '.join(ignored)} would be ignored without num_beams above 1")
    if "min_new_tokens" in given:
        least = decoding["min_new_tokens"]
        checked["min_new_tokens"] = whole_number(
            "min_new_tokens", least, least=0, most=max_new_tokens, advice="Raise max_new_tokens"
        )
    return decoding | checked


def _check_processors(processors: Sequence[Processor]) -> list[Processor]:
    """The processors as a list; SettingError for what cannot be called with ids and logits."""
    if not isinstance(processors, Sequence) or isinstance(processors, str):
        raise SettingError(f"processors is {processors!r:.60}: put it into a list, [TopK(5)]")
    for place, one in enumerate(processors):
        if isinstance(one, type):
            raise SettingError(
                f"processors[{place}] is the class {one.__name__} itself: give it its settings, "
                f"{one.__name__}(…)"
            )
        if not callable(one):
            raise SettingError(
                f"processors[{place}] is {one!r:.60}: expected a function of (input_ids, scores), "
                "such as sft_lab.decoding.TopK(5)"
            )
    return list(processors)


class _Checked(LogitsProcessor):
    """A processor whose answers are looked at: greedy decoding would take token 0 of a row without
    any possible token."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def begin(self, attention_mask: torch.Tensor) -> None:
        """Tell the processor which tokens are the prompts', if it wants to know."""
        if hasattr(self.processor, "begin"):
            self.processor.begin(attention_mask)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        bent = self.processor(input_ids, scores)
        if not torch.is_tensor(bent) or bent.shape != scores.shape:
            found = f"shape {tuple(bent.shape)}" if torch.is_tensor(bent) else repr(bent)[:60]
            raise SettingError(
                f"{self.processor!r:.60} returned {found}: expected logits of the shape that it "
                f"was given, {tuple(scores.shape)}"
            )
        if not (bent > -torch.inf).any(dim=-1).all():  # nan compares as False as well
            raise SettingError(
                f"{self.processor!r:.60} left no possible token in a step with "
                f"{input_ids.shape[1]} tokens before it: every logit is -inf or nan"
            )
        return bent


def check_lengths(model: PreTrainedModel, encoded: list[list[int]], max_new_tokens: int) -> int:
    """max_new_tokens as an int. Raises SettingError for less than one, and for a prompt that leaves
    too few of the model's positions for so many new tokens."""
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens)
    limit = getattr(model.config, "max_position_embeddings", None)
    for index, ids in enumerate(encoded):
        # Past its last position a model writes nonsense, or fails inside a kernel.
        if limit and len(ids) + max_new_tokens > limit:
            raise SettingError(
                f"prompts[{index}] has {len(ids)} tokens, max_new_tokens is {max_new_tokens}: "
                f"together more than the model's {limit} positions. Shorten the prompt or lower "
                "max_new_tokens."
            )
    return max_new_tokens


def _check_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoded: list[list[int]]
) -> None:
    """SettingError for a prompt with a token that the model has no row of its embeddings for."""
    rows = len(model.get_input_embeddings().weight)
    for index, ids in enumerate(encoded):
        if ids and max(ids) >= rows:
            token = tokenizer.convert_ids_to_tokens(max(ids))
            raise SettingError(
                f"prompts[{index}] holds {token!r} with id {max(ids)}, and the model has {rows} "
                "rows of embeddings: the tokenizer has words that the model lacks. Ask without "
                "it, or train a model after model.resize_token_embeddings(len(tokenizer))"
            )


def _pad_left(rows: list[list[int]], pad: int) -> BatchEncoding:
    """Input ids and attention mask, (B, T). On the left, because an answer follows its prompt."""
    width = max(len(ids) for ids in rows)
    gaps = [width - len(ids) for ids in rows]
    input_ids = [[pad] * gap + ids for gap, ids in zip(gaps, rows, strict=True)]
    mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
    return BatchEncoding({"input_ids": input_ids, "attention_mask": mask}, tensor_type="pt")


@contextmanager
def _ready_to_generate(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, and none of the model's own generation settings (Qwen3 would sample); both
    are restored."""
    training = model.training
    kept = {
        part: part.generation_config
        for part in model.modules()
        if "generation_config" in vars(part)
    }
    try:
        model.eval()
        for part in kept:
            part.generation_config = GenerationConfig()
        yield
    finally:
        model.train(training)
        for part, config in kept.items():
            part.generation_config = config


def _as_conversation(prompt: str | Conversation, system: str | None) -> Conversation:
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if turns and turns[-1]["role"] == "assistant":
        raise ValueError(
            f"the prompt ends with an answer, {turns[-1]['content'][:60]!r}: drop that turn"
        )
    if system is not None and turns and turns[0]["role"] == "system":
        raise ValueError(
            f"two system turns: system={system[:40]!r} and the prompt's own "
            f"{turns[0]['content'][:40]!r}"
        )
    return turns if system is None else [{"role": "system", "content": system}, *turns]
