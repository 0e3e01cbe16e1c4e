"""Forgets records when their time is up: what an endpoint's `retention` says, and nothing that is younger."""

from dataclasses import dataclass
from datetime import timedelta

from noria.domain.audit import LOOP
from noria.ports import Clock, RecordStore, StateStore
from noria.settings import Project

TABLES = ("inference", "feedback")
"""Tables that hold what people said. A request counts from when it came, feedback from when it was given."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Deletes old records and writes down that it does.

    Attributes:
        state: For the audit trail.
        records: The tables.
        clock: What old means.
    """

    state: StateStore
    records: RecordStore
    clock: Clock

    def enforce(self, project: Project) -> dict[str, int]:
        """Delete what is older than its endpoint's retention; endpoint → rows that went.

        The audit trail is told first, with the counts: nothing is ever deleted without a trace, though a deletion that
        fails is told of again when it is tried again.
        """
        gone = {}
        for name, endpoint in project.endpoints.items():
            if endpoint.retention is not None and (rows := self._forget(name, endpoint.retention)):
                gone[name] = rows
        return gone

    def _forget(self, endpoint: str, retention: timedelta) -> int:
        before = self.clock.now() - retention
        old = {
            table: self.records.scan(table, columns=["sequence"], endpoint=endpoint, until=before).num_rows
            for table in TABLES
        }
        if not any(old.values()):
            return 0
        evidence = {"before": before.isoformat(), **old}
        reason = f"retention of {endpoint} is {retention}"
        with self.state.change(LOOP, "records.expired", endpoint, reason=reason, evidence=evidence):
            pass
        return sum(self.records.expire(table, endpoint, before) for table, rows in old.items() if rows)
