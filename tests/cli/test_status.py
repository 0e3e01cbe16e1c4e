"""What `noria status` shows."""

import io
from typing import Any

import pytest
from rich.console import Console

from fakes.state import FakeState
from fakes.story import NOW, PROJECT, XSS, StoppedClock, tell
from noria.api.status import loop_status
from noria.cli.shared import ago, shown, when
from noria.cli.status import BAR, _bar, _power, view


def status(state: FakeState) -> dict[str, Any]:
    return {**loop_status(state, PROJECT, StoppedClock()), "up": None, "file_changed": False}


@pytest.fixture
def told() -> dict[str, Any]:
    state = FakeState(StoppedClock())
    tell(state)
    return status(state)


def seen(shown: dict[str, Any], width: int = 120) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(view(shown))
    return out.file.getvalue()


def test_everything_worth_knowing_is_on_one_screen(told: dict[str, Any]) -> None:
    text = seen(told)
    for endpoint in told["endpoints"]:
        assert endpoint["name"] in text
        for target in (endpoint["champion"], endpoint["canary"], endpoint["previous"]):
            assert target is None or f"{target['model']}/{target['version']}" in text
        for monitor in endpoint["monitors"]:
            assert f"{monitor['rows']} records" in text
    for title in ("alerts", "runs", "rollouts", "verdicts"):
        assert f"\n{title}" in text
    assert "ALARM" in text
    assert "still to be shipped" in text


def test_it_says_so_when_nothing_runs(told: dict[str, Any]) -> None:
    assert "nothing runs; `noria up` starts it" in seen(told)


def test_it_names_the_address_and_the_worker_when_the_project_is_up(told: dict[str, Any]) -> None:
    children = {"api-0": 8, "api-1": 0, "worker": 9}
    up = {"url": "http://127.0.0.1:8480", "pid": 7, "children": children, "restarts": {"api-0": 2, "worker": 0}}
    text = seen({**told, "up": up})
    assert "api-0 8 (restarts: 2), api-1 down, worker 9" in text
    assert "http://127.0.0.1:8480 (process 7)" in text
    assert "worker" in text


def test_a_changed_or_broken_file_is_mentioned(told: dict[str, Any]) -> None:
    assert "has changed since it was applied" in seen({**told, "file_changed": True})
    assert "noria.yaml can't be read" in seen({**told, "file_changed": None})


def test_a_loop_that_never_turned_is_shown_too() -> None:
    text = seen(status(FakeState(StoppedClock())))
    assert "not in service yet" in text
    assert "none yet" in text


def test_what_people_wrote_is_shown_as_text_and_moves_no_cursor(told: dict[str, Any]) -> None:
    told["worker"]["problems"] = [f"{XSS} [red]x[/red] \x1b[2J"]
    text = seen(told, width=300)
    assert "[red]x[/red]" in text
    assert "\x1b[2J" not in text


@pytest.mark.parametrize(
    ("log_e", "filled"), [(None, 0), (-3.0, 0), (0.0, 0), (2.0, BAR // 2), (4.0, BAR), (900.0, BAR)]
)
def test_the_bar_is_full_at_the_alarm_line(log_e: float | None, filled: int) -> None:
    bar = _bar({"log_e": log_e, "log_threshold": 4.0, "alarms": False})
    assert bar.plain.count("█") == filled
    assert len(bar.plain) == BAR + 1


@pytest.mark.parametrize(
    ("log_e", "text"), [(0.0, "1"), (4.382026634673881, "80"), (900.0, "10^391"), (-20.0, "10^-9"), (None, "?")]
)
def test_evidence_is_readable_however_large(log_e: float | None, text: str) -> None:
    assert _power(log_e) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "never"), (0.4, "0 s ago"), (90, "90 s ago"), (600, "10 min ago"), (10_000, "3 h ago")]
)
def test_ages_have_one_unit(seconds: float | None, text: str) -> None:
    assert ago(seconds) == text


def test_cells_that_hold_parts_are_readable() -> None:
    assert shown({"start": NOW, "end": None}) == "start=2026-11-23 14:03:22 end="
    assert shown([0.5, "a"]) == "0.5, a"
    assert shown([("product", "app")]) == "product, app"


def test_times_are_on_the_readers_clock() -> None:
    assert when(NOW.isoformat()) == when(NOW) == "2026-11-23 14:03:22"
