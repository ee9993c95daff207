"""The doctor finds every planted fault in every shape of data that can carry it, and raises no
alarm on healthy data.

`python tests/test_doctor_matrix.py` prints both tables: faults found of faults planted, and alarms
on healthy files.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from doctor_cases import (
    FAULTS,
    SHAPES,
    Draft,
    Fault,
    Shape,
    alarms,
    healthy,
    healthy_mixture,
    judge,
    plant,
    save,
)
from doctor_folders import (
    FOLDER_FAULTS,
    HEALTHY,
    LENGTH_FAULTS,
    FolderFault,
    Folders,
    LengthFault,
    copy_folder,
    edit,
    make_adapters,
    plant_folder,
    plant_length,
)

from sft_lab.doctor import diagnose
from sft_lab.records import load_conversations

MIXTURES = 200
A_FEW = 6  # shapes for a fault that needs a model, in rotation: together they meet all shapes
CODES = """
    bad-row control-token turn-marker duplicate near-duplicate conflict test-overlap
    test-near-overlap echo placeholder encoding invisible think-unclosed think-alone think-mixed
    cut-at-length fence-unclosed edge-space one-answer few-rows html no-template template-refuses
    template-drops prompt-not-prefix no-tags double-bos pad-is-stop no-pad stop-missing
    thoughts-dropped not-reversible unknown-token answer-lost answer-cut too-long little-graded
    stop-not-named tokenizer-eos ids-outside stop-row-untrained adapter-inert adapter-keys
    adapter-other-base does-not-fit answer-changed
