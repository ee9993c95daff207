"""What rows show beside each other; near-duplicates against a count of all pairs; two processes."""

import json
import random
import subprocess
import time

import numpy as np
import pytest

from sft_lab.doctor import diagnose, examine, shares
from sft_lab.doctor.rows import check_overlap, check_rows
from sft_lab.doctor.twins import NEIGHBOURS, find_runs, find_twins, similarities
from sft_lab.duplicates import jaccard, near_duplicates, shingles
from sft_lab.records import load_conversations

LETTERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def rows_of(*pairs: tuple[str, str]) -> list:
    return load_conversations([{"prompt": q, "response": a} for q, a in pairs])


def found_in(conversations: list) -> dict:
    return {found.code: found for found in check_rows(conversations)}


# near-duplicates


def random_texts(seed: int, count: int, vocabulary: int) -> list[str]:
    """Texts of which some are others with a word changed, left out or put in."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        if texts and draw.random() < 0.5:
            found = draw.choice(texts).split()
            for _ in range(draw.randrange(3)):
                place = draw.randrange(len(found))
                found[place : place + draw.randrange(2)] = [f"w{draw.randrange(vocabulary)}"]
        else:
            found = [f"w{draw.randrange(vocabulary)}" for _ in range(draw.randrange(1, 40))]
        texts.append(" ".join(found))
    return texts


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8])
def test_twins_are_the_texts_that_a_comparison_of_all_pairs_finds(seed, threshold):
    # so many different words that no run stands in more texts than are paired
    texts = random_texts(seed, 25, 10_000)
    runs = find_runs(texts)
    pairs = near_duplicates(texts, threshold=threshold)
    enough = [p for p in pairs if min(runs.sizes[p.first], runs.sizes[p.second]) >= 4]
    groups = np.bincount(np.bincount(runs.run)).size
    assert groups <= NEIGHBOURS + 2
    assert find_twins(runs, threshold).keys() == {place for p in enough for place in p[:2]}


@pytest.mark.parametrize("seed", range(30))
def test_every_twin_is_as_near_as_was_asked_also_among_texts_of_one_template(seed):
    texts = random_texts(seed, 80, 6)
    runs = find_runs(texts)
    for one, other in find_twins(runs, 0.6).items():
        assert jaccard(shingles(texts[one]), shingles(texts[other])) >= 0.6


@pytest.mark.parametrize("seed", range(10))
def test_similarities_are_jaccards_of_the_runs_of_three_words(seed):
    texts = [text for text in random_texts(seed, 60, 9) if len(text.split()) > 2]
    runs, places = find_runs(texts), np.arange(len(texts))
    for shift in (0, 1, 7):
        other = np.roll(places, shift)
        expected = [
            jaccard(shingles(texts[a]), shingles(texts[b]))
            for a, b in zip(places, other, strict=True)
        ]
        assert similarities(runs, places, other, chunk=9).tolist() == pytest.approx(expected)


def test_texts_too_short_to_have_a_run_have_no_twin():
    assert find_twins(find_runs([]), 0.5) == {}
    assert find_twins(find_runs(["", "yes", "yes", "oh yes", "oh yes"]), 0.5) == {}


# rows beside each other


def test_a_repeated_row_is_named_where_it_is_repeated():
    conversations = rows_of(("Who?", "Ada."), ("Where?", "Rome"), ("who? ", "ADA"), ("Who", "Ada"))
    found = found_in(conversations)["duplicate"]
    assert (found.count, found.places) == (2, ["rows, row 3", "rows, row 4"])


def test_case_and_place_in_a_conversation_make_another_question():
    conversations = rows_of(("What is Co?", "cobalt"), ("What is CO?", "carbon monoxide"))
    assert "conflict" not in found_in(conversations)


def test_different_answers_to_one_question_are_a_conflict_unless_most_rows_are_like_that():
    others = [(f"Question {word}?", f"Answer {word}.") for word in LETTERS]
    some = found_in(rows_of(("Who?", "Ada"), *others, ("Who?", "Bob")))["conflict"]
    assert (some.severity, some.count) == ("warning", 2)
    assert some.places == ["rows, row 1", "rows, row 12"]
    assert some.why.endswith("to 'Who?' row 1 answers 'Ada', and row 12 'Bob'")
    pairs = [(f"Question {word}?", f"{how} {word}.") for word in LETTERS for how in ("A", "B")]
    assert found_in(rows_of(*pairs))["conflict"].severity == "note"


def test_one_answer_for_most_rows_is_found_and_a_common_class_is_not():
    other = [(f"Question {word}?", f"Answer {word}.") for word in LETTERS]
    same = [(f"Thing {word}?", "I do not know.") for word in [*LETTERS, "x", "y"]]
    found = found_in(rows_of(*other, *same))["one-answer"]
    assert (found.count, found.places[0]) == (12, "rows, row 11")
    classes = [(f"Review {n}?", "good" if n % 4 else "bad") for n in range(40)]
    assert "one-answer" not in found_in(rows_of(*classes))


def test_questions_of_the_exam_are_found_also_inside_conversations_and_behind_a_system_turn():
    learned = load_conversations(
        [
            {"prompt": "Where does the Nile rise?", "response": "In Burundi."},
            {"system": "Be brief.", "prompt": "Who wrote Faust?", "response": "Goethe."},
            {
                "messages": [
                    {"role": "user", "content": "Hello!"},
                    {"role": "assistant", "content": "Hello."},
                    {"role": "user", "content": "How many moons has Mars got?"},
                    {"role": "assistant", "content": "Two."},
                ]
            },
        ]
    )
    asked = rows_of(
        ("Who wrote Faust", "Goethe"),
        ("How many moons has  Mars got?", "2"),
        ("Who wrote Emma?", "Austen"),
    )
    [found] = check_overlap(learned, asked)
    assert (found.code, found.severity, found.count) == ("test-overlap", "error", 2)
    assert found.title.startswith("2 of 3 test questions")
    assert found.places == ["rows, row 2", "rows, row 3"]


def test_why_names_rows_without_the_path_of_their_file(tmp_path):
    data, exam = tmp_path / "my.jsonl", tmp_path / "exam.jsonl"
    long = "Where does the river Nile begin its long way to the {} sea?"
    pairs = [
        ("Who?", "Ada"),
        ("Who?", "Ada"),
        (long.format("blue"), "a"),
        (long.format("old"), "b"),
    ]
    rows = [json.dumps({"prompt": q, "response": a}) for q, a in pairs]
    data.write_text("\n".join(rows), encoding="utf-8")
    exam.write_text(rows[0], encoding="utf-8")
    found = {one.code: one for one in diagnose(data, test=exam).findings}
    assert found.keys() == {"duplicate", "near-duplicate", "test-overlap", "few-rows"}
    assert all(str(tmp_path) not in one.why for one in found.values())
    assert "Row 1 is the first that is repeated" in found["duplicate"].why
    assert "Row 3 and row 4 are the first two" in found["near-duplicate"].why
    assert "exam.jsonl, row 1, for one, is row 1 to learn: 'Who?'" in found["test-overlap"].why


def test_a_question_in_other_words_is_near_and_one_about_another_thing_is_not():
    learned = rows_of(
        ("Where does the river Nile begin its long way to the sea?", "In Burundi."),
        ("What is the capital of France?", "Paris"),
    )
    asked = rows_of(
        ("Please say: where does the river Nile begin its long way to the sea?", "In Burundi."),
        ("Where does the river Rhine begin its long way to the sea?", "In Switzerland."),
        ("What is the capital of Italy?", "Rome"),
    )
    [found] = check_overlap(learned, asked)
    assert (found.code, found.severity, found.places) == (
        "test-near-overlap",
        "warning",
        ["rows, row 1"],
    )


# two processes


@pytest.fixture
def many() -> list:
    """Rows with faults of both kinds, so that each process finds some."""
    rows = [
        {"prompt": f"What is number {n}?", "response": f"It is the number {n}."}
        for n in range(1500)
    ]
    for n in range(0, 1500, 37):
        rows[n]["response"] += "\nUser: And the next?"
    for n in range(5, 1500, 41):
        rows[n]["response"] += " caf\ufffd"
    return rows


def alone(rows: list, monkeypatch, shared_from: int = 10**9) -> dict:
    monkeypatch.setattr(examine, "SHARED_FROM", shared_from)
    told = diagnose(rows, model="atlas-base", max_tokens=25).to_dict()
    return {key: told[key] for key in ("findings", "measured")}


def test_two_processes_find_what_one_finds(many, monkeypatch):
    monkeypatch.setattr(examine.os, "cpu_count", lambda: 2)
    expected = alone(many, monkeypatch)
    assert {"turn-marker", "encoding"} < {found["code"] for found in expected["findings"]}
    worked = []
    finish = shares.Helper.finish
    monkeypatch.setattr(
        shares.Helper, "finish", lambda self: worked.append(finish(self)) or worked[0]
    )
    # the caller waits for the other, so that it has its share also on a slow machine
    look = shares._look
    monkeypatch.setattr(
        shares, "_look", lambda batches, *rest: (wait_for(batches), look(batches, *rest))
    )
    assert alone(many, monkeypatch, shared_from=1) == expected
    assert worked[0] is not None  # the second process answered


def wait_for(batches: list) -> None:
    most = len(batches)
    for _ in range(600):
        if len(batches) < most - 1:
            return
        time.sleep(0.05)


def test_what_a_process_that_fails_had_taken_is_done_again(many, monkeypatch):
    monkeypatch.setattr(examine.os, "cpu_count", lambda: 2)
    expected = alone(many, monkeypatch)
    started = subprocess.Popen

    def start(command, **options):
        # answers twice, and dies with a batch in its hands
        program = "import sys\nfor _ in range(2):\n    sys.stdin.readline(); print(0, flush=True)"
        return started([command[0], "-c", program], **options)

    monkeypatch.setattr(shares.subprocess, "Popen", start)
    assert alone(many, monkeypatch, shared_from=1) == expected
