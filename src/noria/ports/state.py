"""The seam of the control plane's memory."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from noria.domain.audit import AuditEvent
from noria.domain.events import Event

T = TypeVar("T")


class Change(Protocol):
    """A transaction on the state: everything in it happens, together with its audit event, or nothing does."""

    def get(self, kind: type[T], id: str) -> T | None:
        """Read within the transaction."""
        ...

    def put(self, noun: object) -> None:
        """Insert or replace a noun: any dataclass of the domain that `adapters/state/sql.py` keeps."""
        ...

    def emit(self, event: Event) -> None:
        """Tell the loop; an event whose id is known already is not told again."""
        ...


class StateStore(Protocol):
    """The control plane's memory: routes, runs, verdicts, rollouts, alerts, monitors, events, audit."""

    def get(self, kind: type[T], id: str) -> T | None:
        """A noun by kind and id (a Route's id is its endpoint)."""
        ...

    def find(self, kind: type[T], *, endpoint: str | None = None, limit: int = 1000) -> list[T]:
        """Nouns of a kind, most recently changed first."""
        ...

    def change(
        self,
        actor: str,
        action: str,
        subject: str,
        *,
        reason: str = "",
        evidence: Mapping[str, object] | None = None,
    ) -> AbstractContextManager[Change]:
        """Begin a change of state; its AuditEvent is written in the same transaction."""
        ...

    def note(self) -> AbstractContextManager[Change]:
        """Begin a transaction of bookkeeping: cursors, evidence counted so far, heartbeats. Not audited."""
        ...

    def revision(self) -> int:
        """A number that grows with every change: cheap enough to poll."""
        ...

    def pending_events(self, limit: int = 100) -> list[Event]:
        """Events that have not been handed to the loop, oldest first."""
        ...

    def mark_handled(self, event_id: str) -> None:
        """The loop's durable engine has the event now."""
        ...

    def audit_trail(self, *, after: int = 0, limit: int | None = None) -> Iterator[AuditEvent]:
        """Audit events in order."""
        ...
