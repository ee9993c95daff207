"""Numbers as text."""

import pytest

from sft_lab.formats import (
    format_bytes,
    format_count,
    format_number_of,
    format_percent,
    format_share,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (999, "999"),
        (10_400, "10.4 k"),
        (1_049_856, "1.05 M"),
        (134_515_008, "135 M"),
        (999_900_000, "1.00 B"),
    ],
)
def test_counts_read_in_three_digits(count, text):
    assert format_count(count) == text


def test_a_noun_is_in_the_singular_for_one_alone():
    assert [format_number_of(count, "step") for count in (0, 1, 2)] == [
        "0 steps",
        "1 step",
        "2 steps",
    ]


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "0 %"),
        (1.0, "100 %"),
        (0.975, "97.5 %"),
        (0.5, "50 %"),
        (0.9999, "> 99.9 %"),
        (0.0001, "< 0.1 %"),
    ],
)
def test_a_rate_is_never_rounded_to_nothing_or_everything(fraction, text):
    assert format_percent(fraction) == text


def test_numbers_are_written_with_few_digits_and_a_unit():
    sizes = {
        0: "0",
        512: "512 B",
        65_536: "65.5 kB",
        4_764_000: "4.76 MB",
        65_000_000_000: "65.0 GB",
    }
    assert {count: format_bytes(count) for count in sizes} == sizes
    assert [format_share(x) for x in (0, 1, 0.123, 0.0123, 0.00004)] == [
        "0",
        "100 %",
        "12 %",
        "1.2 %",
        "0.004 %",
    ]
