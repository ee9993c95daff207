"""The view of two sentences: what is drawn is what the scores count, and the controls move picture
and words."""

import random
import re

import matplotlib
import pytest
import sacrebleu
from torch.testing import assert_close

matplotlib.use("Agg")
from matplotlib.colors import to_rgba
from matplotlib.patches import Arc

from sft_lab.alignment import align, count_chunks
from sft_lab.course.views.overlap import (
    KINDS,
    MOST,
    describe_overlap,
    draw_four_ways,
    draw_overlap,
    draw_pair,
    explore_overlap,
    find_units,
    score_all,
    split_both,
)
from sft_lab.overlap import rouge_l, rouge_n, rouge_s, rouge_w
from sft_lab.plots import ANSWER, BLUE

POLICE = ("the gunman police killed", "police killed the gunman")
TURNED = ("the cat sat on the mat", "on the mat sat the cat")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def random_pairs(count: int = 60) -> list[tuple[list[str], list[str]]]:
    rng = random.Random(0)
    return [
        (rng.choices("abcd", k=rng.randint(1, 9)), rng.choices("abcd", k=rng.randint(1, 9)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("score", KINDS)
def test_units_hold_the_same_words_in_both_sentences(score):
    for one, other in random_pairs():
        for left, right in find_units(one, other, score):
            assert [one[i] for i in left] == [other[j] for j in right]


@pytest.mark.parametrize(("score", "n"), [("ROUGE-1", 1), ("ROUGE-2", 2)])
def test_as_many_n_grams_are_drawn_as_the_score_counts(score, n):
    for one, other in random_pairs():
        units = find_units(one, other, score)
        assert_close(len(units) / max(1, len(one) - n + 1), rouge_n(one, [other], n).precision)
        assert len({right for _, right in units}) == len({left for left, _ in units}) == len(units)


def test_the_subsequence_is_in_order_and_as_long_as_rouge_l_says():
    for one, other in random_pairs():
        pairs = [(i, j) for (i,), (j,) in find_units(one, other, "ROUGE-L")]
        assert all(i < k and j < m for (i, j), (k, m) in zip(pairs, pairs[1:], strict=False))
        assert_close(len(pairs) / len(other), rouge_l(one, [other]).recall)


def test_the_runs_weigh_what_rouge_w_counts():
    for one, other in random_pairs():
        weight = sum(len(left) ** 1.2 for left, _ in find_units(one, other, "ROUGE-W"))
        assert_close(weight ** (1 / 1.2) / len(one), rouge_w(one, [other], weight=1.2).precision)


def test_as_many_pairs_are_drawn_as_rouge_s_counts():
    for one, other in random_pairs():
        all_pairs = max(1, len(other) * (len(other) - 1) // 2)
        found = len(find_units(one, other, "ROUGE-S")) / all_pairs
        assert_close(found, rouge_s(one, [other]).recall)


def test_n_grams_of_bleu_are_those_of_all_four_orders():
    for one, other in random_pairs(20):
        lengths = [len(left) for left, _ in find_units(one, other, "BLEU")]
        for n in range(1, 5):
            alone = rouge_n(one, [other], n).precision
            assert_close(lengths.count(n) / max(1, len(one) - n + 1), alone)


def test_bleu_of_the_bars_is_that_of_a_sentence():
    for one, other in random_pairs(20):
        theirs = sacrebleu.sentence_bleu(" ".join(one), [" ".join(other)], tokenize="none")
        assert_close(score_all(one, other)["BLEU"] * 100, theirs.score)


def test_chunks_are_those_of_the_alignment():
    for one, other in random_pairs():
        pairs, chunks = align(one, other), find_units(one, other, "METEOR")
        assert len(chunks) == count_chunks(pairs)
        joined = [pair for left, right in chunks for pair in zip(left, right, strict=True)]
        assert joined == pairs


def test_words_of_the_table_of_reference_values():
    words = describe_overlap("the gunman kill police", "police killed the gunman", "ROUGE-S")
    assert "1 skip-bigram in both (the gunman)" in words and "F1 0.17" in words
    assert "ROUGE-L 0.50" in words and "ROUGE-1 0.75" in words
    words = describe_overlap("the cat sat on the mat", "the cat is on the mat", "BLEU")
    assert "5 of 6, 3 of 5, 1 of 4, 0 of 3" in words and "BLEU 0.38" in words
    words = describe_overlap(*TURNED, "METEOR")
    assert "3 chunks in both (the cat, sat, on the mat)" in words and "METEOR 0.94" in words
    assert "6 of 6 words of the hypothesis" in words


def test_chinese_is_cut_into_characters_and_joined_again():
    one, other = split_both("今天天气很好", "今天 weather 好")
    assert one == list("今天天气很好") and other == ["今", "天", "weather", "好"]
    assert "今天" in describe_overlap("今天天气很好", "今天的天气真好", "ROUGE-2")
    assert score_all(one, one)["ROUGE-1"] == 1
    assert split_both("Police KILL!", "a b") == (["police", "kill"], ["a", "b"])


def test_matched_words_are_orange_and_the_chosen_bar_is_blue():
    figure = draw_overlap(*POLICE, "ROUGE-L")
    pair, bars = figure.axes
    orange = [
        text.get_text()
        for text in pair.texts
        if text.get_bbox_patch() and text.get_bbox_patch().get_facecolor() == to_rgba(ANSWER)
    ]
    assert orange == ["the", "gunman"] * 2
    names = [label.get_text() for label in bars.get_yticklabels()]
    blue = [bar.get_facecolor() == to_rgba(BLUE) for bar in bars.patches]
    assert [name for name, chosen in zip(names, blue, strict=True) if chosen] == ["ROUGE-L"]
    scores = score_all(*split_both(*POLICE))
    assert_close({n: b.get_width() for n, b in zip(names, bars.patches, strict=True)}, scores)
    assert "ROUGE-L 0.50: 2 words in order" in figure.get_suptitle()


def test_skip_bigrams_are_arcs_and_the_matched_are_blue():
    axes = {ax.get_title(loc="left")[:7]: ax for ax in draw_four_ways(*POLICE).axes}
    arcs = [patch for patch in axes["ROUGE-S"].patches if isinstance(patch, Arc)]
    assert len(arcs) == 12 and sum(arc.get_edgecolor() == to_rgba(BLUE) for arc in arcs) == 4
    assert [ax.get_title(loc="left").split(":")[0] for ax in axes.values()] == [
        "ROUGE-1 1.00",
        "ROUGE-2 0.67",
        "ROUGE-L 0.50",
        "ROUGE-S 0.33",
    ]


def test_n_grams_are_dots_one_for_each():
    (ax,) = draw_pair("the cat sat on the mat", "the cat is on the mat", "BLEU").axes
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 6 + 5 + 4 + 3 and sum(dot.get_color() == BLUE for dot in dots) == 9


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="without words"):
        split_both("...", "a")
    with pytest.raises(ValueError, match=f"{MOST + 1} words: at most"):
        draw_overlap("a", "b " * (MOST + 1))
    with pytest.raises(ValueError, match="score is 'rouge'"):
        describe_overlap("a", "a", "rouge")
    with pytest.raises(ValueError, match="no sentences"):
        explore_overlap({})


def test_the_controls_move_picture_and_words():
    view = explore_overlap({"police": POLICE, "cat": TURNED})
    (chosen, hypothesis, reference, score), picture, words = view.children[:4], *view.children[4:]
    seen = {picture.value}
    assert "ROUGE-L: 2 words in order" in words.value
    score.value = "METEOR"
    seen.add(picture.value)
    assert "METEOR: 2 chunks" in words.value
    chosen.value = "cat"
    seen.add(picture.value)
    assert (hypothesis.value, reference.value) == TURNED and "3 chunks" in words.value
    hypothesis.value = "the cat"
    seen.add(picture.value)
    assert "METEOR: 1 chunk in both (the cat)" in words.value and len(seen) == 4
    assert re.search(r'alt="METEOR: 1 chunk', picture.value)
    hypothesis.value = " ?"
    assert "without words" in words.value and picture.value == ""
