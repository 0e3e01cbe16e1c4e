"""What the tables gained for something that is watched since its last look, each row counted once.

A spool's rows reach a table in the order of their sequence numbers, so "counted up to here" is one number for each
table and spool. It is kept in the Rollout (or Experiment) and committed together with the counts: a worker that dies
between two looks counts nothing twice and leaves nothing out. Which request a label belongs to is remembered in memory
alone; after a restart it is read again from the tables, from the beginning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from noria.domain.inference import OutcomeKind
from noria.domain.rollout import Arm
from noria.evaluation.payloads import parse, said
from noria.ports import RecordStore

SLACK = timedelta(seconds=15)
"""Rows that reach a table later than this behind newer ones of other spools may be left out of the counts."""
PATIENCE = timedelta(seconds=10)
"""How long a label waits for the record of its request, which another spool may still hold."""
REMEMBERED = 200_000
"""Requests whose answers are kept in memory for labels that come later."""

INFERENCE = [
    "databricks_request_id", "shadow_of", "request_time", "finished_time", "status_code", "response",
    "model_name", "model_version", "route", "outcome", "spool", "sequence", "cache_hit", "logging_error_codes",
    "execution_duration_ms", "cost_usd",
]  # fmt: skip
FEEDBACK = ["request_id", "feedback_time", "label", "score", "spool", "sequence"]
SAYS_NOTHING = (OutcomeKind.REJECTED, OutcomeKind.DISCONNECTED, OutcomeKind.INTERRUPTED)
"""Ends of a request that are the caller's or Noria's own doing, whichever version it went to."""
AGAIN = (-2, -2)
"""The tables' versions where the next look has to read them in any case."""


class Watched(Protocol):
    """What is watched: a rollout or an experiment."""

    @property
    def endpoint(self) -> str:
        """Whose records."""
        ...

    @property
    def started_at(self) -> datetime:
        """Since when."""
        ...

    @property
    def cursor_us(self) -> int:
        """Newest outcome that was looked at."""
        ...

    @property
    def feedback_cursor_us(self) -> int:
        """Newest feedback that was looked at."""
        ...


@dataclass(slots=True)
class Request:
    """One request: which version's answer the caller got, and what each version said (None: not one answer)."""

    given_by: str = ""
    answers: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Following:
    """Reads the tables for something that is watched.

    Args:
        store: Where the tables are.
        timeout: Longest time that a request of the endpoint may take.
    """

    store: RecordStore
    timeout: timedelta
    requests: dict[str, Request] = field(default_factory=dict)
    earliest: str = ""
    """The first request that was seen; ids are sorted by time."""
    labelled: set[tuple[str, str]] = field(default_factory=set)
    fresh: bool = True
    snapshots: tuple[int, int] = AGAIN

    def changed(self) -> tuple[int, int] | None:
        """The tables' versions; None if they are those of the last look."""
        found = (self.store.snapshot("inference"), self.store.snapshot("feedback"))
        return None if found == self.snapshots else found

    def read(self, watched: Watched) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of the feedback and of the inference table that may be new, the feedback first."""
        judgements = self._scan("feedback", FEEDBACK, watched, watched.feedback_cursor_us, SLACK + PATIENCE)
        return judgements, self._scan("inference", INFERENCE, watched, watched.cursor_us, SLACK + self.timeout)

    def _scan(
        self, table: str, columns: list[str], watched: Watched, cursor_us: int, slack: timedelta
    ) -> list[dict[str, Any]]:
        since = watched.started_at
        if not self.fresh:
            since = max(since, datetime.fromtimestamp(cursor_us / 1e6, UTC) - slack)
        rows: list[dict[str, Any]] = self.store.scan(
            table, columns=columns, endpoint=watched.endpoint, since=since
        ).to_pylist()
        return sorted(rows, key=lambda row: (row["spool"], row["sequence"]))

    def remember(self, row: Mapping[str, Any], ref: str, new: bool) -> Any:
        """Keep what a version answered; the response's JSON if anybody still wants to look at it."""
        name = row["shadow_of"] or row["databricks_request_id"]
        request = self.requests.setdefault(name, Request())
        if not row["shadow_of"]:
            self.earliest = min(self.earliest or name, name)
            request.given_by = ref
        if not new and ref in request.answers:
            return None
        body = parse(row["response"] or "")
        given = said(body) if row["outcome"] == OutcomeKind.ANSWERED else []
        request.answers[ref] = (given[0] or "") if len(given) == 1 else None
        while len(self.requests) > REMEMBERED:
            del self.requests[next(iter(self.requests))]
        return body

    def count_labels(
        self,
        refs: Sequence[str],
        judgements: list[dict[str, Any]],
        seen: dict[str, int],
        now: datetime,
    ) -> tuple[list[Arm], bool]:
        """What was said of each version's answers, and whether some of it still waits for the record it is about."""
        arms = [Arm() for _ in refs]
        held: set[str] = set()
        for row in judgements:
            if row["spool"] in held:
                continue
            counted = row["sequence"] <= seen.get(f"feedback:{row['spool']}", 0)
            if not counted and self._may_come(row["request_id"]) and now - row["feedback_time"] < PATIENCE:
                held.add(row["spool"])
                continue
            first_seen(seen, "feedback", row)
            for place, ref in enumerate(refs):
                arm = self._judged(row, ref)
                if not counted:
                    arms[place] += arm
        return arms, bool(held)

    def _may_come(self, request: str) -> bool:
        """Whether the request's record is of this rollout's time and not there yet."""
        return request not in self.requests and request >= self.earliest

    def _judged(self, row: Mapping[str, Any], ref: str) -> Arm:
        """The first thing that was said of one version's answer; a score is about the answer that was given."""
        request = self.requests.get(row["request_id"], Request())
        answer = request.answers.get(ref)
        if answer is None or (row["request_id"], ref) in self.labelled:
            return Arm()
        if row["label"] is not None:
            wrong = row["label"] != answer
        elif row["score"] is not None and request.given_by == ref:
            wrong = row["score"] < 0.5
        else:
            return Arm()
        self.labelled.add((row["request_id"], ref))
        return Arm(labelled=1, wrong=int(wrong))


def cursors(
    watched: Watched, judgements: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> tuple[int, int]:
    """How far outcomes and feedback have been looked at now."""
    return (
        max([watched.cursor_us, *(us(r["finished_time"]) for r in rows if r["finished_time"])]),
        max([watched.feedback_cursor_us, *(us(r["feedback_time"]) for r in judgements)]),
    )


def ref_of(row: Mapping[str, Any]) -> str:
    """`model/version` that a row is about."""
    return f"{row['model_name']}/{row['model_version']}"


def first_seen(seen: dict[str, int], table: str, row: Mapping[str, Any]) -> bool:
    """Whether the row wasn't counted before; it is from now on."""
    key = f"{table}:{row['spool']}"
    if row["sequence"] <= seen.get(key, 0):
        return False
    seen[key] = row["sequence"]
    return True


def us(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return int(moment.timestamp() * 1_000_000)
