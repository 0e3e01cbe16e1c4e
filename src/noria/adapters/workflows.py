"""Durable execution of the loop's handlers with DBOS, on SQLite or Postgres.

One workflow for each event, under the event's id. DBOS writes every finished step down before the next one begins, so
a worker that is killed resumes at the first step that isn't there. Events of one type and endpoint are handled one at a
time and in order, through a queue with a partition for each; different ones don't wait for one another, so a training
run that takes an hour holds up no window.

Everything DBOS stores is JSON: errors too, as values, so nothing is ever unpickled.
"""

import contextlib
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions, SetWorkflowID

from noria.adapters.codec import decode_event, encode_event, error_from_json, error_to_json
from noria.domain.errors import (
    Cancelled,
    Conflict,
    InvalidData,
    InvalidProject,
    InvalidRequest,
    MissingExtra,
    NoriaError,
    Refused,
    StorageCorrupted,
    UnknownEndpoint,
    UnknownModel,
    UntrustedArtifact,
)
from noria.domain.events import Event
from noria.ports import Handlers

T = TypeVar("T")
log = logging.getLogger(__name__)

QUEUE = "loop"
WORKFLOW = "handle"
APPLICATION_VERSION = "1"
"""Pinned, so that a new release of Noria takes up what the old one left; raise it when steps change their order."""
ATTEMPTS = 4
"""How often a step is tried in all when what went wrong may pass."""
FINAL = (
    Cancelled, Conflict, InvalidData, InvalidProject, InvalidRequest, MissingExtra, Refused, UnknownEndpoint,
    UnknownModel, UntrustedArtifact,
)  # fmt: skip
"""Errors that trying again doesn't cure."""
_TIDY_EVERY_S = 600.0
_UNFINISHED = ["PENDING", "ENQUEUED", "DELAYED"]
_FINISHED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class Closing(BaseException):
    """The worker stops. Not an `Exception`, so that DBOS records no outcome and the workflow resumes next time."""


class DbosWorkflows:
    """`ports.Workflows` on DBOS. One at a time in a process, and one process for a database (the worker's lock).

    Args:
        url: SQLAlchemy URL of the database, `sqlite:///…` or `postgresql://…`.
        handlers: What each type of event sets off; a handler that fails doesn't keep the next one from its turn.
        backoff_s: Pause before a second attempt; it doubles with each further one.
        keep: How long finished workflows stay in the database.
        poll_s: How often the queue is looked at, in seconds; a quarter costs 2.5 per cent of one core.
    """

    _running: ClassVar["DbosWorkflows | None"] = None

    def __init__(
        self,
        url: str,
        handlers: Handlers,
        *,
        backoff_s: float = 1.0,
        keep: timedelta = timedelta(hours=24),
        poll_s: float = 0.25,
    ) -> None:
        if DbosWorkflows._running is not None:
            raise Conflict("A durable engine runs in this process already.", "Close that one first.")
        self._handlers = {kind: tuple(each) for kind, each in handlers.items()}
        self._backoff_s = backoff_s
        self._keep = keep
        self._closing = threading.Event()
        _prepare(url)
        self._workflow = _launch(url, self._handle, poll_s)
        DbosWorkflows._running = self
        threading.Thread(target=self._tidy, name="workflows-tidy", daemon=True).start()

    def start(self, event: Event) -> None:
        """See `ports.Workflows`."""
        kind, body = encode_event(event)
        with SetWorkflowID(event.id), SetEnqueueOptions(queue_partition_key=f"{kind}:{event.endpoint}"):
            DBOS.enqueue_workflow(QUEUE, self._workflow, kind, body)

    def busy(self) -> bool:
        """See `ports.Workflows`."""
        return bool(DBOS.list_workflows(status=_UNFINISHED, limit=1, load_input=False, load_output=False))

    def close(self) -> None:
        """Stop at once. A step under way runs on until the process ends; its result is dropped, it is done again."""
        if DbosWorkflows._running is self:
            self._closing.set()
            DBOS.destroy(destroy_registry=True)
            DbosWorkflows._running = None

    def forget_finished(self, before: datetime) -> int:
        """Delete workflows that finished and were started before then; returns how many."""
        forgotten = 0
        while ids := _finished(before):
            DBOS.delete_workflows(ids)
            forgotten += len(ids)
        return forgotten

    def _tidy(self) -> None:
        while not self._closing.is_set():
            try:
                self.forget_finished(datetime.now(UTC) - self._keep)
            except Exception as error:  # it will be tried again; the loop doesn't depend on it
                if not self._closing.is_set():
                    log.warning("finished workflows could not be deleted: %s", error)
            self._closing.wait(_TIDY_EVERY_S)

    def _handle(self, kind: str, body: str) -> list[str]:
        """The workflow. Returns what went wrong, in words."""
        try:
            event = decode_event(kind, body)
        except StorageCorrupted as error:
            log.error("%s", error)
            return [str(error)]
        problems = [self._turn(handler, event) for handler in self._handlers.get(type(event), ())]
        return [problem for problem in problems if problem]

    def _turn(self, handler: Callable[[Any, Any], None], event: Event) -> str:
        """One handler's turn, with what may pass tried again; returns what went wrong, empty if nothing did."""
        name = getattr(handler, "__qualname__", type(handler).__qualname__)
        steps = _Steps(name, self._backoff_s, self._closing)
        problem = ""
        for attempt in range(ATTEMPTS):
            try:
                handler(event, steps)
                return ""
            except NoriaError as error:
                log.error("%s could not handle %s: %s", name, event.id, error)
                return str(error)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                log.error("%s stumbled over %s", name, event.id, exc_info=True)
                _pause(self._closing, self._backoff_s * 2**attempt)
        return problem


