"""What was answered in a window, joined with what was said of it since, however late: a stream in bounded memory.

A request's id begins with the time when it came (UUID version 7), so that feedback alone says which window it is about.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.endpoint import Role
from noria.domain.inference import OutcomeKind
from noria.domain.monitor import Window
from noria.evaluation.cells import Ints
from noria.evaluation.payloads import outputs, probabilities
from noria.evaluation.references import Likeness, bleu_counts, likeness
from noria.ports import RecordView
from noria.settings.monitors import JUDGE

MOST = 50_000
"""Answers of a window that are held at a time. Of more, a sample that their ids decide is measured."""
SKEW = timedelta(seconds=5)
"""An id may have been made that much before or after the time in its record."""
_LATEST_S = 4e9
"""Later than the year 2096 is no time at all."""
COLUMNS = (
    "databricks_request_id", "request_time", "model_name", "model_version", "requester", "response", "metadata",
    "outcome", "route",
)  # fmt: skip
"""Of the inference table, which `answers` reads."""
_BATCH = 10_000
_TIME = pa.timestamp("us", tz="UTC")
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Said:
    """The last word on one answer: of people, and of each judge."""

    label: str | None = None
    score: float | None = None
    judges: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, and what was said of it.

    Attributes:
        model: `model/version` that gave it.
        slices: Its value of each slice, in the order that was asked for.
        prediction: The class, for a classifier.
        chances: Probability of each class, if the model gave them.
        said: What was said of it; None if nobody said anything.
        like: How like its reference a free answer is, where there is one.
        counts: What it adds to BLEU.
    """

    model: str
    slices: tuple[str | None, ...] = ()
    prediction: str | None = None
    chances: Mapping[str, float] | None = None
    said: Said | None = None
    like: Likeness | None = None
    counts: Ints | None = None


def said_of(view: RecordView, endpoint: str, window: Window) -> dict[str, Said]:
    """What was said of the requests of a window until now. The newest label and the newest score of people count."""
    first, last = _id_at(window.start - SKEW), _id_at(window.end + SKEW)
    rows = view.query(
        f"SELECT request_id, feedback_time, label, score, source FROM feedback WHERE endpoint = {quoted(endpoint)} "  # noqa: S608 - quoted
        f"AND request_id >= '{first}' AND request_id < '{last}'"
    )
    found: dict[str, Said] = {}
    when: dict[tuple[str, str], datetime] = {}
    sample = Sample()
    for row in (row for batch in rows.to_batches(_BATCH) for row in batch.to_pylist()):
        name = row["request_id"]
        if not sample.holds(name):
            continue
        _hear(found.setdefault(name, Said()), row, when)
        if len(found) > MOST:
            sample.halve()
            found = {name: said for name, said in found.items() if sample.holds(name)}
            when = {key: at for key, at in when.items() if key[0] in found}
    return found


def answers(
    batches: Iterable[pa.Table],
    window: Window,
    said: Mapping[str, Said],
    *,
    classifies: bool,
    slices: Sequence[str] = (),
    unjudged: bool = True,
) -> list[Answer]:
    """The answers of a window. Shadows are left out: nobody saw them. A request that comes twice counts once.

    Args:
        batches: Rows of the inference table with `COLUMNS`, some at a time.
        window: By the time of the request.
        said: What was said of its requests, from `said_of`.
        classifies: Whether its answers are classes; else they are free texts, and labels are references.
        slices: `requester` or `metadata.KEY`.
        unjudged: Whether a classifier's answers that nobody said anything of are wanted, too.
    """
    found: dict[str, list[Answer]] = {}
    only = None if classifies and unjudged else pa.array(said, pa.string())
    sample = Sample()
    for batch in batches:
        for row in batch.filter(_wanted(window, only)).to_pylist():
            name = row["databricks_request_id"]
            if name not in found and sample.holds(name):
                found[name] = list(_read(row, said.get(name), classifies=classifies, slices=slices))
        while len(found) > MOST:
            sample.halve()
            found = {name: each for name, each in found.items() if sample.holds(name)}
    return [answer for each in found.values() for answer in each]


def _wanted(window: Window, only: pa.Array | None) -> pc.Expression:
    """Rows that are answers of a window, and among these ids if there are any."""
    time = pc.field("request_time")
    condition = (
        (time >= pa.scalar(window.start, _TIME))
        & (time < pa.scalar(window.end, _TIME))
        & (pc.field("outcome") == OutcomeKind.ANSWERED.value)
        & (pc.field("route") != Role.SHADOW.value)
    )
    return condition if only is None else condition & pc.field("databricks_request_id").isin(only)


