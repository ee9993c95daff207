"""Chapter 16b: tasks whose truth is known, scores of outputs against libraries, attacks, and a
recorded point once more."""

import random
from itertools import combinations

import pytest
import sacrebleu
from rouge_score import rouge_scorer

from sft_lab.abstention import auroc
from sft_lab.course.results import read_results
from sft_lab.course.score_runs import (
    ASKED,
    ATTACKS,
    KINDS,
    SCORES,
    SUBJECTS,
    TRAINED,
    Judged,
    attack_summaries,
    corpus_bleu,
    draw_changes,
    draw_pair,
    find_truth,
    held_out_tasks,
    list_said,
    make_tasks,
    mean_of,
    pair_up,
    plant_answers,
    plant_summaries,
    plant_translations,
    read_judged,
    run_scores,
    share_ordered,
    subject_of,
)
from sft_lab.models import load
from sft_lab.overlap import split_words


def judged(truth: float, score: float) -> Judged:
    task = held_out_tasks("answers", 0)[0]
    return Judged(task, "", truth, {"score": score})


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_is_true_and_no_other_one_is(kind):
    tasks = held_out_tasks(kind, 0)
    assert len(tasks) == ASKED[kind]
    assert all(find_truth(task, task.reference) == 1 for task in tasks)
    others = [find_truth(a, b.reference) for a, b in combinations(tasks[:30], 2) if a != b]
    assert max(others) < 1


@pytest.mark.parametrize("kind", ["answers", "translations"])
def test_no_held_out_task_is_trained(kind):
    trained = make_tasks(kind, TRAINED[kind], part="train", seed=0)
    held_out = make_tasks(kind, 10_000, part="held_out", seed=0)
    assert not {task.wanted for task in trained} & {task.wanted for task in held_out}


def test_tasks_are_decided_by_their_seed():
    for kind in KINDS:
        assert make_tasks(kind, 5, part="train", seed=3) == make_tasks(
            kind, 5, part="train", seed=3
        )
        assert make_tasks(kind, 5, part="train", seed=3) != make_tasks(
            kind, 5, part="train", seed=4
        )


def test_truth_of_a_summary_counts_each_fact_once():
    task = held_out_tasks("summaries", 1)[0]
    one, two, three = task.wanted
    assert find_truth(task, f"{one[1]} {two[3]} {three[4]}") == 1
    assert find_truth(task, f"{three[0]} {one[2]}") == pytest.approx(2 * 2 / 5)
    assert find_truth(task, f"{one[0]} {one[1]} {two[0]} {three[0]}") == pytest.approx(6 / 7)
    assert find_truth(task, f"{one[0]} Gold is blue.") == pytest.approx(2 / 5)
    assert find_truth(task, "") == 0
    assert subject_of(task) in one[0]


def test_truth_of_a_translation_knows_who_and_whom():
    task = next(
        task
        for task in make_tasks("translations", 200, part="train", seed=0)
        if task.wanted[3][0].strip("…") in SUBJECTS.values()
    )
    when, who, does, what = (ways[0].strip("…") for ways in task.wanted)
    assert find_truth(task, f"{when}{who}{does}{what}。") == 1
    assert find_truth(task, f"{who}{when}{does}{what}") == 1
    assert find_truth(task, f"{who}{when}{does}{what}!") < 1
    assert find_truth(task, f"{when}{what}{does}{who}。") == 0.5
    assert list_said("translations", "今天我喜欢中国。") == ["今天", "我…", "喜欢", "…中国"]


def test_scores_equal_the_libraries_on_real_outputs():
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    outputs = [one for kind in KINDS[:2] for row in read_judged(kind, 0)[:25] for one in row]
    for one in outputs:
        found = scorer.score(one.task.reference, one.output)
        for ours, theirs in {"ROUGE-1": "rouge1", "ROUGE-2": "rouge2", "ROUGE-L": "rougeL"}.items():
            assert one.scores[ours] == pytest.approx(found[theirs].fmeasure)
        chrf = sacrebleu.sentence_chrf(one.output, [one.task.reference]).score
        assert one.scores["chrF"] == pytest.approx(chrf / 100)
        assert set(one.scores) == set(SCORES)
    for one in (one for row in read_judged("translations", 0) for one in row):
        if not set(one.output.removesuffix("。")) - set("昨今明天我你他她爱喜欢看想书中国水花山海"):
            pair = one.output.removesuffix("。"), [one.task.reference.removesuffix("。")]
            bleu = sacrebleu.sentence_bleu(*pair, tokenize="zh").score
            assert one.scores["BLEU"] == pytest.approx(bleu / 100, abs=1e-6)


