"""METEOR: its exact alignments are the best of all that there are, tried one by one, and its greedy
one is nltk's."""

import random
from collections.abc import Iterator
from itertools import permutations

import pytest
from nltk.translate.meteor_score import meteor_score

from sft_lab.alignment import RULES, align, count_chunks, count_crossings, meteor

CASES = 1000
CAT = ["the", "cat", "sat", "on", "the", "mat"]
MAT = ["on", "the", "mat", "sat", "the", "cat"]


class NoWordNet:
    """WordNet without a synonym."""

    def synsets(self, word: str) -> list:
        return []


def nltk_meteor(hypothesis: list[str], references: list[list[str]]) -> float:
    return meteor_score(references, hypothesis, wordnet=NoWordNet())


def draw_words(rng: random.Random, most: int = 6) -> list[str]:
    return rng.choices("abcde"[: rng.randint(1, 5)], k=rng.randint(0, most))


def list_alignments(hypothesis: list, reference: list) -> list[tuple[tuple[int, int], ...]]:
    """Every way to pair equal words that has as many pairs as any."""

    def extend(i: int, free: tuple[int, ...]) -> Iterator[tuple]:
        if i == len(hypothesis):
            yield ()
            return
        yield from extend(i + 1, free)
        for j in free:
            if reference[j] == hypothesis[i]:
                rest = tuple(other for other in free if other != j)
                yield from (((i, j), *pairs) for pairs in extend(i + 1, rest))

    found = list(extend(0, tuple(range(len(reference)))))
    most = max(map(len, found))
    return [pairs for pairs in found if len(pairs) == most]


def count_chunks_slowly(pairs: tuple[tuple[int, int], ...]) -> int:
    """A pair begins a chunk unless it follows the one before it in both sentences."""
    chunks, last = 0, (-9, -9)
    for i, j in sorted(pairs):
        chunks += (i, j) != (last[0] + 1, last[1] + 1)
        last = (i, j)
    return chunks


def count_crossings_slowly(pairs: tuple[tuple[int, int], ...]) -> int:
    return sum((i - k) * (j - m) < 0 for (i, j), (k, m) in permutations(pairs, 2)) // 2


def test_exact_alignments_are_the_best_of_all_on_1500_pairs():
    rng = random.Random(0)
    for _ in range(1500):
        hypothesis, reference = draw_words(rng), draw_words(rng)
        ways = list_alignments(hypothesis, reference)
        chunks, crossed = align(hypothesis, reference), align(hypothesis, reference, rule=RULES[1])
        assert {tuple(chunks), tuple(crossed)} <= set(ways)
        assert count_chunks(chunks) == min(map(count_chunks_slowly, ways))
        least = min((count_crossings_slowly(way), count_chunks_slowly(way)) for way in ways)
        assert (count_crossings(crossed), count_chunks(crossed)) == least
        best = max(score(len(hypothesis), len(reference), way) for way in ways)
        assert meteor(hypothesis, [reference]) == pytest.approx(best)


def score(hypothesis: int, reference: int, pairs: tuple) -> float:
    """METEOR of sentences of so many words, as the formula stands."""
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / hypothesis, len(pairs) / reference
    mean = 1 / (0.1 / precision + 0.9 / recall)
    return mean * (1 - 0.5 * (count_chunks_slowly(pairs) / len(pairs)) ** 3)


def test_greedy_meteor_equals_nltk_on_1500_sentences_with_several_references():
    rng = random.Random(1)
    for _ in range(1500):
        hypothesis = draw_words(rng, most=12)
        references = [draw_words(rng, most=12) for _ in range(rng.randint(1, 3))]
        wanted = nltk_meteor(hypothesis, references)
        assert meteor(hypothesis, references, rule="greedy") == pytest.approx(wanted, abs=1e-12)


def test_all_rules_agree_with_nltk_where_no_word_repeats_on_1000_sentences():
    rng = random.Random(2)
    for _ in range(CASES):
        hypothesis, reference = (rng.sample("abcdefghij", rng.randint(0, 8)) for _ in range(2))
        wanted = nltk_meteor(hypothesis, [reference])
        for rule in RULES:
            assert meteor(hypothesis, [reference], rule=rule) == pytest.approx(wanted, abs=1e-12)


