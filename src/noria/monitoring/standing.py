"""How an endpoint's quality stands, as JSON for people: its newest measures, its judges, and how far they agree with
people."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from noria.domain.judge import JudgeState
from noria.evaluation.agreement import cohen_kappa
from noria.evaluation.profile import Row
from noria.evaluation.quality import wilson
from noria.monitoring.measuring import LOG_TYPE
from noria.monitoring.quality import BAD, EVERYONE, GOOD, PREFIX
from noria.ports import RecordStore, StateStore
from noria.settings.monitors import JUDGE

_COLUMNS = [
    "window", "granularity", "model_id", "slice_key", "column_name", "log_type", "count", "avg", "low", "high",
    "confusion_matrix",
]  # fmt: skip
_AGREEMENT = ".agreement"


def standing(state: StateStore, records: RecordStore, endpoint: str, since: datetime, granularity: str) -> Row:
    """How the quality of an endpoint's answers stands.

    Args:
        state: Where judges' accounts are.
        records: The tables.
        endpoint: Its name.
        since: Agreement is pooled over windows that begin later.
        granularity: Length of the windows, as the tables write it: `1 hour`.

    Returns:
        `measures`: name → the newest window's `avg`, `low`, `high`, `count` and its `start`. `judges`: name → what it
        judged, what that cost, why it can't judge if it can't, and its `agreement` with people over all windows
        (`pairs`, `share`, `kappa`, each with its 95% interval; null where there is none).
    """
    found = records.scan("profile_metrics", columns=_COLUMNS, endpoint=endpoint, since=since)
    rows = [
        row
        for row in found.to_pylist()
        if row["log_type"] == LOG_TYPE
        and row["model_id"] == EVERYONE
        and not row["slice_key"]
        and row["granularity"] == granularity
    ]
    accounts = {account.judge: account for account in state.find(JudgeState, endpoint=endpoint)}
    return {
        "measures": _newest(rows),
        "judges": {
            name: _account(account) | {"agreement": _pooled(rows, name)} for name, account in sorted(accounts.items())
        },
    }


def _newest(rows: Sequence[Row]) -> dict[str, Row]:
    newest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["window"]["start"]):
        shown = {name: row[name] for name in ("avg", "low", "high", "count")}
        newest[row["column_name"].removeprefix(PREFIX)] = shown | {"start": row["window"]["start"].isoformat()}
    return newest


def _account(account: JudgeState) -> Row:
    names = ("version", "model", "judged", "garbage", "failed", "skipped", "requests", "usd", "problem")
    return {name: getattr(account, name) for name in names} | {
        "day": account.day.isoformat(),
        "at": account.at.isoformat(),
    }


def _pooled(rows: Iterable[Row], judge: str) -> Mapping[str, Any]:
    """Agreement over all windows: their tables of who said what add up."""
    name, place = f"{PREFIX}{JUDGE}{judge}{_AGREEMENT}", {BAD: 0, GOOD: 1}
    table = np.zeros((2, 2))
    for row in rows:
        for cell in (row["confusion_matrix"] or ()) if row["column_name"] == name else ():
            table[place[cell["prediction"]], place[cell["label"]]] += cell["count"]
    pairs, agreed = int(table.sum()), int(np.trace(table))
    share, (kappa, interval) = wilson(agreed, pairs), cohen_kappa(table)
    known = not math.isnan(kappa)
    return {
        "pairs": pairs,
        "share": agreed / pairs if pairs else None,
        "share_low": share.low if pairs else None,
        "share_high": share.high if pairs else None,
        "kappa": kappa if known else None,
        "kappa_low": interval.low if known else None,
        "kappa_high": interval.high if known else None,
    }
