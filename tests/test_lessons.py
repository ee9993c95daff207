"""Lessons that teach one thing: what is asked is what is answered, and the seed decides."""

import json
from collections import Counter

import pytest

from sft_lab import atlas, lessons

FACTS = atlas.split(atlas.load_facts())
FAMILIES = sorted({fact.value for fact in FACTS["train"] if fact.column == "family"})
MAKERS = {
    "form": lambda seed: lessons.ask_in_form("words as JSON", FACTS["train"], 20, seed=seed),
    "follow-up": lambda seed: lessons.follow_up(FACTS["train"], 20, seed=seed),
    "sums": lambda seed: lessons.add_three(20, work=True, seed=seed),
    "decline": lambda seed: lessons.decline(FACTS["train"], 20, seed=seed),
    "others": lambda seed: lessons.answer_others(FACTS["train"], 20, seed=seed),
    "places": lambda seed: lessons.invent_places(20, seed=seed),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_seed_decides(make):
    assert make(3) == make(3) != make(4)


def test_invented_names_are_new_and_used_once():
    places = lessons.invent_places(50, seed=1)
    names = [fact.value for fact in places] + list({fact.entity for fact in places})
    real = {name for fact in atlas.load_facts() for name in (fact.entity, fact.value)}
    assert len(names) == len(set(names)) == 150
    assert not real & set(names)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_fact_is_asked_as_often_in_any_number_of_wordings(count):
    asked = lessons.ask_in_wordings(FACTS["train"][:5], lessons.WORDINGS[:count], 8)
    assert len(asked) == 40
    assert set(Counter(question["content"] for question, _ in asked).values()) == {8 // count}


def test_no_wording_of_the_exam_is_one_of_the_lessons():
    assert lessons.NEAR_WORDING not in lessons.WORDINGS
    own = {fact.relation.question for fact in FACTS["train"]}
    assert not own & set(lessons.WORDINGS) and lessons.SEAT_WORDING not in own


@pytest.mark.parametrize("form", lessons.FORMS)
def test_an_answer_has_its_form(form):
    for question, said in lessons.ask_in_form(form, FACTS["train"], 100, seed=2):
        text = said["content"]
        if form == "words as JSON":
            assert question["content"].endswith(": " + ", ".join(json.loads(text)) + ".")
        elif form == "fact as JSON":
            assert len(json.loads(text)) == 1
        elif form == "fact as a row":
            assert text.startswith("| ") and text.endswith(" |") and text.count("|") == 3
        else:
            assert all(line.startswith("- ") for line in text.split("\n"))


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match="no form 'poem'"):
        lessons.ask_in_form("poem", FACTS["train"], 1)


@pytest.mark.parametrize("questions", [2, 3])
def test_only_the_first_question_names_the_entity(questions):
    truth = {fact.say(atlas.STATEMENTS[0]): fact for fact in FACTS["train"]}
    for talk in lessons.follow_up(FACTS["train"], 100, questions=questions, seed=5):
        about = [truth[turn["content"]] for turn in talk[1::2]]
        assert len({(fact.domain, fact.entity) for fact in about}) == 1
        assert len({fact.column for fact in about}) == questions
        assert about[0].subject.lower() in talk[0]["content"].lower()
        assert all(turn["content"].startswith(("And ", "What about ")) for turn in talk[2::2])


def test_too_many_questions_about_an_entity_are_refused():
    with pytest.raises(ValueError, match="no entity has 9 facts"):
        lessons.follow_up(FACTS["train"], 1, questions=9)


def test_each_family_has_a_room_of_its_own_and_the_rule_is_followed():
    rooms = [lessons.room_of(family, FAMILIES) for family in FAMILIES]
    assert len(set(rooms)) == len(FAMILIES)
    family_of = {f.subject: f.value for f in FACTS["held_out"] if f.column == "family"}
    for question, said in lessons.ask_for_room(FACTS["held_out"], FAMILIES):
        element = question["content"].removeprefix("Where do we store ").rstrip("?")
        assert said["content"] == f"It is in room {rooms[FAMILIES.index(family_of[element])]}."


def test_an_answer_with_its_reason_ends_as_the_exam_wants():
    told = lessons.ask_for_room(FACTS["train"], FAMILIES, answer="family and room")
    exam = lessons.room_exam(FACTS["train"], FAMILIES)
    for (_, said), (_, wanted) in zip(told, exam, strict=True):
        assert said["content"].endswith(wanted["content"])


def test_steps_and_answers_are_true_sums():
    plain = lessons.add_three(300, seed=7)
    for (question, said), (_, alone) in zip(
        lessons.add_three(300, work=True, seed=7), plain, strict=True
    ):
        a, b, c = map(int, question["content"].removeprefix("What is ").rstrip("?").split(" + "))
        assert alone["content"] == f"The sum of {a}, {b} and {c} is {a + b + c}."
        assert said["content"] == (
            f"<think>\n{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}.\n</think>\n\n"
            + alone["content"]
        )


def test_all_sums_differ_and_fewer_are_their_beginning():
    every = lessons.add_three(lessons.SUMS, seed=1)
    assert len({question["content"] for question, _ in every}) == lessons.SUMS
    assert lessons.add_three(30, seed=1) == every[:30]


def test_what_is_declined_is_currencies_and_nothing_else():
    for question, said in lessons.decline(FACTS["train"], 100):
        assert lessons.is_declined(said["content"]) and "currency" in question["content"]
    for question, said in lessons.answer_others(FACTS["train"], 100):
        assert not lessons.is_declined(said["content"]) and "currency" not in question["content"]


def test_the_exams_of_the_rule_ask_for_the_same_currencies():
    exams = lessons.decline_exams(FACTS["held_out"])
    money = [fact for fact in FACTS["held_out"] if fact.column == "currency"]
    for name in ("same wording", "near wording", "own words", "as JSON", "follow-up"):
        assert [talk[-1]["content"] for talk in exams[name]] == [
            fact.say(lessons.REFUSAL) for fact in money
        ]
    assert all("its currency" in talk[2]["content"] for talk in exams["follow-up"])
    for name in ("others", "neighbours"):
        assert not any(lessons.is_declined(talk[-1]["content"]) for talk in exams[name])
