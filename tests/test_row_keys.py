"""What a row says beside its texts is honoured, refused with the reason, or named: in the shapes of
public data sets, one key after the other, and with values that break careless readers."""

import copy
import json
import pickle
import random
import warnings

import datasets
import numpy as np
import pandas as pd
import pytest

from sft_lab.records import RecordError, load_conversations
from sft_lab.row_files import BadRow, parse_json
from sft_lab.row_keys import (
    ABOUT,
    LABELS,
    MASKS,
    PREFERENCES,
    REASONING,
    REFUSED,
    ROW_REASONING,
    WEIGHTS,
)
from sft_lab.row_shapes import FIELDS

USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
PAIR = {"question": "Why?", "answer": "So."}
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}


def read(row, **options):
    """The conversation of one row, read without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [conversation] = load_conversations([row], **options)
    return conversation


def refusal(row, **options) -> str:
    with pytest.raises(RecordError) as caught:
        load_conversations([row], **options)
    [problem] = caught.value.problems
    assert problem.startswith("rows, row 1: ") and "\n" not in problem
    return problem


def texts(conversation):
    return [turn["content"] for turn in conversation]


# rows of public data sets, and what becomes of them

READ = {
    "Dolly": (
        {"instruction": "Q", "context": "C", "response": "A", "category": "qa"},
        ["Q\nC", "A"],
    ),
    "Dolly without context": ({"instruction": "Q", "context": "", "response": "A"}, ["Q", "A"]),
    "Alpaca": ({"instruction": "Q", "input": "I", "output": "A"}, ["Q\nI", "A"]),
    "about a passage": (
        {"id": "7", "context": "C", "question": "Q", "answer": "A"},
        ["Q\nC", "A"],
    ),
    "LLaMA-Factory": (
        {"instruction": "Q", "output": "A", "system": "S", "history": [["q", "a"]]},
        ["S", "q", "a", "Q", "A"],
    ),
    "UltraChat": (
        {"prompt": "Why?", "prompt_id": "x", "messages": [USER, ANSWER]},
        ["Why?", "So."],
    ),
    "NuminaMath": (
        {"source": "x", "problem": "Why?", "solution": "So.", "messages": [USER, ANSWER]},
        ["Why?", "So."],
    ),
    "ShareGPT": ({"id": "x_0", "conversations": [HUMAN, GPT], "system": "S"}, ["S", "Why?", "So."]),
    "one system text in two places": (
        {"messages": [{"role": "system", "content": " S"}, USER, ANSWER], "system": " S"},
        [" S", "Why?", "So."],
    ),
    "one system text in two places of TRL": (
        {"prompt": [{"role": "system", "content": "S"}, USER], "completion": [ANSWER]}
        | {"system": "S"},
        ["S", "Why?", "So."],
    ),
    "no tools": ({"messages": [USER, ANSWER], "tools": "[]", "images": []}, ["Why?", "So."]),
    "KTO's good answer": ({"prompt": "Q", "completion": "A", "label": True}, ["Q", "A"]),
    "Arrow's and pandas' gaps": (
        PAIR | {"input": np.nan, "system": None, "history": pd.NA, "tools": None, "weight": np.nan},
        ["Why?", "So."],
    ),
    "empty keys of a turn": (
        {"messages": [USER, ANSWER | {"tool_calls": [], "name": None, "weight": None}]},
        ["Why?", "So."],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row, expected", READ.values(), ids=READ)
def test_a_row_of_a_public_data_set_is_read_whole(row, expected):
    assert texts(read(row)) == expected


NOT_READ = {
    "DPO": ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "'chosen', 'A' (str): this is pref"),
    "HH": ({"chosen": "\n\nHuman: Q", "rejected": "x"}, "this is preference data"),
    "KTO": ({"prompt": "Q", "completion": "A", "label": False}, "'label' False: KTO's mark"),
    "function calls": (
        {"conversations": [HUMAN, {"from": "function_call", "value": "{}"}, GPT]},
        "the unknown role 'function_call'",
    ),
    "a call without content": (
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        "turn 2 of 'messages' has 'tool_calls'",
    ),
    "pictures": ({"messages": [USER, ANSWER], "images": ["a.png"]}, "'images', ['a.png']"),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]},
        "'content' in turn 1 of 'messages' is [{'type': 'image'}] (list), not a text. Of a list",
    ),
    "OASST": ({"message_id": "1", "text": "Hi", "role": "prompter"}, "no known shape"),
    "Guanaco": ({"text": "### Human: Q### Assistant: A"}, "no known shape"),
    "two inputs": (PAIR | {"input": "I", "context": "C"}, "'input', 'I' (str), would be lost"),
    "history beside messages": (
        {"messages": [USER, ANSWER], "history": [["q", "a"]]},
        "'history', [['q', 'a']] (list), would be lost: a row of messages has no place for it",
    ),
    "input beside messages": ({"messages": [USER, ANSWER], "input": "I"}, "'input', 'I' (str), w"),
    "another prompt": ({"prompt": "Another", "messages": [USER, ANSWER]}, "'prompt', 'Another'"),
    "context of TRL's lists": (
        {"prompt": [USER], "completion": [ANSWER], "context": "C"},
        "'context', 'C' (str), would be lost",
    ),
    "a weight for the row": (PAIR | {"weight": 2.0}, "'weight' 2.0 (float). Only 0"),
    "a row not to learn": (PAIR | {"weight": 0}, "the row says that it is not to be learned"),
    "no answer to learn": (
        {"messages": [USER, ANSWER | {"weight": 0}]},
        "no answer is to be learned",
    ),
    "a question to learn": ({"messages": [USER | {"train": True}, ANSWER]}, "only answers are"),
    "half a weight": ({"messages": [USER, ANSWER | {"weight": 0.5}]}, "has 'weight' 0.5 (float)"),
    "two weights": (
        {"messages": [USER, ANSWER | {"weight": 1, "train": False}]},
        "says of ['weight', 'train'] two different things",
    ),
    "part of an answer": (
        {"messages": [USER, ANSWER | {"train_detail": [{"begin": 0, "train": False}]}]},
        "parts of an answer cannot be left out",
    ),
    "thoughts of a user": ({"messages": [USER | {"thinking": "R"}, ANSWER]}, "is no answer"),
    "thoughts twice": (
        {"messages": [USER, ANSWER | {"content": "<think>R</think>A", "thinking": "R"}]},
        "holds thoughts, and more stand beside it",
    ),
    "two thoughts": (
        {"messages": [USER, ANSWER | {"thinking": "R", "reasoning_content": "S"}]},
        "has several thoughts: ['thinking', 'reasoning_content']",
    ),
    "tags in thoughts": ({"messages": [USER, ANSWER | {"thinking": "<think>R"}]}, "holds <think>"),
    "thoughts beside turns": ({"messages": [USER, ANSWER], "thinking": "R"}, "into their turn"),
    "thoughts as a list": (PAIR | {"thinking": ["R"]}, "'thinking' of the row is ['R'] (list)"),
}  # fmt: skip


@pytest.mark.parametrize("row, cause", NOT_READ.values(), ids=NOT_READ)
def test_a_row_that_cannot_be_honoured_is_refused_with_the_reason(row, cause):
    assert cause in refusal(row)


@pytest.mark.parametrize("empty", [None, "", " ", [], {}, float("nan"), pd.NA, "[]", "{}", "null"])
@pytest.mark.parametrize("key", sorted(REFUSED))
def test_every_refused_key_is_refused_in_rows_and_turns_and_only_when_it_says_something(key, empty):
    for spelled in (key, key.upper()):
        reason, advice = REFUSED[key]
        assert refusal(PAIR | {spelled: "x"}).endswith(f"{reason}. {advice}")
        turns = {"messages": [USER, ANSWER | {spelled: ["x"]}]}
        assert f"turn 2 of 'messages' has {spelled!r}" in refusal(turns)
        assert texts(read(PAIR | {spelled: empty})) == ["Why?", "So."]
        assert texts(read({"messages": [USER, ANSWER | {spelled: empty}]})) == ["Why?", "So."]


NO = (0, 0.0, False, "0", "false", "False", np.int64(0), np.bool_(False))
YES = (1, 1.0, True, "1", "TRUE")


@pytest.mark.parametrize("value", [*NO, *YES])
@pytest.mark.parametrize("key", [*WEIGHTS, *MASKS])
def test_every_weight_makes_an_answer_ungraded_or_leaves_it_as_it_is(key, value):
    learned = (value in YES) != (key in MASKS)
    first = ANSWER | {key: value}
    conversation = read({"messages": [USER, first, USER, ANSWER]})
    expected = ANSWER if learned else ANSWER | {"weight": 0}
    assert conversation == [USER, expected, USER, ANSWER]
    # nothing is learned from what follows the last answer to learn
    last = read({"messages": [USER, ANSWER, USER, first]})
    assert last == [USER, ANSWER] + ([USER, ANSWER] if learned else [])
    if learned:
        assert texts(read(PAIR | {key: value})) == ["Why?", "So."]
    else:
        assert "not to be learned" in refusal(PAIR | {key: value})


@pytest.mark.parametrize("key", LABELS)
def test_the_label_of_an_unwanted_answer_is_refused_and_any_other_label_is_none(key):
    for value in NO:
        assert "KTO" in refusal(PAIR | {key: value})
    for value in (*YES, 2, 0.5):
        assert texts(read(PAIR | {key: value})) == ["Why?", "So."]
    with pytest.warns(UserWarning, match=f"'{key}' in 1 of 1 rows"):
        load_conversations([PAIR | {key: "positive"}])


@pytest.mark.parametrize("key", REASONING)
def test_thoughts_beside_an_answer_are_kept_apart_from_it(key):
    expected = [USER, ANSWER | {"reasoning_content": " Because\n"}]
    assert read({"messages": [USER, ANSWER | {key: " Because\n"}]}) == expected
    if key in ROW_REASONING:
        assert read(PAIR | {key: " Because\n"}) == expected


def test_the_completion_alone_is_learned_of_trls_lists():
    row = {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}
    assert read(row) == [USER, ANSWER | {"weight": 0}, USER, ANSWER]
    row["prompt"][1] = ANSWER | {"weight": 1}
    assert "only completions are" in refusal(row)


def test_a_chosen_answer_is_read_and_the_rejected_one_named():
    for row, columns in [
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, {"completion": "chosen"}),
        ({"prompt": "Why?", "chosen": [USER, ANSWER], "rejected": [USER]}, {"messages": "chosen"}),
    ]:
        with pytest.warns(UserWarning, match="it holds text: 'rejected' in 1 of 1"):
            [conversation] = load_conversations([row], columns=columns)
        assert conversation == [USER, ANSWER]
        assert f"{columns}"[1:-1] in REFUSED["chosen"][1]


# keys that nobody knows


def test_an_unknown_key_with_text_is_named_once_with_its_rows_and_a_number_is_not():
    rows = [
        PAIR | {"notes": "n", "score_b": 0.5, "flag": True, "extra": {"a": [1, "deep"]}},
        PAIR | {"notes": "", "extra": {"a": [1, 2.5, None, False]}},
        PAIR | {"notes": "m", "topic": "known to be about the row", "user_id": "7"},
        {"messages": [USER | {"name": "Ada"}, ANSWER | {"mood": 3}]},
    ]
    with pytest.warns(UserWarning) as caught:
        load_conversations(rows)
    [warning] = caught
    assert str(warning.message).startswith(
        "rows: not read, though it holds text: 'notes' in 2 of 4 rows, 'extra' in 1 of 4 rows"
    )
    assert "'topic'" not in str(warning.message)
    # a number in a turn may be a weight by another name
    assert "'name' in a turn in 1 of 4" in str(warning.message)
    assert "'mood' in a turn in 1 of 4" in str(warning.message)
    assert "flag" not in str(warning.message) and "topic" not in str(warning.message)


@pytest.mark.parametrize("value", [True, False, 3, "x"])
def test_an_unknown_key_of_a_turn_is_not_called_a_column_or_a_text(value):
    rows = [{"messages": [USER, ANSWER | {"prefix": value}]}, {"messages": [USER, ANSWER]}]
    with pytest.warns(UserWarning) as caught:
        load_conversations(rows)
    [warning] = caught
    assert str(warning.message) == (
        "rows: not read: 'prefix' in a turn in 1 of 2 rows. Of a turn only role, content, weight "
        "and thoughts are"
    )


@pytest.mark.parametrize("depth", [500, 900])
def test_a_nested_row_of_a_file_is_not_said_to_hold_itself(depth, tmp_path):
    text = '{"question": "q", "answer": "a", "notes": ' + "[" * depth + "]" * depth + "}"
    for suffix in ("json", "jsonl"):
        path = tmp_path / f"x.{suffix}"
        path.write_text(f"[{text}]" if suffix == "json" else text)
        with pytest.raises(RecordError, match="nested too deep.*Likely brackets were repeated"):
            load_conversations(path)
    assert "nested too deep. Likely one holds itself." in refusal(PAIR | {"notes": ENDLESS})


@pytest.mark.parametrize("seed", range(30))
def test_every_text_of_a_random_row_is_learned_refused_or_named(seed):
    rng = random.Random(seed)
    shapes = [
        lambda: {"question": mark(), "answer": mark()},
        lambda: {"instruction": mark(), "output": mark()},
        lambda: {"messages": [user(), answer()]},
        lambda: {"prompt": [user()], "completion": [answer()]},
    ]
    keys = [*FIELDS, *REFUSED, *WEIGHTS, *LABELS, *REASONING, "notes", "Input", "steps", "answer2"]
    marks = []

    def mark() -> str:
        marks.append(f"mark{len(marks)}")
        return marks[-1]

    def user() -> dict:
        return USER | {"content": mark()}

    def answer() -> dict:
        return ANSWER | {"content": mark()}

    for _ in range(60):
        marks.clear()
        row = rng.choice(shapes)()
        turns = row.get("messages", [])
        for key in rng.sample(keys, 2):
            row.setdefault(key, rng.choice([mark, list, str])())
        for turn in turns:
            turn |= {key: mark() for key in rng.sample(keys, 1) if rng.random() < 0.3}
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                [conversation] = load_conversations([row])
        except RecordError:
            continue
        said = json.dumps(conversation)
        named = "".join(str(warning.message) for warning in caught)
        for key, value in [*row.items(), *(pair for turn in turns for pair in turn.items())]:
            if isinstance(value, str) and value and key not in ("role", *ABOUT):
                assert value in said or f"{key!r} in" in named, (row, key)


def test_the_lists_of_keys_do_not_overlap():
    lists = [set(FIELDS), set(REFUSED), {*WEIGHTS, *MASKS}, set(LABELS), set(REASONING), ABOUT]
    assert sum(map(len, lists)) == len(set.union(*lists))
    assert {*PREFERENCES} <= REFUSED.keys()


# values that break careless readers


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


ENDLESS: list = []
ENDLESS.append(ENDLESS)
ODD_VALUES = {
    "huge integer": 10**5000,
    "minus a huge integer": -(10**5000),
    "nested": nested(100_000),
    "a list that holds itself": ENDLESS,
    "bytes": b"x",
    "a set": {"x"},
    "pandas' missing": pd.NA,
    "no time": pd.NaT,
    "an array of numbers": np.arange(3),
    "an empty array": np.array([]),
    "an object": object(),
}


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
@pytest.mark.parametrize("field", ["answer", "input", "system", "history", "notes", "tools"])
def test_an_odd_value_is_a_record_error_or_a_gap(field, value):
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            [conversation] = load_conversations([PAIR | {field: value}])
    except RecordError as error:
        assert str(error).startswith("rows, row 1: ")
    else:
        assert texts(conversation) == ["Why?", "So."]
        gap = type(value).__name__ in ("NAType", "NaTType") or np.size(value) == 0
        number = isinstance(value, int | np.ndarray) and field == "notes"
        assert gap or number or "'notes' in 1 of 1" in str(caught[0].message)
    for turns in ([USER, ANSWER | {"content": value}], [USER, {"role": value, "content": "x"}]):
        with pytest.raises(RecordError, match="rows, row 1: "):
            load_conversations([{"messages": turns}])


@pytest.mark.parametrize(
    "text, cause",
    [
        ("1" * 5000, "an integer of more than 4,300 digits"),
        ("[" * 100_000, "JSON nested too deep"),
        ('{"a":' * 20_000, "JSON nested too deep"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' (str) stands twice in one object"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_json_that_breaks_a_parser_is_named_by_file_and_row(text, cause, suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    good, bad = json.dumps(PAIR), '{"question": "q", "answer": "a", "history": ' + text + "}"
    if suffix == "csv":
        quoted = text.replace('"', '""')
        path.write_text(f'question,answer,history\nq,a,\nq,a,"[{quoted}]"\n')
    else:
        rows = [good, bad, good]
        path.write_text("[" + ",\n".join(rows) + "]" if suffix == "json" else "\n".join(rows))
    with pytest.raises(RecordError) as caught:
        load_conversations(path)
    assert str(caught.value).startswith(f"{path}, row 2: ") and cause in str(caught.value)
    with pytest.raises(BadRow, match=cause.partition("'")[0]):
        parse_json(text)


def test_a_cell_too_long_and_a_column_named_twice_are_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f'question,answer\nq,a\nq,"{"a" * 140_000}"\n')
    with pytest.raises(RecordError) as caught:
        load_conversations(path)
    assert str(caught.value).startswith(f"{path}, row 2: broken CSV: field larger than field limit")
    assert "Likely a quote is never closed" in str(caught.value) and len(str(caught.value)) < 300
    path.write_text("question,answer,answer\nq,a,b\n")
    with pytest.raises(
        RecordError, match=r"x.csv: the header \(line 1\) names twice: \['answer'\]"
    ):
        load_conversations(path)


@pytest.mark.parametrize("text", ['[{"question": "q"}]', ' {"a": 1}', "[" + "x" * 100_000])
def test_json_text_given_as_a_path_is_told_so(text):
    with pytest.raises(RecordError, match="this is JSON text, not the path of a file") as caught:
        load_conversations(text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300 + ".json", "\0.json", "a/\ud800.json"])
def test_a_name_that_no_file_can_have_is_a_record_error(name):
    with pytest.raises(RecordError):
        load_conversations(name)


def test_rows_of_pandas_and_of_a_parquet_file_are_read_as_rows_of_lists(tmp_path):
    rows = [
        {"messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER]},
        {"messages": [USER, ANSWER]},
    ]
    frame = pd.DataFrame({"messages": [row["messages"] for row in rows]})
    frame.to_parquet(tmp_path / "x.parquet")
    again = pd.read_parquet(tmp_path / "x.parquet")
    assert isinstance(again["messages"][0], np.ndarray)
    expected = [row["messages"] for row in rows]
    for source in (
        frame,
        again,
        again.to_dict("records"),
        datasets.Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "c")),
        datasets.Dataset.from_list(rows).with_format("numpy"),
    ):
        assert load_conversations(source) == expected
    with pytest.raises(RecordError, match="DataFrame, row 2: 'answer' is empty"):
        load_conversations(pd.DataFrame([PAIR, PAIR | {"answer": ""}], index=[7, 9]))
    pairs = pd.DataFrame([PAIR, PAIR | {"input": "I"}])  # a gap becomes nan
    assert list(map(texts, load_conversations(pairs))) == [["Why?", "So."], ["Why?\nI", "So."]]


# columns


def test_columns_that_no_row_has_and_columns_given_twice_are_refused():
    with pytest.raises(RecordError, match=r"columns names \['persona'\], which no row has"):
        load_conversations([PAIR], columns={"system": "persona"})
    assert texts(read(PAIR | {"persona": ""}, columns={"system": "persona"})) == ["Why?", "So."]
    for columns in ({"question": "x", "answer": "x"}, {"question": ["x"]}):
        with pytest.raises(RecordError, match="each given to one field"):
            load_conversations([{"x": "y"}], columns=columns)


@pytest.mark.parametrize(
    "row, suggestion",
    [
        (
            {"id": "1", "system_prompt": "S", "question": "Q", "response": "A"},
            "Did you mean columns={'answer': 'response', 'system': 'system_prompt'}?",
        ),
        ({"input": "Q", "output": "A"}, "Did you mean columns={'instruction': 'input'}?"),
        (
            {"query": "Q", "response": "A", "type": "x"},
            "Did you mean columns={'prompt': 'query'}?",
        ),
        (
            {"problem": "Q", "solution": "A", "source": "x"},
            "Did you mean columns={'prompt': 'problem', 'response': 'solution'}?",
        ),
        (
            {"instruction": "Q", "ouput": "A", "notes": "N"},
            "Did you mean columns={'output': 'ouput'}, without ['notes']?",
        ),
    ],
)
def test_the_suggestion_of_columns_says_what_it_would_leave(row, suggestion):
    assert suggestion in refusal(row)


# the place of a row


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_a_conversation_knows_its_row_after_shuffling_cutting_and_copying(suffix, tmp_path):
    rows = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(1, 41)]
    path = tmp_path / f"x.{suffix}"
    if suffix == "csv":
        path.write_text("question,answer\n\n" + "\n".join(f"q{n},a{n}" for n in range(1, 41)))
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n\n".join(lines) if suffix == "jsonl" else "[" + ",".join(lines) + "]")
    conversations = load_conversations(path)
    random.Random(0).shuffle(conversations)
    for conversation in conversations[7:]:
        number = conversation[0]["content"].removeprefix("q")
        for same in (conversation, copy.deepcopy(conversation)):
            assert same.place == f"{path}, row {number}"
        assert pickle.loads(pickle.dumps(conversation)).place == conversation.place
        assert conversation == list(conversation)
