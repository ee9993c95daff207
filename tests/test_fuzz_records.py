"""A small share of `tools/fuzz_records.py`, and that it would see a lost text and a raw error."""

from collections import Counter

import pytest
from fuzz_records import fuzz

from sft_lab import records


@pytest.mark.parametrize("seed", range(5))
def test_mutated_files_give_conversations_or_a_record_error_and_lose_no_text(seed, tmp_path):
    counts, wrong = fuzz(400, seed, tmp_path)
    assert wrong == []
    for kind in ("json", "jsonl", "csv", "parquet"):
        assert counts[kind, "read"] >= 5 and counts[kind, "refused"] >= 5


def test_the_fuzz_sees_lost_texts_and_raw_errors(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(records, "is_read", lambda *_: True)  # every unknown key is silently dropped
        _, wrong = fuzz(300, 0, tmp_path)
        assert wrong and all(" lost: " in problem for problem in wrong)
    with monkeypatch.context() as patch:
        patch.setattr(records, "refuse_keys", lambda *_: None)
        _, wrong = fuzz(1200, 0, tmp_path)
        assert any(" lost: " in problem for problem in wrong)
    patched = lambda *_: 1 / 0  # noqa: E731
    monkeypatch.setattr(records, "plain", patched)
    counts, wrong = fuzz(50, 0, tmp_path)
    outcomes = Counter(outcome for _, outcome in counts.elements())
    assert outcomes["broken"] == len(wrong) >= 20
    assert "ZeroDivisionError" in wrong[0] and "file " in wrong[0] and " of seed 0" in wrong[0]
