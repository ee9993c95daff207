"""The doctor on tokenizers and templates: every family of tokenizers, every template that TRL
bundles, and rows cut off anywhere, each compared with what training does."""

import copy
import importlib.util
import json
import random
import re
import string
import warnings
from pathlib import Path

import numpy as np
import pytest
from tokenizer_zoo import KINDS, REFUSALS, byte_level, chatml, finish, random_conversation
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from sft_lab.control import find_controls, keep_controls
from sft_lab.doctor.causes import CAUSES, as_sentence, describe, drop_repeats
from sft_lab.doctor.tokens import TokenCheck, check_tokenizer, find_missing_bytes
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversation
from sft_lab.rendering import encode_text, stop_token_id

TRL = Path(importlib.util.find_spec("trl").submodule_search_locations[0]) / "chat_templates"
CONTROL = re.compile(r"<[|｜]?[A-Za-z_▁/]+[|｜]?>|<[A-Za-z_]+\|>")
VISION = ("idefics3", "llava_next", "smolvlm")
THOUGHTS = "<think>\nLet me see.\n</think>\n\n"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def said(*texts: str, system: str = "") -> list[dict]:
    roles = ("user", "assistant") * len(texts)
    turns = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def look(tokenizer, conversations, max_tokens=10**6, **limits) -> TokenCheck:
    check = TokenCheck(tokenizer, max_tokens, **limits)
    for number, conversation in enumerate(conversations, start=1):
        check.look(f"data.jsonl, row {number}", conversation)
    return check


def alarms(findings) -> set[str]:
    return {found.code for found in findings if found.severity != "note"}


def with_template(tokenizer, template: str):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


ROWS = {
    "one round": said("What is it?", "It is Paris."),
    "two rounds": said("What is it?", "It is Paris.", "And?", "Rome."),
    "a system turn": said("What is it?", "It is Paris.", system="Be brief."),
    "thoughts": said("What is it?", THOUGHTS + "It is Paris."),
    "thoughts twice": said("What is it?", THOUGHTS + "It is Paris.", "And?", THOUGHTS + "Rome."),
}

# families of tokenizers

