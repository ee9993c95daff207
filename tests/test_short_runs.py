"""Short runs: the base stays as it is, the seed decides, and an answer is compared as a whole."""

import pytest
import torch

from sft_lab import atlas, lessons
from sft_lab.course import short_runs
from sft_lab.course.short_runs import answer, count_tokens, share_right, tune_on
from sft_lab.labels import encode_conversations
from sft_lab.models import load


@pytest.fixture(scope="module")
def loaded():
    return load("atlas-base")


def test_a_run_leaves_the_base_and_the_rows_as_they_are_and_the_seed_decides(loaded):
    base, tokenizer = loaded
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    rows = atlas.exam("train", 40)
    order = [talk[0]["content"] for talk in rows]
    first, again, other = (tune_on(base, tokenizer, rows, seed=seed) for seed in (1, 1, 2))
    assert [talk[0]["content"] for talk in rows] == order
    for name, weight in base.state_dict().items():
        assert torch.equal(weight, before[name])
    weights = [next(model.parameters()).detach() for model in (first, again, other)]
    torch.testing.assert_close(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=1e-6)


def test_an_answer_with_work_counts_only_where_the_end_is_asked_for(loaded, monkeypatch):
    base, tokenizer = loaded
    exam = lessons.add_three(2, seed=0)
    worked = [talk[-1]["content"] for talk in lessons.add_three(2, work=True, seed=0)]
    monkeypatch.setattr(short_runs, "answer", lambda *arguments, **how: [worked[0], "No."])
    assert share_right(base, tokenizer, exam) == 0.0
    assert share_right(base, tokenizer, exam, at_end=True) == 0.5


def test_the_last_question_is_asked_with_the_right_answers_before_it(loaded, monkeypatch):
    base, tokenizer = loaded
    asked = []
    monkeypatch.setattr(
        short_runs,
        "generate_responses",
        lambda model, tokenizer, prompts, **how: asked.extend(prompts) or ["x"] * len(prompts),
    )
    talks = lessons.follow_up(atlas.split(atlas.load_facts())["train"], 3, seed=0)
    assert answer(base, tokenizer, talks) == ["x"] * 3
    assert asked == [talk[:3] for talk in talks]


def test_tokens_are_those_of_the_encoded_rows(loaded):
    _, tokenizer = loaded
    rows = lessons.add_three(5, work=True)
    examples = encode_conversations(rows, tokenizer)
    assert count_tokens(tokenizer, rows) == sum(len(example.input_ids) for example in examples)
