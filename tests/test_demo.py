"""The main job end to end, as `make demo` runs it: on Atlas in short, on a reader's own file, and
on a broken one."""

import json
import math
import os
import subprocess
import sys

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import sft_lab.compare
import sft_lab.demo as demo_module
import sft_lab.train


def run_demo(folder, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "sft_lab.demo", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = run_demo(folder, "--seed", "3")
    assert done.returncode == 0, done.stderr
    return (
        folder,
        done.stdout,
        json.loads((folder / "reports" / "demo.json").read_text(encoding="utf-8")),
    )


def test_a_base_that_cannot_answer_becomes_a_model_that_can(demo):
    _, _, report = demo
    assert report["base"]["accuracy"] <= 0.10 and report["base"]["stop_rate"] <= 0.05
    assert report["tuned"]["accuracy"] >= 0.95 and report["tuned"]["stop_rate"] >= 0.99


def test_the_report_says_how_it_was_made(demo):
    folder, _, report = demo
    assert report["seed"] == 3 and report["examples"] > 1000
    assert report["seconds_training"] > 0 and report["tokens_per_second"] > 0
    for before, after in (report["learned_loss"], report["held_out_loss"]):
        assert before > 3 and after < 0.3
    page = (folder / "reports" / "demo.html").read_text(encoding="utf-8")
    assert all(
        row["question"] in page for row in report["answers"][:20] if row["question"].isascii()
    )


def test_all_five_steps_are_told(demo):
    _, out, _ = demo
    assert [
        line[0] for line in out.splitlines() if line[:1] in "12345" and line[1:3] == "  "
    ] == list("12345")


def test_the_tuned_model_loads_without_this_package(demo):
    folder, _, _ = demo
    model = AutoModelForCausalLM.from_pretrained(folder / "reports" / "tuned")
    tokenizer = AutoTokenizer.from_pretrained(folder / "reports" / "tuned")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of Japan?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**prompt, max_new_tokens=20)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(written) == "The capital of Japan is Tokyo.<|im_end|>"


def test_a_readers_own_file_is_learned(tmp_path):
    rows = [
        {"instruction": f"Say the word {word}.", "output": "Gladly."}
        for word in map(str, range(60))
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    done = run_demo(tmp_path, "--data", "mine.jsonl", "--epochs", "12")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "reports" / "demo.json").read_text(encoding="utf-8"))
    assert report["examples"] == 54 and report["questions"] == 6 and report["data"] == "mine.jsonl"
    assert report["tuned"]["accuracy"] == 1.0 and report["base"]["accuracy"] == 0.0


def test_a_broken_file_is_named_by_row_and_nothing_is_written(tmp_path):
    (tmp_path / "mine.jsonl").write_text(
        '{"instruction": "Hi", "output": ""}\n{"instruction": 5}\n', encoding="utf-8"
    )
    done = run_demo(tmp_path, "--data", "mine.jsonl")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "mine.jsonl, row 1" in done.stderr and "mine.jsonl, row 2" in done.stderr
    assert not (tmp_path / "reports").exists()


def test_an_answer_of_weight_0_is_neither_learned_nor_asked(tmp_path):
    user, good = "Say the word {}.", {"role": "assistant", "content": "Gladly."}
    bad = {"role": "assistant", "content": "Never.", "weight": 0}
    rows = [
        [{"role": "user", "content": user.format(word)}, bad, {"role": "user", "content": "And?"}]
        + ([good, {"role": "user", "content": "Once more?"}, bad] if word % 2 else [good])
        for word in range(60)
    ]
    lines = [json.dumps({"messages": row, "notes": "n"}) for row in rows]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = run_demo(tmp_path, "--data", "mine.jsonl", "--epochs", "12")
    assert done.returncode == 0, done.stderr
    assert "mine.jsonl: not read, though it holds text: 'notes' in 60 of 60 rows" in done.stderr
    report = json.loads((tmp_path / "reports" / "demo.json").read_text(encoding="utf-8"))
    assert {row["reference"] for row in report["answers"]} == {"Gladly."}
    assert report["tuned"]["accuracy"] == 1.0


# --- what can be known is known before the first step, and nothing that looks like learning is not
# ---------------------------------------------------------------------------------------------


def write_rows(folder, answers: list[str], questions: list[str] | None = None) -> None:
    questions = questions or [f"Say the word {number}." for number in range(len(answers))]
    rows = [{"question": q, "answer": a} for q, a in zip(questions, answers, strict=True)]
    (folder / "mine.json").write_text(json.dumps(rows), encoding="utf-8")


