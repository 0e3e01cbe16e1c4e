"""What was said of an endpoint's answers in a span of time.

Shadows are left out: nobody saw their answers, and their requests are copies.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.endpoint import Role
from noria.domain.inference import OutcomeKind
from noria.evaluation.payloads import outputs
from noria.evaluation.statements import statements
from noria.ports import RecordStore
from noria.settings.monitors import JUDGE

_ANSWERS = ["databricks_request_id", "route", "model_name", "model_version", "outcome", "response"]
_FEEDBACK = ["feedback_id", "request_id", "feedback_time", "label", "score", "source"]
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_HOUR = timedelta(hours=1)
_SKEW = timedelta(seconds=5)
"""An id may have been made that much before or after the time in its record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What somebody said of one answer: between 0 (wrong, bad) and 1 (right, good)."""

    request_id: str
    score: float


def read_judgements(
    records: RecordStore, endpoint: str, since: datetime, until: datetime, model: str, *, judge: str = ""
) -> list[Judgement]:
    """Feedback that came in a span of time on answers of one version, however old these are; the last word on each.

    A label is compared with the answer, if the request asked for a single one; a score counts as it is. What repeats
    an earlier feedback, of this or an earlier span of time, says nothing.

    Args:
        records: The tables.
        endpoint: The endpoint.
        since: From when, included.
        until: Until when, excluded.
        model: The version, `model/version`.
        judge: Whose word counts, `judge:NAME`; empty for people's.
    """
    said = {row["request_id"]: row for row in _said_anew(records, endpoint, since, until, judge)}
    answers = _answers(records, endpoint, _ids(said), model)
    scores = {name: _score(row, answers[name]) for name, row in said.items() if name in answers}
    return [Judgement(request_id=name, score=score) for name, score in scores.items() if score is not None]


def _said_anew(
    records: RecordStore, endpoint: str, since: datetime, until: datetime, judge: str
) -> list[dict[str, Any]]:
    """What people, or a judge, said in a span of time and had not said before, oldest first."""
    rows = records.scan("feedback", columns=_FEEDBACK, endpoint=endpoint, since=since, until=until).to_pylist()
    if not rows:
        return []
    ids = {row["feedback_id"] for row in rows}
    asked = min((span[0] for span in _spans(_ids(row["request_id"] for row in rows))), default=since)
    earlier = []
    if asked < since:  # nobody judges an answer before it was asked for
        found = records.scan("feedback", columns=_FEEDBACK, endpoint=endpoint, since=asked, until=since)
        earlier = found.filter(pc.is_in(found["feedback_id"], pa.array(ids, pa.string()))).to_pylist()
    mine = [row for row in (*earlier, *rows) if _judge_of(row) == judge]
    return [row for row in statements(mine) if row["feedback_time"] >= since]


def _judge_of(row: dict[str, Any]) -> str:
    """The judge who said it; empty for people."""
    source: str = row["source"] or ""
    return source if source.startswith(JUDGE) else ""


def _ids(names: Iterable[str | None]) -> list[str]:
    """Those of the names that Noria may have given."""
    return [name for name in names if _REQUEST_ID.fullmatch(name or "")]  # type: ignore[misc]


def _answers(records: RecordStore, endpoint: str, names: Sequence[str], model: str) -> dict[str, Sequence[str]]:
    """What a version answered to the requests of these ids."""
    wanted, found = set(names), {}
    for since, until in _spans(names):
        for row in records.scan("inference", columns=_ANSWERS, endpoint=endpoint, since=since, until=until).to_pylist():
            name = row["databricks_request_id"]
            if name in wanted and row["route"] != Role.SHADOW and _model(row) == model:
                found[name] = _said(row)
    return found


def _spans(names: Iterable[str]) -> Iterator[tuple[datetime, datetime]]:
    """The hours in which requests of these ids arrived, those that follow one another as one span.

    An id begins with the milliseconds since the epoch (UUID version 7).
    """
    hours = set()
    for name in names:
        seconds = int(name[:12], 16) / 1000
        if seconds < 4e9:  # later than the year 2096 is no time at all
            moment = datetime.fromtimestamp(seconds, UTC)
            hours |= {_hour(moment - _SKEW), _hour(moment + _SKEW)}
    span: list[datetime] = []
    for hour in sorted(hours):
        if span and hour == span[1]:
            span[1] = hour + _HOUR
            continue
        if span:
            yield span[0], span[1]
        span = [hour, hour + _HOUR]
    if span:
        yield span[0], span[1]


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _score(said: dict[str, Any], answer: Sequence[str]) -> float | None:
    if said["label"] is not None:
        return float(answer[0] == said["label"]) if len(answer) == 1 else None
    score: float | None = said["score"]
    return score


def _said(row: dict[str, Any]) -> Sequence[str]:
    return outputs(row["response"] or "") if row["outcome"] == OutcomeKind.ANSWERED else ()


def _model(row: dict[str, Any]) -> str:
    return f"{row['model_name']}/{row['model_version']}"
