"""How numbers and times are written."""

import math

import pytest

from noria.api.console.words import by_origin, grouped, link, number, odds, percent, points, seconds, when


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "–"), (0, "0"), (5210, "5,210"), (0.0314, "0.031"), (2.996, "3.00"), (21.74, "21.7"), (-0.5, "-0.500"),
     (12345.6, "12,346"), (0.00002, "2.0e-05")],
)  # fmt: skip
def test_numbers_are_as_precise_as_a_reader_needs(value: float | None, written: str) -> None:
    assert number(value) == written


@pytest.mark.parametrize(
    ("log_e", "written"),
    [(None, "–"), (-90, "< 0.01"), (math.log(0.25), "0.25"), (0.0, "1"), (math.log(80), "80"),
     (math.log(12332), "12,332"), (math.log(4.2e9), "4.2 × 10⁹"), (5000.0, "3.0 × 10²¹⁷¹")],
)  # fmt: skip
def test_evidence_is_written_as_odds_however_large(log_e: float | None, written: str) -> None:
    assert odds(log_e) == written


@pytest.mark.parametrize(
    ("value", "written"), [(None, "–"), (0.042, "42 ms"), (11.31, "11.3 s"), (125, "2 min 5 s"), (7260, "2 h 1 min")]
)
def test_durations_are_written_in_the_unit_that_fits(value: float | None, written: str) -> None:
    assert seconds(value) == written


def test_shares_and_their_differences() -> None:
    assert (percent(0.1875), percent(None), points(-0.01), points(0.28), points(None)) == (
        "18.8 %", "–", "−1.0", "+28.0", "–",
    )  # fmt: skip


def test_a_moment_keeps_its_machine_readable_form() -> None:
    assert when("2026-11-23T14:03:22Z") == '<time datetime="2026-11-23T14:03:22Z">2026-11-23 14:03:22</time>'
    assert when(None) == "–"


def test_ids_are_quoted_in_addresses() -> None:
    assert link("runs", 'a b/"c"?d#e') == "/runs/a%20b/%22c%22%3Fd%23e"


def test_numbers_of_groups_and_origins_become_tables() -> None:
    assert grouped({"rows:a:b": 3, "candidate:a:b": 0.5, "gap": 0.1}) == (
        {"a:b": {"rows": 3, "candidate": 0.5}}, {"gap": 0.1},
    )  # fmt: skip
    assert by_origin({"production_rows": 3, "rows": 9, "all_log_e": 1.0}) == (
        {"production": {"rows": 3}, "all": {"log_e": 1.0}}, {"rows": 9},
    )  # fmt: skip
