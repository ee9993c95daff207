"""Chapter 03: what its short runs read, against slow references."""

import matplotlib
import pytest
import torch
from matplotlib.colors import to_hex

from sft_lab import plots
from sft_lab.batches import pack, pad_batch
from sft_lab.course.label_runs import (
    find_mistaken,
    find_reach,
    guess_forced,
    learn,
    make_exam,
    practice,
    replace_answers,
)
from sft_lab.course.views.xray import draw_policies, draw_reach
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversation, encode_conversations
from sft_lab.plots import ANSWER


@pytest.fixture(autouse=True)
def chapter_style():
    with matplotlib.rc_context():
        plots.style()
        yield
    matplotlib.pyplot.close("all")


def test_practice_is_about_the_training_half_and_the_exam_about_the_other(tokenizer):
    talks = practice(20, seed=1, questions=3)
    assert all(len(turns) == 6 for turns in talks) and talks == practice(20, seed=1, questions=3)
    exam = make_exam(tokenizer, 40)
    trained = {turn["content"] for turns in talks for turn in turns}
    assert not trained & {turns[-1]["content"] for turns in exam.talks}
    for value, example in zip(exam.values, exam.answers, strict=True):
        graded = [label for label in example.labels if label != IGNORE_INDEX]
        assert graded[-len(value) :] == value


def test_a_forced_guess_reads_the_true_prefix_alone(model, tokenizer):
    (example,) = make_exam(tokenizer, 1).answers
    true, forced = guess_forced(model, example)
    start = example.labels.index(true[0])
    for t, guess in enumerate(forced):
        with torch.no_grad():
            logits = model(torch.tensor([example.input_ids[: start + t]])).logits
        assert guess == int(logits[0, -1].argmax())
    assert true == [label for label in example.labels if label != IGNORE_INDEX]


def test_only_answers_with_a_wrong_guess_before_the_value_are_found(model, tokenizer):
    exam = make_exam(tokenizer, 12)
    own = exam.ask(model, tokenizer, 12)
    found = find_mistaken(model, exam, own)
    kept = []
    for value, example, free in zip(exam.values, exam.answers, own, strict=True):
        true, forced = guess_forced(model, example)
        if any(a != b for a, b in zip(true[: -len(value)], forced, strict=False)):
            kept.append((true, forced, free, value))
    assert [tuple(row) for row in found] == kept and found
    for row in found:
        assert row.is_right([0, *row.value]) and not row.is_right([*row.value, 0])


def test_own_output_replaces_the_graded_tokens_and_nothing_else(model, tokenizer):
    talks = practice(3, seed=0, questions=1)
    batch = pad_batch(encode_conversations(talks, tokenizer), tokenizer.pad_token_id)
    ids = replace_answers(batch, model, tokenizer, [turns[:1] for turns in talks])
    graded = batch["labels"] != IGNORE_INDEX
    assert torch.equal(ids[~graded], batch["input_ids"][~graded])
    assert (ids[graded] != batch["input_ids"][graded]).any()


def test_learning_leaves_the_base_as_it_is(model, tokenizer):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for own_output in (False, True):
        learned = learn(model, tokenizer, practice(4, seed=0, questions=1), own_output=own_output)
        assert any(not torch.equal(before[n], t) for n, t in learned.state_dict().items())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_reach_is_causal_and_position_ids_keep_examples_apart(model, tokenizer):
    examples = encode_conversations(practice(2, seed=0, questions=1), tokenizer)
    (row,) = pack(examples, max_tokens=128)
    ids, positions = row["input_ids"], row["position_ids"]
    length = ids.shape[1]
    causal = torch.ones(length, length).tril().bool()
    number = (positions[0] == 0).cumsum(dim=0)
    same = number[:, None] == number[None, :]
    assert torch.equal(find_reach(model, ids), causal)
    assert torch.equal(find_reach(model, ids, position_ids=positions), causal & same)


def test_the_map_of_reach_counts_its_leaks():
    causal = torch.ones(4, 4).tril().bool()
    same = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    figure = draw_reach({"apart": causal & same, "joined": causal}, same)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["apart: 0 leaks", "joined: 4 leaks"]


def test_every_policy_has_a_strip_in_which_graded_tokens_are_orange(tokenizer):
    (turns,) = practice(1, seed=0)
    examples = {
        policy: encode_conversation(turns, tokenizer, graded=policy) for policy in ("last", "all")
    }
    figure = draw_policies(examples, tokenizer, title="two")
    for ax, (policy, example) in zip(figure.axes, examples.items(), strict=True):
        boxes = [to_hex(box.get_facecolor()).upper() for box in ax.patches[: len(example.labels)]]
        assert [colour == ANSWER for colour in boxes] == [
            label != IGNORE_INDEX for label in example.labels
        ]
        assert ax.get_title(loc="left").startswith(f"{policy}: ")
