"""Tables and a state as monitors leave them, for tests of reports: days of windows of two endpoints; one changes."""

import json
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from fakes.records import MemoryRecords
from fakes.state import FakeState
from fakes.story import XSS, StoppedClock
from noria.domain.alert import Alert, AlertState
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.monitor import MonitorKind, MonitorState, Moved
from noria.evaluation.profile import profile, profile_table
from noria.evaluation.states import ColumnState
from noria.settings import Project
from noria.tables import SCHEMAS

BEGIN = datetime(2026, 11, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
THRESHOLD = math.log(4 / 0.05)
PROJECT = Project.model_validate(
    {
        "project": "customer-care",
        "endpoints": {
            "triage": {"task": "classification", "policy": "p.yaml", "training": {"data": "seed.csv"}},
            "assistant": {
                "task": "chat",
                "policy": "p.yaml",
                "gguf": {"gguf": "m.gguf", "licence": "MIT", "source": "here"},
                "monitors": {"watch": ["text", "execution_duration_ms", "output_refusal"], "slices": ["requester"]},
            },
        },
    }
)


class Reported:
    """The tables, the state and the span that they are about.

    Args:
        hours: How many windows.
        change: From which window on triage's callers write of something new; None for never.
        state: Where the state goes; a fake by default.
        records: Where the tables go; in memory by default.
        begin: Start of the first window.
        names: Endpoints.
    """

    def __init__(self, hours=48, change=36, *, state=None, records=None, begin=BEGIN, names=tuple(PROJECT.endpoints)):
        self.hours, self.change = hours, hours if change is None else change
        self.begin, self.until = begin, begin + hours * HOUR
        self.clock = StoppedClock(self.until)
        self.state, self.records = state or FakeState(self.clock), records or MemoryRecords()
        self._random = np.random.default_rng(7)
        for name in names:
            self._tell(name)

    def _tell(self, name: str) -> None:
        profiles, states, drift, log_e = [], [], [], dict.fromkeys(self._monitors(name), 0.0)
        requests = []
        for hour in range(self.hours):
            start = self.begin + hour * HOUR
            place = {"window": {"start": start, "end": start + HOUR}, "endpoint": name, "granularity": "1 hour"}
            columns = self._columns(name, hour)
            count = len(columns[0][1])
            found = [ColumnState.of(column, values) for column, values in columns]
            half = 1 / math.sqrt(count)
            everyone = place | {"model_id": "*", "monitor_version": 1, "log_type": "INPUT"}
            profiles += [everyone | _bounded(row, half) for row in (profile_table(found, count), *map(profile, found))]
            states += [
                everyone
                | {
                    "model_id": f"{name}/1",
                    "column_name": s.name,
                    "summed": False,
                    "count": count,
                    "state": s.to_bytes(),
                }
                for s in found
            ]
            drift += self._drift(name, place, hour, log_e)
            requests += [(start + i * HOUR / count, f"{name}{hour}-{i}") for i in range(count)]
        for table, rows in (("profile_metrics", profiles), ("monitor_states", states), ("drift_metrics", drift)):
            schema = SCHEMAS[table]
            kept = [{key: value for key, value in row.items() if key in schema.names} for row in rows]
            self.records.append(table, pa.Table.from_pylist(kept, schema=schema), name, 1)
        self._log(name, requests)
        self._put(name, log_e)

    def _columns(self, name: str, hour: int) -> list[tuple[str, pa.Array]]:
        """What a window's records hold."""
        random, moved = self._random, name == "triage" and hour >= self.change
        count = int(40 + 25 * math.sin(hour / 24 * 2 * math.pi) + random.integers(0, 12))
        numbers = {
            "execution_duration_ms": random.gamma(4, 4 if name == "triage" else 160, count) * (1.4 if moved else 1),
            "error": (random.random(count) < (0.06 if moved else 0.01)).astype(float),
            "input_length": random.gamma(5, 22 if not moved else 31, count).round(),
        }
        if name == "assistant":
            numbers |= {
                "ttft_ms": random.gamma(3, 40, count),
                "input_tokens": random.integers(80, 600, count).astype(float),
                "output_tokens": random.integers(20, 300, count).astype(float),
                "cost_usd": random.random(count) * 0.004,
                "refusal": (random.random(count) < 0.04).astype(float),
                "cache_hit": (random.random(count) < 0.2).astype(float),
                "output_readability": random.normal(62, 12, count),
            }
            return [(key, pa.array(values)) for key, values in numbers.items()]
        weights = (0.2, 0.5, 0.3) if moved else (0.5, 0.3, 0.2)
        numbers["confidence"] = random.beta(8, 2, count)
        classes = pa.array(random.choice(["negative", "neutral", "positive"], count, p=weights))
        right = random.random(count) < (0.66 if moved else 0.8)
        quality = [("quality.accuracy", pa.array(right.astype(float)))]
        return [*((key, pa.array(values)) for key, values in numbers.items()), ("prediction", classes), *quality]

    def _monitors(self, name: str) -> list[str]:
        return [str(each) for each in PROJECT.endpoints[name].monitors.watch]

    def _drift(self, name: str, place: dict, hour: int, log_e: dict[str, float]) -> list[dict]:
        rows = []
        for number, monitor in enumerate(log_e):
            moved = name == "triage" and hour >= self.change and monitor in ("text", "prediction")
            log_e[monitor] += 0.9 + number / 10 if moved else float(self._random.normal(-0.03, 0.25))
            psi = 0.31 if moved else 0.02 + 0.01 * float(self._random.random())
            about = {"monitor": monitor, "column_name": monitor, "model_id": f"{name}/1", "drift_type": "BASELINE"}
            effects = {
                "population_stability_index": psi,
                "js_distance": math.sqrt(psi) / 2,
                "rows_seen": 40 * (hour + 1),
                "ks_test": {"statistic": psi / 2, "pvalue": 0.1},
                "monitor_version": 1,
            }
            evidence = {
                "log_e": log_e[monitor],
                "log_threshold": THRESHOLD,
                "e_value": math.exp(min(log_e[monitor], 700)),
            }
            rows.append(place | about | effects | evidence)
            rows += [
                place | about | effects | {"slice_key": "requester", "slice_value": who, "js_distance": psi * share}
                for who, share in (("shop", 2.0), (XSS, 1.0))
                if monitor == "text"
            ]
        return rows

    def _log(self, name: str, requests: list[tuple[datetime, str]]) -> None:
        rows = [
            {"databricks_request_id": name_of, "request_time": at, "request_date": at.date(), "endpoint": name,
             "route": "champion", "outcome": "answered", "request": json.dumps({"input": self._text(name, at)}),
             "response": '"y"', "model_name": name, "model_version": "1"}
            for at, name_of in requests
        ]  # fmt: skip
        self.records.append("inference", pa.Table.from_pylist(rows, schema=SCHEMAS["inference"]), name, 1)

    def _text(self, name: str, at: datetime) -> str:
        """What a caller writes."""
        moved = name == "triage" and at >= self.begin + self.change * HOUR
        words = ("iphone apple store update battery" if moved else "flight cancelled gate hours luggage").split()
        return " ".join(self._random.choice(words, 4)) + " again today"

    def _put(self, name: str, log_e: dict[str, float]) -> None:
        champion = Target(
            model=name, version="1", role=Role.CHAMPION, weight=100, url="unix:/x.sock", verdict_id=f"{name}/1"
        )
        wire = Wire.MLFLOW if name == "triage" else Wire.OPENAI
        kinds = {
            "text": MonitorKind.TEXT_DRIFT,
            "prediction": MonitorKind.CATEGORICAL_DRIFT,
            "quality": MonitorKind.QUALITY,
        }
        with self.state.change("noria", "told", name) as change:
            change.put(Route(endpoint=name, wire=wire, revision=1, targets=(champion,)))
            for monitor, evidence in log_e.items():
                change.put(
                    MonitorState(
                        id=f"{name}:{monitor}:1",
                        endpoint=name,
                        monitor=monitor,
                        kind=kinds.get(monitor, MonitorKind.NUMERIC_DRIFT),
                        model_version="1",
                        since=self.begin,
                        folded_until=self.until,
                        rows=40 * self.hours,
                        log_e=evidence,
                        log_threshold=THRESHOLD,
                        column={"text": "input", "length": "input_length"}.get(monitor, monitor),
                        numbers={"mean": 0.71, "floor": 0.76} if monitor == "quality" else {"js_distance": 0.2},
                    )
                )
            if log_e.get("text", 0) >= THRESHOLD:
                change.put(alert(self.until, log_e["text"]))


def _bounded(row: dict, half: float) -> dict:
    """A row with an interval, if it is one of quality."""
    known = row["column_name"].startswith("quality.")
    return row | {"low": max(row["avg"] - half, 0), "high": min(row["avg"] + half, 1)} if known else row


def alert(now: datetime, log_e: float) -> Alert:
    """What the change raised."""
    return Alert(
        id="triage:text:1",
        endpoint="triage",
        monitor="text",
        state=AlertState.FIRING,
        raised_at=now - 6 * HOUR,
        since=now - 12 * HOUR,
        summary="What callers write to triage has changed: evidence 12,332 to 1 after 1,240 records.",
        log_e=log_e,
        rows=1240,
        moved=MOVED,
    )


MOVED = (
    Moved("apple, iphone, store", 0.004, 0.187, ("my iphone died two days after the update, thanks apple", XSS)),
    Moved("drive, car, google", 0.002, 0.121, ("so the google car needs a human after all?",)),
    Moved("flight, cancelled, hours", 0.232, 0.094, ("cancelled again. 6 hours at the gate",)),
)
