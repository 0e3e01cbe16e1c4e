"""What every durable engine promises, and what DBOS adds: order, independence, resumption, tidiness."""

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes.workflows import MemoryWorkflows
from noria.adapters.workflows import ATTEMPTS, DbosWorkflows
from noria.domain.errors import Conflict, NoriaError, Refused, StorageCorrupted, UpstreamFailed
from noria.domain.events import RunStarted, ScheduleDue, WindowClosed
from noria.ports import Handlers, Steps, Workflows

AT = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
Open = Callable[[Handlers], Workflows]


def window(number: int, endpoint: str = "triage") -> WindowClosed:
    return WindowClosed(endpoint=endpoint, start=AT + number * HOUR, end=AT + (number + 1) * HOUR)


@pytest.fixture(scope="module", autouse=True)
def _database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An empty database whose queue is registered: DBOS takes a second to see a new one."""
    folder = tmp_path_factory.mktemp("template")
    DbosWorkflows(f"sqlite:///{folder}/workflows.db", {}, poll_s=0.02).close()
    EMPTY.append(folder / "workflows.db")


EMPTY: list[Path] = []


def dbos(tmp_path: Path, handlers: Handlers) -> DbosWorkflows:
    if not (tmp_path / "workflows.db").exists():
        shutil.copy(EMPTY[-1], tmp_path / "workflows.db")
    return DbosWorkflows(f"sqlite:///{tmp_path}/workflows.db", handlers, backoff_s=0.01, poll_s=0.02)


@pytest.fixture(params=["memory", "dbos"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    opened: list[Workflows] = []

    def begin(handlers: Handlers) -> Workflows:
        engine = MemoryWorkflows(handlers) if request.param == "memory" else dbos(tmp_path, handlers)
        opened.append(engine)
        return engine

    yield begin
    for engine in opened:
        engine.close()


def settle(engine: Workflows, seconds: float = 30) -> None:
    """Wait until nothing is under way."""
    until(lambda: not engine.busy(), seconds)


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_an_event_reaches_all_its_handlers_in_their_order(start: Open) -> None:
    seen: list[Any] = []
    engine = start({WindowClosed: (lambda e, _: seen.append((1, e)), lambda e, _: seen.append((2, e)))})
    engine.start(window(0))
    settle(engine)
    assert seen == [(1, window(0)), (2, window(0))]


def test_an_event_that_is_told_twice_is_handled_once(start: Open) -> None:
    seen: list[Any] = []
    engine = start({WindowClosed: (lambda e, _: seen.append(e),)})
    engine.start(window(0))
    engine.start(window(0))
    settle(engine)
    engine.start(window(0))
    settle(engine)
    assert seen == [window(0)]


def test_an_event_that_sets_nothing_off_is_finished(start: Open) -> None:
    engine = start({})
    engine.start(window(0))
    settle(engine)
    assert not engine.busy()


def test_a_step_gives_its_result_as_json_would(start: Open) -> None:
    seen: list[Any] = []

    def handler(_: WindowClosed, step: Steps) -> None:
        seen.append(step("pair", lambda a, b: {"pair": (a, b)}, 1, None))

    engine = start({WindowClosed: (handler,)})
    engine.start(window(0))
    settle(engine)
    assert seen == [{"pair": [1, None]}]


def test_a_step_of_one_name_is_done_once(start: Open) -> None:
    done: list[int] = []

    def handler(_: WindowClosed, step: Steps) -> None:
        for _ in range(3):
            step("once", done.append, 1)

    engine = start({WindowClosed: (handler,)})
    engine.start(window(0))
    settle(engine)
    assert done == [1]


def test_what_may_pass_is_tried_again(start: Open) -> None:
    tried: list[int] = []
    got: list[str] = []

    def shaky() -> str:
        tried.append(1)
        if len(tried) < 3:
            raise UpstreamFailed("Nobody answers.")
        return "well"

    engine = start({WindowClosed: (lambda _, step: got.append(step("shaky", shaky)),)})
    engine.start(window(0))
    settle(engine)
    assert (got, len(tried)) == (["well"], 3)


def test_a_refusal_is_not_tried_again_and_keeps_its_words(start: Open) -> None:
    tried: list[int] = []
    got: list[NoriaError] = []

    def refuse() -> None:
        tried.append(1)
        raise Refused("No verdict.", "Get one.")

    engine = start({WindowClosed: (lambda _, step: got.append(raised(step, refuse)),)})
    engine.start(window(0))
    settle(engine)
    assert (type(got[0]), got[0].problem, got[0].remedy, len(tried)) == (Refused, "No verdict.", "Get one.", 1)


def test_an_error_of_another_kind_arrives_as_one_of_the_domain(start: Open) -> None:
    tried: list[int] = []
    got: list[NoriaError] = []

    def fail() -> None:
        tried.append(1)
        raise ZeroDivisionError("by nothing")

    engine = start({WindowClosed: (lambda _, step: got.append(raised(step, fail)),)})
    engine.start(window(0))
    settle(engine)
    assert (str(got[0]), len(tried)) == ("ZeroDivisionError: by nothing.", ATTEMPTS)


def test_a_result_that_json_cannot_hold_is_an_error(start: Open) -> None:
    got: list[NoriaError] = []
    engine = start({WindowClosed: (lambda _, step: got.append(raised(step, lambda: {1j})),)})
    engine.start(window(0))
    settle(engine)
    assert "JSON" in str(got[0])


def test_a_handler_that_fails_leaves_the_next_one_its_turn(start: Open) -> None:
    seen: list[int] = []

    def fail(_: WindowClosed, step: Steps) -> None:
        raise Refused("Not this one.")

    engine = start({WindowClosed: (fail, lambda *_: seen.append(1))})
    engine.start(window(0))
    settle(engine)
    assert seen == [1]


def test_events_of_one_endpoint_are_handled_in_order_and_one_at_a_time(start: Open) -> None:
    seen: list[str] = []

    def handler(event: WindowClosed, step: Steps) -> None:
        seen.append(f"in {event.start.hour}")
        time.sleep(0.01)
        seen.append(f"out {event.start.hour}")

    engine = start({WindowClosed: (handler,)})
    for number in range(8):
        engine.start(window(number))
    settle(engine)
    assert seen == [f"{way} {n}" for n in range(8) for way in ("in", "out")]


def test_a_long_run_holds_up_neither_windows_nor_other_endpoints(tmp_path: Path) -> None:
    release = threading.Event()
    seen: list[str] = []

    def train(event: RunStarted, step: Steps) -> None:
        step("train", release.wait, 30)
        seen.append("trained")

    engine = dbos(tmp_path, {RunStarted: (train,), WindowClosed: (lambda e, _: seen.append(e.endpoint),)})
    try:
        engine.start(RunStarted(endpoint="triage", run_id="r"))
        engine.start(window(0))
        engine.start(window(0, "other"))
        until(lambda: sorted(seen) == ["other", "triage"])
        assert engine.busy()
        release.set()
        settle(engine)
        assert seen[-1] == "trained"
    finally:
        engine.close()


def test_a_step_that_was_cut_short_is_done_again_and_a_finished_one_is_not(tmp_path: Path) -> None:
    hold, done = threading.Event(), []

    def handler(_: WindowClosed, step: Steps) -> None:
        step("first", done.append, "first")
        step("second", second)
        step("third", done.append, "third")

    def second() -> None:
        done.append("second")
        if done.count("second") == 1:
            hold.wait(30)

    engine = dbos(tmp_path, {WindowClosed: (handler,)})
    engine.start(window(0))
    until(lambda: "second" in done)
    engine.close()
    engine = dbos(tmp_path, {WindowClosed: (handler,)})
    try:
        settle(engine)
    finally:
        hold.set()
        engine.close()
    assert done == ["first", "second", "second", "third"]


def test_what_was_cut_short_a_thousand_times_is_still_gone_on_with(tmp_path: Path) -> None:
    hold, done = threading.Event(), []

    def second() -> None:
        done.append("second")
        if done.count("second") == 1:
            hold.wait(30)

    def handler(_: WindowClosed, step: Steps) -> None:
        step("second", second)

    engine = dbos(tmp_path, {WindowClosed: (handler,)})
    engine.start(window(0))
    until(lambda: "second" in done)
    engine.close()
    with closing(sqlite3.connect(tmp_path / "workflows.db")) as connection, connection:
        connection.execute("UPDATE workflow_status SET recovery_attempts = 1000")
    engine = dbos(tmp_path, {WindowClosed: (handler,)})
    try:
        settle(engine)
    finally:
        hold.set()
        engine.close()
    assert done == ["second", "second"]


def test_closing_is_no_failure_for_the_handler(tmp_path: Path) -> None:
    begun, hold, failed = threading.Event(), threading.Event(), []

    def wait() -> None:
        begun.set()
        hold.wait(30)

    def handler(_: WindowClosed, step: Steps) -> None:
        try:
            step("long", wait)
        except Exception as error:
            failed.append(error)

    engine = dbos(tmp_path, {WindowClosed: (handler,)})
    engine.start(window(0))
    assert begun.wait(30)
    engine.close()
    time.sleep(0.3)
    hold.set()
    assert failed == []


def test_a_handler_that_stumbles_between_steps_is_tried_again_without_repeating_them(tmp_path: Path) -> None:
    done: list[str] = []

    def handler(_: WindowClosed, step: Steps) -> None:
        step("first", done.append, "first")
        done.append("between")
        if done.count("between") == 1:
            raise TimeoutError("the database was locked")
        step("second", done.append, "second")

    engine = dbos(tmp_path, {WindowClosed: (handler,)})
    try:
        engine.start(window(0))
        settle(engine)
    finally:
        engine.close()
    assert done == ["first", "between", "between", "second"]


def test_finished_workflows_are_forgotten_and_waiting_ones_kept(tmp_path: Path) -> None:
    hold = threading.Event()
    handlers = {ScheduleDue: (lambda *_: None,), WindowClosed: (lambda _, step: step("wait", hold.wait, 30),)}
    engine = dbos(tmp_path, handlers)
    try:
        engine.start(ScheduleDue(endpoint="triage", at=AT))
        engine.start(window(0))
        until(lambda: engine.forget_finished(datetime.now(UTC) + HOUR) == 1)
        assert engine.forget_finished(datetime.now(UTC) + HOUR) == 0
        assert engine.busy()
    finally:
        hold.set()
        engine.close()


def test_one_engine_runs_in_a_process(tmp_path: Path) -> None:
    engine = dbos(tmp_path, {})
    try:
        with pytest.raises(Conflict):
            dbos(tmp_path, {})
    finally:
        engine.close()


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "workflows.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageCorrupted, match="workflows"):
        dbos(tmp_path, {})


def test_the_engine_keeps_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = dbos(tmp_path, {WindowClosed: (lambda *_: None,)})
    engine.start(window(0))
    settle(engine)
    engine.close()
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("dbos").propagate


def raised(step: Steps, function: Callable[[], Any]) -> NoriaError:
    """What the step raises."""
    with pytest.raises(NoriaError) as caught:
        step("fails", function)
    return caught.value
