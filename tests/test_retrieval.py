"""Looking up: TF-IDF and BM25 against references, ranks, support, and answers with their source."""

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rank_bm25 import BM25Okapi

from sft_lab import retrieval
from sft_lab.models import load
from sft_lab.retrieval import (
    NOT_FOUND,
    FoundAnswer,
    Passage,
    PassageStore,
    answer_from,
    bm25,
    mean_reciprocal_rank,
    recall_at,
    retrieve,
    split_words,
    supports,
    tf_idf,
    write_prompt,
)

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("sun", "moon", "tide", "sea", "is", "the", "of", "a", "red", "7")


def random_store(rng: random.Random) -> PassageStore:
    return PassageStore.of(
        [
            Passage(str(place), " ".join(rng.choices(WORDS[:9], k=rng.randint(1, 12))))
            for place in range(rng.randint(1, 9))
        ]
    )


def dense_tf_idf(store: PassageStore, question: str) -> np.ndarray:
    """The same definition as a matrix over all words, those of the question among them."""
    texts = [split_words(passage.text) for passage in store.passages]
    asked = split_words(question)
    vocabulary = sorted({word for text in [*texts, asked] for word in text})
    counts = np.array([[text.count(word) for word in vocabulary] for text in texts], float)
    held = (counts > 0).sum(axis=0)
    idf = np.log((1 + len(texts)) / (1 + held)) + 1
    matrix, vector = counts * idf, np.array([asked.count(w) for w in vocabulary]) * idf
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
    return matrix @ vector / norms


@pytest.mark.parametrize("seed", range(100))
def test_tf_idf_is_the_cosine_of_two_rows_of_a_matrix(seed):
    rng = random.Random(seed)
    for _ in range(5):
        store = random_store(rng)
        question = " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))
        scores = tf_idf(store, question)
        np.testing.assert_allclose(scores, dense_tf_idf(store, question), atol=1e-12)
        assert scores.min() >= 0 and scores.max() <= 1 + 1e-12


@pytest.mark.parametrize("seed", range(100))
def test_bm25_is_what_the_package_gives_for_the_same_words(seed):
    rng = random.Random(seed)
    for _ in range(5):
        store = random_store(rng)
        question = " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))
        engine = BM25Okapi([split_words(passage.text) for passage in store.passages])
        np.testing.assert_allclose(bm25(store, question), engine.get_scores(split_words(question)))


def test_the_solution_of_15b_1_is_the_package_on_random_cases():
    from chapter_source import find_exercises, read_chapter

    path = ROOT / "chapters" / "15b_retrieval.py"
    cells = find_exercises(read_chapter(path), path)[0]
    space = {"math": math, "Counter": Counter}
    exec(cells[2].source, space)
    rng = random.Random(0)
    for _ in range(500):
        texts = [split_words(passage.text) for passage in random_store(rng).passages]
        question = rng.choices(WORDS, k=rng.randint(1, 6))
        found = space["score_bm25"](texts, question)
        np.testing.assert_allclose(found, BM25Okapi(texts).get_scores(question), atol=1e-12)


def test_a_word_that_no_passage_holds_lowers_every_score():
    store = PassageStore.of([Passage("a", "the sea is red"), Passage("b", "the sun")])
    assert (tf_idf(store, "sea moon") < tf_idf(store, "sea"))[0]
    assert tf_idf(store, "the sea is red")[0] == pytest.approx(1.0)
    assert not tf_idf(store, "moon").any()


def test_the_best_come_first_and_of_equal_ones_the_earlier():
    texts = ("red sea", "the sun", "red sea", "red")
    store = PassageStore.of([Passage(f"p{n}", text) for n, text in enumerate(texts)])
    hits = retrieve(store, "Red sea?", count=3)
    assert [hit.passage.id for hit in hits] == ["p0", "p2", "p3"]
    assert hits[0].score == hits[1].score > hits[2].score
    assert len(retrieve(store, "sun", count=9)) == 4
    by_bm25 = retrieve(store, "sun", count=1, ranking=bm25)
    assert by_bm25[0].passage.text == "the sun"


def test_words_are_letters_and_digits_without_case():
    assert split_words("Who's in Čad, 我爱? B2") == ["who", "s", "in", "čad", "我爱", "b2"]


