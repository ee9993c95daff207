"""Padding is never graded, grouping loses and repeats nothing, packing splits nothing."""

import random

import pytest
import torch
from tiny import PAD, make_examples
from torch.nn.utils.rnn import pad_sequence

from sft_lab.batches import group_by_length, join_rows, pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example

pytestmark = pytest.mark.numeric


def random_lengths(count: int, *, seed: int) -> list[int]:
    """A realistic mix: most examples short, a few very long (log-normal, median 54 tokens)."""
    rng = random.Random(seed)
    return [min(1024, max(4, round(rng.lognormvariate(4.0, 0.6)))) for _ in range(count)]


def padding_share(lengths: list[int], batches: list[list[int]]) -> float:
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / padded


def test_padding_is_torchs_pad_sequence_on_200_random_batches():
    for seed in range(200):
        examples = make_examples(1 + seed % 9, seed=seed)
        batch = pad_batch(examples, PAD)
        for name, filler, rows in (
            ("input_ids", PAD, [example.input_ids for example in examples]),
            ("labels", IGNORE_INDEX, [example.labels for example in examples]),
            ("attention_mask", 0, [[1] * len(example.input_ids) for example in examples]),
        ):
            rows = [torch.tensor(row) for row in rows]
            assert torch.equal(
                batch[name], pad_sequence(rows, batch_first=True, padding_value=filler)
            ), (seed, name)
            assert batch[name].dtype == torch.int64


def test_padding_is_never_graded_even_when_the_pad_token_is_a_graded_token():
    stop = 7
    batch = pad_batch(
        [Example([5, 6, stop], [IGNORE_INDEX, 6, stop]), Example([5, stop], [IGNORE_INDEX, stop])],
        stop,
    )
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 6, stop], [IGNORE_INDEX, stop, IGNORE_INDEX]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_padding_copies_and_leaves_the_examples_as_they_were():
    examples = [Example([5, 6], [IGNORE_INDEX, 6]), Example([5, 6, 7], [IGNORE_INDEX, 6, 7])]
    before = repr(examples)
    pad_batch(examples, PAD)
    assert repr(examples) == before


def test_an_empty_batch_and_a_missing_pad_token_are_errors():
    with pytest.raises(ValueError, match="nothing to pad"):
        pad_batch([], PAD)
    with pytest.raises(ValueError, match="pad_token_id is None"):
        pad_batch(make_examples(2), None)


def test_every_index_comes_exactly_once_for_300_random_sizes():
    for seed in range(300):
        rng = random.Random(seed)
        count, batch_size = rng.randint(0, 400), rng.randint(1, 40)
        batches = group_by_length(random_lengths(count, seed=seed), batch_size, seed=seed)
        assert sorted(index for batch in batches for index in batch) == list(range(count))
        assert sorted((len(batch) for batch in batches), reverse=True)[:-1] == [batch_size] * (
            len(batches) - 1
        )
        assert len(batches) == -(-count // batch_size)


def test_grouping_is_decided_by_the_seed_alone():
    lengths = random_lengths(500, seed=0)
    random.seed(1)
    first = group_by_length(lengths, 16, seed=3)
    random.seed(2)
    assert group_by_length(lengths, 16, seed=3) == first
    assert group_by_length(lengths, 16, seed=4) != first


def test_another_seed_mixes_other_examples_into_a_batch_and_other_batches_first():
    lengths = random_lengths(3000, seed=0)
    one, other = (group_by_length(lengths, 16, seed=seed) for seed in (0, 1))
    assert not {frozenset(batch) for batch in one} & {frozenset(batch) for batch in other}
    firsts = {
        max(lengths[i] for i in group_by_length(lengths, 16, seed=seed)[0]) for seed in range(20)
    }
    assert len(firsts) > 10, "the first batch of a run should not always be of the same length"


@pytest.mark.parametrize("batch_size", [8, 16, 32])
def test_padding_is_under_a_tenth_of_a_realistic_mix_and_several_times_that_without_grouping(
    batch_size,
):
    lengths = random_lengths(4096, seed=0)
    order = list(range(len(lengths)))
    random.Random(0).shuffle(order)
    unsorted = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    assert padding_share(lengths, group_by_length(lengths, batch_size, seed=0)) < 0.10
    assert padding_share(lengths, unsorted) > 0.40


def test_a_batch_size_below_one_is_an_error():
    with pytest.raises(ValueError, match="batch_size is 0"):
        group_by_length([3, 4], 0, seed=0)


def test_packed_rows_hold_every_example_whole_exactly_once_on_200_random_sets():
    for seed in range(200):
        examples = make_examples(1 + seed % 25, seed=seed)
        max_tokens = random.Random(seed).randint(24, 80)
        found = []
        for row in pack(examples, max_tokens):
            ids, labels, positions = (
                row[name][0].tolist() for name in ("input_ids", "labels", "position_ids")
            )
            assert len(ids) == len(labels) == len(positions) <= max_tokens
            starts = [place for place, position in enumerate(positions) if position == 0]
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                assert positions[start:end] == list(range(end - start))
                assert labels[start] == IGNORE_INDEX
                found.append(Example(ids[start:end], labels[start:end]))
        assert sorted(map(repr, found)) == sorted(map(repr, examples))


def test_the_first_label_of_a_packed_example_is_ignored_even_when_everything_is_graded():
    rows = pack([Example([5, 6, 7], [5, 6, 7]), Example([8, 9], [8, 9])], 8)
    assert [row["labels"].tolist() for row in rows] == [[[IGNORE_INDEX, 6, 7, IGNORE_INDEX, 9]]]


def test_packing_wastes_little_and_an_example_longer_than_a_row_is_an_error():
    examples = make_examples(400)
    tokens = sum(len(example.input_ids) for example in examples)
    assert tokens / (128 * len(pack(examples, 128))) > 0.95
    with pytest.raises(ValueError, match="of 24 tokens does not fit a row of 23"):
        pack([Example([5] * 24, [5] * 24)], 23)


def test_joined_rows_keep_every_row_and_pad_with_an_example_of_its_own():
    for seed in range(50):
        rows = pack(make_examples(9, seed=seed), 50)
        batch = join_rows(rows, PAD)
        for place, row in enumerate(rows):
            length = row["input_ids"].shape[1]
            for name in ("input_ids", "labels", "position_ids"):
                assert torch.equal(batch[name][place, :length], row[name][0])
            assert set(batch["input_ids"][place, length:].tolist()) <= {PAD}
            assert set(batch["labels"][place, length:].tolist()) <= {IGNORE_INDEX}
            padding = batch["position_ids"][place, length:].tolist()
            most = max(int(row["position_ids"].max()) for row in rows) + 1
            assert padding == [position % most for position in range(len(padding))]
