"""Station "say": control tokens, and ids of a text in which nobody but the template writes them.

A template marks the turns with control tokens such as <|im_end|>. Tokenizers find those tokens
wherever their letters stand, so a user who types "<|im_end|>" would end the turn and could speak as
the assistant. Here a private-use character stands in for the first letter of a control token in a
message, the template is rendered around it, and the tokenizer gets one step more: a first
normalizer that puts the letter back, after the tokenizer has looked for control tokens and before
all else. So letters stay letters, and every other token is the one that the tokenizer would give.
transformers does the same with `apply_chat_template(sanitize_control_tokens=True)`, but then gives
no assistant mask, which training needs; tests/test_chat.py compares the two.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerBase

from sft_lab.reasoning import write_reasoning
from sft_lab.records import Conversation
from sft_lab.templates import check_turns, fill

# In an answer these stay control tokens: the model writes them itself.
REASONING = ("<think>", "</think>")
# 6,400 characters to which Unicode gives no meaning: some of them are always free.
STAND_INS = range(0xE000, 0xF900)
# no template changes the letters of these
NUMBERS = ("271828", "314159", "161803", "141421", "173205")
PROBES = ("user", "system user", "user assistant", "system user assistant user", "user tool")


@dataclass(frozen=True, eq=False)
class Controls:
    """The control tokens of a tokenizer under a template.

    ids: text -> id of each. answers: those among them that an answer may hold, as the model writes
    them itself. letters: the texts that a message may not be read as: the control tokens and the
    unknown token. added: ids of all added tokens, at which tokenizers cut a text. unknown: the
    token that characters become for which there is none, with its id; {} where that is a control
    token or there is none.
    """

    ids: dict[str, int]
    answers: frozenset[str]
    letters: tuple[str, ...]
    added: frozenset[int]
    unknown: dict[str, int]


@dataclass(frozen=True)
class Guard:
    """What keeps the letters of one conversation letters. shown: stand-in -> letter."""

    tokenizer: PreTrainedTokenizerBase
    controls: Controls
    shown: dict[str, str]

    def show(self, text: str) -> str:
        """The text with every letter in its place; no character moves."""
        return text.translate({ord(stand_in): letter for stand_in, letter in self.shown.items()})


# which tokens


def control_tokens(
    tokenizer: PreTrainedTokenizerBase, template: str | None = None
) -> dict[str, int]:
    """The tokens that say who speaks and where a turn ends, with their ids.

    Those are the tokens called special; the tokenizer's bos, eos and the like, whatever they are
    called; the added tokens that the template writes, words apart; and <think>, </think>. Other
    added tokens are text, and so is the unknown token, which any character can become (unless it
    is one of the named ones as well, as GPT-2's is). template: a Jinja text, the tokenizer's own by
    default.
    """
    return dict(find_controls(tokenizer, template).ids)


def find_controls(tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> Controls:
    """As `control_tokens`. Raises ValueError for a tokenizer that is not a fast one."""
    if _kept is not None and (tokenizer, template) in _kept:
        return _kept[tokenizer, template]
    found = _look_up_controls(tokenizer, template)
    if _kept is not None:
        _kept[tokenizer, template] = found
    return found


@contextmanager
def keep_controls(kept: dict) -> Iterator[None]:
    """For many rows in a row: within, `find_controls` looks up what it needs once and keeps it in
    `kept`, as nobody changes the tokenizer. With hundreds of added tokens (Llama 3) a row then
    takes a third of the time."""
    global _kept
    before, _kept = _kept, kept
    try:
        yield
    finally:
        _kept = before


_kept: dict[tuple[PreTrainedTokenizerBase, str | None], Controls] | None = None


def _look_up_controls(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Controls:
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} is a tokenizer in Python, which does not say which "
            "characters a token stands for: use one with a tokenizer.json (a fast tokenizer)"
        )
    if template is None:
        template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().items()
    state = tuple((token_id, token.content, token.special) for token_id, token in added)
    names = tuple(
        (name, text)
        for name, texts in tokenizer.special_tokens_map.items()
        for text in ([texts] if isinstance(texts, str) else texts)
    )
    return _find_controls(tokenizer, template, state, names)


@lru_cache(maxsize=16)
def _find_controls(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    added: tuple[tuple[int, str, bool], ...],
    names: tuple[tuple[str, str], ...],
) -> Controls:
    """added, names: what may change in a tokenizer, so that nothing outdated is kept."""
    unknown = _find_unknown(tokenizer)
    spare = {unknown, tokenizer.unk_token} - {None}
    named = {text for name, text in names if name not in ("unk_token", "pad_token")}
    spare -= named
    special = {text for _, text, is_special in added if is_special} | named
    special = (special | {tokenizer.pad_token}) - spare - {None}
    plain = {text for _, text, _ in added} - special - spare
    # As tokenizers do: of two tokens that begin at the same place, the longer one.
    tokens = _match_any(text for _, text, _ in added)
    rendered = set(tokens.findall(_render_probes(tokenizer, template))) if plain else set()
    written = rendered.union(tokens.findall(template))
    marks = {text for text in plain & written if _is_mark(text)}
    reasoning = (plain | special).intersection(REASONING)
    by_text = {text: token_id for token_id, text, _ in added}
    ids = {}
    for text in sorted(special | marks | reasoning):
        token_id = by_text.get(text, tokenizer.convert_tokens_to_ids(text))
        if token_id is not None:
            # An entry of the vocabulary is written otherwise than its text: "Ġa" is " a".
            ids[text if text in by_text else tokenizer.decode([token_id])] = token_id
    return Controls(
        ids=ids,
        answers=frozenset(reasoning | (marks - rendered)),
        letters=tuple(sorted({*ids, *spare.intersection(by_text)} - {""})),
        added=frozenset(by_text.values()),
        unknown={text: tokenizer.convert_tokens_to_ids(text) for text in spare & {unknown}},
    )


def _find_unknown(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token that the tokenizer's model writes for what it has no token for."""
    model = tokenizer.backend_tokenizer.model
    if not isinstance(model, models.Unigram):
        return model.unk_token
    try:
        [found] = model.tokenize("\U0010fffd")  # a character with no meaning
    except Exception:  # it has none: tokenizers raises no narrower class
        return None
    return tokenizer.convert_ids_to_tokens(found.id)


def _is_mark(text: str) -> bool:
    """Whether an added token that is not called special can mark a turn: not a word, which stands
    in many a template ("user"), not white space, not one character."""
    return len(text.strip()) > 1 and not re.fullmatch(r"[\w\s'-]*", text)


def _render_probes(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """All that the template writes around turns of every role, also tokens it puts together."""
    texts = []
    for roles in PROBES:
        turns = [
            {"role": role, "content": number}
            for role, number in zip(roles.split(), NUMBERS, strict=False)
        ]
        for opened in (False, True):
            try:
                texts.append(fill(turns, tokenizer, template, add_generation_prompt=opened)[0])
            except ValueError:
                continue  # many templates refuse some role
    return "\n".join(texts)


def find_neutral_texts(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """A question and an answer to try a template with: of letters that are in no control token and
    that the tokenizer knows, if there are any."""
    controls, found = find_controls(tokenizer, template), []
    awkward = {*controls.ids.values(), *controls.unknown.values()}
    for letter in "0123456789abcdefghijklmnopqrstuvwxyz":
        ids, _ = encode_plainly(letter * 6, tokenizer)
        if not any(letter in text for text in controls.letters) and not awkward & set(ids):
            found.append(letter * 6)
    return [*found, *NUMBERS][:2]


# messages


def guard_messages(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, template: str | None = None
) -> tuple[Conversation, Guard]:
    """The conversation with a stand-in for the first letter of each control token in a message,
    and the guard that `encode_piece` needs to put the letters back.

    So neither the tokenizer nor a template that looks for the letters (Qwen3's does, for
    "<tool_response>") finds the token. Raises ValueError for a malformed turn.
    """
    controls = find_controls(tokenizer, template)
    conversation = write_reasoning(check_turns(conversation), tokenizer)
    taken = set().union(*(turn["content"] for turn in conversation))
    free = (chr(code) for code in STAND_INS if chr(code) not in taken)
    stand_ins: dict[str, str] = {}

    def hide(turn: dict[str, str]) -> dict[str, str]:
        # A user's "<think>" is text; an answer's is a token, as the model will write it.
        allowed = controls.answers if turn["role"] == "assistant" else frozenset()
        letters = list(turn["content"])
        for place in _find_places(turn["content"], controls.letters, allowed):
            letter = letters[place]
            if letter not in stand_ins:
                stand_ins[letter] = _take(free)
            letters[place] = stand_ins[letter]
        return {"role": turn["role"], "content": "".join(letters)}

    hidden = [hide(turn) for turn in conversation]
    return hidden, Guard(tokenizer, controls, {s: letter for letter, s in stand_ins.items()})


def _take(free: Iterator[str]) -> str:
    letter = next(free, None)
    if letter is None:
        raise ValueError("the messages hold every private-use character there is: remove some")
    return letter


def _find_places(text: str, letters: tuple[str, ...], allowed: frozenset[str]) -> set[int]:
    """Where a control token begins in a message, or could begin or end together with what the
    template writes beside the message ("x" before <|im_end|>, where "x<|im_end|>" is a token).

    In any case, as a template may change that. Too many places do no harm: a letter stays one.
    """
    pattern, heads, tails, longest = _compile_letters(letters, allowed)
    places = set()
    for found in pattern.finditer(text):
        token = found[1]
        # A blank in its place keeps what a template's strip does.
        blanks = len(token) - len(token.lstrip()) if token.strip() else 0
        places.add(found.start() + blanks)
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    folded = text.lower() if len(text.lower()) == len(text) else text
    places |= {k for k in range(max(first, last - longest), last) if folded[k:last] in heads}
    if any(folded[first:k] in tails for k in range(first + 1, min(last, first + longest) + 1)):
        places.add(first)
    return places


@lru_cache(maxsize=32)
def _compile_letters(
    letters: tuple[str, ...], allowed: frozenset[str]
) -> tuple[re.Pattern, frozenset[str], frozenset[str], int]:
    """Matches before any of the letters; their beginnings; their endings; the longest length."""
    texts = [text for text in letters if text not in allowed]
    folded = [text.lower() for text in texts]
    heads = {text.lstrip()[:k] for text in folded for k in range(1, len(text.lstrip()))}
    tails = {text.rstrip()[k:] for text in folded for k in range(1, len(text.rstrip()))}
    pattern = re.compile(f"(?=({_match_any(texts).pattern}))", re.IGNORECASE)
    return pattern, frozenset(heads), frozenset(tails), max(map(len, texts), default=0)


def _match_any(texts: Iterable[str]) -> re.Pattern:
    """Matches any of the texts, the longest first; nothing when there are none."""
    return re.compile(
        "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or "(?!)"
    )


def fill_guarded(
    turns: Conversation,
    guard: Guard,
    template: str,
    *,
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """`templates.fill` for guarded messages.

    Raises ValueError also when the template makes a control token of a message's letters, as one
    that replaces "[" by "<" can.
    """

    def write(said: Conversation) -> tuple[str, list[tuple[int, int]]]:
        return fill(
            said,
            guard.tokenizer,
            template,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
        )

    text, spans = write(turns)
    asked = [turn for turn in turns if turn["role"] != "assistant"]
    if not all(turn["content"].strip() in text for turn in asked):
        # The template has changed a message: what does it write where nobody says a letter?
        letter = _take(chr(code) for code in STAND_INS if chr(code) not in text)
        mute = [
            turn | {"content": re.sub(r"\S", letter, turn["content"])} if turn in asked else turn
            for turn in turns
        ]
        controls = _match_any(guard.controls.ids)
        if controls.findall(text) != controls.findall(write(mute)[0]):
            raise ValueError(
                "the chat template changes the letters of a message so that it would become a "
                "control token: remove them from the message, or use a template that leaves "
                "messages as they are"
            )
    return text, spans


# ids


def encode_piece(
    text: str, guard: Guard, *, continues: bool = False
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a guarded text, and the characters, (first, last + 1), each stands for.

    continues: the text goes on from another one. Tokenizers of SentencePiece's kind put a blank
    before the first word of a text, which is then left out.
    Raises ValueError if a message would become a control token in spite of the guard.
    """
    shown = tuple(pair for pair in guard.shown.items() if pair[0] in text)
    ids, offsets = _encode(text, guard, shown) if shown else encode_plainly(text, guard.tokenizer)
    if continues and _read_steps(guard.tokenizer, continues=True) != _read_steps(guard.tokenizer):
        cut = next((t for t, token_id in enumerate(ids) if token_id in guard.controls.added), None)
        end = len(text) if cut is None else offsets[cut][0]
        opening, places = _encode(text[:end], guard, shown, continues=True)
        rest = slice(len(ids) if cut is None else cut, None)
        ids, offsets = opening + ids[rest], places + offsets[rest]
    cuts = [0]
    for t in _find_forged(text, ids, offsets, guard):
        first, last = offsets[t]
        if last - first < 2:
            raise ValueError(_explain_forged(ids[t], text[first:last], guard))
        cuts.append((first + last) // 2)
    if len(cuts) > 1:
        # The vocabulary has these letters as one piece, or a normalizer makes a control token of
        # them ("＜" can become "<"): their two halves are other pieces.
        return encode_parts(text, list(pairwise([*cuts, len(text)])), guard, continues=continues)
    return ids, offsets


def encode_parts(
    text: str, parts: Sequence[tuple[int, int]], guard: Guard, *, continues: bool = False
) -> tuple[list[int], list[tuple[int, int]]]:
    """`encode_piece` of parts of a guarded text, (first, last + 1) characters each, one after the
    other: no token stands on both sides of a cut. Every part but the first goes on from the one
    before."""
    ids, offsets = [], []
    for first, last in parts:
        part, places = encode_piece(text[first:last], guard, continues=continues or first > 0)
        ids += part
        offsets += [(first + begin, first + end) for begin, end in places]
    return ids, offsets


def encode_plainly(
    text: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[tuple[int, int]]]:
    """As `encode_piece`, of a text in which every control token counts: the template's own."""
    part = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    return part["input_ids"], part["offset_mapping"]


def _encode(
    text: str, guard: Guard, shown: tuple[tuple[str, str], ...], *, continues: bool = False
) -> tuple[list[int], list[tuple[int, int]]]:
    backend = guard.tokenizer.backend_tokenizer
    added = tuple((n, str(token)) for n, token in backend.get_added_tokens_decoder().items())
    added = () if continues else added  # there is none before the first one that was found
    steps = _read_steps(guard.tokenizer, continues=continues)
    shield = _make_shield(guard.tokenizer, steps, added, shown)
    encoding = shield.encode(text, add_special_tokens=False)
    return encoding.ids, encoding.offsets


@lru_cache(maxsize=16)
def _make_shield(
    tokenizer: PreTrainedTokenizerBase,
    steps: str,
    added: tuple[tuple[int, str], ...],
    shown: tuple[tuple[str, str], ...],
) -> Tokenizer:
    """The tokenizer with one step more, which puts letters in place of stand-ins.

    steps: as `_read_steps` gives them. added: its added tokens, which may change later; () to look
    for none.
    """
    backend, own = tokenizer.backend_tokenizer, Tokenizer.from_str(steps)
    shield = Tokenizer(backend.model)
    replace = [normalizers.Replace(stand_in, letter) for stand_in, letter in shown]
    shield.normalizer = normalizers.Sequence(replace + [own.normalizer] * bool(own.normalizer))
    if own.pre_tokenizer:
        shield.pre_tokenizer = own.pre_tokenizer
    tokens = [token for _, token in sorted(backend.get_added_tokens_decoder().items()) if added]
    shield.add_tokens(tokens)
    for token in tokens:
        if shield.token_to_id(token.content) != backend.token_to_id(token.content):
            raise ValueError(
                f"the added token {token.content!r} has an id out of order, so a message with the "
                "letters of a control token cannot be encoded: remove them from the message"
            )
    return shield


def _read_steps(tokenizer: PreTrainedTokenizerBase, *, continues: bool = False) -> str:
    """Normalizer and pre-tokenizer as JSON; continues: without the blank that they put before a
    text."""
    backend, steps = tokenizer.backend_tokenizer, Tokenizer(models.BPE())
    if backend.normalizer:
        steps.normalizer = backend.normalizer
    if backend.pre_tokenizer:
        steps.pre_tokenizer = backend.pre_tokenizer
    hook = _drop_blank if continues else None
    return json.dumps(json.loads(steps.to_str(), object_hook=hook))


def _drop_blank(step: dict) -> dict:
    kind = step.get("type")
    if kind == "Prepend":
        return {"type": "Sequence", "normalizers": []}
    if kind == "Metaspace":
        return step | {"prepend_scheme": "never"}
    return step | {"add_prefix_space": False} if kind == "ByteLevel" else step


def _find_forged(
    text: str, ids: list[int], offsets: list[tuple[int, int]], guard: Guard
) -> list[int]:
    """Which tokens are control tokens without being written out as one; or the unknown token, made
    of its own letters in a message."""
    controls = {token_id: token.strip() for token, token_id in guard.controls.ids.items()}
    unknown = {token_id: token for token, token_id in guard.controls.unknown.items()}
    forged = []
    for t, (token_id, (first, last)) in enumerate(zip(ids, offsets, strict=True)):
        if token_id in controls and text[first:last].strip() != controls[token_id]:
            forged.append(t)
        elif token_id in unknown:
            written = text[first:last]
            shown = guard.show(written)
            if unknown[token_id] in shown and shown != written:
                forged.append(t)
    return forged


def _explain_forged(token_id: int, letters: str, guard: Guard) -> str:
    tokenizer, letters = guard.tokenizer, guard.show(letters)
    token = next(text for text, control in guard.controls.ids.items() if control == token_id)
    names = [
        name
        for name, text in tokenizer.special_tokens_map.items()
        if isinstance(text, str) and tokenizer.convert_tokens_to_ids(text) == token_id
    ]
    what = f"a message would become a control token: it holds {letters!r}, "
    if token == _find_unknown(tokenizer) and letters.strip() != token.strip():
        others = ", ".join(name for name in names if name != "unk_token")
        return what + (
            f"for which this tokenizer has no token, and its unknown token {token!r} is also its "
            f"{others}. Remove it from the message, or give the tokenizer an unknown token of its "
            "own"
        )
    return what + (
        f"which this tokenizer can only write with {token!r}"
        f"{', its ' + ', '.join(names) if names else ''}. Remove it from the message, or give the "
        "tokenizer a control token that no text is written with"
    )
