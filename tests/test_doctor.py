"""The doctor's report and its command: what it prints and writes, and with which code it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sft_lab.doctor import ExaminationError, diagnose
from sft_lab.doctor.command import main, read_columns
from sft_lab.findings import FIRST_PLACES, Diagnosis, Finding, Tally, list_places

GOOD = [
    {"prompt": f"Where does river number {n} rise?", "response": f"In valley {n * 7} of the north."}
    for n in range(60)
]
HOSTILE = "<script>alert(1)</script> & \"quotes\" 'single' $data ${finding} [INST]"


def write(folder: Path, rows: list, name: str = "my.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def codes(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    return [(found.severity, found.code) for found in diagnosis.findings]


# what is found


def test_healthy_rows_have_no_finding():
    assert codes(diagnose(GOOD)) == []


def test_good_rows_are_examined_beside_bad_ones(tmp_path):
    rows = [*GOOD, {"prompt": "Who?", "response": ""}, {"prompt": "What?", "response": "TODO"}]
    path = write(tmp_path, rows)
    found = {one.code: one for one in diagnose(path).findings}
    assert found.keys() == {"bad-row", "placeholder"}
    assert found["bad-row"].places == [f"{path}, row 61"]
    assert found["placeholder"].places == [f"{path}, row 62"]


def test_bad_rows_of_one_cause_are_one_finding_with_the_first_ten_places(tmp_path):
    rows = [{"prompt": f"Question {n}?", "response": " "} for n in range(14)]
    rows += [{"prompt": "Who?", "response": 7}, *GOOD]
    empty, number = diagnose(write(tmp_path, rows)).findings
    assert (empty.code, empty.count, len(empty.places)) == ("bad-row", 14, FIRST_PLACES)
    assert empty.title.startswith("14 rows cannot be read: 'response' is empty")
    assert number.count == 1 and "'response' is 7 (int)" in number.title
    assert empty.title.endswith("is empty (first at line 1)")
    assert number.title.endswith("(line 15)")


def test_a_value_that_is_no_text_has_a_remedy_of_its_own(tmp_path):
    rows = [*GOOD, {"prompt": "Who?", "response": None}, {"prompt": "Which?", "response": 42}]
    nothing, number = diagnose(write(tmp_path, rows)).findings
    assert "None" in nothing.title and "empty cell" in nothing.remedy
    assert "42" in number.title and number.remedy.startswith("Write it as text")


def test_a_column_that_the_other_rows_have_is_named_with_their_number():
    rows = [{"instruction": row["prompt"], "output": row["response"]} for row in GOOD]
    for lost in (1, 3):
        [found] = diagnose([*rows, *[{"instruction": "Who?"}] * lost]).findings
        assert "'output' is missing; the row has columns ['instruction']" in found.title
        assert found.remedy.startswith("60 other rows have 'output'. Write it, or drop th")
    [found] = diagnose([{"instruction": "Who?"}]).findings  # no row to judge by
    assert "'output' or 'response' is missing" in found.title and "Known shapes" in found.remedy


def test_a_file_that_is_bad_as_a_whole_is_a_finding_about_no_row(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes('{"prompt": "é", "response": "ü"}'.encode("latin-1"))
    [found] = diagnose(path).findings
    assert (found.code, found.count, found.severity) == ("bad-row", 0, "error")
    assert "not UTF-8" in found.title


def test_an_empty_file_is_an_error(tmp_path):
    assert codes(diagnose(write(tmp_path, []))) == [("error", "bad-row")]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
        ({"data": "."}, "is a folder"),
        ({"data": 7}, "not a path"),
        ({"data": GOOD, "columns": {"input": "frage"}}, "columns names ['frage']"),
        ({"data": GOOD, "columns": {"question_text": "q"}}, "not known"),
        ({"data": GOOD, "test": "nowhere.jsonl"}, "no such file"),
        ({"data": GOOD, "adapter": "x"}, "adapter is given without a model"),
        ({"data": GOOD, "card": "T4"}, "card is given without a model"),
        ({"data": GOOD, "max_tokens": 0}, "max_tokens is 0"),
        ({"data": GOOD, "model": "atlas-bse"}, "did you mean atlas-base"),
        ({"data": GOOD, "model": "atlas-base", "adapter": "nowhere"}, "nowhere: no such folder"),
        ({"data": GOOD, "model": "atlas-base", "card": "T5"}, "no card named 'T5'"),
    ],
)
def test_what_cannot_be_examined_is_said_in_one_line(options, told):
    with pytest.raises(ExaminationError) as error:
        diagnose(**options)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_columns_that_no_row_has_are_bad_rows_with_the_remedy(tmp_path):
    rows = [{"question_text": row["prompt"], "reply": row["response"]} for row in GOOD]
    [found] = diagnose(rows).findings
    assert found.code == "bad-row" and found.count == 60
    columns = {"prompt": "question_text", "response": "reply"}
    assert codes(diagnose(rows, columns=columns)) == []


def test_text_that_is_not_read_is_a_note():
    rows = [row | {"source": f"book {n}", "comment": "see the map"} for n, row in enumerate(GOOD)]
    [found] = diagnose(rows).findings
    assert (found.severity, found.code) == ("note", "unread-column")
    assert "'comment' in 60 of 60 rows" in found.title


# the report


def some(code: str, severity: str, count: int) -> Finding:
    places = [f"my.jsonl, row {n + 1}" for n in range(min(count, 10))]
    return Finding(code, severity, f"{count} of {code}", places, count, "Why not.", "Mend it.")


FOUND = [
    some("a", "note", 3),
    some("b", "warning", 1),
    some("c", "error", 2),
    some("d", "error", 9),
]


def test_errors_stand_first_and_the_commonest_before_the_others():
    diagnosis = Diagnosis(FOUND, {}, {}, 0.5)
    assert [found.code for found in diagnosis.findings] == ["d", "c", "b", "a"]


@pytest.mark.parametrize(
    ("severities", "code", "strict"),
    [([], 0, 0), (["note"], 0, 0), (["warning", "note"], 0, 1), (["error", "warning"], 1, 1)],
)
def test_the_exit_code_says_whether_there_is_an_error_or_strictly_a_warning(
    severities, code, strict
):
    findings = [some("x", severity, 1) for severity in severities]
    diagnosis = Diagnosis(findings, {}, {}, 0.0)
    assert (diagnosis.exit_code(), diagnosis.exit_code(strict=True)) == (code, strict)


def test_the_table_says_of_each_finding_what_where_why_and_what_to_do():
    table = Diagnosis(FOUND, {"rows": 1234, "graded share": 0.5}, {"data": "my.jsonl"}, 2.0).table()
    assert "\n  rows          1,234\n  graded share  50 %\n" in table
    assert "ERROR    9 of d\n  where  my.jsonl, rows 1, 2, 3, 4, 5, 6, 7, 8, 9\n" in table
    assert table.count("  why    Why not.\n  do     Mend it.") == len(FOUND)
    assert table.splitlines()[-1].startswith("2 errors, 1 warning, 1 note. Mend the errors")
    assert max(map(len, table.splitlines())) <= 100


def test_what_was_measured_stands_below_each_other_without_what_says_nothing():
    lengths = {"50 %": 1200, "longest": 40_000}
    measured = {"rows": 9, "answers": 9, "rows encoded": 9, "rows refused": 0, "tokens": lengths}
    table = Diagnosis([], measured, {}, 0.0).table()
    assert table.split("\n\n")[1] == "  rows    9\n  tokens  50 % up to 1,200, longest 40,000"
    more = Diagnosis([], measured | {"answers": 12, "rows": 0}, {}, 0.0).measured_lines()
    assert [line.split()[0] for line in more[:2]] == ["rows", "answers"]


def test_places_of_one_file_name_it_once():
    assert list_places(["my.jsonl, row 3"], 1) == "my.jsonl, row 3"
    assert (
        list_places(["a, b.csv, row 3", "a, b.csv, row 7"], 14) == "a, b.csv, rows 3, 7 and 12 more"
    )
    assert list_places(["my.jsonl"], 0) == "my.jsonl"


def test_the_dictionary_is_the_diagnosis_as_json_can_hold_it():
    diagnosis = diagnose([*GOOD, {"prompt": "Who?", "response": "TODO"}])
    told = json.loads(json.dumps(diagnosis.to_dict()))
    assert told.keys() == {"findings", "measured", "settings", "seconds"}
    assert [Finding(**found) for found in told["findings"]] == diagnosis.findings
    assert told["measured"]["rows"] == 61


def test_the_page_escapes_what_data_say_and_needs_no_network(tmp_path):
    rows = [*GOOD, {"prompt": HOSTILE, "response": HOSTILE}]
    data = write(tmp_path, rows, "<b>&my.jsonl")
    diagnose(data).to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<b>&my" not in page
    assert "&lt;b&gt;&amp;my.jsonl" in page and "[INST]" in page
    assert re.search(r"\b(src|href)=|url\(|@import", page) is None
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert "answer characters" in page  # what was measured stands there too


def test_the_page_says_what_to_do_and_counts_once(tmp_path):
    for findings, step in (
        (FOUND, "Mend the errors before you train, and run the doctor again."),
        (FOUND[:2], "No error: look at the rows of the warnings, then train."),
        (FOUND[:1], "No error and no warning: train."),
        ([], "Nothing was found."),
    ):
        Diagnosis(findings, {"rows": 7}, {}, 0.0).to_html(tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert f"<h1>{step}" in page and "1 warning," not in page
        errors = sum(found.severity == "error" for found in findings)
        tile = f'"{"error" if errors else "none"}"><dt>errors</dt><dd>{errors}<'
        assert tile in page and "<dt>rows read</dt><dd>7</dd>" in page


def test_a_tally_absorbs_another_in_the_order_of_the_data():
    first, second = Tally(), Tally()
    for n in range(0, 30, 2):
        first.add("x", f"row {n}", f"sample {n}")
        second.add("x", f"row {n + 1}", f"sample {n + 1}")
    order = {f"row {n}": n for n in range(30)}
    second.absorb(Tally.of(json.loads(json.dumps(first.to_dict()))), order)
    assert second.counts["x"] == 30
    assert second.places["x"] == [f"row {n}" for n in range(FIRST_PLACES)]
    assert second.samples["x"] == "sample 0"


# the command


def test_the_command_prints_writes_and_ends_with_its_code(tmp_path, capsys):
    data = write(tmp_path, GOOD)
    assert run("--data", data) == 0
    assert "Nothing was found" in capsys.readouterr().out
    warned = write(tmp_path, [*GOOD, {"prompt": "Who?", "response": "TODO"}], "warned.jsonl")
    page, told = tmp_path / "new" / "report.html", tmp_path / "report.json"
    assert run("--data", warned, "--html", page, "--json", told) == 0
    assert run("--data", warned, "--strict") == 1
    assert "1 answer is a placeholder" in capsys.readouterr().out
    assert "1 answer is a placeholder" in page.read_text(encoding="utf-8")
    assert json.loads(told.read_text(encoding="utf-8"))["findings"][0]["code"] == "placeholder"
    bad = write(tmp_path, [*GOOD, {"prompt": "Who?", "response": ""}], "bad.jsonl")
    assert run("--data", bad) == 1


def test_what_cannot_be_examined_ends_with_2_and_one_line(tmp_path, capsys):
    data = write(tmp_path, GOOD)
    for arguments in (
        ["--data", tmp_path / "nowhere.jsonl"],
        ["--data", data, "--model", "atlas-bse"],
        ["--data", data, "--json", data],  # would replace what is examined
        ["--data", data, "--json", tmp_path / "r", "--html", tmp_path / "r"],
        ["--data", data, "--html", tmp_path],
        ["--data", data, "--columns", "prompt"],
        ["--data", data, "--max-tokens", "0"],
        ["--data", data, "--max", "50"],
        [],
    ):
        assert run(*arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith("sft-lab doctor: ") and len(told.splitlines()) == 1
    assert json.loads(data.read_text(encoding="utf-8").splitlines()[0]) == GOOD[0]


def test_columns_are_read_as_pairs():
    assert read_columns("prompt=q, response=a=b") == {"prompt": "q", "response": "a=b"}


def test_help_and_wrong_options_answer_before_torch_is_imported(tmp_path):
    data = write(tmp_path, GOOD)
    program = (
        "import sys\nfrom sft_lab.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    print(sorted({'torch', "
        "'transformers'} & sys.modules.keys()))"
    )
    for arguments in (["--help"], ["--data"], ["--data", str(data)]):
        told = subprocess.run(
            [sys.executable, "-c", program, "doctor", *arguments], capture_output=True, text=True
        )
        assert told.stdout.endswith("[]\n"), told.stderr
    assert told.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as Ctrl-C does")
def test_ctrl_c_ends_it_without_a_traceback_and_writes_nothing(tmp_path):
    data = write(tmp_path, GOOD * 4000)
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "sft_lab.doctor", "--data", data, "--json", out]
    process = subprocess.Popen(
        [*map(str, command), "--model", "atlas-base"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a test run in the background hands on that SIGINT is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    started, until = psutil.Process(process.pid), time.monotonic() + 60
    while not started.children() and time.monotonic() < until:  # of its second process
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in told and "Traceback" not in told
    assert not out.exists()
