"""Every shape and format gives the same conversations back, and every bad row is named by file, row
and cause."""

import csv
import json
import pickle
import random
from pathlib import Path

import datasets
import pandas
import pyarrow
import pytest

from sft_lab.records import RecordError, load_conversations

ALPHABET = "ab Z9 \"',;:{}[]\\/\t\n\r é你好🙂\u2028\u2029\u0085\u00a0\ufeff<|im_end|>"
GOOD = {"instruction": "Capital of Chile?", "output": "Santiago."}


def random_text(rng: random.Random) -> str:
    return (
        rng.choice("xÉ国\n ")
        + "".join(rng.choices(ALPHABET, k=rng.randrange(12)))
        + rng.choice("y界 ")
        + "."
    )


def random_conversation(rng: random.Random, rounds: int) -> list[dict[str, str]]:
    roles = ["system"] * rng.randrange(2) + ["user", "assistant"] * rounds
    return [{"role": role, "content": random_text(rng)} for role in roles]


def split(conversation: list[dict[str, str]]) -> tuple[str, list[list[str]]]:
    """The system text ("" for none) and the rounds as [question, answer]."""
    texts = [turn["content"] for turn in conversation]
    system = texts.pop(0) if conversation[0]["role"] == "system" else ""
    return system, [texts[i : i + 2] for i in range(0, len(texts), 2)]


def as_alpaca(conversation):
    system, rounds = split(conversation)
    history, (question, answer) = rounds[:-1], rounds[-1]
    return {
        "instruction": question,
        "input": "",
        "output": answer,
        "system": system,
        "history": history,
    }


def as_pair(question, answer):
    def shape(conversation):
        system, rounds = split(conversation)
        return {
            question: rounds[-1][0],
            answer: rounds[-1][1],
            "system": system,
            "history": rounds[:-1],
        }

    return shape


def as_sharegpt(conversation):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return {
        "conversations": [
            {"from": names[turn["role"]], "value": turn["content"]} for turn in conversation
        ]
    }


SHAPES = {
    "alpaca": as_alpaca,
    "prompt/response": as_pair("prompt", "response"),
    "prompt/completion": as_pair("prompt", "completion"),
    "question/answer": as_pair("question", "answer"),
    "trl": lambda conversation: {"prompt": conversation[:-1], "completion": conversation[-1:]},
    "messages": lambda conversation: {"messages": conversation},
    "sharegpt": as_sharegpt,
}


