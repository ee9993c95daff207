"""Scores by name: each is the mean or the corpus score that its library gives, and its intervals
come from questions drawn again."""

import random

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from sft_lab.arguments import SettingError
from sft_lab.measures import MEASURES, check_measures, score_answers
from sft_lab.significance import paired_bootstrap

WORDS = ["lima", "is", "the", "capital", "of", "peru", "rome", "and"]


def draw_texts(rng: random.Random, count: int) -> list[str]:
    """Some of two sentences, some empty, some that repeat."""
    texts = []
    for _ in range(count):
        one, other = (" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(2))
        texts.append(rng.choice(["", one, f"{one}\n{other}"]))
    return texts


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    rng = random.Random(0)
    wanted = [text or "lima" for text in draw_texts(rng, 40)]
    tuned = [
        rng.choice([text, other]) for text, other in zip(wanted, draw_texts(rng, 40), strict=True)
    ]
    return {"base": draw_texts(rng, 40), "tuned": tuned, "references": wanted}


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_is_higher_for_the_model_that_knows_half_of_the_answers(name, texts):
    found = score_answers(name, **texts, resamples=200)
    assert 0 <= found.base <= 1 and 0 <= found.tuned <= 1
    assert found.tuned > found.base or name == "repeated_4grams"
    for value, (low, high) in zip(found[:2], found[2:4], strict=True):
        assert low <= value <= high
    low, high = found.difference_interval
    assert low <= found.tuned - found.base <= high
    assert (low > 0) == (name != "repeated_4grams")


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_means_are_those_of_rouge_score_and_corpus_scores_those_of_sacrebleu(side, texts):
    answers, references = texts[side], texts["references"]
    pairs = list(zip(answers, references, strict=True))

    def score(name: str) -> float:
        return getattr(score_answers(name, **texts, resamples=1), side)

    theirs = {
        "rouge_1": "rouge1",
        "rouge_2": "rouge2",
        "rouge_l": "rougeL",
        "rouge_lsum": "rougeLsum",
    }
    scorer = RougeScorer(list(theirs.values()))
    for ours, name in theirs.items():
        wanted = np.mean([scorer.score(other, answer)[name].fmeasure for answer, other in pairs])
        assert score(ours) == pytest.approx(wanted)
    wanted = BLEU(tokenize="none", force=True).corpus_score(answers, [references]).score
    assert score("bleu") == pytest.approx(wanted / 100) and wanted > 1
    assert score("chrf") == pytest.approx(CHRF().corpus_score(answers, [references]).score / 100)


def test_intervals_of_an_accuracy_are_those_of_the_paired_bootstrap():
    rng = random.Random(1)
    right = [[rng.random() < share for _ in range(60)] for share in (0.4, 0.7)]
    answers = [["lima" if hit else "rome" for hit in hits] for hits in right]
    found = score_answers("exact_match", *answers, ["lima"] * 60)
    for ours, wanted in zip(found[2:], paired_bootstrap(*right), strict=True):
        assert ours == pytest.approx(wanted, abs=0.04)  # two draws, in steps of 1/60


def test_the_interval_of_bleu_is_that_of_whole_corpora_drawn_again(texts):
    """A resample is a corpus: its BLEU is sacrebleu's of the answers drawn."""
    found = score_answers("bleu", **texts, seed=5)
    rng, theirs = np.random.default_rng(0), BLEU(tokenize="none", force=True)
    drawn = []
    for _ in range(300):
        chosen = rng.integers(0, 40, size=40)
        answers, references = ([texts[key][i] for i in chosen] for key in ("tuned", "references"))
        drawn.append(theirs.corpus_score(answers, [references]).score / 100)
    wanted = np.percentile(drawn, [2.5, 97.5])
    assert found.tuned_interval == pytest.approx(wanted, abs=0.04)


def test_the_same_seed_gives_the_same_intervals(texts):
    one, other, third = (score_answers("chrf", **texts, seed=seed) for seed in (1, 1, 2))
    assert one == other and one[:2] == third[:2] and one[2:] != third[2:]


def test_chinese_characters_are_words_where_the_language_says_so():
    texts = (["答案是利马。"], ["利马"], ["利马。"])
    plain = {name: score_answers(name, *texts, resamples=1) for name in ("rouge_1", "bleu")}
    assert all(found[:2] == (0.0, 0.0) for found in plain.values())
    found = score_answers("rouge_1", *texts, language="zh", resamples=1)
    assert found[:2] == (pytest.approx(4 / 7), 1.0)
    assert score_answers("answer_f1", *texts, language="zh", resamples=1).tuned == 1.0


def test_a_rambling_answer_is_scored_in_no_time():
    words = " ".join(random.Random(2).choices(WORDS, k=300))
    assert 0 < score_answers("meteor", [words], [words], ["rome and lima"], resamples=1).base < 1


def test_repetition_does_not_look_at_the_reference():
    found = score_answers("repeated_4grams", ["a b c d a b c d"], ["a b"], ["x"], resamples=1)
    assert found[:2] == (pytest.approx(1 / 5), 0.0)


REFUSED = {
    "a name": ((["rouge_3"], {}, "en"), r"\['rouge_3'\] unknown; there are exact_match, answer_f1"),
    "a text": (("bleu", {}, "en"), "measures is the text 'bleu'; give a list"),
    "a language": ((["bleu"], {}, "fr"), "language is 'fr'; it must be one of 'en', 'zh'"),
    "Chinese as English": (
        (["chrf", "bleu"], {"questions[1]": "利马"}, "en"),
        r"^questions\[1\]: the answer '利马' has no word in language 'en', so bleu would be 0",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_measures_that_would_say_nothing_are_refused(arguments, message):
    with pytest.raises(SettingError, match=message):
        check_measures(*arguments)


def test_measures_that_need_no_words_take_any_script():
    check_measures(["chrf", "exact_match"], {"questions[0]": "利马"}, "en")
    check_measures(["bleu"], {"questions[0]": "利马"}, "zh")