@pytest.fixture
def tell(tmp_path, monkeypatch, capsys):
    """Run the demo here, in a folder of its own; returns how it ended (None: well) and what it
    printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["demo", *arguments])
        ended = None
        try:
            demo_module.main()
        except SystemExit as end:
            ended = end.code
        printed = capsys.readouterr()
        return ended, printed.out + printed.err

    return run


@pytest.fixture
def no_step(monkeypatch):
    """Whoever takes a step has not checked before."""

    def refuse(*arguments, **settings):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(sft_lab.train, "optimizer_step", refuse)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--seed", value) for value in ("-1", "1.5", "one", str(2**64))),
        *(("--epochs", value) for value in ("0", "-1", "1.5", "True", "")),
        *(("--learning-rate", value) for value in ("0", "-1e-3", "nan", "inf", "fast")),
    ],
)
def test_an_option_that_makes_no_run_is_refused_by_its_name_before_anything_is_loaded(
    option, value, tell, monkeypatch
):
    monkeypatch.setattr(demo_module, "run", None)
    ended, told = tell(f"{option}={value}")
    assert ended == 2 and f"argument {option}: it is" in told and "it must be" in told


@pytest.mark.parametrize(
    ("answers", "questions", "message"),
    [
        (["Gladly."], None, "at least two questions"),
        (["Gladly."] * 5, ["Why?", "why", "Why ?", "WHY?", "Why?"], "at least two questions"),
        (["!!!"] * 5, None, "5 of the rows drawn have no word in the answer"),
        (["Gladly."] * 5, ["Why?", "How?", "word " * 1500, "Who?", "Where?"], "row 3: "),
        (["Gladly."] * 17, None, "16 rows to learn is one step"),
        (["Gladly."] * 2, None, "1 row to learn is one step"),
    ],
    ids=["one row", "one question", "no words", "a row too long", "one step", "1 row"],
)
def test_a_file_of_which_nothing_can_be_shown_is_refused_before_the_first_step(
    answers, questions, message, tell, tmp_path, no_step
):
    write_rows(tmp_path, answers, questions)
    ended, told = tell("--data", "mine.json", "--epochs", "1")
    assert message in ended and len(ended.splitlines()) == 1 and "Traceback" not in told
    assert not list(tmp_path.glob("reports/tuned/*.safetensors"))


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_a_row_is_named_as_the_file_counts_it_whatever_is_shuffled_and_kept_back(
    seed, tell, tmp_path, no_step
):
    questions = [f"{number}?" for number in range(40)]
    questions[19] = "word " * 1500
    write_rows(tmp_path, ["Gladly."] * 40, questions)
    ended, _ = tell("--data", "mine.json", "--seed", seed)
    assert ended.startswith("mine.json, row 20: ")


def test_rows_that_cannot_be_judged_are_learned_and_a_short_run_says_what_it_showed(tell, tmp_path):
    answers, questions = ["!!!"] * 25, [f"Say {number}." for number in range(25)]
    for place, text in ((3, "Gladly."), (11, "With pleasure."), (17, "Gladly.")):
        answers[place] = text
    questions[17] = "word " * 800  # it can be learned, and would leave no room for an answer
    write_rows(tmp_path, answers, questions)
    ended, told = tell("--data", "mine.json", "--learning-rate", "1e-5")
    assert ended is None, told
    report = json.loads((tmp_path / "reports" / "demo.json").read_text(encoding="utf-8"))
    assert {row["question"] for row in report["answers"]} == {"Say 3.", "Say 11."}
    assert report["questions"] == 2 and report["examples"] == 23 and report["steps"] == 6
    assert "have no word in the answer to compare: learned, not asked" in told
    before, after = report["held_out_loss"]
    assert after > 0.95 * before and "Next to nothing was learned. More rows" in told


def test_an_answer_that_is_always_right_is_pointed_out(tell, tmp_path):
    write_rows(tmp_path, ["Gladly."] * 40)
    ended, told = tell("--data", "mine.json")
    assert ended is None and "'Gladly' is the commonest answer" in told
    report = json.loads((tmp_path / "reports" / "demo.json").read_text(encoding="utf-8"))
    assert report["commonest_answer_right"] == 1.0


@pytest.mark.parametrize("error", [MemoryError("no room"), KeyboardInterrupt(), OSError("full")])
def test_what_fails_after_training_leaves_the_tuned_model_and_says_where(
    error, tell, tmp_path, monkeypatch
):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr(sft_lab.compare, "compare", fail)
    write_rows(tmp_path, [f"{number} it is." for number in range(20)])
    ended, _ = tell("--data", "mine.json")
    assert type(error).__name__ in ended and str(error) in ended
    folder = ended.rpartition("The tuned model is whole: ")[2]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / folder).num_parameters() > 1e6


def test_a_learning_rate_that_breaks_the_model_ends_in_one_line(tell, tmp_path):
    write_rows(tmp_path, [f"{number} it is." for number in range(40)])
    ended, _ = tell("--data", "mine.json", "--learning-rate", "1e30")
    assert "learning rate too high" in ended and len(ended.splitlines()) == 1


# --- what is said of a run is judged on the same rows before and after ---------------------


@pytest.mark.parametrize(
    ("learned", "held_out", "verdict"),
    [
        ([4.0, 2.0], [4.0, 2.1], ""),
        ([4.0, 3.9], [4.0, 3.7], ""),
        ([4.0, 4.0], [4.0, 4.0], "Next to nothing was learned"),
        ([4.0, 3.9], [4.0, 3.9], "Next to nothing was learned"),
        ([4.0, 3.78], [4.0, 3.82], "Next to nothing was learned"),  # a short run, not by heart
        ([4.0, 0.1], [4.0, 3.9], "Learned by heart"),
        ([4.0, 0.1], [4.0, 6.0], "Learned by heart"),
        ([4.0, 4.1], [4.0, 6.0], "answers kept back rose. Lower the learning rate"),
        ([4.0, 653237.9], [4.0, 653237.9], "diverged"),
        ([4.0, 4.3], [4.0, 3.0], "diverged"),
        ([4.0, math.nan], [4.0, math.nan], "diverged"),
        ([4.0, math.inf], [4.0, 4.0], "diverged"),
        ([0.0, 0.0], [0.0, 0.001], "Next to nothing was learned"),
    ],
)
def test_a_run_is_judged_by_how_far_both_losses_fell(learned, held_out, verdict):
    said = demo_module.judge_losses(learned, held_out)
    assert said == "" if not verdict else verdict in said
    assert ("Lower the learning rate" in said) == ("diverged" in said or "back rose" in said)


@pytest.mark.parametrize(
    ("rate", "verdict", "smallest", "largest"),
    [
        ("1e-20", "Next to nothing was learned", 0.999, 1.001),
        ("1e-9", "Next to nothing was learned", 0.999, 1.001),
        ("100", "diverged: the loss rose. Lower the learning rate", 100, math.inf),
    ],
)
def test_a_learning_rate_far_off_is_told_by_the_same_rows(
    rate, verdict, smallest, largest, tell, tmp_path
):
    answers = [("It is so. " * (1 + number % 7)).strip() for number in range(40)]
    write_rows(tmp_path, answers)
    ended, told = tell("--data", "mine.json", "--epochs", "1", "--learning-rate", rate)
    assert ended is None, told
    verdicts = ("Next to nothing", "Learned by heart", "diverged", "kept back rose")
    assert verdict in told and sum(told.count(each) for each in verdicts) == 1
    report = json.loads((tmp_path / "reports" / "demo.json").read_text(encoding="utf-8"))
    for name in ("learned_loss", "held_out_loss"):
        before, after = report[name]
        assert smallest < after / before < largest
        assert f"{before:.2f} → {after:.2f}" in told


# --- what others wrote where the reports go stays ------------------------------------------


OUR_KEYS = ["base", "tuned", "changes", "answers", "resamples", "steps", "tokens_per_second"]


def put_symlink(path):
    path.with_name("elsewhere").write_text("mine", encoding="utf-8")
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("name", ["demo.json", "demo.html"])
@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.write_text("mine", encoding="utf-8"),
        lambda path: path.write_text("", encoding="utf-8"),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text(json.dumps(dict.fromkeys(OUR_KEYS[1:])), encoding="utf-8"),
        lambda path: path.write_text(json.dumps(OUR_KEYS), encoding="utf-8"),
        lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
        lambda path: path.write_text("<!doctype html><h1>base against tuned</h1>"),
        put_symlink,
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.mkdir(),
    ],
    ids=["text", "empty", "bytes", "json", "list", "deep", "html", "link", "dangling", "folder"],
)
def test_a_report_of_somebody_else_is_refused_before_the_first_step_and_stays(
    name, put, tell, tmp_path, no_step
):
    write_rows(tmp_path, ["Gladly."] * 30)
    (tmp_path / "reports").mkdir()
    path = tmp_path / "reports" / name
    put(path)
    before = contents(tmp_path)
    ended, _ = tell("--data", "mine.json")
    assert f"reports/{name}" in ended and "run the demo in another folder" in ended
    assert "give another" not in ended and len(ended.splitlines()) == 1
    assert contents(tmp_path) == before


def contents(folder) -> dict[str, object]:
    """Of every path below: where a link leads, what a file holds, nothing of a folder."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def test_reports_of_this_version_and_of_the_one_before_are_replaced(tell, tmp_path):
    write_rows(tmp_path, ["Gladly."] * 30)
    reports = tmp_path / "reports"
    reports.mkdir()
    # as the version before this one wrote them, in short
    (reports / "demo.json").write_text(
        json.dumps(dict.fromkeys([*OUR_KEYS, "questions", "loss_first"])), encoding="utf-8"
    )
    (reports / "demo.html").write_text(
        '<!doctype html>\n<p class="kicker">base against tuned</p>\n'
        '<input type="radio" name="show" id="show-improved" disabled>',
        encoding="utf-8",
    )
    for seed in (1, 2):
        ended, told = tell("--data", "mine.json", "--seed", str(seed))
        assert ended is None, told
        assert json.loads((reports / "demo.json").read_text(encoding="utf-8"))["seed"] == seed
        assert f"seed {seed}." in (reports / "demo.html").read_text(encoding="utf-8")


