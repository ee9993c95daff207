"""`sft-lab new`: notebooks of every shape of file, two of them run; plans, seals, and rows kept
apart."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from sft_lab import atlas, project
from sft_lab.course.exercises.kit import random_conversation
from sft_lab.course.project_runs import build_project, holds, run_arm
from sft_lab.course.results import read_results
from sft_lab.files import OutputError
from sft_lab.kept_back import keep_groups, pair_alike, split_apart
from sft_lab.models import ModelError, load
from sft_lab.records import RecordError, load_conversations
from sft_lab.significance import judge_claim, questions_needed, smallest_difference
from sft_lab.study_plan import Plan, PlanError, find_gaps, judge_plan, seal, seal_plan

ROOT = Path(__file__).resolve().parents[1]
PLAN = Plan(
    question="礼貌会降低准确率吗？",
    primary="right answers",
    claim="lower",
    changes=["one word"],
    control="the rows as they are",
    seeds=[0, 1, 2],
    questions=177,
    smallest=0.08,
    disagree=0.15,
    stopping="after the last seed",
    scope="atlas-base",
)


# files of every shape


def pairs(count: int = 60) -> list[tuple[str, str]]:
    facts = atlas.split(atlas.load_facts())["train"]
    talks = atlas.ask(random.Random(3).sample(facts, count), seed=1)
    return [(question["content"], answer["content"]) for question, answer in talks]


def turns(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def rows_of(shape: str) -> list[dict]:
    some = pairs()
    if shape == "alpaca":
        return [{"instruction": q, "input": "", "output": a} for q, a in some]
    if shape == "messages":
        return [{"messages": turns(q, a)} for q, a in some]
    if shape == "sharegpt":
        return [
            {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
            for q, a in some
        ]
    if shape == "chinese":
        return [
            {"question": f"{n} 加 {m} 等于多少？", "answer": f"{n} 加 {m} 等于 {n + m}。"}
            for n, m in random.Random(0).sample([(n, m) for n in range(9) for m in range(9)], 60)
        ]
    if shape == "several turns":
        system = {"role": "system", "content": "Answer in one sentence."}
        return [
            {"messages": [system, *turns(*some[i]), *turns(*some[i - 1])]} for i in range(len(some))
        ]
    if shape == "long answers":
        tail = "It is one of many facts, and here is why somebody may want to know of it at all."
        return [{"prompt": q, "completion": f"{a} {tail}"} for q, a in some]
    return [{"question": q, "answer": a} for q, a in some]  # csv


SHAPES = ("alpaca", "messages", "sharegpt", "chinese", "several turns", "long answers", "csv")


def write(folder: Path, shape: str) -> Path:
    rows, path = rows_of(shape), folder / "my.jsonl"
    if shape == "alpaca":
        path = folder / "my.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif shape == "csv":
        path = folder / "my.csv"
        lines = ["question,answer", *(f'"{r["question"]}","{r["answer"]}"' for r in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_a_project_is_made_of_every_shape_and_loses_no_row(shape, tmp_path, capsys):
    data = write(tmp_path, shape)
    project.main(["--data", str(data), "--out", str(tmp_path / "mine")])
    notebook = nbformat.read(tmp_path / "mine" / "project.ipynb", as_version=4)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "{{" not in text and 'MODEL = "atlas-base"' in text
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec")
            assert len(cell.source.splitlines()) <= 25
    parts = [load_conversations(tmp_path / "mine" / f"{part}.jsonl") for part in project.PARTS]
    together = sorted(map(str, (row for part in parts for row in part)))
    assert together == sorted(map(str, load_conversations(data)))
    plan = json.loads((tmp_path / "mine" / "plan.json").read_text("utf-8"))
    assert find_gaps(plan) == [] and plan["questions"] == len(parts[1])
    assert plan["primary"] == ("chrF" if shape == "long answers" else "right answers")
    assert f"learn {len(parts[0])}" in capsys.readouterr().out


def run_notebook(folder: Path, *, large: bool) -> str:
    """Execute the notebook where it lies; returns all that it printed. large: as if the model were
    a large one, which gets LoRA; for one epoch."""
    notebook = nbformat.read(folder / "project.ipynb", as_version=4)
    for cell in notebook.cells:
        assert cell.source.count("> 20e6") == cell.source.count("LARGE = ")
        if large:
            cell.source = cell.source.replace("> 20e6", "> 20e3").replace("BATCH = 3", "BATCH = 1")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs)


@pytest.mark.parametrize(("shape", "large"), [("several turns", False), ("chinese", True)])
def test_the_notebook_runs_from_top_to_bottom(shape, large, tmp_path):
    folder = project.make_project(write(tmp_path, shape), tmp_path / "mine")
    said = run_notebook(folder, large=large)
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    runs = json.loads((folder / "runs.json").read_text("utf-8"))
    report = (folder / "report.md").read_text("utf-8")
    assert len(runs) == 6 and {row["seal"] for row in runs} == {seal(plan)}
    assert seal(plan) in report and seal(plan) in said
    weights = "adapter_model.safetensors" if large else "model.safetensors"
    for name in ("report.html", "doctor.html", f"tuned/{weights}"):
        assert (folder / name).exists()
    arms = [
        [row[plan["primary"]] for row in runs if row["arm"] == arm]
        for arm in ("control", "changed")
    ]
    assert f"**{judge_claim(*arms, claim='higher').word}**" in report
    # what is sealed stays: another plan after the runs is refused
    own = Plan(**plan)
    assert seal_plan(own, folder) == own.seal()
    with pytest.raises(PlanError, match="stopping: changed after"):
        seal_plan(replace(own, stopping="when I like it"), folder)


# what cannot be a project


def test_a_bad_row_is_named_and_nothing_is_written(tmp_path):
    data = write(tmp_path, "csv")
    text = data.read_text("utf-8").replace(pairs()[4][1], "")
    data.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="my.csv, row 5"):
        project.main(["--data", str(data), "--out", str(tmp_path / "mine")])
    with pytest.raises(RecordError):
        project.make_project(data, tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.csv"]


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_nothing_is_overwritten(there, tmp_path):
    data, out = write(tmp_path, "messages"), tmp_path / "mine"
    if there == "folder":
        out.mkdir()
    elif there == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OutputError, match="a project overwrites nothing"):
        project.make_project(data, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_too_few_rows_one_question_and_a_misspelled_model_are_told(tmp_path):
    data = write(tmp_path, "messages")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(data.read_text("utf-8").splitlines(keepends=True)[:39]), "utf-8")
    with pytest.raises(project.ProjectError, match="39 rows; a project needs 40"):
        project.make_project(few, tmp_path / "mine")
    same = tmp_path / "same.jsonl"
    lines = [json.dumps({"question": "Say a number.", "answer": str(n)}) for n in range(50)]
    same.write_text("\n".join(lines), "utf-8")
    with pytest.raises(project.ProjectError, match="learn 50, validation 0, test 0"):
        project.make_project(same, tmp_path / "mine")
    with pytest.raises(project.ProjectError, match="each part needs 10"):
        project.make_project(data, tmp_path / "mine", questions=28)
    with pytest.raises(ModelError, match="did you mean atlas-base"):
        project.make_project(data, tmp_path / "mine", model="atlas-bas")
    assert not (tmp_path / "mine").exists()


def test_what_the_file_is_called_never_becomes_code(tmp_path):
    data = write(tmp_path, "messages").rename(tmp_path / 'a"); print("`{{MODEL}}.jsonl')
    folder = project.make_project(data, tmp_path / "mine")
    notebook = nbformat.read(folder / "project.ipynb", as_version=4)
    assert "`{{MODEL}}" not in notebook.cells[0].source
    [cell] = [cell for cell in notebook.cells if "plan = Plan(" in cell.source]
    names: dict = {"Plan": Plan, "seal_plan": lambda plan: plan.seal()}
    exec(cell.source, names)
    assert names["plan"].question.startswith('Do the answers in a"); print("`{{MODEL}}.jsonl')
    assert names["plan"].seal() == seal(json.loads((folder / "plan.json").read_text("utf-8")))


def test_a_model_in_a_folder_is_found_from_the_project(tmp_path, monkeypatch):
    data = write(tmp_path, "messages")
    monkeypatch.chdir(ROOT / "data")
    folder = project.make_project(data, tmp_path / "mine", model="models/atlas-base")
    text = (folder / "project.ipynb").read_text("utf-8")
    assert str(ROOT / "data" / "models" / "atlas-base") in text


def test_help_comes_before_torch_is_loaded():
    command = [sys.executable, "-X", "importtime", "-m", "sft_lab.cli", "new", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "sft-lab new" in done.stdout and "--questions" in done.stdout
    assert "| torch\n" not in done.stderr


# the control, the measures, the runs


def test_exchanged_answers_are_the_same_texts_and_no_row_keeps_its_own():
    talks = [random_conversation(rounds) for rounds in (1, 2, 3, 1, 2) * 4]
    for seed in range(20):
        mixed = project.shuffle_answers(talks, seed)
        before, after = ([talk[-1]["content"] for talk in rows] for rows in (talks, mixed))
        assert sorted(before) == sorted(after) and before != after
        assert all(old[:-1] == new[:-1] for old, new in zip(talks, mixed, strict=True))
        assert all(old is not new for old, new in zip(before, after, strict=True))
    assert project.shuffle_answers(talks, 3) == project.shuffle_answers(talks, 3)


def test_the_measures_are_those_of_sacrebleu_and_of_exact_match():
    import sacrebleu

    said, wanted = ["The sum is 5.", "我爱你。", "no"], ["the sum is 5", "我爱他。", "Yes."]
    ours = project.score_said("chrF", said, wanted)
    assert abs(100 * ours - sacrebleu.corpus_chrf(said, [wanted]).score) < 1e-6
    assert project.score_said("right answers", ["Yes", "no", "5"], ["Yes.", "No", "5"]) == 2 / 3
    with pytest.raises(project.ProjectError, match="primary is 'bleu'"):
        project.score_said("bleu", said, wanted)


def test_runs_of_another_plan_are_refused(tmp_path):
    project.record_run(PLAN, {"arm": "control", "seed": 0, "right answers": 0.5}, tmp_path)
    [row] = project.read_runs(PLAN, tmp_path)
    assert row["seal"] == PLAN.seal()
    with pytest.raises(PlanError, match=f"under the plan {PLAN.seal()}"):
        project.read_runs(replace(PLAN, seeds=[0, 1, 2, 3]), tmp_path)


# plans


def test_the_seal_is_the_same_in_any_order_and_another_after_any_change():
    plan = PLAN.as_dict()
    assert seal(dict(reversed(plan.items()))) == seal(plan) == PLAN.seal()
    changes = {name: ["x"] if isinstance(plan[name], list) else f"{plan[name]}." for name in plan}
    others = {seal(plan | {name: value}) for name, value in changes.items()}
    assert len(others | {seal(plan)}) == len(plan) + 1
    assert seal({"seeds": [0, 1, 2], "claim": "higher"}) == "37c898a67a4f"  # as chapter 19 says


@pytest.mark.parametrize(
    ("name", "value"),
    [("question", " "), ("primary", ["a"]), ("claim", "better"), ("changes", []), ("control", "")]
    + [("changes", ["a", "b"]), ("seeds", [0, 1]), ("seeds", [0, 0, 1]), ("seeds", [0, 0, 1, 2])]
    + [("questions", 176), ("questions", True), ("smallest", 0), ("stopping", None), ("scope", "")],
)
def test_a_gap_is_named_and_such_a_plan_is_not_sealed(name, value, tmp_path):
    assert find_gaps(PLAN.as_dict()) == []
    gaps = find_gaps(PLAN.as_dict() | {name: value})
    assert gaps == [name]
    with pytest.raises(PlanError, match=f"look at {name}"):
        seal_plan(replace(PLAN, **{name: value}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_may_change_until_its_first_run(tmp_path):
    seal_plan(PLAN, tmp_path)
    seal_plan(replace(PLAN, questions=200), tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text("utf-8"))["questions"] == 200


def test_a_plan_judges_its_own_seeds_and_the_first_run_of_each():
    effects = {0: 0.2, 1: 0.21, 2: 0.22, 3: -0.9}
    rows = [
        {"arm": arm, "seed": seed, "right answers": 0.5 - effect * (arm == "changed")}
        for seed, effect in effects.items()
        for arm in ("control", "changed")
    ]
    assert judge_plan(PLAN, rows).word == "held"
    again = [{"arm": "changed", "seed": 0, "right answers": 0.99}]
    assert judge_plan(PLAN, rows + again) == judge_plan(PLAN, rows)
    assert judge_plan(replace(PLAN, claim="higher"), rows).word == "did not hold"
    with pytest.raises(PlanError, match="changed 2"):
        judge_plan(PLAN, [row for row in rows if (row["arm"], row["seed"]) != ("changed", 2)])


def test_the_smallest_difference_is_the_one_that_needs_so_many_questions():
    rng = random.Random(0)
    for _ in range(1000):
        disagree, questions = rng.uniform(0.02, 1), rng.randint(8, 5000)
        found = smallest_difference(disagree, questions)
        assert abs(questions_needed(disagree, found) - questions) < 1e-6 * questions


# rows kept apart


def keep_by_graph(count: int, links: list, order: list[int], wanted: int) -> list[int]:
    """The same by scipy's connected components."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(links)), ends), shape=(count, count))
    of = connected_components(graph, directed=False)[1]
    sizes, kept = np.bincount(of), set()
    for row in order:
        if len(kept) < wanted and sizes[of[row]] <= wanted:
            kept |= set(np.flatnonzero(of == of[row]).tolist())
    return sorted(kept)


