"""Chapter 03b: labels, weights and measures of its runs against slow references, and recorded
points once more."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F

from sft_lab.batches import pad_batch
from sft_lab.course import mask_runs
from sft_lab.course.label_runs import practice
from sft_lab.course.mask_runs import (
    ASKED,
    KINDS,
    POLICIES,
    TRAINED,
    WATCHED,
    conversations_of,
    count_tokens,
    label_turns,
    only_questions,
    prompt_weighted_nll,
    run_point,
    run_policy,
    share_right,
    tune_until_it_stops_falling,
)
from sft_lab.course.results import read_results
from sft_lab.course.views.mask import (
    draw_lengths,
    draw_policy_results,
    draw_right,
    draw_watched,
    print_verdicts,
)
from sft_lab.course.views.xray import label_tokens
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversations
from sft_lab.losses import response_loss
from sft_lab.significance import judge_claim


@pytest.mark.parametrize("policy", POLICIES)
def test_labels_turn_by_turn_are_those_of_the_template(policy, tokenizer):
    for turns in practice(30, seed=9, questions=3):
        assert label_turns(turns, tokenizer, policy) == label_tokens(turns, tokenizer, policy)


def test_questions_alone_are_the_words_of_the_user(tokenizer):
    for turns in practice(10, seed=2):
        example = only_questions(turns, tokenizer)
        graded = [label for label in example.labels if label != IGNORE_INDEX]
        said = "".join(turn["content"] for turn in turns if turn["role"] == "user")
        assert tokenizer.decode(graded) == said


@pytest.mark.parametrize("kind", KINDS)
def test_no_held_out_question_is_trained_or_watched(kind):
    part = "unknown" if kind == "notes to read" else "held_out"
    exam = conversations_of(kind, part, WATCHED + ASKED, 0)
    answers = [turns[-1]["content"] for turns in exam]
    assert len(set(answers)) == len(answers) == WATCHED + ASKED
    trained = {turns[-1]["content"] for turns in conversations_of(kind, "train", TRAINED, 3)}
    assert len(trained) == TRAINED and not trained & set(answers)


@pytest.mark.parametrize(("kind", "held"), [("notes to read", True), ("notes in front", False)])
def test_only_the_notes_to_read_are_about_what_is_asked(kind, held):
    for question, answer in conversations_of(kind, "train", 50, 1):
        notes = question["content"].split("\n")[0]
        subject, value = answer["content"].rstrip(".").split(" is ")
        entity = subject.split(" of ", 1)[1].removeprefix("the ")
        # a name may stand inside another one: Guinea, Papua New Guinea
        named = re.search(rf"(?<!New )\b{re.escape(entity)}\b(?!-)", notes, re.IGNORECASE)
        assert bool(named) == held
        assert value.removeprefix("the ").casefold() in notes.casefold() or not held


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="no kind 'long prompts'"):
        conversations_of("long prompts", "train", 2, 0)


def test_the_ratios_are_far_apart(tokenizer):
    ratios = []
    for kind in KINDS:
        rows = encode_conversations(conversations_of(kind, "train", 20, 0), tokenizer)
        prompt, answer = count_tokens(rows)
        assert prompt + answer == sum(len(row.input_ids) for row in rows) / 20
        ratios.append(prompt / answer)
    assert ratios[0] > 9 and ratios[1] > 9 and 1.5 < ratios[2] < 3 and ratios[3] < 0.5


def test_the_weighted_loss_is_a_weighted_mean(model, tokenizer):
    rows = encode_conversations(
        [*conversations_of("question alone", "train", 3, 0), *practice(2, 0)], tokenizer
    )
    batch = pad_batch(rows, tokenizer.pad_token_id)
    whole = batch["input_ids"].where(batch["attention_mask"].bool(), IGNORE_INDEX)
    with torch.no_grad():
        logits = model(batch["input_ids"]).logits
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), whole[:, 1:], reduction="none")
    for weight in (0.0, 0.1, 0.7, 1.0):
        weights = torch.where(batch["labels"][:, 1:] == IGNORE_INDEX, weight, 1.0)
        weights[whole[:, 1:] == IGNORE_INDEX] = 0
        expected = (nll * weights).sum() / weights.sum()
        found = prompt_weighted_nll(model, batch, weight).detach()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    masked = prompt_weighted_nll(model, batch, 0.0).detach()
    torch.testing.assert_close(masked, response_loss(logits, batch["labels"]), rtol=1e-4, atol=1e-5)


def test_a_run_keeps_the_weights_of_its_lowest_loss(model, tokenizer, monkeypatch):
    rows = encode_conversations(conversations_of("question alone", "train", 8, 0), tokenizer)
    watched, kept = iter([3.0, 1.0, 2.0, 2.0, 2.0]), []

    def evaluate(now, *_):
        kept.append(copy.deepcopy(now.state_dict()))
        return {"loss": next(watched)}

    monkeypatch.setattr(mask_runs, "evaluate", evaluate)
    tuned, run = tune_until_it_stops_falling(
        model, tokenizer, rows, rows, weight=0.0, seed=0, batch_size=4, every=1, patience=3
    )
    assert (run.best_step, run.steps, run.watched) == (
        2,
        [1, 2, 3, 4, 5],
        [3.0, 1.0, 2.0, 2.0, 2.0],
    )
    for name, tensor in tuned.state_dict().items():
        assert torch.equal(tensor, kept[1][name])
    assert not all(torch.equal(kept[1][name], tensor) for name, tensor in kept[4].items())


def test_right_is_the_share_of_statements(model, tokenizer, monkeypatch):
    kenya = "The capital of Kenya is Nairobi. The currency of Kenya is the shilling."
    exam = [[{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": kenya}]] * 2
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    half = tokenizer(
        "The capital of Kenya is Nairobi. The currency of Kenya is the euro."
    ).input_ids
    said = [[*half, stop], tokenizer(kenya).input_ids]
    monkeypatch.setattr(mask_runs, "generate_ids", lambda *_, **__: said)
    assert share_right(model, tokenizer, exam) == (0.75, 0.5)


@pytest.mark.parametrize(("policy", "seed"), [("assistant", 1), ("all", 4)])
def test_a_recorded_policy_is_measured_again(policy, seed, model, tokenizer):
    recorded = read_results("03b_policies", model)
    again = run_policy(model, tokenizer, policy=policy, seed=seed)
    for measure in ("answers", "questions", "right"):
        band = recorded.measured(measure, policy=policy)
        assert min(band) - 0.1 < again[measure] < max(band) + 0.1


def test_a_recorded_weight_is_measured_again(model, tokenizer):
    recorded = read_results("03b_mask", model)
    again = run_point(model, tokenizer, kind="question alone", weight=1.0, seed=0)
    for measure in ("right", "nll"):
        band = recorded.measured(measure, kind="question alone", weight=1.0)
        assert min(band) - 0.05 < again[measure] < max(band) + 0.05


def test_every_setting_has_five_seeds(model):
    rows = read_results("03b_mask", model).rows
    for kind in KINDS:
        for weight in mask_runs.WEIGHTS:
            found = [row for row in rows if (row["kind"], row["weight"]) == (kind, weight)]
            assert [row["seed"] for row in found] == list(range(5))
            for row in found:
                lowest = min(row["watched"])
                assert row["watched"][row["steps"].index(row["best_step"])] == lowest


def test_the_figures_show_every_recorded_run(model):
    recorded = read_results("03b_mask", model)
    runs = len(KINDS) * len(mask_runs.WEIGHTS) * 5
    watched = draw_watched(recorded)
    lines = [line for ax in watched.axes for line in ax.lines]
    assert len(lines) == 2 * runs  # a line a run, and the dot at its lowest
    for ax in draw_right(recorded).axes:
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert sum(len(line.get_xdata()) for line in dots) == runs
    policies = draw_policy_results(read_results("03b_policies", model))
    assert [len(ax.patches) for ax in policies.axes] == [len(POLICIES)] * 3


def test_the_lengths_are_written_beside_their_bars():
    rows = {"a": {"prompt_tokens": 90.0, "answer_tokens": 10.0}}
    (ax,) = draw_lengths(rows).axes
    assert [text.get_text() for text in ax.texts] == ["90 to 10 tokens: 90% prompt"]
    assert [bar.get_width() for bar in ax.patches] == [90.0, 10.0]


def test_the_printed_words_are_those_of_the_rule(model, capsys):
    recorded = read_results("03b_mask", model)
    words = print_verdicts(recorded, 1.0)
    printed = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(": ")[-1] for line in printed] == list(words.values())
    for (measure, kind), word in words.items():
        masked, graded = (recorded.measured(measure, kind=kind, weight=w) for w in (0.0, 1.0))
        assert word == judge_claim(masked, graded, claim="higher").word
