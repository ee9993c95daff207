"""The view of a lookup: passages, tokens, two thresholds, and what the reader is told."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
from sft_lab.chat import encode_prompts, generate_ids
from sft_lab.course.lookup_runs import facts_by_part, unknown_store
from sft_lab.course.views.lookup import (
    Look,
    decide,
    describe_lookup,
    draw_lookup,
    draw_open_book,
    explore_lookup,
    look_up,
)
from sft_lab.documents import QUESTIONS
from sft_lab.models import load
from sft_lab.retrieval import Hit, Passage, write_prompt


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def loaded():
    return load("atlas-base")


def a_look(*, with_passages: bool = True, answer: str = "The capital of Peru is Lima.") -> Look:
    hits = (
        Hit(Passage("Peru/capital", "For Peru, the capital is Lima."), 0.6),
        Hit(Passage("Chad/capital", "N'Djamena is the capital of Chad."), 0.3),
    )
    tokens = ("The", " capital", " of", " Peru", " is", " Lima", ".")
    return Look("The capital of Peru?", hits, with_passages, answer, tokens, (0.9,) * 6 + (0.4,))


def test_a_source_is_a_passage_that_was_read_and_bears_the_answer_out():
    assert a_look().source == "Peru/capital"
    assert a_look(with_passages=False).source is None
    assert a_look(answer="The capital of Peru is Quito.").source is None


@pytest.mark.parametrize(
    ("score", "chance", "shown", "decision"),
    [
        (0.0, 0.0, True, "answered"),
        (0.6, 0.4, True, "answered"),
        (0.61, 0.0, True, "not found"),
        (0.61, 0.0, False, "answered"),
        (0.2, 0.41, True, "unsure"),
        (0.9, 0.9, False, "unsure"),
    ],
)
def test_two_thresholds_decide(score, chance, shown, decision):
    look = a_look(with_passages=shown)
    assert decide(look, score, chance) == decision
    words = describe_lookup(look, score, chance)
    title = draw_lookup(look, score, chance).get_suptitle()
    if decision == "answered":
        source = "Peru/capital" if shown else "none"
        assert f"Answer: The capital of Peru is Lima. Source: {source}" in words
        assert title.endswith(f"source: {source}")
    else:
        assert words.endswith("the answer is: I do not know.")
        assert title.endswith(f"I do not know. ({decision})")


def test_bars_are_the_scores_and_the_chances_and_lines_the_thresholds():
    above, below = draw_lookup(a_look(), 0.2, 0.5).axes
    assert [bar.get_width() for bar in above.patches] == [0.6, 0.3]
    assert [bar.get_height() for bar in below.patches] == [0.9] * 6 + [0.4]
    assert above.lines[0].get_xdata()[0] == 0.2 and below.lines[0].get_ydata()[0] == 0.5
    assert below.patches[-1].get_facecolor() != below.patches[0].get_facecolor()


def test_a_chance_is_the_highest_of_its_step_for_the_answer_is_greedy(loaded):
    model, tokenizer = loaded
    store, fact = unknown_store(), facts_by_part()["unknown"][0]
    look = look_up(model, tokenizer, store, fact.say(QUESTIONS[0]), with_passages=True)
    prompt = write_prompt([hit.passage.text for hit in look.hits], look.question)
    (asked,), (ids,) = (
        encode_prompts(tokenizer, [prompt]),
        generate_ids(model, tokenizer, [prompt], max_new_tokens=50),
    )
    assert len(look.hits) == 3 and len(look.tokens) == len(look.chances) == len(ids)
    for step, chance in enumerate(look.chances):
        with torch.inference_mode():
            logits = model(torch.tensor([asked + ids[:step]])).logits[0, -1]
        assert chance == pytest.approx(logits.softmax(-1).max().item(), abs=1e-4)


def test_the_controls_move_picture_and_words(loaded):
    facts = facts_by_part()["unknown"]
    questions = [fact.say(QUESTIONS[0]) for fact in facts[:2]]
    view = explore_lookup(*loaded, unknown_store(), questions)
    asked, own, shown, sliders, picture, words = view.children
    before = picture.value
    assert "Best passage" in words.value
    shown.value = False
    assert "No passage is shown" in words.value and picture.value != before
    shown.value = True
    sliders.children[0].value = 1.0
    assert "That is below 1.00" in words.value
    own.value = "Who sings?"
    assert picture.value != before
    own.value = " ?! "
    assert "with words in it" in words.value and picture.value == ""
    own.value = ""
    asked.value = questions[1]
    assert picture.value != before


def test_the_schematic_names_a_fault_of_every_step():
    texts = " ".join(text.get_text() for text in draw_open_book().axes[0].texts)
    for part in ("not found", "not read", "passes"):
        assert part in texts
