"""Near-duplicates: the index finds what comparing every pair finds, and what set algebra in numpy
finds."""

import random

import numpy as np
import pytest

from sft_lab.duplicates import jaccard, near_duplicates, shingles, words

CASES = 1000
WORDS = ("a", "b", "c", "Ü", "42", "what", "is", "我", "爱", "don't")


def random_texts(rng: random.Random, count: int) -> list[str]:
    """Texts that share pieces; empty ones, equal ones and ones shorter than a shingle occur."""
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(0, 9))) for _ in range(count)]
    texts += [rng.choice(texts) + rng.choice(("", ".", " a")), "", "?"]
    rng.shuffle(texts)
    return texts


def similarities(left: list[str], right: list[str], n: int) -> np.ndarray:
    """Jaccard of all pairs from the product of two 0/1 matrices: another way to the same number."""
    sets = [[set(shingles(text, n)) for text in texts] for texts in (left, right)]
    columns = sorted(set().union(*sets[0], *sets[1]))
    holds = [
        np.array([[column in found for column in columns] for found in side], dtype=float)
        for side in sets
    ]
    shared = holds[0] @ holds[1].T if columns else np.zeros((len(left), len(right)))
    sizes = [side.sum(axis=1) if columns else np.zeros(len(side)) for side in holds]
    together = sizes[0][:, None] + sizes[1][None, :] - shared
    return shared / np.maximum(together, 1)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_pairs_are_those_of_comparing_all_with_all(n):
    rng = random.Random(n)
    for _ in range(CASES):
        texts, threshold = random_texts(rng, 6), rng.choice((0.1, 0.34, 0.5, 1.0))
        wanted = similarities(texts, texts, n)
        found = {
            pair[:2]: pair.similarity for pair in near_duplicates(texts, threshold=threshold, n=n)
        }
        expected = {
            (i, j): wanted[i, j]
            for i in range(len(texts))
            for j in range(i + 1, len(texts))
            if wanted[i, j] >= threshold
        }
        assert found == pytest.approx(expected)


def test_pairs_with_other_texts_are_those_of_comparing_all_with_all():
    rng = random.Random(7)
    for _ in range(CASES):
        left, right = random_texts(rng, 4), random_texts(rng, 5)
        wanted = similarities(left, right, 2)
        found = {pair[:2] for pair in near_duplicates(left, right, threshold=0.3, n=2)}
        assert found == set(zip(*map(np.ndarray.tolist, np.nonzero(wanted >= 0.3)), strict=True))


def test_the_pairs_come_in_falling_order_and_each_once():
    pairs = near_duplicates(["a b c", "a b c", "a b d", "x"], threshold=0.1, n=1)
    assert [pair[:2] for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert [pair.similarity for pair in pairs] == [1.0, 0.5, 0.5]


def test_case_and_punctuation_do_not_matter_and_a_chinese_character_is_a_word():
    assert words("What's THIS, 我爱你?") == ["what", "s", "this", "我", "爱", "你"]
    assert shingles("Tell me!", 2) == shingles("tell, ME", 2) == {("tell", "me")}
    assert jaccard(shingles("我爱你", 2), shingles("我爱书", 2)) == pytest.approx(1 / 3)


def test_a_short_text_is_one_shingle_and_an_empty_one_has_none():
    assert shingles("one two", 5) == {("one", "two")}
    assert shingles("?!") == frozenset()
    assert jaccard(frozenset(), frozenset()) == 0.0
    assert near_duplicates(["", "?"], threshold=0.1) == []


@pytest.mark.parametrize(("threshold", "n"), [(0.0, 3), (1.5, 3), (0.5, 0)])
def test_settings_that_mean_nothing_are_refused(threshold, n):
    with pytest.raises(ValueError, match="threshold|n is"):
        near_duplicates(["a"], threshold=threshold, n=n)
