"""The small world: enough facts, a split that hides what it should, texts and questions that are
right."""

import json
import random
import re
import shutil
from itertools import islice

import pytest

from sft_lab.atlas import (
    QUESTIONS,
    SKILLS,
    STATEMENTS,
    TASKS,
    UNSEEN_QUESTION,
    Fact,
    ask,
    ask_skill,
    ask_with_notes,
    cloze,
    documents,
    load_facts,
    split,
    training_conversations,
)
from sft_lab.facts import DATA, DOMAINS_WITH_UNKNOWN, RELATIONS
from sft_lab.invented import Names, invent_facts

FACTS = load_facts()
PARTS = split(FACTS)
KNOWN = PARTS["train"] + PARTS["held_out"]
DOCUMENTS = list(islice(documents(KNOWN, seed=0), 4000))
LIBRARY = "\n\n".join(DOCUMENTS)


def entities(facts: list[Fact]) -> set[tuple[str, str]]:
    return {(fact.domain, fact.entity) for fact in facts}


def texts(conversations: list[list[dict[str, str]]]) -> list[tuple[str, str]]:
    """Question and answer of each conversation, whose shape is checked on the way."""
    for conversation in conversations:
        assert [turn["role"] for turn in conversation] == ["user", "assistant"]
    return [(question["content"], answer["content"]) for question, answer in conversations]


# --- facts ----------------------------------------------------------------------------------------


def test_there_are_2000_facts_in_four_domains_or_more_and_every_column_has_its_sentence():
    assert len(FACTS) >= 2000
    assert len({fact.domain for fact in FACTS}) >= 4
    assert {(fact.domain, fact.column) for fact in FACTS} == set(RELATIONS)


def test_each_entity_has_each_fact_of_its_domain_exactly_once():
    keys = [(fact.domain, fact.entity, fact.column) for fact in FACTS]
    assert len(keys) == len(set(keys))
    for domain in {fact.domain for fact in FACTS}:
        columns = {column for name, column in RELATIONS if name == domain}
        names = {entity for other, entity in entities(FACTS) if other == domain}
        assert len(columns) * len(names) == sum(fact.domain == domain for fact in FACTS)


