"""What a report says, as JSON values: read from the state and the monitoring tables, nothing is computed anew.

Everything that the page and the picture show stands here, so that `--json` is the whole report.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from noria.domain.alert import Alert
from noria.domain.endpoint import Route
from noria.domain.monitor import MonitorKind, MonitorState, Moved
from noria.domain.status import Heartbeat
from noria.evaluation.drift import Drift
from noria.monitoring.reports.apart import told_apart
from noria.monitoring.reports.summary import firing, headline, mood
from noria.monitoring.reports.windows import Rows, read_drift, read_profile, read_spread, requests_recorded
from noria.monitoring.reports.words import baseline_of, evidence_in_words, to_an_alarm, watches
from noria.monitoring.rows import granularity
from noria.monitoring.standing import standing
from noria.ports import Clock, RecordStore, StateStore
from noria.settings import Endpoint, Project

TOTALS = ("execution_duration_ms", "ttft_ms")
"""Columns whose percentiles over the whole span are added up from the windows' states."""
RATES = ("error", "rejected", "disconnected", "guardrail_hit", "refusal", "cache_hit", "pii")
"""Shares of requests that are shown over the windows."""
CODES = ("status_code", "tries")
"""Numbers whose average says nothing."""
SUMS = ("input_tokens", "output_tokens", "cost_usd")
EFFECTS = tuple(Drift.__dataclass_fields__)
"""The classic effect sizes, by their names in the table."""
_MOST_SLICES = 8

Said = dict[str, Any]
"""JSON values."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Gathers reports.

    Attributes:
        state: Monitors, alerts, routes.
        records: The tables.
        project: Whose endpoints are reported on.
        clock: Now.
        moved: What moved in what a monitor saw of late, with redacted examples.
        next: What happens next about an alert, in words.
    """

    state: StateStore
    records: RecordStore
    project: Project
    clock: Clock
    moved: Callable[[MonitorState], Sequence[Moved]] = lambda _: ()
    next: Callable[[Alert], str] = lambda _: ""

    def report(self, since: datetime, until: datetime, endpoints: Iterable[str]) -> Said:
        """A report on some endpoints in a span of time.

        Returns:
            `project`, `at`, `since`, `until`, `log` (how many records are on their way to the tables), `headline` (how
            things are, in a sentence), and `endpoints`, a list: see `_endpoint`.
        """
        found = [self._endpoint(name, since, until) for name in endpoints]
        return {
            "project": self.project.project,
            "at": plain(self.clock.now()),
            "since": plain(since),
            "until": plain(until),
            "log": self._log(),
            "headline": headline(found),
            "endpoints": found,
        }

    def monitors(self, endpoint: str) -> list[MonitorState]:
        """The monitors of an endpoint's champion, those with the most evidence first."""
        route = self.state.get(Route, endpoint)
        champion = route.champion.version if route is not None else None
        found = [m for m in self.state.find(MonitorState, endpoint=endpoint) if m.model_version == champion]
        newest = max((m.monitor_version for m in found), default=0)
        found = [m for m in found if m.monitor_version == newest]
        return sorted(found, key=lambda m: (-_nearness(m), m.monitor))

    def shown(self, monitor: MonitorState) -> Said:
        """A monitor as a report shows it, but for what moved; one of quality with how all of it stands, judges and
        their agreement with people included."""
        settings = self.project.endpoints[monitor.endpoint]
        drift = read_drift(self.records, monitor.endpoint, monitor.since, monitor.folded_until, settings.monitors).rows
        found = self._monitor(monitor, settings, drift, moved=False)
        if monitor.kind is MonitorKind.QUALITY:
            length = granularity(settings.monitors.window)
            found["quality"] = standing(self.state, self.records, monitor.endpoint, monitor.since, length)
        return found

    def explanation(self, monitor: MonitorState) -> Said:
        """A monitor in words and numbers: as in a report, with its windows in `trail` and, in `apart`, what tells the
        records since its evidence began to rise from those before (None if nothing lies before).
        """
        settings = self.project.endpoints[monitor.endpoint]
        since, until = monitor.since, monitor.folded_until
        drift = read_drift(self.records, monitor.endpoint, since, until, settings.monitors).rows
        trail = [row for row in drift if _told_by_monitor(row) and row["monitor"] == monitor.monitor]
        trail = [row for row in trail if row["log_e"] is not None]
        apart = told_apart(self.records, settings.task, monitor, trail)
        return {
            **self._monitor(monitor, settings, drift),
            "trail": [{"end": plain(row["window"]["end"]), "log_e": row["log_e"]} for row in trail],
            "apart": plain(apart),
        }

    def _endpoint(self, name: str, since: datetime, until: datetime) -> Said:
        """What is said of an endpoint.

        `name`, `task`, `champion` and `canary` (`model/version` or None), `window`, `alpha`, `windows` (how many),
        `windows_shown`, `versions` (of the monitors), `completeness`, `totals`, `spread` (percentiles of the whole
        span), `traffic` (a row a window), `latency`, `rates`, `spent` and `quality` (column → rows), `texts` (a row a
        column), `mix` (column → its values), `monitors`, `drift` (the rows behind their pictures), `alerts`, `firing`
        (how many), `mood`.
        """
        settings, route = self.project.endpoints[name], self.state.get(Route, name)
        profile = read_profile(self.records, name, since, until, settings.monitors)
        drift = read_drift(self.records, name, since, until, settings.monitors)
        alerts = [a for a in self.state.find(Alert, endpoint=name) if _within(a, since, until)]
        shown = [self._alert(alert) for alert in alerts]
        said = {
            "name": name,
            "task": settings.task.value,
            "champion": route.champion.ref if route else None,
            "canary": route.canary.ref if route and route.canary else None,
            "window": profile.granularity,
            "alpha": settings.monitors.alpha,
            "windows": len(profile.windows),
            "windows_shown": len(profile.shown),
            "versions": sorted({*profile.versions, *drift.versions}),
            "completeness": self._completeness(name, since, until, profile.records),
            "totals": profile.totals(),
            "traffic": profile.traffic(),
            "latency": profile.series(TOTALS),
            "spread": read_spread(self.records, name, since, until, profile.granularity, TOTALS),
            "rates": profile.series(RATES),
            "spent": profile.series(SUMS),
            "texts": profile.measures({*TOTALS, *RATES, *SUMS, *CODES}),
            "mix": profile.mix(),
            "quality": profile.quality(),
            "monitors": [self._monitor(m, settings, drift.rows) for m in self.monitors(name)],
            "drift": [_drawn(row) for row in drift.rows if _told_by_monitor(row)],
            "alerts": shown,
            "firing": firing(shown),
        }
        return said | {"mood": mood(said)}

    def _completeness(self, name: str, since: datetime, until: datetime, counted: int) -> Said:
        """How many requests the log holds and how many of them the windows have counted."""
        recorded = requests_recorded(self.records, name, since, until)
        return {"recorded": recorded, "counted": counted, "waiting": max(recorded - counted, 0)}

    def _monitor(self, monitor: MonitorState, settings: Endpoint, drift: Rows, *, moved: bool = True) -> Said:
        """A monitor's evidence, in numbers and in words, and what moved."""
        mine = [row for row in drift if row["monitor"] == monitor.monitor]
        whole = [row for row in mine if _told_by_monitor(row)]
        shown: Said = plain(monitor)
        for bulky in ("counts", "log_capitals"):
            shown.pop(bulky, None)
        return {
            **shown,
            "alarms": monitor.alarms,
            "watches": watches(monitor),
            "baseline": baseline_of(monitor, settings.monitors),
            "says": evidence_in_words(monitor),
            "until_alarm": to_an_alarm(monitor, settings.monitors),
            "effects": _effects(whole),
            "slices": _slices(mine),
            "moved": [plain(cell) for cell in self._moved(monitor)] if moved else [],
        }

    def _moved(self, monitor: MonitorState) -> Sequence[Moved]:
        """From the alert that it raised, as it was then; else as it is now."""
        alert = self.state.get(Alert, monitor.id)
        return alert.moved if alert is not None and alert.moved else self.moved(monitor)

    def _alert(self, alert: Alert) -> Said:
        shown: Said = plain(alert)
        return {**shown, "next": self.next(alert)}

    def _log(self) -> Said:
        beat = self.state.get(Heartbeat, "worker")
        spools = beat.spools.values() if beat is not None else ()
        return {
            "unshipped": sum(spool.unshipped for spool in spools),
            "open_intents": sum(spool.open_intents for spool in spools),
            "seen": plain(beat.at) if beat is not None else None,
        }