def test_a_report_put_there_during_training_stays(tell, tmp_path, monkeypatch):
    write_rows(tmp_path, ["Gladly."] * 30)
    page, compare = tmp_path / "reports" / "demo.html", sft_lab.compare.compare

    def compare_late(*arguments, **settings):
        page.write_text("mine", encoding="utf-8")
        return compare(*arguments, **settings)

    monkeypatch.setattr(sft_lab.compare, "compare", compare_late)
    ended, _ = tell("--data", "mine.json")
    assert "demo.html was not written by the demo" in ended and "The tuned model is whole" in ended
    assert page.read_text(encoding="utf-8") == "mine" and not page.with_suffix(".json").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "checkpoint/notes.txt"])
def test_a_tuned_model_of_an_earlier_version_is_refused_with_what_to_move(
    name, tell, tmp_path, no_step
):
    write_rows(tmp_path, ["Gladly."] * 30)
    path = tmp_path / "reports" / "tuned" / name
    path.parent.mkdir(parents=True)
    path.write_text("old", encoding="utf-8")
    ended, _ = tell("--data", "mine.json")
    assert (
        "If an earlier version of the demo wrote it: move reports/tuned away, or delete it" in ended
    )
    assert "give another" not in ended and path.read_text(encoding="utf-8") == "old"


