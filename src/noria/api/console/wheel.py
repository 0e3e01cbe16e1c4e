"""The loop as a ring of seven stations with a number at each: what `/` draws."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noria.api.console.words import number, seconds

CENTRE = (380.0, 266.0)
"""Of the drawing, in its own units."""
RADIUS = 174.0
"""Of the ring of stations."""
_GAP = 17.0
"""Degrees left free on both sides of a station, so that the arcs between stations end before them."""
BACKLOG = 2000
"""More entries than this on their way to the tables are worth saying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One station of the loop.

    Attributes:
        name: Its name.
        figure: Its live number, in a few words.
        mood: `idle`, `done`, `busy` or `alarm`; says how it is drawn.
        href: Page that says more.
        x: Of its middle, in the drawing's units.
        y: The same.
        anchor: How its words are aligned (SVG's text-anchor).
        words_x: Where its words stand.
        words_y: The same; of the name, the figure stands below.
        arc: SVG path of the way to the next station.
    """

    name: str
    figure: str
    mood: str
    href: str
    x: float
    y: float
    anchor: str
    words_x: float
    words_y: float
    arc: str


def stations(status: Mapping[str, Any]) -> list[Station]:
    """The seven stations of a status as `loop_status` gives it."""
    told = (
        ("register", *_register(status)),
        ("serve", *_serve(status)),
        ("record", *_record(status)),
        ("monitor", *_monitor(status)),
        ("retrain", *_retrain(status)),
        ("gate", *_gate(status)),
        ("roll out", *_roll_out(status)),
    )
    return [_placed(i, len(told), *each) for i, each in enumerate(told)]


def _placed(index: int, count: int, name: str, figure: str, mood: str, href: str) -> Station:
    turn = 360 / count
    angle = index * turn - 90
    x, y = _at(angle)
    side = round(math.cos(math.radians(angle)), 3)
    anchor = "middle" if abs(side) < 0.3 and index == 0 else ("start" if side > 0 else "end")
    away = 50
    words = {"middle": (x, y - 66), "start": (x + away, y - 4), "end": (x - away, y - 4)}[anchor]
    start, end = _at(angle + _GAP), _at(angle + turn - _GAP)
    arc = f"M{start[0]:.1f} {start[1]:.1f}A{RADIUS} {RADIUS} 0 0 1 {end[0]:.1f} {end[1]:.1f}"
    drawn = {"x": x, "y": y, "words_x": words[0], "words_y": words[1]}
    return Station(name=name, figure=figure, mood=mood, href=href, anchor=anchor, arc=arc, **drawn)


def _at(degrees: float) -> tuple[float, float]:
    """The point of the ring at an angle; 0 is to the right, angles grow clockwise."""
    radians = math.radians(degrees)
    return round(CENTRE[0] + RADIUS * math.cos(radians), 1), round(CENTRE[1] + RADIUS * math.sin(radians), 1)


def _register(status: Mapping[str, Any]) -> tuple[str, str, str]:
    known = [f"{v['model']}/{v['version']}" for v in status["verdicts"]]
    return (f"newest {known[0]}", "done", "/#endpoints") if known else ("no version yet", "idle", "/#endpoints")


def _serve(status: Mapping[str, Any]) -> tuple[str, str, str]:
    up = len(status["worker"]["hosts"])
    if not status["worker"]["alive"]:
        return "worker is silent", "alarm", "/#worker"
    return f"{up} version{'' if up == 1 else 's'} up", "done" if up else "busy", "/#endpoints"


def _record(status: Mapping[str, Any]) -> tuple[str, str, str]:
    worker = status["worker"]
    shipped = sum(s["shipped"] for s in worker["spools"].values())
    if worker["unshipped"] > BACKLOG:
        return f"{number(worker['unshipped'])} to ship", "busy", "/#worker"
    return f"{number(shipped)} shipped", "done" if shipped else "idle", "/#worker"


def _monitor(status: Mapping[str, Any]) -> tuple[str, str, str]:
    monitors = [m for e in status["endpoints"] for m in e["monitors"]]
    alarms = sum(m["alarms"] for m in monitors)
    if alarms or status["alerts"]:
        return f"{alarms} of {len(monitors)} alarm", "alarm", "/#alerts"
    return (f"{len(monitors)} quiet", "done", "/#endpoints") if monitors else ("no window yet", "idle", "/#endpoints")


def _retrain(status: Mapping[str, Any]) -> tuple[str, str, str]:
    running = next((r for r in status["runs"] if r["state"] == "running"), None)
    if running:
        return (f"{running['steps'][-1]['name']} done" if running["steps"] else "starting"), "busy", "/runs"
    if not status["runs"]:
        return "no run yet", "idle", "/runs"
    last = status["runs"][0]
    if last["state"] == "failed":
        return "last run failed", "alarm", "/runs"
    return f"last took {seconds(last['seconds'])}", "done", "/runs"


def _gate(status: Mapping[str, Any]) -> tuple[str, str, str]:
    if not status["verdicts"]:
        return "no verdict yet", "idle", "/#verdicts"
    last = status["verdicts"][0]
    mood = "busy" if last["standing"] == "waiting" else "alarm" if last["obstacle"] else "done"
    return f"{last['model']}/{last['version']} {last['standing']}", mood, "/#verdicts"


def _roll_out(status: Mapping[str, Any]) -> tuple[str, str, str]:
    if not status["rollouts"]:
        return "none yet", "idle", "/#rollout"
    last = status["rollouts"][0]
    if last["finished"]:
        rolled_back = last["stage"] == "rolled_back"
        return last["stage"].replace("_", " "), "alarm" if rolled_back else "done", "/#rollout"
    share = f" {last['weight']} %" if last["weight"] else ""
    return f"{last['stage']}{share}", "busy", "/#rollout"
