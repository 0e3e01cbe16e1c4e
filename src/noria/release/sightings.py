"""What the tables gained for one rollout since its last look, each row counted once.

A spool's rows reach a table in the order of their sequence numbers, so "counted up to here" is one number for each
table and spool. It is kept in the Rollout and committed together with the counts: a worker that dies between two looks
counts nothing twice and leaves nothing out. Which request a label belongs to is remembered in memory alone; after a
restart it is read again from the tables, from the beginning of the rollout.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from noria.domain.endpoint import Role
from noria.domain.inference import OutcomeKind
from noria.domain.rollout import Arm, Rollout, Stage
from noria.evaluation.payloads import parse, said
from noria.ports import RecordStore
from noria.release import counts
from noria.release.progress import Look

SLACK = timedelta(seconds=15)
"""Rows that reach a table later than this behind newer ones of other spools may be left out of the counts."""
PATIENCE = timedelta(seconds=10)
"""How long a label waits for the record of its request, which another spool may still hold."""
REMEMBERED = 200_000
"""Requests whose answers are kept in memory for labels that come later."""

_INFERENCE = [
    "databricks_request_id", "shadow_of", "request_time", "finished_time", "status_code", "response",
    "model_name", "model_version", "route", "outcome", "spool", "sequence", "cache_hit", "logging_error_codes",
    "execution_duration_ms",
]  # fmt: skip
_FEEDBACK = ["request_id", "feedback_time", "label", "score", "spool", "sequence"]
_SAYS_NOTHING = (OutcomeKind.REJECTED, OutcomeKind.DISCONNECTED, OutcomeKind.INTERRUPTED)
"""Ends of a request that are the caller's or Noria's own doing, whichever version it went to."""


@dataclass(slots=True)
class _Request:
    """One request: which version's answer the caller got, and what each version said (None: not one answer)."""

    given_by: str = ""
    answers: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Sightings:
    """Reads the tables for one rollout.

    Args:
        store: Where the tables are.
        champion: `model/version` that the candidate is compared with.
        timeout: Longest time that a request of the endpoint may take.
    """

    store: RecordStore
    champion: str
    timeout: timedelta
    _requests: dict[str, _Request] = field(default_factory=dict)
    _earliest: str = ""
    """The first request of this rollout; ids are sorted by time."""
    _labelled: set[tuple[str, str]] = field(default_factory=set)
    _fresh: bool = True
    _snapshots: tuple[int, int] = (-2, -2)

    def look(self, rollout: Rollout, now: datetime) -> tuple[Look, Rollout]:
        """What came in, and the rollout with its cursors moved on (its counts are not touched)."""
        snapshots = (self.store.snapshot("inference"), self.store.snapshot("feedback"))
        if snapshots == self._snapshots:
            return Look(), rollout
        judgements = self._scan("feedback", _FEEDBACK, rollout, rollout.feedback_cursor_us, SLACK + PATIENCE)
        rows = self._scan("inference", _INFERENCE, rollout, rollout.cursor_us, SLACK + self.timeout)
        seen = dict(rollout.seen)
        served, fresh = self._count_requests(rollout, rows, seen)
        judged, waiting = self._count_labels(rollout, judgements, seen, now)
        self._fresh = False
        self._snapshots = (-2, -2) if waiting else snapshots
        look = Look(champion=served[0] + judged[0], candidate=served[1] + judged[1])
        if rollout.stage is Stage.SHADOW:
            look = self._compare(look, fresh, f"{rollout.model}/{rollout.version}")
        moved = replace(
            rollout,
            seen=seen,
            cursor_us=max([rollout.cursor_us, *(_us(r["finished_time"]) for r in rows if r["finished_time"])]),
            feedback_cursor_us=max([rollout.feedback_cursor_us, *(_us(r["feedback_time"]) for r in judgements)]),
        )
        return look, moved

    def _scan(
        self, table: str, columns: list[str], rollout: Rollout, cursor_us: int, slack: timedelta
    ) -> list[dict[str, Any]]:
        since = rollout.started_at
        if not self._fresh:
            since = max(since, datetime.fromtimestamp(cursor_us / 1e6, UTC) - slack)
        rows: list[dict[str, Any]] = self.store.scan(
            table, columns=columns, endpoint=rollout.endpoint, since=since
        ).to_pylist()
        return sorted(rows, key=lambda row: (row["spool"], row["sequence"]))

    def _count_requests(
        self, rollout: Rollout, rows: list[dict[str, Any]], seen: dict[str, int]
    ) -> tuple[tuple[Arm, Arm], set[str]]:
        """What each version did, and the requests that something new is known of."""
        role = Role.SHADOW if rollout.stage is Stage.SHADOW else Role.CANARY
        limit = rollout.slow_ms if rollout.stage is Stage.CANARY else 0.0  # a shadow's copies wait for one another
        candidate, fresh = f"{rollout.model}/{rollout.version}", set[str]()
        arms = [Arm(), Arm()]
        words: tuple[list[str], list[str]] = ([], [])
        for row in rows:
            ref = _ref(row)
            new = _pass(seen, "inference", row)
            body = self._remember(row, ref, new)
            if not new or row["request_time"] < rollout.changed_at or row["outcome"] in _SAYS_NOTHING:
                continue
            if row["cache_hit"]:
                continue
            fresh.add(row["shadow_of"] or row["databricks_request_id"])
            rescued = counts.rescued(row, rollout.endpoint)
            if row["route"] == Role.CHAMPION and (rescued or ref == self.champion):
                side = 0
            elif row["route"] == role and (rescued or ref == candidate):
                side = 1
            else:
                continue
            arms[side] += counts.served(row, rescued, limit, body)
            if (
                not rescued
                and row["outcome"] == OutcomeKind.ANSWERED
                and isinstance(body, dict)
                and isinstance(body.get("choices"), list)
            ):
                words[side].extend(text for text in said(body) if text)
        champion, new_one = (arm + counts.refusals(texts) for arm, texts in zip(arms, words, strict=True))
        return (champion, new_one), fresh

    def _remember(self, row: Mapping[str, Any], ref: str, new: bool) -> Any:
        """Keep what a version answered; the response's JSON if anybody still wants to look at it."""
        name = row["shadow_of"] or row["databricks_request_id"]
        request = self._requests.setdefault(name, _Request())
        if not row["shadow_of"]:
            self._earliest = min(self._earliest or name, name)
            request.given_by = ref
        if not new and ref in request.answers:
            return None
        body = parse(row["response"] or "")
        given = said(body) if row["outcome"] == OutcomeKind.ANSWERED else []
        request.answers[ref] = (given[0] or "") if len(given) == 1 else None
        while len(self._requests) > REMEMBERED:
            del self._requests[next(iter(self._requests))]
        return body

    def _compare(self, look: Look, fresh: set[str], candidate: str) -> Look:
        """The look with what the candidate's copies answered beside the champion's own answers."""
        agreed, similar, differing = 0, 0.0, []
        compared = 0
        for name in sorted(fresh):
            request = self._requests.get(name, _Request())
            ours, theirs = request.answers.get(self.champion), request.answers.get(candidate)
            if request.given_by != self.champion or ours is None or theirs is None:
                continue
            overlap = counts.similarity(ours, theirs)
            compared, similar = compared + 1, similar + overlap
            if counts.plain(ours) == counts.plain(theirs):
                agreed += 1
            else:
                differing.append(name)
        return replace(look, compared=compared, agreed=agreed, similarity=similar, differing=tuple(differing))

    def _count_labels(
        self, rollout: Rollout, judgements: list[dict[str, Any]], seen: dict[str, int], now: datetime
    ) -> tuple[tuple[Arm, Arm], bool]:
        refs = (self.champion, f"{rollout.model}/{rollout.version}")
        arms = [Arm(), Arm()]
        held: set[str] = set()
        for row in judgements:
            if row["spool"] in held:
                continue
            counted = row["sequence"] <= seen.get(f"feedback:{row['spool']}", 0)
            if not counted and self._may_come(row["request_id"]) and now - row["feedback_time"] < PATIENCE:
                held.add(row["spool"])
                continue
            _pass(seen, "feedback", row)
            for place, ref in enumerate(refs):
                arm = self._judged(row, ref)
                if not counted:
                    arms[place] += arm
        return (arms[0], arms[1]), bool(held)

    def _may_come(self, request: str) -> bool:
        """Whether the request's record is of this rollout's time and not there yet."""
        return request not in self._requests and request >= self._earliest

    def _judged(self, row: Mapping[str, Any], ref: str) -> Arm:
        """The first thing that was said of one version's answer; a score is about the answer that was given."""
        request = self._requests.get(row["request_id"], _Request())
        answer = request.answers.get(ref)
        if answer is None or (row["request_id"], ref) in self._labelled:
            return Arm()
        if row["label"] is not None:
            wrong = row["label"] != answer
        elif row["score"] is not None and request.given_by == ref:
            wrong = row["score"] < 0.5
        else:
            return Arm()
        self._labelled.add((row["request_id"], ref))
        return Arm(labelled=1, wrong=int(wrong))


def _ref(row: Mapping[str, Any]) -> str:
    return f"{row['model_name']}/{row['model_version']}"


def _pass(seen: dict[str, int], table: str, row: Mapping[str, Any]) -> bool:
    """Whether the row wasn't counted before; it is from now on."""
    key = f"{table}:{row['spool']}"
    if row["sequence"] <= seen.get(key, 0):
        return False
    seen[key] = row["sequence"]
    return True


def _us(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