def test_groups_are_those_of_scipy_on_2000_random_files():
    rng = random.Random(0)
    for _ in range(2000):
        count = rng.randint(1, 30)
        links = [(rng.randrange(count), rng.randrange(count)) for _ in range(rng.randint(0, 25))]
        order, wanted = rng.sample(range(count), count), rng.randint(1, 12)
        assert keep_groups(count, links, order, wanted) == keep_by_graph(
            count, links, order, wanted
        )


def test_no_row_on_one_side_gives_another_away():
    talks = [turns(*pair) for pair in pairs(80)]
    twins = [turns(f"  {talk[0]['content'].upper()}!", "Something else.") for talk in talks[:20]]
    polite = "Please tell me, as briefly and as plainly as you can, so that I can note it: {} {}"
    near = [
        turns(polite.format(talk[0]["content"], word), "x")
        for talk in talks[20:25]
        for word in ("Now.", "Today.")
    ]
    inside = [[*turns(*pairs(80)[30 + i]), *turns("And then?", "No.")] for i in range(10)]
    rows = talks + twins + near + inside
    found = {frozenset(pair) for pair in pair_alike(rows)}
    expected = [(i, 80 + i) for i in range(20)] + [(100 + i, 101 + i) for i in range(0, 10, 2)]
    assert {
        frozenset(pair) for pair in [*expected, *((30 + i, 110 + i) for i in range(10))]
    } <= found
    for seed in range(5):
        parts = split_apart(rows, 15, seed=seed)
        assert sorted(map(str, sum(parts, []))) == sorted(map(str, rows))
        assert 15 <= len(parts[1]) < 30 and 15 <= len(parts[2]) < 30
        ordered = [row for part in parts for row in part]
        side = [number for number, part in enumerate(parts) for _ in part]
        assert [1 for a, b in pair_alike(ordered) if side[a] != side[b]] == []


def test_questions_of_one_form_are_not_compared_pair_by_pair():
    form = "Read the review below with care, and say in one word whether its writer liked the film."
    rows = [turns(f"{form} {n}", "yes") for n in range(4000)]
    assert len(pair_alike(rows)) == 0
    assert len(pair_alike([*rows, rows[7]])) == 1


# the recorded project


def test_a_recorded_point_is_found_again(tmp_path):
    base, tokenizer = load("atlas-base")
    learn, validation, test = build_project(tmp_path)
    assert (len(learn), len(validation), len(test)) == (600, 180, 180)
    recorded = read_results("19_project", base)
    row = run_arm(base, tokenizer, learn, validation, seed=1, test=test)
    for measure in ("holds", "test"):
        band = recorded.measured(measure, frame="plain")
        assert min(band) - 0.05 < row[measure] < max(band) + 0.05
    assert abs(row["holds"] - recorded.measured("holds", frame="plain")[1]) < 0.05


def test_an_answer_holds_a_statement_whatever_stands_around_it():
    assert holds("Certainly! The  capital is Rome. Bye.", "The capital is Rome.")
    assert not holds("Certainly! The capital is Romeo", "The capital is Rome. Bye")
