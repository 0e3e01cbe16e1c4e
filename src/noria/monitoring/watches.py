"""Which watch a window belongs to: what its endpoint's traffic was compared with at that time, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from noria.domain.audit import LOOP
from noria.domain.endpoint import Target
from noria.domain.monitor import Watch
from noria.ports import StateStore
from noria.settings import Monitors

_NO_CHANGE = frozenset({"granularities"})
"""What the project file may say otherwise without changing what a monitor is: longer windows are sums of its own."""


def said(monitors: Monitors) -> Mapping[str, Any]:
    """What the project file says of monitors, as JSON values; what it leaves out is left out, so that a newer Noria
    with more to say begins nothing anew."""
    return {name: _plain(value) for name, value in monitors.model_dump(exclude_defaults=True).items()}


def settings_of(watch: Watch) -> Monitors:
    """The monitors' settings that a watch began with."""
    return Monitors.model_validate(dict(watch.monitors))


def known(state: StateStore, endpoint: str) -> list[Watch]:
    """An endpoint's watches, newest first."""
    return sorted(state.find(Watch, endpoint=endpoint), key=lambda watch: watch.number, reverse=True)


def at(watches: Sequence[Watch], moment: datetime) -> Watch | None:
    """The watch that a window which begins then belongs to; None if it begins before all of them."""
    return next((watch for watch in watches if watch.since <= moment), None)


def current(
    state: StateStore, endpoint: str, champion: Target, monitors: Monitors, since: datetime
) -> tuple[Watch, list[Watch]]:
    """The watch of a champion under the monitors of today, begun if it isn't the newest, and all watches.

    Args:
        state: Where watches are kept.
        endpoint: The endpoint's name.
        champion: The version whose baseline counts.
        monitors: What the project file says now.
        since: When it begins, if it does: the start of its first window.
    """
    watches = known(state, endpoint)
    newest = watches[0] if watches else None
    same = newest is not None and _what(newest.monitors) == _what(said(monitors))
    if newest is not None and same and newest.ref == champion.ref:
        return newest, watches
    if newest is not None and since < newest.counted_until:  # a window of the past says nothing of today
        return at(watches, since) or watches[-1], watches
    begun = _after(newest, endpoint, champion, monitors, since, changed=newest is not None and not same)
    before = {} if newest is None else dict(newest.monitors)
    if newest is not None and not same:
        evidence = {"monitor_version": begun.monitor_version, "before": before, "now": dict(begun.monitors)}
        reason = f"the monitors of {endpoint} were changed in the project file: their evidence begins anew"
        with state.change(LOOP, "monitor.changed", endpoint, reason=reason, evidence=evidence) as change:
            change.put(begun)
    else:
        with state.note() as note:
            note.put(begun)
    return begun, [begun, *watches]


def extended(watch: Watch, since: datetime) -> Watch:
    """An endpoint's first watch, begun earlier: nothing was watched before it."""
    return replace(watch, since=min(watch.since, since))


def _plain(value: Any) -> Any:
    """A value as the project file may write it: durations in seconds, times by ISO 8601."""
    match value:
        case timedelta():
            return value.total_seconds()
        case datetime():
            return value.isoformat()
        case tuple() | list():
            return [_plain(each) for each in value]
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case _:
            return str(value) if isinstance(value, str) else value


def _what(monitors: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in monitors.items() if name not in _NO_CHANGE}


def _after(
    newest: Watch | None, endpoint: str, champion: Target, monitors: Monitors, since: datetime, *, changed: bool
) -> Watch:
    number = 1 if newest is None else newest.number + 1
    version = 1 if newest is None else newest.monitor_version + changed
    return Watch(
        id=f"{endpoint}:{number}",
        endpoint=endpoint,
        number=number,
        model=champion.model,
        version=champion.version,
        monitor_version=version,
        monitors=said(monitors),
        since=since,
        counted_until=since,
        held=None if newest is None else newest.held,
    )