NOT_HEALTHY = {
    "markers that a normalizer can make": {"not-reversible"},  # all is lower case
    "NFKC and lower case": {"not-reversible"},
    "WordPiece, lower case": {"not-reversible"},  # blanks are lost
    "WordPiece": {"not-reversible"},
    "eos, bos and pad are one": {"pad-is-stop"},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_family_of_tokenizers_gives_a_false_alarm(kind):
    tokenizer, rng = kind.make(), random.Random(0)
    rows = [random_conversation(rng, kind, attacked=False) for _ in range(40)]
    found = [*check_tokenizer(tokenizer), *look(tokenizer, rows).findings()]
    assert alarms(found) == NOT_HEALTHY.get(kind.name, set())


REFUSED = {
    "eos is an ordinary character": "control-token",
    "eos is an ordinary character, in an answer": "control-token",
    "eos is one of the bytes of other letters": "control-token",
    "eos is what unknown characters become": "control-token",
    "an answer of unknown characters": "unknown-token",
    "the template's stop token is not in the vocabulary": "stop-missing",
    "the template's stop token is not found behind a blank that a normalizer adds": "stop-missing",
    "tags around every turn": "tags-misplaced",
    "tags around the system's turn": "tags-misplaced",
    "another opening is asked for than taught": "prompt-not-prefix",
    "earlier answers end otherwise": "stop-missing",
    "a template that makes tokens of letters": "control-token",
}


IMPERATIVE = re.compile(r"(?:^|[.;:] )(?:Use|Let|Put|Remove|Drop|Take|Grade|Add|Load|Give) ")


def is_told_well(found) -> bool:
    """Sentences begin with a capital and end with a stop, and the remedy stands in one place."""
    unquoted = re.sub(r"'[^']*'", "''", found.why)
    small = re.search(r"[.!?] (?!sft_lab)[a-z]", unquoted)
    return not small and found.why[-1] in ".!?" and not IMPERATIVE.search(unquoted)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_what_training_refuses_has_its_code_and_no_other(refusal):
    tokenizer = refusal.make()
    turns = said(*refusal.said[-2:], system=refusal.said[0] if len(refusal.said) == 3 else "")
    if len(refusal.said) == 4:
        turns = said(*refusal.said)
    if code := REFUSED.get(refusal.name):
        found = [f for f in look(tokenizer, [turns]).findings() if f.severity != "note"]
        assert {f.code for f in found} == {code}
        assert all(map(is_told_well, found))
    elif refusal.said:  # nothing can be taught with it
        assert alarms(look(tokenizer, [turns]).findings()) == set()
        assert alarms(check_tokenizer(tokenizer)) <= {"template-refuses", "slow-tokenizer"}
        assert alarms(check_tokenizer(tokenizer))
    if refusal.fine:  # an unknown letter in a question is a warning
        assert alarms(look(tokenizer, [said(*refusal.fine)]).findings()) <= {"unknown-token"}


def test_a_row_that_is_refused_for_an_unknown_token_says_so_at_once():
    refusal = next(one for one in REFUSALS if one.name == "an answer of unknown characters")
    [found] = look(refusal.make(), [said(*refusal.said)]).findings()
    assert found.title.startswith("sft_lab.train refuses one row: the answers hold characters")
    assert "An answer holds" in found.why and found.why.count("unknown token") == 1


# the templates that TRL bundles


@pytest.mark.parametrize("path", sorted(TRL.glob("*.jinja")), ids=lambda path: path.stem)
def test_bundled_templates_alarm_where_training_refuses_or_warns_and_nowhere_else(path, tokenizer):
    tokenizer, template = copy.deepcopy(tokenizer), path.read_text("utf-8")
    tokenizer.add_tokens(["<s>", *sorted(set(CONTROL.findall(template)))], special_tokens=True)
    tokenizer.chat_template, tokenizer.bos_token = template, "<s>"
    general = alarms(check_tokenizer(tokenizer))
    if path.stem.startswith(VISION):
        assert general and general <= {"template-refuses", "template-drops"}
        return
    # its prompt opens a think block, and no answer is written with one
    assert general == ({"prompt-not-prefix"} if path.stem.startswith("deepseekv3") else set())
    for name, row in ROWS.items():
        refused, thoughts = False, row[1]["content"].count("Let me see.") * len(row) // 2
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                labels = encode_conversation(row, tokenizer, max_tokens=10**6).labels
                learned = tokenizer.decode([label for label in labels if label != IGNORE_INDEX])
            except ValueError:
                refused, learned = True, ""
        found = look(tokenizer, [row]).findings()
        lost = learned.count("Let me see.") < thoughts  # LFM2.5 drops those of earlier answers
        assert bool(alarms(found)) == bool(refused or caught or lost), (name, found)
        assert all(f.places == ["data.jsonl, row 1"] and f.count == 1 for f in found)
        assert all(map(is_told_well, found)), found


def test_alarms_of_bundled_templates_name_the_cause(tokenizer):
    cases = {
        ("gemma", "a system turn"): "template-refuses",
        ("deepseek_r1_distill", "one round"): "prompt-not-prefix",
        ("gptoss", "two rounds"): "stop-missing",
        ("nemotron_3_nano", "thoughts twice"): "thoughts-dropped",
        ("qwen3", "thoughts twice"): "thoughts-dropped",
        ("qwen3_instruct_2507", "two rounds"): None,
    }
    for (name, row), code in cases.items():
        template = (TRL / f"{name}.jinja").read_text("utf-8")
        changed = with_template(tokenizer, template)
        changed.add_tokens(["<s>", *sorted(set(CONTROL.findall(template)))], special_tokens=True)
        changed.bos_token = "<s>"
        assert alarms(look(changed, [ROWS[row]]).findings()) == ({code} if code else set()), name


# a template


def test_a_template_that_knows_no_generation_prompt(tokenizer):
    opened = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    for tagged in (True, False):
        template = CHATML.replace(opened, "")
        if not tagged:
            template = re.sub(r"\{% (end)?generation %\}", "", template)
        changed = with_template(tokenizer, template)
        [found] = [f for f in check_tokenizer(changed) if f.severity == "error"]
        assert found.code == "prompt-not-prefix" and "'<|im_start|>assistant'" in found.why
    tagged = with_template(tokenizer, CHATML.replace(opened, ""))
    [found] = look(tagged, ROWS.values()).findings()
    assert (found.code, found.severity) == ("prompt-not-prefix", "error")
    # the error of the row would have the tags moved
    assert found.why.endswith("That opening is '<|im_start|>assistant'.")


def test_a_prompt_that_opens_thoughts_is_fine_where_answers_have_some(tokenizer):
    opened = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif")
    changed = with_template(tokenizer, opened)
    rows = [ROWS["thoughts"], ROWS["one round"]]
    [found] = [f for f in look(changed, rows).findings() if f.severity == "error"]
    assert (found.code, found.places) == ("prompt-not-prefix", ["data.jsonl, row 2"])
    assert alarms(check_tokenizer(changed)) == set()


def test_a_template_that_cuts_names_the_rows_that_are_cut(tokenizer):
    cutting = CHATML.replace("{% else %}{{ m.content", "{% else %}{{ m.content[:30]")
    changed = with_template(tokenizer, cutting)
    rows = [said("Short?", "Yes."), said("Long " * 10, "Yes."), said("x" * 30, "Yes.")]
    found = {f.code: f for f in look(changed, rows).findings()}
    assert found["template-drops"].places == ["data.jsonl, row 2"]
    assert found["template-drops"].why.endswith(
        "The chat template leaves out the text of turn 1 (user), or a part of it."
    )
    assert found["template-cuts"].count == 2 and found["template-cuts"].severity == "note"
    assert alarms(check_tokenizer(changed)) == {"template-drops"}


EARLIER = "{% generation %}{{ (m.content if loop.last else m.content"
LONG = "".join(f"Line {n} of it.\n" for n in range(200))
CHANGES = {  # what is done to earlier answers, one that it changes, and what is told of it
    "cut at 1,000 characters": ("[:1000]", LONG, repr(LONG[988:1024])),
    "cut at a fence": (".split('```')[0]", "See:\n```\nx = 1\n```\nDone.", r"'See:\n```\nx = "),
    "put on one line": ("|replace('\n', ' ')", "One.\nTwo.", r"'One.\nTwo.'"),
    "in capitals": ("|upper", "It is Paris.", "'It is Paris.'"),
    "cut behind a think tag": (".split('</think>')[-1]", "Sure. " + THOUGHTS + "So.", "'Sure.'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_template_that_changes_earlier_answers_names_the_rows_that_it_changes(change, tokenizer):
    does, answer, told = CHANGES[change]
    changed = with_template(
        tokenizer, CHATML.replace("{% generation %}{{ m.content", EARLIER + does + ")")
    )
    only_read = said("Why?", answer, "And?", "Rome.")
    only_read[1]["weight"] = 0
    rows = [
        *[said("Why?", answer), said("Why?", "9.", "And?", "8."), only_read],
        *[said("Why?", "9.", "And?", answer), said("Why?", answer, "And?", f"{answer[-4:]} Rome.")],
    ]
    found = {found.code: found for found in look(changed, rows).findings()}
    assert found["answer-changed"].places == ["data.jsonl, row 5"]
    assert found["answer-changed"].severity == "error"
    assert f"Turn 2 has {told}" in found["answer-changed"].why
    assert is_told_well(found["answer-changed"])


def test_thoughts_of_earlier_answers_are_looked_for_where_these_stand(tokenizer):
    """The same thoughts stand in the last answer, whose thoughts no template drops."""
    strips = CHATML.replace(
        "{% generation %}{{ m.content", EARLIER + ".split('</think>')[-1].lstrip())"
    )
    row = ROWS["thoughts twice"]
    for template in (strips, (TRL / "qwen3.jinja").read_text("utf-8")):
        [found] = look(with_template(tokenizer, template), [row]).findings()
        assert (found.code, found.severity) == ("thoughts-dropped", "warning"), template
    kept = with_template(tokenizer, (TRL / "qwen3_training.jinja").read_text("utf-8"))
    assert look(kept, [row]).findings() == []


def test_templates_that_strip_answers_change_nothing(tokenizer):
    rows = [said("Why?", f"{edge}So it is.{edge}", "And?", " Yes. ") for edge in (" ", "\n", "")]
    rows += [
        said("Why?", f"<think>{edge}Hm.{edge}</think>{edge}So.", "And?", "9") for edge in "\n "
    ]
    for does in ("|trim", ".strip()", ".rstrip()"):
        template = CHATML.replace("{% generation %}{{ m.content", EARLIER + does + ")")
        assert alarms(look(with_template(tokenizer, template), rows).findings()) == set(), does


def test_thoughts_that_the_template_leaves_out(tokenizer):
    stripped = CHATML.replace(
        "{% generation %}{{ m.content", "{% generation %}{{ m.content.split('</think>')[-1]"
    )
    changed = with_template(tokenizer, stripped)
    [found] = look(changed, [ROWS["one round"], ROWS["thoughts"]]).findings()
    assert (found.code, found.severity) == ("thoughts-dropped", "warning")
    assert found.places == ["data.jsonl, row 2"]


def test_reasoning_content_without_a_place_in_the_template(tokenizer):
    row = said("Why?", "So.")
    row[1]["reasoning_content"] = "A thought."
    [found] = look(tokenizer, [row]).findings()
    assert (found.code, found.severity) == ("thoughts-dropped", "warning")
    assert "makes no <think> block" in found.why


def test_no_template_and_no_tags(tokenizer):
    bare = with_template(tokenizer, None)
    [found] = check_tokenizer(bare)
    assert (found.code, found.severity) == ("no-template", "error")
    check = look(bare, ROWS.values())
    assert check.findings() == [] and check.measured() == {}
    untagged = with_template(tokenizer, re.sub(r"\{% (end)?generation %\}", "", CHATML))
    [found] = check_tokenizer(untagged)
    assert (found.code, found.severity) == ("no-tags", "note")
    assert check_tokenizer(tokenizer) == []
    # TRL has a variant with tags for it
    qwen = with_template(tokenizer, (TRL / "qwen2_5.jinja").read_text("utf-8"))
    assert "no-tags" not in {f.code for f in check_tokenizer(qwen)}


def test_pad_tokens(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.pad_token = "<|im_end|>"
    [found] = check_tokenizer(changed)
    assert (found.code, found.severity) == ("pad-is-stop", "warning")
    changed.pad_token = None
    [found] = check_tokenizer(changed)
    assert (found.code, found.severity) == ("no-pad", "note")


def test_bos_tokens(tokenizer):
    llama = next(kind for kind in KINDS if "bos twice" in kind.name).make()
    by_hand = {f.code: f.severity for f in check_tokenizer(llama)}
    assert by_hand["double-bos"] == "note"  # Llama 3 as it ships: only by hand there are two
    doubled = with_template(llama, "{{ bos_token }}" + llama.chat_template)
    assert {f.code: f.severity for f in check_tokenizer(doubled)}["double-bos"] == "error"
    alone = with_template(llama, llama.chat_template.replace("{{ bos_token }}", ""))
    assert {f.code: f.severity for f in check_tokenizer(alone)}["no-bos"] == "note"


# rows


def naive_cut(ids: list[int], labels: list[int], limit: int, stop: int) -> str:
    """What a row loses that is cut off behind `limit`, run by run."""
    graded = [label != IGNORE_INDEX for label in labels]
    runs = [t for t in range(len(graded)) if graded[t] and not (t and graded[t - 1])]
    if runs[0] >= limit:
        return "answer-lost"
    worst = ""
    for first in runs:
        last = first
        while last + 1 < len(graded) and graded[last + 1]:
            last += 1
        end = ids.index(stop, first)  # white space may follow in the tags
        if first < limit <= end:
            return "answer-cut"
        if first >= limit:
            worst = "turns-lost"
    return worst


def test_what_a_limit_cuts_away_is_what_the_labels_say(tokenizer, conversations):
    stop, seen = stop_token_id(tokenizer), set()
    for conversation in conversations[:120]:
        example = encode_conversation(conversation, tokenizer, max_tokens=10**6)
        ids, labels = example.input_ids, example.labels
        for limit in {2, len(ids) // 3, len(ids) // 2, len(ids) - 3, len(ids) - 1, len(ids)} - {
            0,
            1,
        }:
            codes = {f.code for f in look(tokenizer, [conversation], limit).findings()}
            codes -= {"little-graded"}
            expected = naive_cut(ids, labels, limit, stop)
            assert codes == ({expected} if expected else set()), (limit, conversation)
            seen.add(expected)
    assert seen == {"", "answer-lost", "answer-cut", "turns-lost"}


def test_rows_beyond_the_positions_or_the_vocabulary(tokenizer):
    long = said("Why? " * 30, "So.")
    tokens = len(encode_conversation(long, tokenizer).input_ids)
    for limit, positions, code in (
        (tokens, tokens - 1, {"too-long"}),
        (tokens + 9, tokens - 1, {"too-long"}),
        (tokens, tokens, set()),
        (tokens - 1, tokens - 1, {"answer-cut"}),  # the line break behind <|im_end|> is not lost
    ):
        found = look(tokenizer, [ROWS["one round"], long], limit, positions=positions).findings()
        if limit < tokens:
            code = set()
        assert alarms(found) == code
        assert all(f.places == ["data.jsonl, row 2"] for f in found if f.severity != "note")
    widest = max(encode_conversation(long, tokenizer).input_ids)
    assert alarms(look(tokenizer, [long], vocabulary=widest + 1).findings()) == set()
    found = look(tokenizer, [long], vocabulary=widest).findings()
    [found] = [f for f in found if f.severity != "note"]
    assert (found.code, found.severity, found.count) == ("ids-outside", "error", 1)


def test_rows_without_an_answer_to_learn(tokenizer):
    unweighted = said("Why?", "So.")
    unweighted[1]["weight"] = 0
    unasked = [{"role": "assistant", "content": "Hello."}]
    for row in (unweighted, said("Why?"), unasked):
        assert alarms(look(tokenizer, [row]).findings()) == {"bad-row"}


def test_rows_that_no_tokenizer_takes(tokenizer):
    odd = said("Why?", "So.")
    odd[0]["name"] = "Ann"
    for row, code in ((said("\ud83d?", "So."), "encoding"), (odd, "bad-row")):
        found = look(tokenizer, [ROWS["one round"], row]).findings()
        assert [(f.code, f.severity, f.places) for f in found] == [
            (code, "error", ["data.jsonl, row 2"])
        ]


def test_measured_counts_and_percentiles(tokenizer, conversations):
    rows = [*conversations, said("Why?")]  # the last one is refused
    measured = look(tokenizer, rows).measured()
    examples = [encode_conversation(row, tokenizer, max_tokens=10**6) for row in conversations]
    lengths = [len(example.input_ids) for example in examples]
    graded = sum(label != IGNORE_INDEX for example in examples for label in example.labels)
    assert measured["rows encoded"] == len(conversations) and measured["rows refused"] == 1
    assert measured["tokens"] == sum(lengths) and measured["graded tokens"] == graded
    assert measured["graded share"] == pytest.approx(graded / sum(lengths), abs=1e-4)
    for share in (50, 90, 99):
        expected = np.percentile(lengths, share, method="inverted_cdf")
        assert measured["tokens of a row"][f"{share} %"] == expected
    assert measured["tokens of a row"]["longest"] == max(lengths)


def test_two_checks_of_half_the_rows_are_one_of_all(tokenizer, conversations):
    rows = [*conversations[:60], said("Why?"), *conversations[60:90]]
    places = [f"data.jsonl, row {number}" for number in range(1, len(rows) + 1)]
    whole, halves = TokenCheck(tokenizer, 40), [TokenCheck(tokenizer, 40) for _ in range(2)]
    for number, (place, row) in enumerate(zip(places, rows, strict=True)):
        whole.look(place, row)
        halves[number // 7 % 2].look(place, row)
    order = {place: rank for rank, place in enumerate(places)}
    halves[0].absorb(json.loads(json.dumps(halves[1].state())), order)
    assert halves[0].measured() == whole.measured()
    # the detail of a cause may be that of another row
    strip = [
        [(f.code, f.places, f.count) for f in sorted(c.findings(), key=lambda f: f.code)]
        for c in (whole, halves[0])
    ]
    assert strip[0] == strip[1] and len(strip[0]) >= 3


# what decoding changes


def test_texts_that_decoding_changes_are_found_whatever_the_tokenizer():
    rng = random.Random(1)
    pieces = ["Paris", "ﬁne", "x\n\ny", "a  b", "Ｆull", "☃", "naïve", "q.", "?!", "don't"]
    cases = 0
    for kind in KINDS:
        tokenizer = kind.make()
        unknown = {*find_controls(tokenizer).unknown.values()}
        for _ in range(12):
            text = " ".join(rng.choices(pieces, k=2))
            row = said(text, "Yes")
            found = {f.code for f in look(tokenizer, [row]).findings()}
            ids = [token for turn in row for token in encode_text(turn["content"], tokenizer)]
            decoded = [
                tokenizer.decode(encode_text(turn["content"], tokenizer)).strip() for turn in row
            ]
            changed = decoded != [turn["content"] for turn in row]
            if found & {"control-token"}:
                continue
            assert ("unknown-token" in found) == bool(unknown & {*ids}), (kind.name, text)
            if "unknown-token" not in found:
                assert ("not-reversible" in found) == changed, (kind.name, text, decoded)
            cases += changed
    assert cases > 50


def test_bytes_that_a_vocabulary_lacks():
    steps = json.loads(byte_level().to_str())
    gone = {bytes_to_unicode()[4], "Q"}
    steps["model"]["merges"] = [
        pair for pair in steps["model"]["merges"] if not gone & set("".join(pair))
    ]
    vocabulary = [piece for piece in steps["model"]["vocab"] if not gone & set(piece)]
    steps["model"]["vocab"] = {piece: number for number, piece in enumerate(vocabulary)}
    steps["added_tokens"] = []
    lacking = chatml(Tokenizer.from_str(json.dumps(steps)))
    assert set(find_missing_bytes(lacking)) == {4, ord("Q")}
    assert alarms(look(lacking, [said("\x04?", "Yes")]).findings()) == {"not-reversible"}
    for letter in string.ascii_letters:
        found = alarms(look(lacking, [said(f"{letter}?", "Yes")]).findings())
        assert found == ({"not-reversible"} if letter == "Q" else set())
    assert find_missing_bytes(chatml(byte_level())) == b""
    assert find_missing_bytes(next(k for k in KINDS if k.name == "WordPiece").make()) is None


# control tokens that are looked up once


def test_controls_are_kept_while_nobody_changes_the_tokenizer(tokenizer):
    changed = copy.deepcopy(tokenizer)
    before = find_controls(changed)
    with keep_controls({}):
        assert find_controls(changed) == before or find_controls(changed).ids == before.ids
        changed.add_tokens(["<|more|>"], special_tokens=True)
        assert "<|more|>" not in find_controls(changed).ids
        assert find_controls(tokenizer).ids == before.ids
    assert "<|more|>" in find_controls(changed).ids


# words


def test_every_cause_is_a_sentence_with_nothing_left_to_fill():
    for cause in CAUSES:
        values = {"max_tokens": "9", "positions": "9", "changes": "this"}
        for count in (0, 1, 1234):
            found = describe(cause, count=count, detail="{x}", **values)
            for text in (found.title, found.why, found.remedy):
                assert not re.search(r"\{\w+\}", text.replace("{x}", "")), text
                assert "{{" not in text.replace("{{ bos_token }}", "") and "  " not in text
            assert found.title[0].isupper() or found.title.startswith(("sft_lab", "add_")), cause
            if count and "{rows}" in CAUSES[cause].title:
                assert f"{count:,} rows" in found.title or "ne row" in found.title


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("", ""),
        ("turn 2 is lost. Use a template that writes it", "Turn 2 is lost."),
        ("a message would become a control token: it holds '.'", "It holds '.'."),
        ("the answer has no end: the model never learns to stop. So", "The answer has no end. So."),
        ("my/model: other weights", "my/model: other weights."),
        ("max_tokens is 0.", "max_tokens is 0."),
    ],
)
def test_an_error_becomes_a_sentence_without_its_advice(error, told):
    assert as_sentence(error) == told


def test_a_finding_about_no_row_gives_way_to_a_better_one():
    general, rows = describe("stop-missing"), describe("stop-missing", count=2, places=["a", "b"])
    note, warning = describe("stop-row-untrained"), describe("stop-row-frozen")
    bos = describe("bos-twice-by-hand")
    found = [general, note, rows, bos, warning]
    assert drop_repeats(found) == [rows, bos, warning]
    assert drop_repeats([general, bos]) == [general, bos]


def test_finish_is_not_needed_without_tokens():
    """A tokenizer without any control token: the check says so and does not fail."""
    bare = finish(byte_level(), CHATML)
    assert {f.code for f in check_tokenizer(bare)} >= {"stop-missing"}
    assert look(bare, ROWS.values()).findings() == []