@pytest.mark.parametrize(
    ("ranks", "at_one", "at_three", "reciprocal"),
    [([1, 2, None, 4], 0.25, 0.5, (1 + 1 / 2 + 1 / 4) / 4), ([1], 1, 1, 1), ([None], 0, 0, 0)],
)
def test_recall_and_reciprocal_rank(ranks, at_one, at_three, reciprocal):
    assert recall_at(ranks, 1) == at_one and recall_at(ranks, 3) == at_three
    assert mean_reciprocal_rank(ranks) == pytest.approx(reciprocal)


@pytest.mark.parametrize(
    ("passage", "answer", "yes"),
    [
        ("For Peru, the capital is Lima.", "The capital of Peru is Lima.", True),
        ("For Peru, the capital is Lima.", "The capital of Peru is Limassol.", False),
        ("For Nigeria, the capital is Abuja.", "The capital of Niger is Abuja.", False),
        ("Lima is the capital of Peru.", "", False),
        ("Lima is the capital of Peru.", "It is the", False),
    ],
)
def test_a_passage_supports_an_answer_whose_words_it_holds(passage, answer, yes):
    assert supports(passage, answer) is yes


@pytest.mark.parametrize(
    ("passages", "message"),
    [
        ([], "an empty store can answer nothing"),
        ([Passage("a", "x"), Passage("a", "y")], r"passages\[1\]: another passage has the id 'a'"),
        ([Passage("a", "x"), Passage("b", " …")], r"passages\[1\], 'b', has no words"),
    ],
)
def test_a_store_that_cannot_work_is_refused(passages, message):
    with pytest.raises(ValueError, match=message):
        PassageStore.of(passages)


def test_what_cannot_be_looked_for_is_refused():
    store = PassageStore.of([Passage("a", "sea")])
    for ranking in (tf_idf, bm25):
        with pytest.raises(ValueError, match="has no words"):
            retrieve(store, " ?! ", ranking=ranking)
    with pytest.raises(ValueError, match="count is 0"):
        retrieve(store, "sea", count=0)
    with pytest.raises(ValueError, match="no rank"):
        recall_at([], 1)
    with pytest.raises(ValueError, match=r"ranks\[1\] is 0: places are counted from 1"):
        mean_reciprocal_rank([1, 0])
    with pytest.raises(TypeError, match="put it into a list"):
        answer_from(None, None, "sea?", store)


def test_passages_stand_in_front_of_the_question():
    assert write_prompt(["A.", "B."], "Q?") == "Notes: A. B.\nQ?"
    assert write_prompt([], "Q?") == "Q?"


def test_an_answer_has_the_passage_that_bears_it_out_or_none(monkeypatch):
    said = {"Peru": "The capital of Peru is Lima.", "Chad": "The capital of Chad is Lima."}
    asked = []

    def answer(model, tokenizer, prompts, **how):
        asked.extend(prompts)
        return [next(text for name, text in said.items() if name in p[-30:]) for p in prompts]

    monkeypatch.setattr(retrieval, "generate_responses", answer)
    store = PassageStore.of(
        [Passage("p", "For Peru, the capital is Lima."), Passage("c", "The Chad is a lake.")]
    )
    questions = ["The capital of Peru?", "The capital of Chad?", "Who sings?"]
    found = answer_from(None, None, questions, store, count=2, least=0.05)
    assert [one.text for one in found] == [said["Peru"], said["Chad"], NOT_FOUND]
    assert [one.source for one in found] == ["p", None, None]
    assert [one.read for one in found] == [("p", "c"), ("c", "p"), ()]
    assert found[2] == FoundAnswer(NOT_FOUND, None, (), 0.0) and len(asked) == 2
    assert asked[0].startswith("Notes: For Peru, the capital is Lima. The Chad is a lake.\n")


def test_the_base_is_asked_with_its_passages():
    model, tokenizer = load("atlas-base")
    store = PassageStore.of([Passage("p", "The capital of Peru is Lima.")])
    (found,) = answer_from(model, tokenizer, ["What is the capital of Peru?"], store, count=1)
    assert found.read == ("p",) and 0 < found.score <= 1 and isinstance(found.text, str)
