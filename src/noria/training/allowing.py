"""What stands against one more run of an endpoint: another one, a budget, or too short a distance."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from noria.domain.run import Run, RunState, TriggerKind
from noria.ports import StateStore
from noria.settings import Training

ASKED = (TriggerKind.BOOTSTRAP, TriggerKind.PERSON)
"""Kinds that no cooldown holds back, and that start none."""
MOST = 1_000
"""Runs that are looked at."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a wish: granted if there is no hindrance; `wait` if the hindrance will pass by itself."""

    hindrance: str = ""
    wait: bool = False


def hindrance(state: StateStore, endpoint: str, training: Training, kind: TriggerKind, now: datetime) -> Decision:
    """What stands against one more run now."""
    runs = state.find(Run, endpoint=endpoint, limit=MOST)
    if under_way := next((run for run in runs if run.state is RunState.RUNNING), None):
        return Decision(f"run {under_way.id} is under way", wait=True)
    if kind is not TriggerKind.BOOTSTRAP and (spent := _spent(runs, training, now)):
        return Decision(spent, wait=True)
    unasked = [run.started_at for run in runs if run.trigger.kind not in ASKED]
    if kind in ASKED or not unasked:
        return Decision()
    since = now - max(unasked)
    if since < training.cooldown:
        left = timedelta(seconds=round((training.cooldown - since).total_seconds()))
        return Decision(f"the last run that nobody asked for began {since} ago; {left} of cooldown is left", wait=True)
    return Decision()


def _spent(runs: list[Run], training: Training, now: datetime) -> str:
    """Which budget of this month is used up; empty if none is. The first version of an endpoint counts for none."""
    month = [
        run
        for run in runs
        if (run.started_at.year, run.started_at.month) == (now.year, now.month)
        and run.trigger.kind is not TriggerKind.BOOTSTRAP
    ]
    most, usd = training.max_runs_per_month, training.max_usd_per_month
    if most is not None and len(month) >= most:
        return f"{len(month)} runs began this month; {most} are allowed (max_runs_per_month)"
    cost = sum(run.cost_usd for run in month)
    if usd is not None and cost >= usd:
        return f"this month's runs cost {cost:,.2f} US dollars; {usd:,.2f} are allowed (max_usd_per_month)"
    return ""