def test_reports_that_cannot_be_written_name_no_option_that_the_demo_lacks(tell, tmp_path, no_step):
    write_rows(tmp_path, ["Gladly."] * 30)
    (tmp_path / "reports").write_text("a file", encoding="utf-8")
    ended, _ = tell("--data", "mine.json")
    assert ended == (
        "nothing can be written in reports (it, or what it lies in, is a file): put that right, "
        "or run the demo in another folder"
    )


def test_one_step_is_refused_before_the_base_is_asked(tell, tmp_path, no_step):
    write_rows(tmp_path, ["Gladly."] * 5)
    ended, told = tell("--data", "mine.json", "--epochs", "1")
    assert ended == (
        "mine.json: one epoch of 4 rows to learn is one step, which a warm-up takes at learning "
        "rate 0: give more rows (over 16 to learn) or more epochs (--epochs 2)"
    )
    assert "\n3  Ask" not in told and "1 question to ask" in told and "1 questions" not in told


def test_a_folder_given_as_data_is_called_a_folder(tell, tmp_path):
    ended, _ = tell("--data", str(tmp_path))
    assert ended.splitlines()[-1].startswith(f"{tmp_path}: a folder, and only a file is read")


@pytest.mark.parametrize(
    ("note", "one", "two"),
    [
        ("have no word", "has no word", "have no word"),
        ("stand inside", "stands inside", "stand inside"),
        ("repeat a question", "repeats a question", "repeat a question"),
    ],
)
def test_a_note_agrees_with_the_number_of_its_rows(note, one, two):
    assert demo_module.agree(note, 1) == one and demo_module.agree(note, 2) == two