def count_departures(pairs: int) -> tuple[int, int, int]:
    """Of random pairs of six words of five: where nltk's METEOR is not that of the fewest chunks;
    not that of the fewest crossings; and where its alignment crosses more often than need be."""
    rng, chunks, crossings, crossed = random.Random(3), 0, 0, 0
    for _ in range(pairs):
        hypothesis, reference = (rng.choices("abcde", k=6) for _ in range(2))
        theirs = nltk_meteor(hypothesis, [reference])
        best = meteor(hypothesis, [reference])
        least = meteor(hypothesis, [reference], rule="fewest crossings")
        assert best >= max(theirs, least) - 1e-12  # fewer chunks never score less
        chunks += abs(theirs - best) > 1e-12
        crossings += abs(theirs - least) > 1e-12
        ways = (align(hypothesis, reference, rule=rule) for rule in ("greedy", "fewest crossings"))
        greedy, fewest = map(count_crossings, ways)
        crossed += greedy > fewest
    return chunks, crossings, crossed


def test_nltk_departs_from_both_rules_on_many_of_2000_random_pairs():
    """Its docstring says that the match with the least number of crossings is chosen."""
    chunks, crossings, crossed = count_departures(2000)
    assert 700 < chunks < 900 and 300 < crossings < 650 and 300 < crossed < 900
    assert crossings < chunks


def test_the_cat_on_the_mat_has_its_known_value_under_each_rule():
    by_chunks, by_crossings = align(CAT, MAT), align(CAT, MAT, rule="fewest crossings")
    assert (count_chunks(by_chunks), count_chunks(by_crossings)) == (3, 6)
    assert meteor(CAT, [MAT]) == pytest.approx(0.9375)
    assert meteor(CAT, [MAT], rule="fewest crossings") == pytest.approx(0.5)
    assert nltk_meteor(CAT, [MAT]) == pytest.approx(0.5)
    assert by_chunks == [(0, 4), (1, 5), (2, 3), (3, 0), (4, 1), (5, 2)]


@pytest.mark.parametrize("words", [1, 2, 6])
def test_a_sentence_against_itself_stays_below_one(words):
    sentence = list("abcdef"[:words])
    assert meteor(sentence, [sentence]) == pytest.approx(1 - 0.5 / words**3)


def test_recall_counts_nine_times_as_much_as_precision():
    assert meteor(["a"], [["a", "b"]]) == pytest.approx(0.5 * 0.5 / (0.9 * 1 + 0.1 * 0.5))
    assert meteor(["a", "b"], [["a"]]) == pytest.approx(0.5 * 0.5 / (0.9 * 0.5 + 0.1 * 1))
    assert meteor([], [["a"]]) == meteor(["a"], [[]]) == meteor(["a"], [["b"]]) == 0.0


def test_nltk_lowers_the_case_and_this_course_takes_words_as_they_are():
    assert nltk_meteor(["Lima"], [["lima"]]) == 0.5 and meteor(["Lima"], [["lima"]]) == 0.0


def test_sentences_of_25_words_with_repeats_are_aligned_exactly():
    rng = random.Random(4)
    vocabulary = [f"w{number}" for number in range(14)]
    weights = [1 / (rank + 1) for rank in range(14)]  # a few words are everywhere, as in a language
    for _ in range(4):
        one, other = (rng.choices(vocabulary, weights, k=25) for _ in range(2))
        found = {rule: align(one, other, rule=rule) for rule in RULES}
        assert len({len(pairs) for pairs in found.values()}) == 1
        chunks, crossings = (
            [count(found[rule]) for rule in RULES] for count in (count_chunks, count_crossings)
        )
        assert chunks[0] == min(chunks) and crossings[1] == min(crossings)
        for pairs in found.values():
            assert all(one[i] == other[j] for i, j in pairs)
            assert all(len(set(places)) == len(pairs) for places in zip(*pairs, strict=True))
        turned = align(other, one)  # as many chunks whichever sentence is searched along
        assert count_chunks(turned) == chunks[0]
    words = ["a"] * 400
    assert count_chunks(align(words, words)) == 1


def test_a_search_that_would_take_minutes_ends_with_a_remedy(monkeypatch):
    monkeypatch.setattr("sft_lab.alignment.MOST_STATES", 50)
    rng = random.Random(5)
    one, other = (rng.choices("abcde", k=25) for _ in range(2))
    with pytest.raises(ValueError, match="25 and 25 words repeat .* rule='greedy'"):
        align(one, other)
    assert len(align(one, other, rule="greedy")) > 15


def test_what_would_be_another_score_is_refused():
    with pytest.raises(ValueError, match="rule is 'best'; it must be one of 'fewest chunks'"):
        align(["a"], ["a"], rule="best")
    with pytest.raises(ValueError, match="'the cat' stands where a sequence of words belongs"):
        align("the cat", ["the"])
    with pytest.raises(ValueError, match="'cat' stands where a sequence of words belongs"):
        meteor(["cat"], ["cat"])
    with pytest.raises(ValueError, match="give a list of at least one"):
        meteor(["cat"], [])
