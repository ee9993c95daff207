"""Random conversations through tokenizers of every family: ids against transformers' own, texts
that forge control tokens, and what is graded, written without a line of the library."""

import copy
import importlib.util
import random
import re
import unicodedata
from pathlib import Path

import pytest
from tokenizer_zoo import KINDS, REFUSALS, random_conversation, random_text

from sft_lab.chat import decode_response, stop_token_id
from sft_lab.control import control_tokens
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversation
from sft_lab.rendering import encode_text

CONVERSATIONS = 24  # of each kind, plain ones and as many that attack
NEUTRAL = str.maketrans("<|>␃[]＜＞", "{/}$(){}")  # no control token stands in such letters


def own_ids(conversation, tokenizer, **settings):
    return tokenizer.apply_chat_template(conversation, **settings)["input_ids"]


def own_text(conversation, tokenizer, **settings):
    return tokenizer.apply_chat_template(conversation, tokenize=False, **settings)


def find_answers(conversation):
    return [i for i, turn in enumerate(conversation) if turn["role"] == "assistant"]


def neutral(conversation, kind):
    """The same conversation without a control token in what anybody says."""
    return [turn | {"content": turn["content"].translate(NEUTRAL)} for turn in conversation]


def comparable(text, kind, tokenizer):
    text = text.translate(NEUTRAL)
    if not kind.lossless:  # WordPiece puts blanks where none were
        letters = unicodedata.normalize("NFD", re.sub(r"\s", "", text).lower())
        return re.sub(r"[\u0300-\u036f]", "", letters)
    normalizer = tokenizer.backend_tokenizer.normalizer
    if normalizer is not None and "Prepend" not in str(normalizer):
        return normalizer.normalize_str(text)
    return text


