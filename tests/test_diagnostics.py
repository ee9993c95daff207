"""Probes of a run: each against its definition, on random labels and tiny models; against
transformers and PEFT; and with the faults of chapter 18b planted."""

import copy
import random
from itertools import groupby

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import PAD, make_examples, make_model, make_tokenizer
from tolerances import LOGITS

from sft_lab import atlas, diagnostics
from sft_lab.batches import pad_batch
from sft_lab.course import probe_runs
from sft_lab.course.results import read_results
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora, load_adapter, save_adapter
from sft_lab.models import load
from sft_lab.train import evaluate

STOP = 1  # of the tiny tokenizer


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load("atlas-base")


def random_example(rng: random.Random) -> Example:
    ids = [rng.randrange(2, 60) for _ in range(rng.randint(1, 20))]
    return Example(ids, [i if rng.random() < 0.5 else IGNORE_INDEX for i in ids])


def answers(count: int, seed: int) -> list[Example]:
    """Prompts with one answer each, which ends with the stop token."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt = [rng.randrange(2, 60) for _ in range(rng.randint(1, 6))]
        answer = [*(rng.randrange(2, 60) for _ in range(rng.randint(0, 6))), STOP]
        rows.append(Example(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer))
    return rows


def padded_scores(model, examples) -> torch.Tensor:
    """(B, T, V), by transformers from one padded batch with its mask."""
    batch = pad_batch(examples, PAD)
    with torch.no_grad():
        return model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits


# data


@pytest.mark.parametrize("seed", range(300))
def test_spans_are_the_runs_of_graded_labels(seed):
    example = random_example(random.Random(seed))
    runs = groupby(range(len(example.labels)), lambda t: example.labels[t] != IGNORE_INDEX)
    expected = []
    for graded, places in runs:
        places = list(places)
        if graded:
            expected.append((places[0], places[-1] + 1))
    assert diagnostics.graded_spans(example) == expected


def test_share_counts_tokens_and_not_rows():
    rows = [Example([5], [5]), Example([5, 6, 7], [IGNORE_INDEX] * 3)]
    assert diagnostics.graded_share(rows) == 0.25


def test_graded_text_and_transformers_mask_agree(model_and_tokenizer):
    _, tokenizer = model_and_tokenizer
    talks = atlas.training_conversations(seed=3)[:200]
    talks += [one + other for one, other in zip(talks[:50], talks[50:100], strict=True)]
    for talk, example in zip(talks, encode_conversations(talks, tokenizer), strict=True):
        told = [turn["content"] + "<|im_end|>" for turn in talk if turn["role"] == "assistant"]
        assert diagnostics.graded_text(example, tokenizer) == told
        found = tokenizer.apply_chat_template(
            talk, return_dict=True, return_assistant_tokens_mask=True
        )
        on = [t for t, graded in enumerate(found["assistant_masks"]) if graded]
        assert on == [t for a, b in diagnostics.graded_spans(example) for t in range(a, b)]


def test_prompts_that_are_no_prefix_are_numbered(model_and_tokenizer):
    tokenizer = copy.deepcopy(model_and_tokenizer[1])
    one, other = atlas.exam("held_out", 2)
    talks = [one, one + other, one[:1], other]
    assert diagnostics.prefix_mismatches(talks, tokenizer) == []
    opening = "<|im_start|>assistant\\n"
    tokenizer.chat_template = tokenizer.chat_template.replace(opening, f"{opening}<think>")
    assert diagnostics.prefix_mismatches(talks, tokenizer) == [0, 1, 3]


def test_an_earlier_answer_that_loses_its_think_block_is_found(model_and_tokenizer):
    """As Qwen3's: the block stands in the prompt and in the last answer alone."""
    tokenizer = copy.deepcopy(model_and_tokenizer[1])
    template = tokenizer.chat_template.replace(
        "<|im_start|>assistant\\n'", "<|im_start|>assistant\\n<think></think>'"
    )
    tokenizer.chat_template = template.replace(
        "{{- message.content + '<|im_end|>' }}",
        "{{- ('<think></think>' if loop.last else '') + message.content + '<|im_end|>' }}",
        1,
    )
    one, other = atlas.exam("held_out", 2)
    assert diagnostics.prefix_mismatches([one, one + other], tokenizer) == [1]


# models


@pytest.mark.parametrize("seed", range(20))
def test_positions_are_those_of_one_padded_batch(seed):
    model, rows = make_model(seed=seed), answers(9, seed)
    best = padded_scores(model, rows).argmax(-1)
    places, stops = {}, []
    for row, example in enumerate(rows):
        start = example.labels.count(IGNORE_INDEX)
        for t in range(start, len(example.input_ids)):
            hit = best[row, t - 1].item() == example.input_ids[t]
            is_stop = t == len(example.input_ids) - 1
            (stops if is_stop else places.setdefault(t - start, [])).append(hit)
    expected = [sum(hits) / len(hits) for _, hits in sorted(places.items())]
    assert diagnostics.accuracy_by_position(model, rows) == pytest.approx(
        [*expected, sum(stops) / len(stops)], abs=1e-9
    )


