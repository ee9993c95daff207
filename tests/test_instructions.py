"""The instruction data is what its datasheet says: two languages, honest splits, answers that keep
the format asked."""

import ast
import json
import re
from collections import Counter
from difflib import SequenceMatcher

import pytest

from sft_lab.instructions import FOLDER, SPLITS, instruction_rows, load_instructions
from sft_lab.records import load_conversations

FILES = {"english": 328, "chinese": 258}
TOPICS = {"sft", "everyday", "writing", "reading", "reasoning", "code", "format", "translation"}


LANGUAGE_OF = {"en": "english", "zh": "chinese"}  # by the beginning of a row's id
EVERY = instruction_rows()


@pytest.mark.parametrize("name", FILES)
def test_the_course_reads_every_row_and_its_answers_are_the_outputs(name):
    rows, conversations = instruction_rows(name), load_conversations(FOLDER / f"{name}.jsonl")
    assert len(rows) == len(conversations) == FILES[name]
    assert [conversation[-1]["content"] for conversation in conversations] == [
        row["output"] for row in rows
    ]


@pytest.mark.parametrize("language", [None, *FILES])
def test_the_parts_of_a_language_are_its_rows_each_once(language):
    questions = {
        part: [conversation[0]["content"] for conversation in load_instructions(language, part)]
        for part in SPLITS
    }
    assert len(questions["train"]) > 4 * len(questions["held_out"]) > 0
    asked = [row["instruction"] for row in EVERY if language in (None, LANGUAGE_OF[row["id"][:2]])]
    assert len(asked) == sum(map(len, questions.values()))
    for part, split in SPLITS.items():
        rows = [row for row in EVERY if row["split"] == split and row["instruction"] in asked]
        for row, question in zip(rows, questions[part], strict=True):
            assert question.startswith(row["instruction"])


def test_another_language_or_part_is_refused_by_name():
    with pytest.raises(ValueError, match="language is 'french'; choose one of english, chinese"):
        load_instructions("french")
    with pytest.raises(ValueError, match="part is 'heldout'; choose one of train, held_out"):
        load_instructions(part="heldout")


def test_every_row_has_the_same_keys_and_nothing_twice():
    assert {tuple(row) for row in EVERY} == {
        ("id", "topic", "split", "instruction", "input", "output")
    }
    for key in ("id", "instruction"):
        assert [
            value for value, count in Counter(row[key] for row in EVERY).items() if count > 1
        ] == []
    for row in EVERY:
        assert row["instruction"] and row["output"], row["id"]
        assert all(value == value.strip() for value in row.values()), row["id"]


@pytest.mark.parametrize("name", FILES)
def test_every_topic_is_in_both_parts_and_about_a_sixth_is_held_out(name):
    rows = instruction_rows(name)
    for topic in TOPICS:
        held_out = sum(row["split"] == "heldout" for row in rows if row["topic"] == topic)
        assert 0.1 <= held_out / sum(row["topic"] == topic for row in rows) <= 0.2, topic
    assert {row["split"] for row in rows} == {"train", "heldout"} and {
        row["topic"] for row in rows
    } == TOPICS


def test_no_held_out_row_is_a_near_copy_of_a_training_row():
    texts = {
        split: [row["instruction"] + "\n" + row["input"] for row in EVERY if row["split"] == split]
        for split in ("train", "heldout")
    }
    for text in texts["heldout"]:
        matcher = SequenceMatcher(b=text, autojunk=False)
        for other in texts["train"]:
            matcher.set_seq1(other)
            near = (
                matcher.real_quick_ratio() > 0.85
                and matcher.quick_ratio() > 0.85
                and matcher.ratio() > 0.85
            )
            assert not near, (text, other)


def test_no_row_holds_a_control_token_or_an_empty_opening():
    for row in EVERY:
        text = row["instruction"] + row["input"] + row["output"]
        assert not re.search(r"<\|[a-z_]+\|>|</?think>", text), row["id"]
        assert not re.match(r"Sure|Of course|Certainly|As an AI|当然|作为", row["output"]), row[
            "id"
        ]


def test_answers_that_should_be_json_parse_and_python_answers_compile():
    asked = [
        row
        for row in EVERY
        if re.search(r"JSON only|only (the )?JSON|只输出 ?JSON", row["instruction"])
    ]
    assert len(asked) >= 12
    for row in asked:
        json.loads(row["output"])
    blocks = [
        (row["id"], block)
        for row in EVERY
        for block in re.findall(r"```python\n(.*?)```", row["output"], re.S)
    ]
    assert len(blocks) >= 25
    for _, block in blocks:
        ast.parse(block)


def test_a_conversation_knows_its_row_in_the_file():
    rows = instruction_rows("chinese")
    for conversation in load_instructions("chinese", part="held_out"):
        name, row = conversation.place.rsplit(", row ", 1)
        assert name == str(FOLDER / "chinese.jsonl")
        assert rows[int(row) - 1]["output"] == conversation[-1]["content"]