def find_runs(labels):
    graded = [False, *(label != IGNORE_INDEX for label in labels), False]
    edges = [t for t in range(len(labels) + 1) if graded[t] != graded[t + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


def check_ids(example, conversation, kind, tokenizer):
    """Of a conversation in which nobody wrote a control token."""
    ids, full = example.input_ids, own_ids(conversation, tokenizer)
    for index in find_answers(conversation):
        prompt = own_ids(conversation[:index], tokenizer, add_generation_prompt=True)
        assert ids[: len(prompt)] == prompt, "not the inference prompt"
        # The tokens of transformers that stand on both sides of an answer's beginning no model can
        # write; ours stand apart there, and from there on.
        eaten = "eat white space" in kind.name and conversation[index]["content"][0].isspace()
        if eaten or full[: len(prompt)] != prompt:
            return
    assert ids == full, "not the ids of transformers"


def check_forgery(example, conversation, kind, tokenizer):
    """Control tokens stand where they stand when everybody speaks neutrally, and the text is the
    same, blank by blank."""
    controls = {tokenizer.convert_tokens_to_ids(token) for token in kind.controls}
    twin = encode_conversation(neutral(conversation, kind), tokenizer, max_tokens=10**6)
    for ids in (example.input_ids, twin.input_ids):
        assert None not in controls and controls & set(ids)
    found, expected = (
        [token_id for token_id in ids if token_id in controls]
        for ids in (example.input_ids, twin.input_ids)
    )
    assert found == expected, "a forged control token"
    found, expected = (
        tokenizer.decode([token_id for token_id in ids if token_id not in controls])
        for ids in (example.input_ids, twin.input_ids)
    )
    found, expected = (comparable(text, kind, tokenizer) for text in (found, expected))
    assert found == expected, "another text"


def check_graded(example, conversation, kind, tokenizer):
    """Each graded run decodes to what the answer adds to its prompt, through its stop token."""
    runs = find_runs(example.labels)
    answers = find_answers(conversation)
    assert len(runs) == len(answers), "not as many runs as answers"
    stop = tokenizer.convert_tokens_to_ids(kind.stop)
    for (first, last), index in zip(runs, answers, strict=True):
        before = own_text(conversation[:index], tokenizer, add_generation_prompt=True)
        through = own_text(conversation[: index + 1], tokenizer)
        expected = through[len(before) : through.rindex(kind.stop)]
        graded = [token_id for token_id in example.input_ids[first:last]]
        assert stop in graded, "no stop token"
        assert not tokenizer.decode(graded[graded.index(stop) + 1 :]).strip(), "graded after it"
        end = first + graded.index(stop)
        ids = example.input_ids
        found = tokenizer.decode(ids[:end])[len(tokenizer.decode(ids[:first])) :]
        found, expected = (comparable(text, kind, tokenizer) for text in (found, expected))
        if "eats the blank before" in kind.name:
            found, expected = found.rstrip(), expected.rstrip()
        assert found == expected, f"graded {found!r} instead of {expected!r}"


def judge(kind, tokenizer, conversation, *, attacked):
    """ "right", "refused: " and the error, or "wrong: " and what is."""
    try:
        example = encode_conversation(conversation, tokenizer, max_tokens=10**6)
    except ValueError as error:
        return f"refused: {error}"
    try:
        if attacked:
            check_forgery(example, conversation, kind, tokenizer)
        else:
            check_ids(example, conversation, kind, tokenizer)
        check_graded(example, conversation, kind, tokenizer)
    except AssertionError as error:
        return f"wrong: {str(error).splitlines()[0]}"
    return "right"


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@pytest.mark.parametrize("attacked", [False, True], ids=["plain", "attacked"])
def test_ids_are_those_of_transformers_nobody_forges_and_answers_are_graded(kind, attacked):
    rng, tokenizer = random.Random(kind.name), kind.make()
    for _ in range(CONVERSATIONS):
        conversation = random_conversation(rng, kind, attacked=attacked)
        verdict = judge(kind, tokenizer, conversation, attacked=attacked)
        assert verdict == "right", conversation


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_control_tokens_and_the_stop_token_are_those_written_down_for_each_kind(kind):
    tokenizer = kind.make()
    vocabulary = tokenizer.get_vocab()
    assert control_tokens(tokenizer) == {token: vocabulary[token] for token in kind.controls}
    assert stop_token_id(tokenizer) == vocabulary[kind.stop]
    # A stop token shows in no answer, special or not.
    assert decode_response([*encode_text("Yes", tokenizer), vocabulary[kind.stop]], tokenizer) == (
        tokenizer.decode(encode_text("Yes", tokenizer))
    )


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_plain_text_forges_nothing_and_keeps_its_letters(kind):
    rng, tokenizer = random.Random(kind.name), kind.make()
    controls = {tokenizer.convert_tokens_to_ids(token) for token in kind.controls}
    for _ in range(CONVERSATIONS):
        plain, attack = (
            random_text(rng, kind, role="user", attacked=attacked) for attacked in (False, True)
        )
        assert encode_text(plain, tokenizer) == tokenizer(plain, add_special_tokens=False).input_ids
        ids = encode_text(attack, tokenizer)
        assert not controls & set(ids)
        alike = tokenizer(attack.translate(NEUTRAL), add_special_tokens=False).input_ids
        found, expected = (comparable(tokenizer.decode(i), kind, tokenizer) for i in (ids, alike))
        assert found == expected


def test_a_tokenizer_that_splits_special_tokens_reads_the_templates_own_all_the_same():
    kind = KINDS[0]
    tokenizer, splitting = kind.make(), kind.make()
    splitting.split_special_tokens = True
    conversation = random_conversation(random.Random(0), kind, attacked=True)
    assert encode_conversation(conversation, splitting) == encode_conversation(
        conversation, tokenizer
    )


def test_tokens_and_templates_that_are_added_later_count():
    tokenizer = next(kind for kind in KINDS if kind.name == "byte-level").make()
    text = "a <tool_call> b <|x|>"
    assert tokenizer.decode(encode_text(text, tokenizer)) == text
    tokenizer.add_tokens(["<tool_call>"])
    tokenizer.add_tokens(["<|x|>"], special_tokens=True)
    call, mark = tokenizer.convert_tokens_to_ids(["<tool_call>", "<|x|>"])
    assert call in encode_text(text, tokenizer) and mark not in encode_text(text, tokenizer)
    tokenizer.chat_template += "{% if tools %}<tool_call>{% endif %}"
    assert call not in encode_text(text, tokenizer)


def test_a_word_called_special_is_a_control_token_and_nothing_ends_with_it():
    tokenizer = next(kind for kind in KINDS if kind.name == "byte-level").make()
    tokenizer.add_tokens(["answer"], special_tokens=True)
    word, stop = tokenizer.convert_tokens_to_ids(["answer", "<|im_end|>"])
    assert control_tokens(tokenizer)["answer"] == word and stop_token_id(tokenizer) == stop
    example = encode_conversation(as_rounds(("The answer?", "An answer.")), tokenizer)
    assert word not in example.input_ids
    [(first, last)] = find_runs(example.labels)
    assert tokenizer.decode(example.input_ids[first:last]) == "An answer.<|im_end|>"


def as_rounds(said):
    """A text for each turn; of three, the first is the system's."""
    roles = ("system",) * (len(said) % 2) + ("user", "assistant") * len(said)
    return [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]


@pytest.mark.parametrize("refusal", REFUSALS, ids=[refusal.name for refusal in REFUSALS])
def test_what_cannot_be_trained_as_it_is_asked_is_refused_with_its_cause(refusal):
    tokenizer = refusal.make()
    if refusal.said:
        with pytest.raises(ValueError, match=f"(?s){refusal.message}"):
            encode_conversation(as_rounds(refusal.said), tokenizer)
    if refusal.fine:
        example = encode_conversation(as_rounds(refusal.fine), tokenizer)
        [(first, last)] = find_runs(example.labels)
        assert tokenizer.decode(example.input_ids[first : last - 1]) == refusal.fine[1]


def test_messages_that_leave_no_character_to_stand_in_are_refused():
    tokenizer = KINDS[0].make()
    text = "".join(map(chr, range(0xE000, 0xF900)))
    assert tokenizer.decode(encode_text(text, tokenizer)) == text
    with pytest.raises(ValueError, match="every private-use character there is: remove some"):
        encode_text(text + "<|im_end|>", tokenizer)


# the templates that TRL bundles, on one tokenizer that has their tokens

TRL = Path(importlib.util.find_spec("trl").submodule_search_locations[0])
BUNDLED = sorted((TRL / "chat_templates").glob("*.jinja"))
TOKENS = re.compile(r"<[|｜][^<>'\"{}\s]+[|｜]>|<\|[a-z_]+>|<[a-z_]+\|>|</?[a-z_]+>|\[/?[A-Z_]+\]")
CAUSES = (
    "is asked for with .* but the template writes",
    "The template ends this answer with .* Grade the last answer only",
    "Templates of vision models expect a list of parts",
)


@pytest.mark.filterwarnings(
    "ignore:the tokenizer's chat template renders earlier answers:UserWarning"
)
@pytest.mark.parametrize(
    "path", [path for path in BUNDLED if path.suffix == ".jinja"], ids=lambda path: path.stem
)
def test_bundled_templates_grade_the_answers_or_are_refused_with_the_cause(path, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    template = path.read_text(encoding="utf-8")
    tokens = sorted({"<s>", "</s>", *TOKENS.findall(template)})
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template = "<s>", "</s>", template
    for said in (("What is it?", "It is Paris."), ("Why?", "So.", "And?", "It is Rome.")):
        try:
            example = encode_conversation(as_rounds(said), tokenizer, max_tokens=10**4)
        except ValueError as error:
            assert any(re.search(cause, str(error), re.DOTALL) for cause in CAUSES), error
            continue
        stop = tokenizer.convert_ids_to_tokens(stop_token_id(tokenizer))
        runs = find_runs(example.labels)
        for (first, last), answer in zip(runs, said[1::2], strict=True):
            assert tokenizer.decode(example.input_ids[first:last]).rstrip().endswith(answer + stop)