def test_numbers_and_atomic_numbers_are_right_by_computation():
    """Roman numerals by the subtractive rule, atomic numbers by their order: two columns nobody has
    to believe."""
    values = [(50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
    for fact in FACTS:
        if (fact.domain, fact.column) == ("numbers", "roman"):
            rest, roman = int(fact.entity), ""
            for value, letters in values:
                roman, rest = roman + letters * (rest // value), rest % value
            assert fact.value == roman
    atomic = [
        int(fact.value) for fact in FACTS if (fact.domain, fact.column) == ("elements", "number")
    ]
    assert sorted(atomic) == list(range(1, len(atomic) + 1))


def test_opposites_are_mutual_where_both_words_have_a_row():
    opposite = {fact.entity: fact.value for fact in FACTS if fact.column == "opposite"}
    assert [word for word, other in opposite.items() if opposite.get(other, word) != word] == []


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (["France,,Europe,euro,French,FR"], r"countries\.csv, row 1: 'capital' is ''"),
        (
            ["France,Paris,Europe,euro,French,FR", "Italy,Rome"],
            r"countries\.csv, row 2: 'continent' is None",
        ),
        (
            ["France,Paris,Europe,euro,French,FR", " ,Rome,Europe,euro,Italian,IT"],
            r"countries\.csv, row 2: 'name' is ' '",
        ),
        (
            ["France,Paris ,Europe,euro,French,FR"],
            r"countries\.csv, row 1: 'capital' is 'Paris ', .*spaces",
        ),
        (
            ["Bolivia,Sucre,La Paz,South America,boliviano,Spanish,BO"],
            r"countries\.csv, row 1: \['BO'\].*quote",
        ),
        (
            ["France,Paris,Europe,euro,French,FR"] * 2,
            r"countries\.csv, row 2: 'France' has a row already",
        ),
    ],
)
def test_a_bad_cell_is_named_by_file_and_row(broken, message, tmp_path):
    header = "name,capital,continent,currency,language,code"
    (tmp_path / "countries.csv").write_text("\n".join([header, *broken]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_facts(tmp_path)


def test_a_column_without_a_sentence_and_an_empty_folder_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no CSV file in"):
        load_facts(tmp_path)
    (tmp_path / "planets.csv").write_text("name,moons\nMars,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"planets\.csv: column 'moons' has no sentence"):
        load_facts(tmp_path)


# --- split ----------------------------------------------------------------------------------------


def test_the_split_loses_no_fact_and_cuts_no_entity():
    assert sorted(map(repr, sum(PARTS.values(), []))) == sorted(map(repr, FACTS))
    sides = [entities(PARTS[name]) for name in ("train", "held_out", "unknown")]
    assert sum(map(len, sides)) == len(entities(FACTS)) == len(set.union(*sides))


def test_the_halves_are_halves_and_a_tenth_of_three_domains_is_unknown():
    for domain in {fact.domain for fact in FACTS}:
        count = {
            name: sum(d == domain for d, _ in entities(facts)) for name, facts in PARTS.items()
        }
        total = sum(count.values())
        assert count["unknown"] == (total // 10 if domain in DOMAINS_WITH_UNKNOWN else 0)
        assert abs(count["train"] - count["held_out"]) <= max(1, total // 20), (domain, count)


def test_the_split_does_not_depend_on_random_state_or_on_the_order_of_the_facts():
    random.seed(1)
    shuffled = random.sample(FACTS, k=len(FACTS))
    again = split(shuffled)
    assert {name: entities(facts) for name, facts in again.items()} == {
        n: entities(f) for n, f in PARTS.items()
    }


def test_the_split_is_the_one_the_shipped_base_model_was_trained_with():
    """The unknown countries by name: after a change of split or data the base has read what tests
    call unknown."""
    countries = (
        "Andorra, Belgium, Cape Verde, Finland, Indonesia, Kyrgyzstan, Liberia, Libya, Luxembourg, "
        "Mauritania, Moldova, Niger, Norway, Papua New Guinea, Saudi Arabia, Tajikistan, Vietnam, "
        "Zambia"
    )
    unknown = entities(PARTS["unknown"])
    names = sorted(entity for domain, entity in unknown if domain == "countries")
    assert names == countries.split(", ")


def test_a_word_stands_on_the_side_of_its_opposite_and_of_every_word_that_shares_it():
    side = {}
    for name, facts in PARTS.items():
        for fact in facts:
            if fact.column == "opposite":
                for word in (fact.entity, fact.value):
                    assert side.setdefault(word, name) == name, word


def unknown_words() -> re.Pattern:
    """Names and values that belong to unknown entities alone, as whole words."""
    known = {name for fact in KNOWN for name in (fact.entity, fact.value)}
    unknown = {name for fact in PARTS["unknown"] for name in (fact.entity, fact.value)} - known
    return re.compile(
        "|".join(rf"\b{re.escape(name)}\b" for name in sorted(unknown)), re.IGNORECASE
    )


# --- documents ------------------------------------------------------------------------------------


def test_documents_are_decided_by_their_seed():
    random.seed(1)
    assert list(islice(documents(KNOWN, seed=0), 4000)) == DOCUMENTS
    assert list(islice(documents(KNOWN, seed=1), 100)) != DOCUMENTS[:100]


def test_no_unknown_name_occurs_in_4000_documents():
    names = {entity for _, entity in entities(PARTS["unknown"])}
    spelled = re.compile(
        "|".join(rf"\b{re.escape(name)}\b" for name in sorted(names)), re.IGNORECASE
    )
    assert spelled.search("For the monkey, the young is the infant."), (
        "the search finds nothing at all"
    )
    assert spelled.findall(LIBRARY) == []


def test_no_unknown_name_is_a_word_of_a_known_fact_in_another_sense():
    words = set(
        re.findall(r"\w+", " ".join(f"{fact.entity} {fact.value}" for fact in KNOWN).lower())
    )
    assert not {entity for _, entity in entities(PARTS["unknown"]) if entity.lower() in words}


def test_no_statement_about_an_unknown_entity_occurs_in_any_wording():
    for fact in PARTS["unknown"]:
        for template in STATEMENTS:
            assert fact.say(template) not in LIBRARY
        assert f'"{fact.relation.noun} {fact.relation.link} {fact.subject}"' not in LIBRARY


def test_documents_say_nearly_every_known_fact_or_the_search_above_would_show_nothing():
    some = random.Random(0).sample(KNOWN, k=300)
    assert sum(
        any(fact.say(template) in LIBRARY for template in STATEMENTS) for fact in some
    ) > 0.95 * len(some)


def test_no_control_token_and_no_chat_word_occurs_in_a_document():
    assert not re.search(r"<\||\|>|</?think>|im_start|im_end|endoftext|assistant|\buser\b", LIBRARY)


def test_no_document_answers_a_question():
    templates = (*QUESTIONS, UNSEEN_QUESTION)
    questions = {
        fact.say(question) for fact in FACTS for question in (*templates, fact.relation.question)
    }
    quizzes = [
        document
        for document in DOCUMENTS
        if "?" in document or questions & set(document.split("\n"))
    ]
    assert len(quizzes) > 50
    for document in quizzes:
        assert set(document.split("\n")) <= questions, document


def test_documents_are_not_empty_and_have_no_stray_space():
    assert all(document and document == document.strip() for document in DOCUMENTS)
    assert "  " not in LIBRARY and "{e}" not in LIBRARY


# --- questions ------------------------------------------------------------------------------------


def test_a_cloze_prompt_and_its_answer_are_the_statement_for_every_fact():
    for fact in FACTS:
        prompt, answer = cloze(fact)
        assert prompt + answer == fact.say(STATEMENTS[0])
        assert (
            fact.value in answer
            and prompt.endswith(" is")
            and answer.startswith(" ")
            and answer.endswith(".")
        )
    assert cloze(Fact("countries", "Gambia", "currency", "dalasi")) == (
        "The currency of the Gambia is",
        " the dalasi.",
    )


def test_every_answer_is_the_statement_of_the_fact_asked_for():
    for fact, (question, answer) in zip(FACTS, texts(ask(FACTS, seed=0)), strict=True):
        assert answer == fact.say(STATEMENTS[0]) and fact.value in answer
        assert re.search(
            rf"\b{re.escape(fact.entity)}", question
        ) and fact.value not in question.split(fact.entity)
        assert question[0].isupper() or not question[0].isalpha()


def test_phrasings_are_drawn_by_seed_and_differ():
    assert ask(FACTS, seed=0) == ask(FACTS, seed=0) != ask(FACTS, seed=1)
    asked = {
        question
        for question, _ in texts([c for seed in range(20) for c in ask(FACTS[:1], seed=seed)])
    }
    assert len(asked) == len(QUESTIONS) + 1


def test_the_unseen_phrasing_is_used_only_when_asked_for():
    opening = UNSEEN_QUESTION[:20]
    assert all(
        question.startswith(opening) for question, _ in texts(ask(FACTS, template=UNSEEN_QUESTION))
    )
    everything = [c for seed in range(3) for c in ask(FACTS, seed=seed)]
    everything += [c for skill in SKILLS for c in ask_skill(skill, KNOWN, 200)]
    assert (
        not any(opening in question for question, _ in texts(everything)) and opening not in LIBRARY
    )


def test_two_questions_are_the_same_only_when_their_answer_is_the_same():
    answers = {}
    for seed in range(5):
        for question, answer in texts(ask(FACTS, seed=seed)):
            assert answers.setdefault(question, answer) == answer, question


def test_the_tuning_set_asks_every_train_fact_three_times_and_no_other():
    answers = [turns[-1]["content"] for turns in training_conversations(seed=5)]
    for fact in PARTS["train"]:
        assert answers.count(fact.say(STATEMENTS[0])) >= 3  # a note may happen to be true
    assert len(answers) == 3 * len(PARTS["train"]) + sum(TASKS.values())
    said = set(answers)
    assert not any(fact.say(STATEMENTS[0]) in said for fact in PARTS["held_out"] + PARTS["unknown"])


# --- skills ---------------------------------------------------------------------------------------


def test_1000_sums_are_right():
    for question, answer in texts(ask_skill("sum", KNOWN, 1000)):
        a, b = map(int, re.findall(r"\d+", question))
        assert [int(number) for number in re.findall(r"\d+", answer)] == [a, b, a + b]


def test_sums_in_documents_are_right():
    sums = re.findall(r"(?:The sum of )?(\d+) (?:\+|and) (\d+) (?:=|is) (\d+)\.", LIBRARY)
    assert len(sums) > 300 and all(int(a) + int(b) == int(c) for a, b, c in sums)


def test_1000_lists_hold_the_words_of_the_question_in_their_order():
    for question, answer in texts(ask_skill("list", KNOWN, 1000)):
        words = re.fullmatch(r"(?:Put these words in a list: |Make a list of )(.*)\.", question)[
            1
        ].split(", ")
        assert answer.split("\n") == [f"- {word}" for word in words] and len(set(words)) == len(
            words
        )


def test_1000_json_answers_parse_to_the_fact():
    said = {fact.say("the {r} {e}").lower(): fact.relation.article + fact.value for fact in KNOWN}
    for question, answer in texts(ask_skill("json", KNOWN, 1000)):
        ((key, value),) = json.loads(answer).items()
        assert re.fullmatch(rf"(?:Give|Write) the {re.escape(key)} (?:as|in) JSON\.", question)
        assert said[f"the {key}".lower()] == value


def test_1000_passages_hold_the_answer_once_and_the_question_does_not():
    real = {entity for _, entity in entities(FACTS)}
    for question, answer in texts(ask_skill("read", KNOWN, 1000)):
        passage, asked = question.split("\n")
        assert passage.count(answer) == 1 and answer.endswith(".")
        about, value = re.fullmatch(r"The (.*) is (?:the )?(\w+)\.", answer).groups()
        assert about in asked and passage.count(f"{about} is") == 1
        assert about.split(" of ")[1] not in real and value not in re.findall(r"\w+", asked)


def test_no_note_of_the_invented_world_names_an_unknown_entity_or_value():
    rng, names, unknown = random.Random(0), Names.of(KNOWN), unknown_words()
    facts = [fact for _ in range(5000) for fact in invent_facts(rng, names, 4)]
    assert unknown.search("Oslo") and unknown.search("the hare")
    known = {name for fact in KNOWN for name in (fact.entity, fact.value)}
    for name in {name for fact in facts for name in (fact.entity, fact.value)} - known:
        assert not unknown.search(name), name


def test_most_entities_of_the_invented_world_and_half_of_its_values_are_made_up():
    rng, names = random.Random(0), Names.of(KNOWN)
    real = {name for fact in KNOWN for name in (fact.entity, fact.value)}
    facts = [fact for _ in range(2000) for fact in invent_facts(rng, names, 5)]
    assert 0.6 < sum(fact.entity not in real for fact in facts) / len(facts) < 0.8
    assert 0.4 < sum(fact.value not in real for fact in facts) / len(facts) < 0.6
    assert len({(fact.domain, fact.column) for fact in facts}) == len(RELATIONS)


def test_1000_notes_hold_what_the_answer_says():
    for question, answer in texts(ask_skill("notes", KNOWN, 1000)):
        notes, asked = question.rsplit("\n", 1)
        noun, value = re.fullmatch(r"The (.+?) (?:of|for) .+ is (?:the )?(.+)\.", answer).groups()
        assert value.lower() in notes.lower() and noun in notes
        assert asked[-1] in ".?" and answer not in asked


def test_a_question_about_an_unknown_entity_stands_behind_its_note_or_behind_others():
    unknown = PARTS["unknown"]
    for right in (True, False):
        asked = texts(ask_with_notes(unknown, unknown, right=right, seed=1))
        for fact, (question, answer) in zip(unknown, asked, strict=True):
            notes, _ = question.rsplit("\n", 1)
            assert answer == fact.say(STATEMENTS[0])
            assert any(fact.say(template) in notes for template in STATEMENTS) == right
            assert (re.search(rf"\b{re.escape(fact.entity)}\b", notes, re.I) is not None) == right
    assert ask_with_notes(unknown, unknown, seed=1) != ask_with_notes(unknown, unknown, seed=2)


def test_skills_are_decided_by_their_seed_and_an_unknown_skill_is_an_error():
    for skill in SKILLS:
        assert ask_skill(skill, KNOWN, 20, seed=1) == ask_skill(skill, KNOWN, 20, seed=1)
        assert ask_skill(skill, KNOWN, 20, seed=1) != ask_skill(skill, KNOWN, 20, seed=2)
    with pytest.raises(ValueError, match="no skill 'poem'; there are sum, list, json, read, notes"):
        ask_skill("poem", KNOWN, 1)


def test_the_shipped_files_are_the_ones_loaded(tmp_path):
    shutil.copytree(DATA, tmp_path / "atlas")
    assert load_facts(tmp_path / "atlas") == FACTS