def write_rows(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".json":
        path.write_text(
            json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8", newline=""
        )
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8", newline="")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(
                file, list(dict.fromkeys(column for row in rows for column in row))
            )
            writer.writeheader()
            for row in rows:
                writer.writerow(
                    {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
                )
    return path


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def error_of(source, **options) -> RecordError:
    with pytest.raises(RecordError) as caught:
        load_conversations(source, **options)
    return caught.value


FORMATS = ["json", "jsonl", "csv", "rows", "dataset"]
READABLE = [(shape, kind) for shape in SHAPES for kind in FORMATS]


@pytest.mark.parametrize("shape, kind", READABLE)
def test_a_conversation_comes_back_unchanged_from_every_shape_and_format(shape, kind, tmp_path):
    rng = random.Random(f"{shape} {kind}")
    conversations = [random_conversation(rng, rng.randint(1, 3)) for _ in range(25)]
    rows = [SHAPES[shape](conversation) for conversation in conversations]
    if kind == "rows":
        source = rows
    elif kind == "dataset":
        source = datasets.Dataset.from_list(rows)
    else:
        source = write_rows(tmp_path / f"data.{kind}", rows)
    if shape == "trl":  # which learns the completion alone
        conversations = [read_only(conversation) for conversation in conversations]
    assert load_conversations(source) == conversations


def read_only(conversation: list[dict]) -> list[dict]:
    """The conversation with weight 0 for every answer but the last."""
    *turns, last = conversation
    return [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in turns] + [
        last
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_each_row_of_a_mixed_source_is_judged_by_its_own_columns(kind, tmp_path):
    rng = random.Random(kind)
    shapes = [SHAPES[name] for name in SHAPES if name not in ("trl", "prompt/completion")]
    conversations = [random_conversation(rng, 2) for _ in range(20)]
    rows = [shapes[i % len(shapes)](conversation) for i, conversation in enumerate(conversations)]
    if kind == "dataset":  # one schema: the columns of the other shapes are there and None
        source = datasets.Dataset.from_list(
            [{c: row.get(c) for r in rows for c in r} for row in rows]
        )
    else:
        source = rows if kind == "rows" else write_rows(tmp_path / f"data.{kind}", rows)
    assert load_conversations(source) == conversations


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_files_are_read_as_the_datasets_library_reads_them(kind, tmp_path):
    rng = random.Random(kind)
    rows = [{"prompt": random_text(rng), "response": random_text(rng)} for _ in range(40)]
    path = write_rows(tmp_path / f"data.{kind}", rows)
    reader = datasets.Dataset.from_csv if kind == "csv" else datasets.Dataset.from_json
    reference = reader(str(path), cache_dir=str(tmp_path / "cache"), keep_in_memory=True)
    assert load_conversations(path) == load_conversations(reference)


@pytest.mark.parametrize("input_text", [None, "", " \n"])
def test_an_absent_or_blank_alpaca_input_leaves_the_instruction_alone(input_text):
    assert load_conversations([GOOD | {"input": input_text}]) == load_conversations([GOOD])


def test_the_alpaca_input_follows_the_instruction_on_a_new_line():
    (conversation,) = load_conversations(
        [{"instruction": " Add.", "input": "1 + 1 ", "output": "2"}]
    )
    assert conversation[0] == {"role": "user", "content": " Add.\n1 + 1 "}


def test_columns_maps_our_names_to_those_of_the_file():
    rows = [{"q": "Hi", "a": "Hello", "output": "not this one"}]
    with pytest.warns(UserWarning, match="it holds text: 'output' in 1 of 1 rows"):
        conversations = load_conversations(rows, columns={"instruction": "q", "output": "a"})
    assert conversations == [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    ]


def test_a_column_given_to_one_field_is_not_read_again_under_its_own_name():
    (conversation,) = load_conversations(
        [{"input": "Hi", "output": "Hello"}], columns={"instruction": "input"}
    )
    assert [turn["content"] for turn in conversation] == ["Hi", "Hello"]


def test_columns_settles_which_of_two_shapes_is_meant():
    row = {"prompt": "p", "response": "r", "question": "q", "answer": "a"}
    error = error_of([row])
    assert "row 1: columns ['prompt', 'response', 'question', 'answer'] fit several shapes" in str(
        error
    )
    with pytest.warns(UserWarning, match="'prompt' in 1 of 1 rows, 'response' in 1 of 1 rows"):
        (conversation,) = load_conversations([row], columns={"question": "question"})
    assert [turn["content"] for turn in conversation] == ["q", "a"]


def test_a_byte_order_mark_and_crlf_are_accepted(tmp_path):
    text = '\ufeff{"question": "q", "answer": "a"}\r\n\r\n'
    from_jsonl = load_conversations(write_bytes(tmp_path / "x.JSONL", text.encode()))
    from_csv = load_conversations(
        write_bytes(tmp_path / "x.csv", "\ufeffquestion,answer\r\nq,a\r\n".encode())
    )
    from_json = load_conversations(
        write_bytes(tmp_path / "x.json", '\ufeff[{"question":"q","answer":"a"}]'.encode())
    )
    assert (
        from_jsonl
        == from_csv
        == from_json
        == load_conversations([{"question": "q", "answer": "a"}])
    )


USER, ANSWER, SYSTEM = (
    {"role": role, "content": role[0]} for role in ("user", "assistant", "system")
)
BAD_ROWS = {
    "empty field": (GOOD | {"output": ""}, "'output' is empty"),
    "only white space": (GOOD | {"output": " \n\t"}, "'output' is empty"),
    "empty instruction with an input": (
        GOOD | {"instruction": "", "input": "x"},
        "'instruction' is empty",
    ),
    "missing field": (
        {"instruction": "x"},
        "'output' or 'response' is missing; the row has columns ['instruction']",
    ),
    "null": (GOOD | {"output": None}, "'output' is None (NoneType), not a text"),
    "nan": (GOOD | {"output": float("nan")}, "'output' is nan (float), not a text"),
    "number": (GOOD | {"instruction": 42}, "'instruction' is 42 (int), not a text"),
    "number as input": (GOOD | {"input": 0}, "'input' is 0 (int), not a text"),
    "number as system": (GOOD | {"system": False}, "'system' is False (bool), not a text"),
    "half an emoji": (GOOD | {"output": "\ud83d"}, "'output' holds half a character: '\\ud83d'"),
    "history is no list": (GOOD | {"history": "once"}, "'history' is 'once' (str), not a list"),
    "history without answer": (
        GOOD | {"history": [["q", "a"], ["q"]]},
        "pair 2 of 'history' is ['q'] (list)",
    ),
    "empty answer in history": (
        GOOD | {"history": [["q", " "]]},
        "the answer in pair 1 of 'history' is empty",
    ),
    "messages is a text": ({"messages": "hello"}, "'messages' is 'hello' (str), not a list"),
    "a turn is a text": (
        {"messages": ["hello"]},
        "turn 1 of 'messages' is 'hello' (str), without 'role'",
    ),
    "no content": (
        {"messages": [{"role": "user"}]},
        "turn 1 of 'messages' is {'role': 'user'} (dict), without",
    ),
    "content is null": (
        {"messages": [USER | {"content": None}, ANSWER]},
        "'content' in turn 1 of 'messages' is None",
    ),
    "empty turn": (
        {"messages": [USER, ANSWER | {"content": ""}]},
        "'content' in turn 2 of 'messages' is empty",
    ),
    "unknown role": (
        {"messages": [USER, ANSWER | {"role": "bot"}]},
        "turn 2 of 'messages' has the unknown role 'b",
    ),
    "capital role": (
        {"messages": [USER | {"role": "User"}, ANSWER]},
        "turn 1 of 'messages' has the unknown role 'U",
    ),
    "list as role": (
        {"messages": [USER | {"role": ["user"]}, ANSWER]},
        "turn 1 of 'messages' has the unknown role ['",
    ),
    "two questions": (
        {"messages": [USER, USER, ANSWER]},
        "two user turns in a row: turn 2 is user after user",
    ),
    "two answers": ({"messages": [USER, ANSWER, ANSWER]}, "two assistant turns in a row"),
    "answer first": (
        {"messages": [ANSWER, USER, ANSWER]},
        "an answer before any question: turn 1 is assistant",
    ),
    "system late": (
        {"messages": [USER, SYSTEM, ANSWER]},
        "the system turn is not first: turn 2 is system after user",
    ),
    "two systems": (
        {"messages": [SYSTEM, USER, ANSWER], "system": "t"},
        "two system turns: the column 'system' is 't' (str), 'content' in turn 1 of 'messages' is "
        "'s' (str)",
    ),
    "one system twice": (
        {"messages": [SYSTEM, SYSTEM, USER, ANSWER]},
        "two system turns in a row: turn 2",
    ),
    "one system three times": (
        {"messages": [SYSTEM, SYSTEM, USER, ANSWER], "system": "s"},
        "two system turns in a row: turn 2",
    ),
    "question last": (
        {"messages": [USER, ANSWER, USER]},
        "the answer is missing: the last turn is user",
    ),
    "only a system turn": (
        {"messages": [SYSTEM]},
        "the answer is missing: the last turn is system",
    ),
    "no turns": ({"messages": []}, "the answer is missing: the last turn is not there"),
    "unknown shape": ({"a": "1", "b": "2"}, "no known shape; the row has columns ['a', 'b']"),
    "not an object": (["x"], "the row is ['x'] (list), not an object"),
}


@pytest.mark.parametrize("bad_row, cause", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_by_file_row_line_and_cause(bad_row, cause, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join([json.dumps(GOOD), "", json.dumps(bad_row), json.dumps(GOOD)]))
    (problem,) = error_of(path).problems
    assert problem.startswith(f"{path}, row 2: {cause}")
    assert "(line 3). " in problem
    assert str(error_of([GOOD, bad_row])).startswith(f"rows, row 2: {cause}")


@pytest.mark.parametrize(
    "row, suggestion",
    [
        ({"instruction": "x", "ouput": "y"}, {"output": "ouput"}),
        ({"Instruction": "x", "Output": "y"}, {"instruction": "Instruction", "output": "Output"}),
        ({"instruction": "x", "context": "", "answer": "y"}, {"output": "answer"}),
        ({"message": [USER, ANSWER]}, {"messages": "message"}),
    ],
)
def test_a_misnamed_column_gets_a_suggestion_that_works(row, suggestion):
    assert f"Did you mean columns={suggestion}?" in str(error_of([row]))
    assert len(load_conversations([row], columns=suggestion)) == 1


def test_an_unknown_shape_names_the_shapes_that_are_known():
    error = str(error_of([{"a": "1", "b": "2"}]))
    assert (
        "instruction + output, prompt + response, prompt + completion, question + answer, "
        "instruction + response, messages, conv" in error
    )
    assert "columns={" in error


def test_all_bad_rows_are_reported_at_once_and_the_printed_list_is_capped(tmp_path):
    bad = [number for number in range(1, 61) if number % 2]
    rows = [GOOD | {"output": "" if number in bad else "ok"} for number in range(1, 61)]
    path = write_rows(tmp_path / "many.csv", rows)
    error = error_of(path)
    assert [problem.partition(":")[0] for problem in error.problems] == [
        f"{path}, row {number}" for number in bad
    ]
    assert str(error).splitlines() == [
        f"{path}, row 1: 'output' is empty (line 2). Write the text or drop the row.",
        "    the same in 29 more: 3, 5, 7, 9, 11, …, all in .problems",
    ]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


SPOILT = {
    "unwanted": lambda n: GOOD | {"label": False},
    "wrong columns": lambda n: {"Frage": f"q {n}", "Antwort": f"a {n}"},
    "numbers": lambda n: GOOD | {"output": n},
    "texts": lambda n: GOOD | {"history": f'It\'s {n}, "{n}"'},
    "lost": lambda n: {"messages": [USER, ANSWER], "input": f"text {n}"},
    "not an object": lambda n: [f"a, {n}"],
}


@pytest.mark.parametrize("suffix", ["rows", "json", "jsonl"])
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_cause_is_printed_once_with_how_many_rows_it_spoils(spoil, suffix, tmp_path):
    rows = [spoil(n) for n in range(1, 601)]
    rows[299] = GOOD | {"output": " "}
    source = rows if suffix == "rows" else write_rows(tmp_path / f"x.{suffix}", rows)
    error = error_of(source)
    assert len(error.problems) == 600
    first, more, other = str(error).splitlines()
    assert first == error.problems[0] and other == error.problems[299]
    assert more == "    the same in 598 more: 2, 3, 4, 5, 6, …, all in .problems"


def test_different_causes_are_printed_apart_and_at_most_twenty_of_them():
    rows = [{f"{'x' * n}": "1"} for n in range(1, 31)] * 2
    printed = str(error_of(rows)).splitlines()
    assert [line.partition(":")[0] for line in printed[:-1:2]] == [
        f"rows, row {n}" for n in range(1, 21)
    ]
    assert printed[1] == "    the same in 1 more: 31"
    assert printed[-1] == "... and 10 other causes, all in .problems"


@pytest.mark.parametrize(
    "line, column, cause",
    [
        ('{"a": "say "hi""}', 13, "Expecting ',' delimiter"),
        ("{'a': 1}", 2, "Expecting property name"),
        ('{"a": None}', 7, "Expecting value"),
        ('{"a": "cut', 7, "Unterminated string"),
        ('{"a": "\t"}', 8, "Invalid control character"),
        ('{"a": "\\frac \\l"}', 14, "Invalid \\escape"),
        ('{"a": 1} {"a": 2}', 10, "Extra data"),
    ],
)
def test_broken_json_is_named_by_line_and_column_and_the_rows_around_it_are_read(
    line, column, cause, tmp_path
):
    path = tmp_path / "broken.jsonl"
    path.write_text("\n".join(["", json.dumps(GOOD), line, json.dumps(GOOD | {"output": ""})]))
    first, second = error_of(path).problems
    assert first.startswith(f"{path}, row 2: broken JSON at line 3, column {column}: {cause}")
    assert second.startswith(f"{path}, row 3: 'output' is empty (line 4).")


def test_broken_json_in_a_list_of_rows_is_named_by_line_and_column(tmp_path):
    path = write_bytes(
        tmp_path / "x.json", b'[\n {"question": "q", "answer": "a"}\n {"question": "q"}\n]'
    )
    assert str(error_of(path)).startswith(
        f"{path}, row 2: broken JSON at line 3, column 2: Expecting ',' delimiter, near"
    )


@pytest.mark.parametrize("indent", [None, 0, 1, 4])
def test_a_json_file_under_the_name_of_the_other_kind_is_told_its_name(indent, tmp_path):
    rows = [GOOD, GOOD | {"output": "[1]\n{"}]
    as_list = "\n" + json.dumps(rows, indent=indent)
    objects = "\n".join(json.dumps(row, indent=indent) for row in rows)
    for text, name, what in (
        (as_list, "x.jsonl", "the file holds a JSON list, not an object a line. Name it .json."),
        (as_list[:-9], "y.jsonl", "the file holds a JSON list, not an object a line. Name it"),
        (objects, "z.json", "the file holds one object after the other, not a list. Name it .jso"),
    ):
        path = write_bytes(tmp_path / name, text.encode())
        [problem] = error_of(path).problems
        assert problem.startswith(f"{path}: {what}")
    if indent is not None:
        path = write_bytes(tmp_path / "many.jsonl", objects.encode())
        assert str(error_of(path)) == (
            f"{path}: the file holds objects of several lines, not one a line. Write each with "
            "json.dumps(row), without indent."
        )
    for name, text in (("x.json", as_list), ("x.jsonl", "\n".join(map(json.dumps, rows)))):
        path = write_bytes(tmp_path / name, text.encode())
        assert [turns[1]["content"] for turns in load_conversations(path)] == [
            "Santiago.",
            "[1]\n{",
        ]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("separator, name", [(";", "semicolon"), ("\t", "tab"), ("|", "bar")])
def test_a_csv_file_with_another_separator_is_told_which(separator, name, quoting, tmp_path):
    path = tmp_path / "x.csv"
    rows = [["question", "answer"], *([f"q, {n}", f"{n}"] for n in range(600))]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator, quoting=quoting).writerows(rows)
    [problem] = error_of(path).problems
    assert problem.startswith(f"{path}: the header, ")
    assert f" has a {name} between columns, not a comma. " in problem
    advice = f"pandas.read_csv(path, sep={separator!r}, dtype=str)"
    assert f"Pass {advice}" in problem
    conversations = load_conversations(pandas.read_csv(path, sep=separator, dtype=str))
    assert [turns[1]["content"] for turns in conversations] == [f"{n}" for n in range(600)]


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_wrong_encoding_is_named_by_line_byte_and_likely_encoding(suffix, tmp_path):
    rows = [
        {"question": "abc", "answer": "def"},
        {"question": "智利的首都?", "answer": "圣地亚哥。"},
    ]
    text = write_rows(tmp_path / f"utf8.{suffix}", rows).read_text(encoding="utf-8")
    before = text[: text.index("智")]
    place = f"not UTF-8: byte 0xD6 at line {before.count(chr(10)) + 1}, byte offset {len(before)}"
    path = write_bytes(tmp_path / f"x.{suffix}", text.encode("gbk"))
    assert str(error_of(path)).startswith(f"{path}: {place}. Likely GBK, as which it reads")
    assert "智利" in str(error_of(path)) and "iconv -f GBK -t UTF-8" in str(error_of(path))
    for encoding in ("utf-16", "utf-16-le"):
        path = write_bytes(tmp_path / f"y.{suffix}", text.encode(encoding))
        assert "not UTF-8" in str(error_of(path)) and "Likely UTF-16" in str(error_of(path))
        assert str(error_of(path)).startswith(f"{path}: ") and len(error_of(path).problems) == 1


def test_csv_rows_of_another_width_are_named_and_the_others_are_still_judged(tmp_path):
    text = 'question,answer\n\n"two\nlines",a\nq,a,b\nq\nq,\n'
    path = write_bytes(tmp_path / "x.csv", text.encode())
    wide, narrow, empty = error_of(path).problems
    assert wide.startswith(f"{path}, row 2: 3 cells, but the header has 2 columns (line 5). ")
    assert narrow.startswith(f"{path}, row 3: 1 cells, but the header has 2 columns (line 6). ")
    assert empty.startswith(f"{path}, row 4: 'answer' is empty (line 7). ")


@pytest.mark.parametrize(
    "row, cause", [('"say "yes"",a', "',' expected after '\"'"), ('"open,a\n', "unexpected end")]
)
def test_a_bad_csv_quote_is_named_where_its_row_begins(row, cause, tmp_path):
    path = write_bytes(tmp_path / "x.csv", f"question,answer\nq,a\n{row}\n".encode())
    assert str(error_of(path)).startswith(f"{path}, row 2: broken CSV: {cause}")
    assert "(line 3). " in str(error_of(path))


@pytest.mark.parametrize(
    "name, data",
    [
        ("x.json", b" \n"),
        ("x.json", b"[]"),
        ("x.jsonl", b"\n\n"),
        ("x.jsonl", b""),
        ("x.csv", b""),
        ("x.csv", b"question,answer\n"),
        ("x.csv", b"\xef\xbb\xbf"),
    ],
)
def test_a_source_without_rows_is_an_error(name, data, tmp_path):
    path = write_bytes(tmp_path / name, data)
    assert str(error_of(path)).startswith(f"{path}: empty, no row to read.")
    assert str(error_of([])).startswith("rows: empty")


def test_what_cannot_be_a_source_is_refused_with_its_name(tmp_path):
    assert str(error_of(tmp_path / "gone.json")).startswith(
        f"{tmp_path / 'gone.json'}: no such file"
    )
    assert str(error_of(str(tmp_path))).startswith(f"{tmp_path}: a folder, and only a file is read")
    assert "x.txt: file type '.txt' is not one of" in str(
        error_of(write_bytes(tmp_path / "x.txt", b"x"))
    )
    one_object = write_bytes(tmp_path / "y.json", b'{"data": "x.json"}')
    assert str(error_of(one_object)).startswith(
        f"{one_object}: the file holds {{'data': 'x.json'}} (dict), not a list"
    )
    assert "Choose one split" in str(
        error_of(datasets.DatasetDict(train=datasets.Dataset.from_list([GOOD])))
    )
    assert "None (NoneType) is not a path" in str(error_of(None))
    table = pyarrow.table({"question": ["q"], "answer": ["a"]})
    for source in (datasets.DatasetDict(train=datasets.Dataset.from_list([GOOD])), [table]):
        assert "\n" not in str(error_of(source))
    series = pandas.Series({"question": "q", "answer": "a"})
    assert "row 1: the row is question    q answer      a dtype: " in str(error_of([series]))
    assert "\n" not in str(error_of([GOOD | {"output": table}]))


def test_columns_must_go_from_our_names_to_theirs():
    assert "columns: ['q'] not known" in str(
        error_of([{"q": "x", "a": "y"}], columns={"q": "instruction"})
    )
    error = error_of([{"q": "x", "output": "y"}], columns={"instruction": "q", "output": "a"})
    assert str(error).startswith("rows, row 1: 'a' is missing; the row has columns ['q', 'output']")


def test_a_bad_row_of_a_dataset_is_named():
    dataset = datasets.Dataset.from_list([GOOD, GOOD | {"output": None}])
    assert str(error_of(dataset)).startswith(
        "Dataset, row 2: 'output' is None (NoneType), not a text"
    )
