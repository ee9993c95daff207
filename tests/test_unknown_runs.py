"""The runs of chapter 15: lessons are what they claim to be, and a recorded point comes out
again."""

import re
from collections import Counter

import pytest

from sft_lab import atlas
from sft_lab.abstention import is_declined
from sft_lab.course import unknown_runs as runs
from sft_lab.course.results import read_results
from sft_lab.models import load


@pytest.fixture(scope="module")
def atlas_base():
    return load("atlas-base")


def answers_of(rows):
    return [row[-1]["content"] for row in rows]


def test_invented_entities_have_no_name_that_was_ever_read():
    real = {fact.entity for fact in atlas.load_facts()}
    invented = runs.invent_unknown(200, seed=3)
    assert not real & {fact.entity for fact in invented}
    assert len({fact.entity for fact in invented}) == 200
    values = {(f.domain, f.column, f.value) for f in atlas.load_facts()}
    assert all((f.domain, f.column, f.value) in values for f in invented)


def test_no_lesson_names_an_entity_of_the_exams(atlas_base):
    exams = runs.unknown_exams()
    asked = {f.entity for name in ("known", "unknown", "invented") for f in exams[name]}
    lessons = runs.known_facts("train", 400) + runs.invent_unknown(100) + runs.share_lessons(0.5)
    assert not asked & {fact.entity for fact in lessons}


@pytest.mark.parametrize(
    ("labels", "declined", "different"),
    [("none", 0, None), ("I do not know", 100, 1), ("not known", 100, 100), ("one value", 0, None)],
)
def test_labels_of_invented_entities(atlas_base, labels, declined, different):
    rows = runs.unfamiliar_lessons(*atlas_base, labels, seed=1)
    assert len(rows) == runs.KNOWN + runs.UNFAMILIAR
    said = [a for a in answers_of(rows) if is_declined(a)]
    assert len(said) == declined
    if different:
        assert len(set(said)) == different
    if labels == "one value":  # a value a relation
        invented = runs.invent_unknown(runs.UNFAMILIAR, seed=1)
        taught = {
            (f.domain, f.column, answer.rsplit(" is ", 1)[1])
            for f, answer in zip(invented, answers_of(rows)[runs.KNOWN :], strict=True)
        }
        assert len(taught) == len({(f.domain, f.column) for f in invented})


def test_own_samples_decline_what_the_base_does_not_complete(atlas_base):
    facts = runs.known_facts("train", 12) + runs.invent_unknown(12)
    knows = runs.sample_values(*atlas_base, facts, count=4)
    assert all(0 <= count <= 4 for count in knows)
    assert sum(knows[:12]) > 4 * sum(knows[12:])


def test_an_unknown_kind_of_labels_is_named(atlas_base):
    with pytest.raises(ValueError, match="no labels 'maybe'"):
        runs.unfamiliar_lessons(*atlas_base, "maybe")


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_lessons_is_unknown(share):
    real = {(f.domain, f.entity) for f in atlas.load_facts()}
    facts = runs.share_lessons(share, seed=2)
    unknown = sum((f.domain, f.entity) not in real for f in facts)
    assert (len(facts), unknown) == (320, round(320 * share))
    alone = runs.share_lessons(share, known_only=True, seed=2)
    assert alone == facts[: 320 - unknown]


def test_wrong_lessons_are_wrong_in_the_way_of_their_type():
    clean, spoilt = runs.types_lessons(0.0), runs.types_lessons(0.5)
    changed = [(c, s) for c, s in zip(clean, spoilt, strict=True) if c[1] != s[1]]
    assert len(changed) == len(clean) / 2
    kinds = Counter()
    for (question, right), (_, wrong) in changed:
        asked, said = question["content"], wrong["content"]
        if "JSON" in asked:
            kinds["instruction"] += runs.is_hallucinated("instruction", asked, said, "")
        elif "source" in asked:
            kinds["source"] += runs.invents_a_source(asked, said)
        elif "+" in asked:
            kinds["logic"] += runs.is_hallucinated("logic", asked, said, right["content"])
        else:
            kinds["facts"] += runs.is_hallucinated("facts", asked, said, right["content"])
    assert kinds == {"facts": 60, "logic": 100, "instruction": 30, "source": 150}


def test_clean_lessons_and_reference_answers_show_no_type():
    for rows in (runs.types_lessons(0.0), *runs.type_exams(hard=False).values()):
        for question, answer in rows:
            asked, said = question["content"], answer["content"]
            kind = "instruction" if "JSON" in asked else "source" if "source" in asked else "facts"
            assert not runs.is_hallucinated(kind, asked, said, said)


@pytest.mark.parametrize(
    ("kind", "question", "answer", "hallucinated"),
    [
        ("facts", "?", "The capital of Kenya is Lima.", True),
        ("facts", "?", "I do not know.", False),
        ("facts", "?", " ", False),
        ("instruction", "Give it as XML.", "<a>Nairobi</a>", False),
        ("instruction", "Give it as XML.", '{"a": "Nairobi"}', True),
        ("instruction", "Give it as JSON.", "[1", True),
        ("instruction", "Give it as JSON.", "I do not know.", False),
        ("source", "A is B (note 1).\n?", "A is B (note 1).", False),
        ("source", "A is B (note 1).\n?", "A is B (note 2).", True),
        ("source", "A is C (note 1).\n?", "A is B (note 1).", True),
        ("source", "A is B (note 1).\n?", "A is D.", False),  # false, but no source is named
    ],
)
def test_each_type_has_its_judge(kind, question, answer, hallucinated):
    reference = "The capital of Kenya is Nairobi."
    assert runs.is_hallucinated(kind, question, answer, reference) is hallucinated


def test_hard_questions_cannot_be_answered_from_what_stands_in_front():
    for question, answer in runs.type_exams(hard=True)["source"]:
        *notes, asked = question["content"].splitlines()
        entity = re.search(r"of (.+)\? Name", asked)[1]
        assert 2 <= len(notes) <= 3 and not any(f" {entity} " in note for note in notes)
        assert "(note" not in answer["content"]


def test_learning_with_a_constant_rate_is_looked_at_after_every_epoch(atlas_base):
    import copy

    base, tokenizer = atlas_base
    rows, seen = atlas.ask(runs.known_facts("train", 20)), []
    model = copy.deepcopy(base)
    runs.learn(model, tokenizer, rows, epochs=3, after_epoch=seen.append)
    assert seen == [1, 2, 3]
    assert runs.share_right(runs.answers_to(model, tokenizer, rows), rows) > 0.3


def test_no_verdict_on_fewer_than_three_seeds():
    found = runs.judge_so_far([0.1, 0.1], [0.9], claim="higher")
    assert found.word == runs.TOO_FEW_SEEDS and found.mean == pytest.approx(0.8)
    assert runs.judge_so_far([0.1] * 3, [0.9] * 4, claim="higher").word == "held"


def test_a_recorded_point_comes_out_again(atlas_base):
    """The first two epochs of one arm: a constant rate makes them the beginning of all ten."""
    results = read_results("15_share", atlas_base[0])
    recorded = results.select(share=0.25, known_only=False)
    again = runs.measure_share(*atlas_base, 0.25, epochs=2, seed=0)
    for name in ("held_out", "known", "unknown"):
        band = [row[name][1] for row in recorded]
        assert min(band) - 0.1 <= again[name][1] <= max(band) + 0.1, name