def perfect(model, rows) -> list[Example]:
    """The same rows, with what the model ranks first as its answer."""
    found = []
    for example in rows:
        ids, start = list(example.input_ids), example.labels.count(IGNORE_INDEX)
        for t in range(start, len(ids)):
            ids[t] = padded_scores(model, [Example(ids[:t], ids[:t])])[0, -1].argmax().item()
        found.append(Example(ids, [IGNORE_INDEX] * start + ids[start:]))
    return found


def test_a_model_is_right_about_its_own_answers():
    model = make_model(seed=3)
    rows = perfect(model, answers(6, 3))
    assert set(diagnostics.accuracy_by_position(model, rows)) == {1.0}
    assert diagnostics.shifted_accuracy(model, rows)[1] == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_probability_of_the_stop_token_does_not_depend_on_its_label(seed):
    model, tokenizer, rows = make_model(seed=seed), make_tokenizer(), answers(7, seed)
    scores = padded_scores(model, rows).softmax(-1)
    ends = [len(row.input_ids) - 2 for row in rows]
    expected = sum(scores[i, t, STOP].item() for i, t in enumerate(ends)) / len(rows)
    found = diagnostics.stop_probability(model, tokenizer, rows)
    assert found == pytest.approx(expected, abs=1e-5)
    longer = [row for row in rows if len(row.labels) - row.labels.count(IGNORE_INDEX) > 1]
    hidden = probe_runs.plant("stop not graded", longer)
    assert diagnostics.stop_probability(model, tokenizer, hidden) == pytest.approx(
        diagnostics.stop_probability(model, tokenizer, longer), abs=1e-9
    )


@pytest.mark.parametrize("seed", range(20))
def test_shifted_accuracy_is_that_of_one_padded_batch(seed):
    model, rows = make_model(seed=seed), answers(9, seed)
    best, labels = padded_scores(model, rows).argmax(-1), pad_batch(rows, PAD)["labels"]
    for ahead, share in diagnostics.shifted_accuracy(model, rows).items():
        on = labels[:, ahead:] != IGNORE_INDEX
        hits = (best[:, :-ahead] == labels[:, ahead:])[on]
        assert share == pytest.approx(hits.double().mean().item(), abs=1e-9)


def test_a_probed_model_is_left_as_it_was():
    model, rows = make_model(attention_dropout=0.5), answers(4, 0)
    model.train()
    state = torch.random.get_rng_state()
    one = diagnostics.accuracy_by_position(model, rows)
    diagnostics.stop_probability(model, make_tokenizer(), rows)
    assert model.training and torch.equal(torch.random.get_rng_state(), state)
    assert diagnostics.accuracy_by_position(model, rows) == one  # dropout is off inside
    assert all(weight.grad is None for weight in model.parameters())


# functions


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_our_evaluation_passes_and_a_mean_of_means_does_not(architecture):
    model, tokenizer, rows = make_model(architecture), make_tokenizer(), make_examples(21, seed=1)

    def right(some, size):
        return evaluate(model, tokenizer, some, batch_size=size)["loss"]

    def of_means(some, size):
        parts = [right(some[i : i + size], size) for i in range(0, len(some), size)]
        return sum(parts) / len(parts)

    assert diagnostics.batch_difference(right, rows) < 1e-5
    assert diagnostics.batch_difference(of_means, rows) > 1e-3


def test_accumulation_is_relative_and_keeps_a_copy():
    grads = [torch.zeros(2), torch.zeros(1)]  # written into, as a model's .grad

    def gradient_of(batches):
        values = (3.0, 0.0, 4.0) if len(batches) == 1 else (3.0, 0.0, 3.0)
        grads[0].copy_(torch.tensor(values[:2]))
        grads[1].copy_(torch.tensor(values[2:]))
        return grads

    assert diagnostics.accumulation_difference(gradient_of, answers(3, 0)) == pytest.approx(0.2)


def test_two_evaluations_that_draw_numbers_differ():
    values = iter([1.0, 1.5, 2.0, 2.0])
    assert diagnostics.eval_difference(lambda: next(values)) == 0.5
    assert diagnostics.eval_difference(lambda: next(values)) == 0


def test_answers_that_depend_on_their_batch_are_counted():
    longest = lambda prompts: [f"{p} {max(map(len, prompts))}" for p in prompts]  # noqa: E731
    prompts = ["a", "bb", "ccc", "ddd"]
    assert diagnostics.batch_generation_difference(longest, prompts) == 0.5
    assert diagnostics.batch_generation_difference(list, prompts) == 0


# weights


def tuned_lora(seed: int = 0):
    """LoRA with random B, and its base."""
    base = make_model(seed=seed)
    model = add_lora(copy.deepcopy(base), rank=4)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model, base


