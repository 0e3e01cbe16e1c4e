"""Which answers of a window are judged, and what a judge is shown of them.

Which ones is decided by their ids alone, so that a repeat takes the same ones and nobody can know beforehand.
"""

import heapq
from collections.abc import Iterable, Sequence
from zlib import crc32

from noria.domain.endpoint import Role
from noria.domain.monitor import Window
from noria.evaluation.judge import Case, retrieved
from noria.evaluation.payloads import inputs, outputs
from noria.monitoring.judged import answered, quoted, said_of
from noria.ports import RecordView
from noria.settings import Judge

_MORE = 4
"""Times as many answers are looked at as may be judged, because some can't be."""
_ALL = 1 << 32


def sample(view: RecordView, endpoint: str, window: Window, name: str, judge: Judge) -> list[str]:
    """Ids of the answers of a window that a judge is to judge, in an order of their own."""
    below, most = int(judge.share * _ALL), judge.per_window * _MORE
    sql = (
        f"SELECT databricks_request_id FROM inference WHERE {answered(endpoint, window)} "  # noqa: S608 - quoted
        f"AND route <> '{Role.SHADOW.value}'"
    )
    drawn: list[tuple[int, str]] = []
    for request_id in view.query(sql)["databricks_request_id"].to_pylist():
        place = crc32(f"{name}:{request_id}".encode())
        if place >= below:
            continue
        if len(drawn) < most:
            heapq.heappush(drawn, (-place, request_id))
        else:
            heapq.heappushpop(drawn, (-place, request_id))
    ids = [request_id for _, request_id in sorted(drawn, reverse=True)]
    found = cases(view, endpoint, window, ids)
    return [request_id for request_id in ids if request_id in found and _fits(judge, found[request_id])][
        : judge.per_window
    ]


def cases(view: RecordView, endpoint: str, window: Window, ids: Iterable[str]) -> dict[str, Case]:
    """What these answers are, by id; those that can't be judged alone are left out: batches, empty answers."""
    wanted = list(ids)
    if not wanted:
        return {}
    names = ", ".join(quoted(name) for name in wanted)
    sql = (
        f"SELECT databricks_request_id, request, response, metadata FROM inference "  # noqa: S608 - quoted
        f"WHERE {answered(endpoint, window)} AND databricks_request_id IN ({names})"
    )
    said = said_of(view, endpoint, window)
    found = {}
    for piece in view.stream(sql):
        for row in piece.to_pylist():
            name = row["databricks_request_id"]
            asked, answers = inputs(row["request"] or ""), outputs(row["response"] or "")
            if len(asked) == len(answers) == 1 and answers[0].strip():
                context = retrieved(row["request"] or "", dict(row["metadata"] or ()))
                reference = said[name].label if name in said else None
                found[name] = Case(asked=asked[0], answered=answers[0], context=context, reference=reference)
    return found


def _fits(judge: Judge, case: Case) -> bool:
    """Whether a judge can say anything about a case."""
    if judge.scorer is None:
        return True
    return bool(case.context or not judge.scorer.needs_context) and (
        case.reference is not None or not judge.scorer.needs_reference
    )


def chunks(ids: Sequence[str], size: int) -> list[list[str]]:
    """Ids in groups of that size."""
    return [list(ids[first : first + size]) for first in range(0, len(ids), size)]