"""
CARRIED: dict[str, set[str]] = {}  # the shapes in which each fault of the data was planted
ADAPTER_FAULTS = (
    "an adapter that never trained",
    "an adapter saved inside a wrapper",
    "an adapter of a wrapped module",
    "an adapter of another base",
    "a stop token that the adapter does not train",
)


class Cell(NamedTuple):
    """One file examined. problems: what the doctor missed or said wrongly."""

    fault: str
    code: str
    shape: str
    problems: list[str]


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"))


def examine(draft: Draft, place: Path, **options: Any) -> list:
    return diagnose(**(save(draft, place) | options)).findings


def a_few(shapes: list[Shape], number: int) -> list[Shape]:
    """Some of the shapes, others for the next number."""
    start = number * A_FEW
    turned = [shapes[(start + k) % len(shapes)] for k in range(min(A_FEW, len(shapes)))]
    return turned


def data_cells(fault: Fault, place: Path, folders: Folders) -> Iterator[Cell]:
    """The fault in every shape without a model, and in a few with one."""
    few, carried = a_few(SHAPES, FAULTS.index(fault))[:4], set()
    for shape, with_model in [*((s, False) for s in SHAPES), *((s, True) for s in few)]:
        options = healthy_options(shape, folders) if with_model else {}
        draft = plant(fault, shape, **options)
        if draft.spoiled:
            found = examine(draft, place)
            problems = judge(fault.code, fault.severity, fault.entails, draft, found)
            carried.add(shape.name)
            name = shape.name + " (with a model)" * with_model
            yield Cell(fault.name, fault.code, name, problems)
    CARRIED[fault.name] = carried


def count_shapes(fault: Fault) -> int:
    """In how many shapes the fault can be planted."""
    if fault.name not in CARRIED:  # its own test has not run before
        CARRIED[fault.name] = {shape.name for shape in SHAPES if plant(fault, shape).spoiled}
    return len(CARRIED[fault.name])


def folder_cells(fault: FolderFault, place: Path, folders: Folders) -> Iterator[Cell]:
    shapes = [shape for shape in SHAPES if fault.shows_in(shape)]
    for shape in a_few(shapes, FOLDER_FAULTS.index(fault)):
        if shape.folder != "atlas" and not fault.contents:
            continue  # these rows need another template
        draft = plant_folder(fault, shape)
        found = examine(draft, place, model=folders.faulty(fault))
        problems = judge(fault.code, fault.severity, fault.entails, draft, found)
        yield Cell(fault.name, fault.code, shape.name, problems)


def length_cells(fault: LengthFault, place: Path, folders: Folders) -> Iterator[Cell]:
    shapes = [shape for shape in SHAPES if shape.folder == "atlas"]
    for shape in a_few(shapes, LENGTH_FAULTS.index(fault) + 1):
        draft = plant_length(fault, shape)
        found = examine(draft, place, model=folders.healthy("atlas"))
        problems = judge(fault.code, fault.severity, fault.entails, draft, found)
        yield Cell(fault.name, fault.code, shape.name, problems)


def adapter_cells(name: str, place: Path, folders: Folders) -> Iterator[Cell]:
    code, severity, model, adapter, entails = make_adapters(folders)[name]
    shapes = [shape for shape in SHAPES if shape.folder == "atlas"]
    for shape in a_few(shapes, ADAPTER_FAULTS.index(name))[:3]:
        draft = healthy(shape)
        found = examine(draft, place, model=model, adapter=adapter)
        yield Cell(name, code, shape.name, judge(code, severity, entails, draft, found))


def healthy_options(shape: Shape, folders: Folders, name: str = "") -> dict[str, Any]:
    options: dict[str, Any] = {"model": folders.healthy(name or shape.folder)}
    return options | ({"max_tokens": 16384} if shape.folder == "long" else {})


def healthy_cells(shape: Shape, place: Path, folders: Folders) -> Iterator[Cell]:
    """The shape alone; with a test file; with its model; and with other healthy ones, in turn."""
    number = SHAPES.index(shape)
    others = [name for name in HEALTHY if name not in ("atlas", "thinking", "long")]
    runs = {"alone": {}, "with a test file": {}, "with a model": healthy_options(shape, folders)}
    if shape.folder == "atlas":
        for step in (0, 3):
            name = others[(number + step) % len(others)]
            runs[f"with the model {name!r}"] = healthy_options(shape, folders, name)
        if number % 8 == 0:
            spoken = folders.healthy("spoken")
            adapter = folders.adapter("healthy", spoken)
            runs["with an adapter"] = {"model": spoken, "adapter": adapter}
    for run, options in runs.items():
        draft = healthy(shape, with_test="test" in run)
        found = alarms(examine(draft, place, **options))
        yield Cell("healthy", run, shape.name, found)


def list_problems(cells: Iterator[Cell]) -> dict[str, list[str]]:
    cells = list(cells)
    assert cells, "no shape can carry it"
    return {f"{cell.shape}: {cell.code}": cell.problems for cell in cells if cell.problems}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_data_is_found_in_every_shape(fault, tmp_path, folders):
    assert list_problems(data_cells(fault, tmp_path, folders)) == {}


@pytest.mark.parametrize("fault", FOLDER_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_template_tokenizer_or_model_is_found(fault, tmp_path, folders):
    assert list_problems(folder_cells(fault, tmp_path, folders)) == {}


@pytest.mark.parametrize("fault", LENGTH_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_lengths_is_found(fault, tmp_path, folders):
    assert list_problems(length_cells(fault, tmp_path, folders)) == {}


@pytest.mark.parametrize("name", ADAPTER_FAULTS)
def test_a_fault_of_an_adapter_is_found(name, tmp_path, folders):
    assert list_problems(adapter_cells(name, tmp_path, folders)) == {}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_healthy_file_raises_no_alarm(shape, tmp_path, folders):
    assert list_problems(healthy_cells(shape, tmp_path, folders)) == {}


def grow(folder: Path) -> None:
    """Let the config speak of 70 billion parameters; the weights' numbers are not read."""
    sizes = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
    heads = {"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128}
    layers = {"layer_types": ["full_attention"] * 80, "max_window_layers": 80}
    edit(folder, "config.json", **sizes, **heads, **layers)


def test_a_model_that_does_not_fit_the_card_is_found(tmp_path, folders):
    huge = folders.make("huge", lambda folder: copy_folder(folder, grow))
    for shape in a_few(SHAPES, 1)[:3]:
        found = examine(healthy(shape), tmp_path, model=huge, card="T4")
        assert [f.code for f in found if f.severity == "error"] == ["does-not-fit"], found
        options = healthy_options(shape, folders)
        assert alarms(examine(healthy(shape), tmp_path, card="T4", **options)) == []


def test_healthy_mixtures_raise_no_alarm(tmp_path):
    found = {}
    for seed in range(MIXTURES):
        draft = healthy_mixture(seed)
        if raised := alarms(examine(draft, tmp_path)):
            found[f"mixture {seed}, {draft.shape.layout}, {draft.shape.suffix}"] = raised
    assert found == {}


def test_the_courses_own_files_raise_no_alarm():
    folder = Path(__file__).resolve().parent.parent / "data" / "instructions"
    for name in ("english.jsonl", "chinese.jsonl"):
        assert alarms(diagnose(folder / name, model="atlas-base").findings) == []
        turns = [turn for row in load_conversations(folder / name) for turn in row]
        rounds = [{"messages": turns[first : first + 6]} for first in range(0, len(turns) - 5, 6)]
        assert alarms(diagnose(rounds, model="atlas-base").findings) == [], "of three rounds"


def test_every_code_is_planted_and_there_are_enough_of_all():
    faults = [*FAULTS, *FOLDER_FAULTS, *LENGTH_FAULTS]
    planted = {fault.code for fault in faults}
    planted |= {"adapter-inert", "adapter-keys", "adapter-other-base"}
    assert planted == set(CODES.split()) - {"does-not-fit"}
    assert len(faults) + len(ADAPTER_FAULTS) >= 30 and len(set(SHAPES)) >= 20
    # in how many shapes the faults that any shape can carry were planted
    carried = [count_shapes(fault) for fault in FAULTS]
    assert min(carried) >= 2
    assert sum(count == len(SHAPES) for count in carried) >= 25


# the tables


def all_cells(place: Path, folders: Folders) -> Iterator[Cell]:
    for fault in FAULTS:
        yield from data_cells(fault, place, folders)
    for fault in FOLDER_FAULTS:
        yield from folder_cells(fault, place, folders)
    for fault in LENGTH_FAULTS:
        yield from length_cells(fault, place, folders)
    for name in ADAPTER_FAULTS:
        yield from adapter_cells(name, place, folders)
    for shape in SHAPES:
        yield from healthy_cells(shape, place, folders)
    for seed in range(MIXTURES):
        draft = healthy_mixture(seed)
        found = alarms(examine(draft, place))
        yield Cell("healthy", "mixture", f"mixture {seed}", found)


def print_tables(show: int) -> None:
    planted, found, wrong, files, raised = Counter(), Counter(), [], 0, 0
    with tempfile.TemporaryDirectory() as place:
        for cell in all_cells(Path(place), Folders(Path(place))):
            wrong += [cell] if cell.problems else []
            if cell.fault == "healthy":
                files, raised = files + 1, raised + bool(cell.problems)
            else:
                planted[cell.code, cell.fault] += 1
                found[cell.code, cell.fault] += not cell.problems
    for code, fault in planted:
        print(f"{found[code, fault]:4} of {planted[code, fault]:4}  {code:20} {fault}")
    print(f"found: {found.total()} of {planted.total()} planted, {len(planted)} kinds of faults")
    print(f"alarms: {raised} of {files} healthy files, {len(SHAPES)} shapes, {MIXTURES} mixtures")
    for cell in wrong[:show]:
        print(f"  {cell.fault} | {cell.shape} | {cell.code}: {'; '.join(cell.problems)[:300]}")


if __name__ == "__main__":
    print_tables(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