def test_largest_b_is_0_before_training_for_ours_and_for_peft():
    base = make_model()
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    assert diagnostics.largest_b(add_lora(copy.deepcopy(base))) == 0
    of_peft = get_peft_model(copy.deepcopy(base), config)
    assert diagnostics.largest_b(of_peft) == 0
    for model in (tuned_lora()[0], of_peft):
        with torch.no_grad():
            name, weight = next(p for p in model.named_parameters() if ".lora_B." in p[0])
            weight[0, 0] = -7
        assert diagnostics.largest_b(model) == 7, name
    with pytest.raises(ValueError, match="a LoRA layer"):
        diagnostics.largest_b(base)


@pytest.mark.parametrize("seed", range(3))
def test_a_reloaded_and_a_merged_adapter_are_the_model(seed, tmp_path):
    model, base = tuned_lora(seed)
    save_adapter(model, tmp_path)
    loaders = {
        "ours": lambda folder: load_adapter(copy.deepcopy(base), folder),
        "peft": lambda folder: PeftModel.from_pretrained(copy.deepcopy(base), folder),
    }
    for load_it in loaders.values():
        assert diagnostics.reload_difference(model, tmp_path, load_it) < LOGITS["atol"]
    assert diagnostics.merge_difference(model) < LOGITS["atol"]
    of_peft = loaders["peft"](tmp_path)
    assert diagnostics.merge_difference(of_peft, lambda m: m.merge_and_unload()) < LOGITS["atol"]
    # a reload that reads nothing, and the base
    fresh = lambda folder: get_peft_model(  # noqa: E731
        copy.deepcopy(base), LoraConfig.from_pretrained(folder)
    )
    assert diagnostics.reload_difference(model, tmp_path, fresh) > 0.01
    assert diagnostics.logit_difference(model, base) > 0.01
    assert diagnostics.logit_difference(model, model) == 0


def test_resume_probes():
    whole = [4.0, 3.0, 2.0, 1.0]
    assert diagnostics.resume_difference(whole, [4.0, 3.0, 2.5, 1.0]) == 0.5
    assert diagnostics.resume_jump(whole, 2, window=1) == -1
    assert diagnostics.resume_jump(whole, 2) == -2  # mean 1.5 behind, 3.5 before
    for step in (0, 4):
        with pytest.raises(ValueError, match="on both sides"):
            diagnostics.resume_jump(whole, step)
    with pytest.raises(ValueError):
        diagnostics.resume_difference(whole, whole[:3])


def test_nothing_to_probe_is_an_error():
    model, tokenizer = make_model(), make_tokenizer()
    ungraded = [Example([3, 4], [IGNORE_INDEX] * 2)]
    for probe in (
        lambda: diagnostics.graded_share([]),
        lambda: diagnostics.accuracy_by_position(model, ungraded),
        lambda: diagnostics.stop_probability(model, tokenizer, ungraded),
        lambda: diagnostics.shifted_accuracy(model, ungraded),
        lambda: diagnostics.batch_difference(lambda rows, size: 0.0, []),
        lambda: diagnostics.batch_generation_difference(list, []),
    ):
        with pytest.raises(ValueError, match="nothing to probe"):
            probe()


# the chapter's runs


@pytest.mark.parametrize("fault", probe_runs.FAULTS)
def test_a_planted_fault_changes_labels_alone(fault, model_and_tokenizer):
    rows = encode_conversations(probe_runs.lessons(count=20), model_and_tokenizer[1])
    planted = probe_runs.plant(fault, rows)
    assert [row.input_ids for row in planted] == [row.input_ids for row in rows]
    assert all(len(row.labels) == len(row.input_ids) for row in planted)
    changed = [row.labels != other.labels for row, other in zip(planted, rows, strict=True)]
    assert all(changed) if fault != "healthy" else not any(changed)


def test_no_lesson_is_asked():
    questions = {talk[-1]["content"] for talk in probe_runs.asked()}
    assert not questions & {talk[-1]["content"] for talk in probe_runs.lessons(0, 2000)}
    for part, count in (("train", 100), ("held_out", 100)):
        talks, lists = probe_runs.mixed_lessons(1, count, part)
        assert len(talks) == count and len(lists) == count // 5
        assert all("\n" in talks[number][-1]["content"] for number in lists)


def test_a_recorded_point_comes_out_again(model_and_tokenizer):
    recorded = read_results("18b_samples", model_and_tokenizer[0])
    found = probe_runs.measure_arm(*model_and_tokenizer, arm="healthy, short", seed=1)
    (row,) = [row for row in recorded.select(arm="healthy, short") if row["seed"] == 1]
    assert found["stop_128"] == pytest.approx(row["stop_128"], rel=0.2)
    assert found["loss"] == pytest.approx(row["loss"], rel=0.1)
    assert found["first_128"] == row["first_128"] == 1


def test_the_real_model_was_recorded_with_three_seeds():
    recorded = read_results("18b_smollm2")
    for arm in ("base", "healthy", "no stop", "late start"):
        assert len(recorded.select(arm=arm)) == 3