class _Steps:
    """`ports.Steps` of one handler. What a step returned or raised is kept as JSON under the step's name.

    A step runs in a daemon thread, so that closing the worker need not wait for it.
    """

    def __init__(self, handler: str, backoff_s: float, closing: threading.Event) -> None:
        self._handler = handler
        self._backoff_s = backoff_s
        self._closing = closing
        self._done: dict[str, dict[str, Any]] = {}

    def __call__(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """See `ports.Steps`."""
        if name not in self._done:
            self._done[name] = self._durably(name, function, arguments)
        outcome = self._done[name]
        if "error" in outcome:
            raise error_from_json(outcome["error"])
        value: T = outcome["value"]
        return value

    def _durably(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
        _pause(self._closing, 0)
        try:
            return DBOS.run_step({"name": f"{self._handler}: {name}"}, self._outcome, name, function, arguments)
        except Exception:  # DBOS itself failed; while it is being closed that is no news
            _pause(self._closing, 0)
            raise

    def _outcome(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
        """What the step returned or, after the last attempt, raised."""
        failure: BaseException = NoriaError(f"{name} was never tried.")
        for attempt in range(ATTEMPTS):
            try:
                return {"value": _as_json(name, _call(function, arguments, self._closing))}
            except FINAL as error:
                return {"error": error_to_json(error)}
            except Exception as error:
                failure = error
                log.warning("step %s of %s failed", name, self._handler, exc_info=True)
            if attempt + 1 < ATTEMPTS:
                _pause(self._closing, self._backoff_s * 2**attempt)
        return {"error": error_to_json(failure)}


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], closing: threading.Event) -> Any:
    """Call the function in a daemon thread and wait for it, or for the worker to close."""
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((function(*arguments), None))
        except BaseException as error:  # handed to the workflow's thread
            answers.put((None, error if isinstance(error, Exception) else RuntimeError(repr(error))))

    threading.Thread(target=work, name="step", daemon=True).start()
    while True:
        with contextlib.suppress(queue.Empty):
            value, error = answers.get(timeout=0.1)
            if error is not None:
                raise error
            return value
        _pause(closing, 0)


def _pause(closing: threading.Event, seconds: float) -> None:
    """Wait.

    Raises:
        Closing: The worker stops.
    """
    if closing.wait(seconds):
        raise Closing


def _as_json(name: str, value: Any) -> Any:
    """The value as it will be read back, so that a first run sees what a resumed one would."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise InvalidData(
            f"Step {name} returned something that JSON can't hold: {error}.", "Let it return numbers, texts and lists."
        ) from error


def _prepare(url: str) -> None:
    """Make the folder of an SQLite file, and readers that don't block the writer."""
    database = sa.make_url(url).database
    if not url.startswith("sqlite") or not database:
        return
    Path(database).parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise StorageCorrupted(
            f"The workflows' database {database} can't be opened: {error}.",
            "Move it away; runs that were under way will have to be started again.",
        ) from error


def _launch(url: str, handle: Callable[[str, str], list[str]], poll_s: float) -> Callable[[str, str], list[str]]:
    """Start DBOS, which resumes what an earlier worker left, and return the workflow."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:  # else DBOS writes to the console
        logger.addHandler(logging.NullHandler())
    config: DBOSConfig = {
        "name": "noria",
        "system_database_url": url,
        "application_version": APPLICATION_VERSION,
        "executor_id": "worker",
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "WARNING",
        "enable_otlp": False,
        "notification_listener_polling_interval_sec": 4 * poll_s,  # unused here, but closing waits for it
    }
    DBOS(config=config)

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)  # DBOS would give up what a hundred deaths cut off
    def workflow(kind: str, body: str) -> list[str]:
        return handle(kind, body)

    DBOS.launch()
    DBOS.register_queue(QUEUE, partition_concurrency=1, polling_interval_sec=poll_s)
    return workflow


def _finished(before: datetime) -> list[str]:
    """Ids of some finished workflows that were started before then."""
    found = DBOS.list_workflows(
        status=_FINISHED, end_time=before.isoformat(), limit=200, load_input=False, load_output=False
    )
    return [each.workflow_id for each in found]