def plain(noun: object) -> Any:
    """A noun of the domain as JSON values; numbers that JSON doesn't know (NaN, infinity) become None."""
    return msgspec.json.decode(msgspec.json.encode(noun))


def _within(alert: Alert, since: datetime, until: datetime) -> bool:
    """Whether an alert fired at some time of a span."""
    return alert.raised_at < until and (alert.resolved_at is None or alert.resolved_at >= since)


def _nearness(monitor: MonitorState) -> float:
    """How far the evidence is on its way to the alarm; 1 and more is one."""
    return monitor.log_e / monitor.log_threshold if monitor.log_threshold else 0.0


def _effects(rows: Rows) -> Said:
    """The effect sizes of the newest window that has any, against the baseline."""
    newest = max((r for r in rows if _has_effects(r)), key=lambda r: r["window"]["end"], default=None)
    if newest is None:
        return {}
    return {name: newest[name] for name in EFFECTS if newest.get(name) is not None} | {
        "at": plain(newest["window"]["end"])
    }


def _has_effects(row: Mapping[str, Any]) -> bool:
    return any(row.get(name) is not None for name in EFFECTS)


def _slices(rows: Rows) -> list[Said]:
    """The slices that moved most against the baseline in their newest window."""
    newest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        if row["slice_key"] and row["drift_type"] == "BASELINE" and row["js_distance"] is not None:
            newest[row["slice_key"], row["slice_value"]] = row
    found = sorted(newest.values(), key=lambda r: -r["js_distance"])[:_MOST_SLICES]
    names = ("slice_key", "slice_value", "js_distance", "population_stability_index", "rows_seen", "mean")
    return [{name: row.get(name) for name in names} for row in found]


def _told_by_monitor(row: Mapping[str, Any]) -> bool:
    """Whether a row is what a monitor says of all records, beside the baseline."""
    return row["monitor"] is not None and not row["slice_key"] and row["drift_type"] == "BASELINE"


def _drawn(row: Mapping[str, Any]) -> Said:
    """What pictures show of a row of drift_metrics."""
    names = ("monitor", "model_id", "slice_key", "drift_type", "log_e", "log_threshold", "mean", "avg_delta")
    effects = ("population_stability_index", "js_distance")
    return {"window": plain(row["window"])} | {name: row.get(name) for name in (*names, *effects)}