def answered(endpoint: str, window: Window) -> str:
    """The condition for what an endpoint answered in a window."""
    start, end = window.start.astimezone(UTC), window.end.astimezone(UTC)
    return (
        f"endpoint = {quoted(endpoint)} AND outcome = '{OutcomeKind.ANSWERED.value}' "
        f"AND request_date BETWEEN DATE '{start:%Y-%m-%d}' AND DATE '{end:%Y-%m-%d}' "
        f"AND request_time >= {_moment(start)} AND request_time < {_moment(end)}"
    )


def asked_at(request_id: str | None) -> datetime | None:
    """When a request came, by its id; None for what is no id of Noria's."""
    if not _REQUEST_ID.fullmatch(request_id or ""):
        return None
    seconds = int(str(request_id)[:12], 16) / 1000
    return datetime.fromtimestamp(seconds, UTC) if seconds < _LATEST_S else None


class Sample:
    """Which of many ids are held: all, or after each halving half of those before. The ids alone decide."""

    def __init__(self) -> None:
        self._below = 1 << 32

    def holds(self, name: str) -> bool:
        """Whether an id is in the sample."""
        return crc32(name.encode()) < self._below

    def halve(self) -> None:
        """Make it half as large."""
        self._below //= 2


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _hear(said: Said, row: Mapping[str, Any], when: dict[tuple[str, str], datetime]) -> None:
    """Note what one row of feedback says, unless something newer was heard."""
    source, at = row["source"] or "", row["feedback_time"]
    kinds = {f"{source}": row["score"]} if source.startswith(JUDGE) else {"label": row["label"], "score": row["score"]}
    for kind, value in kinds.items():
        key = (row["request_id"], kind)
        if value is None or (key in when and at < when[key]):
            continue
        when[key] = at
        if kind == "label":
            said.label = value
        elif kind == "score":
            said.score = value
        else:
            said.judges[kind.removeprefix(JUDGE)] = value


def _read(row: Mapping[str, Any], said: Said | None, *, classifies: bool, slices: Sequence[str]) -> Iterator[Answer]:
    """The answers in one row: several for a batch, of which nobody can say which one a label is about."""
    found = outputs(row["response"] or "")
    model = f"{row['model_name']}/{row['model_version']}"
    values = tuple(_value(row, key) for key in slices)
    if not classifies:
        meant = said.label if said is not None and len(found) == 1 else None
        yield Answer(
            model=model,
            slices=values,
            said=said,
            like=None if meant is None else likeness(found[0], meant),
            counts=None if meant is None else bleu_counts(found[0], meant),
        )
        return
    chances = probabilities(row["response"] or "")
    known = chances if len(chances) == len(found) else [{}] * len(found)
    single = said if len(found) == 1 else None
    if said is not None and single is None:  # scores and judges are about the request as a whole
        single = Said(score=said.score, judges=said.judges)
    for place, (name, by_class) in enumerate(zip(found, known, strict=True)):
        yield Answer(
            model=model,
            slices=values,
            prediction=name,
            chances=_chances(by_class, name),
            said=single if place == 0 else None,
        )


def _chances(by_class: Mapping[str, float], prediction: str) -> Mapping[str, float] | None:
    """Probabilities, if that is what they are."""
    sound = prediction in by_class and all(math.isfinite(p) and 0 <= p <= 1 for p in by_class.values())
    return by_class if sound else None


def _value(row: Mapping[str, Any], key: str) -> str | None:
    if key == "requester":
        return row["requester"] or None
    wanted = key.removeprefix("metadata.")
    return next((value for name, value in row["metadata"] or () if name == wanted), None)


def _id_at(moment: datetime) -> str:
    """The smallest id of a request that came then."""
    return f"{max(int(moment.timestamp() * 1000), 0):012x}{'0' * 20}"


def _moment(moment: datetime) -> str:
    return f"arrow_cast('{moment:%Y-%m-%dT%H:%M:%S.%fZ}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def windows_of(request_ids: Iterable[str | None], length: timedelta) -> set[Window]:
    """The windows that requests of these ids may have come in; near an edge, those on both sides of it."""
    found = set()
    for name in set(request_ids):
        moment = asked_at(name)
        if moment is not None:
            found |= {Window.holding(moment - SKEW, length), Window.holding(moment + SKEW, length)}
    return found
