"""A small share of `tools/fuzz_records.py`, and that it would see a lost text and a raw error."""

import warnings
from collections import Counter

import pytest
from fuzz_records import fuzz, make_source

from sft_lab import records
from sft_lab.labels import LabelError, encode_conversations
from sft_lab.records import RecordError, load_conversations


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_give_conversations_or_a_record_error_and_lose_no_text(seed, tmp_path):
    counts, wrong = fuzz(300, seed, tmp_path)
    assert wrong == []
    for kind in ("json", "jsonl", "csv", "parquet"):
        assert counts[kind, "read"] >= 5 and counts[kind, "refused"] >= 5


def test_what_is_read_is_encoded_or_refused_by_its_row(tokenizer, tmp_path):
    encoded = refused = 0
    for number in range(400):
        source, _ = make_source(number, 7, tmp_path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                conversations = load_conversations(source)
        except RecordError:
            continue
        for conversation in reversed(conversations):
            try:
                [example] = encode_conversations([conversation], tokenizer)
            except LabelError as error:
                refused += 1
                [problem] = error.problems
                assert problem.startswith(f"{conversation.place}: ")
            else:
                encoded += 1
                runs = [label != -100 for label in example.labels]
                starts = sum(
                    now and not before for before, now in zip([False, *runs], runs, strict=False)
                )
                assert starts == sum(
                    turn["role"] == "assistant" and turn.get("weight", 1) for turn in conversation
                )
    assert encoded >= 100 and refused >= 3


def test_the_fuzz_sees_lost_texts_and_raw_errors(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(records, "is_read", lambda *_: True)  # every unknown key is silently dropped
        _, wrong = fuzz(150, 0, tmp_path)
        assert wrong and all(" lost: " in problem for problem in wrong)
    with monkeypatch.context() as patch:
        patch.setattr(records, "refuse_keys", lambda *_: None)
        _, wrong = fuzz(400, 0, tmp_path)
        assert any(" lost: " in problem for problem in wrong)
    monkeypatch.setattr(records, "plain", lambda row: 1 / 0)
    counts, wrong = fuzz(50, 0, tmp_path)
    outcomes = Counter(outcome for _, outcome in counts.elements())
    assert outcomes["broken"] == len(wrong) >= 20
    assert "ZeroDivisionError" in wrong[0] and "file " in wrong[0] and " of seed 0" in wrong[0]