def test_the_share_of_one_task_is_auroc():
    rng = random.Random(0)
    for _ in range(1000):
        truths = [0.0, 1.0, *(float(rng.random() < 0.5) for _ in range(6))]
        scores = [rng.randint(0, 4) / 4 for _ in truths]
        group = [judged(*both) for both in zip(truths, scores, strict=True)]
        share = share_ordered([group], lambda one: one.scores["score"])
        assert share == pytest.approx(auroc(scores, [truth == 1 for truth in truths]))


def test_pairs_have_one_task_and_two_truths():
    groups = [[judged(0.0, 1.0), judged(0.0, 2.0)], [judged(0.5, 1.0), judged(1.0, 0.0)]]
    ((better, worse),) = pair_up(groups)
    assert (better.truth, worse.truth) == (1.0, 0.5)
    assert share_ordered(groups, lambda one: one.scores["score"]) == 0
    assert mean_of(groups, lambda one: one.truth) == 0.375


def test_planted_outputs_have_the_truth_they_were_made_for():
    for right, wrong in plant_answers(seed=2):
        assert (right.truth, wrong.truth) == (1, 0) and right.output != right.task.reference
    tasks = make_tasks("summaries", 10, part="held_out", seed=9)
    for group in plant_summaries(tasks, seed=4):
        told, others, wrong, swapped, two, one, twice, *strange, shuffled = group
        assert told.truth == others.truth == 1
        assert wrong.truth == pytest.approx(2 / 3) and two.truth == pytest.approx(4 / 5)
        assert one.truth == 0.5 and twice.truth == pytest.approx(6 / 7)
        assert swapped.truth < 0.7 and shuffled.truth == 0  # equal values may be exchanged
        assert [round(one.truth, 2) for one in strange] == [0.67, 0.86]
    for group in plant_translations(count=10, seed=1):
        truths = [one.truth for one in group[:6]]
        assert truths == pytest.approx([1, 1, 0.5, 0.5, 6 / 7, 0.75])


def test_attacks_do_what_their_names_say():
    honest = attack_summaries("honest", 0)
    found = {name: attack_summaries(name, 0) for name in ATTACKS}
    assert found["one common word"]["ROUGE-1 P"] > 0.95
    assert found["that word 30 times"]["ROUGE-1 P"] < 0.2  # matches are clipped
    shuffled = found["its words, shuffled"]
    assert shuffled["token F1"] == pytest.approx(honest["token F1"], abs=0.01)
    assert shuffled["truth"] == 0
    assert found["copy the passage"]["truth"] == pytest.approx(0.75)  # three of five notes


def test_corpus_bleu_is_that_of_sacrebleu():
    groups = read_judged("answers", 1)
    ours = [one for group in groups for one in group]
    said = [" ".join(split_words(one.output)) for one in ours]
    wanted = [" ".join(split_words(one.task.reference)) for one in ours]
    theirs = sacrebleu.corpus_bleu(said, [wanted], tokenize="none").score
    assert corpus_bleu(groups) == pytest.approx(theirs / 100)


def test_pictures_have_a_row_for_each_text_and_attack():
    ax = draw_pair("a b c", {"right": "c b a", "wrong": "a b d"}, title="t")
    assert len(ax.texts) == 3 * 4
    ax = draw_changes({"short": [0.1, -0.2], "long": [0.0, 0.6]}, ("BLEU", "chrF"), title="t")
    assert [text.get_text() for text in ax.texts] == ["+0.10", "-0.20", "0", "+0.60"]


def test_a_recorded_point_again():
    base, tokenizer = load("atlas-base")
    again = run_scores(base, tokenizer, kind="answers", seed=1)
    (row,) = read_results("16b_outputs", base).select(kind="answers", seed=1)
    assert again.keys() == row.keys() - {"kind", "seed"}
    for name in ("tuned truth", "BLEU", "token F1", "ROUGE-L", "tuned BLEU"):
        assert again[name] == pytest.approx(row[name], abs=0.06)
