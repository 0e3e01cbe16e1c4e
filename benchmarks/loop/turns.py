"""One turn of the wheel after another on a project that is up, under load: from the alarm until the new version serves.

The world changes, a monitor's evidence reaches its threshold, the alert fires, callers' labels come in, the run trains,
the gates try the candidate on its real model server, it is shadowed, gets half the traffic, and is promoted. What is
told is the time from the alert's own time until the promotion is committed, less the training step.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.loop.shop import Callers, Shop
from benchmarks.parts import Found
from noria.domain.alert import Alert
from noria.domain.events import AlertRaised
from noria.domain.gate import Verdict
from noria.domain.rollout import Rollout
from noria.domain.run import Run, RunState
from noria.ports import StateStore

TURNS = {True: 1, False: 3}
QUIET_S = 15.0
"""Of the old world before it changes: windows against which nothing is wrong, and the cooldown of the run before."""


def measure(folder: Path, quick: bool) -> Found:
    """Turn the wheel, and take each new version back."""
    return asyncio.run(_measure(folder, TURNS[quick]))


async def _measure(folder: Path, turns: int) -> Found:
    told, rollbacks, taken = list[Mapping[str, float]](), list[float](), list[float]()
    with Shop(folder / "shop") as shop:
        url = await shop.ready()
        state = shop.state()
        async with Callers(url) as callers:
            for turn in range(1, turns + 1):
                await asyncio.sleep(QUIET_S)
                told.append(await _turn(shop, state, callers, turn))
                seconds, until = await _rollback(shop, callers)
                rollbacks.append(seconds)
                taken.append(until)
                callers.world = 0
        answered, failed = sum(callers.versions.values()), dict(callers.failed)
    parts = {name: median(each[name] for each in told) for name in told[0]}
    return {
        "alert_to_serving_minus_training_s": parts["alert_to_serving"] - parts["train"],
        "alert_to_serving_parts_s": parts,
        "turns": len(told),
        "rollback_s": median(rollbacks),
        "rollback_until_old_answers_s": median(taken),
        "answers_meanwhile": answered,
        "failed_meanwhile": failed,
    }, {}


async def _turn(shop: Shop, state: StateStore, callers: Callers, world: int) -> dict[str, float]:
    """Seconds of each part of a turn."""
    known = {run.id for run in state.find(Run)}
    changed = datetime.now(UTC)
    callers.world = world

    def finished() -> Run | None:
        return next((r for r in state.find(Run) if r.id not in known and r.state is not RunState.RUNNING), None)

    await shop.until(finished)
    run = finished()
    assert run is not None
    if run.state is not RunState.SUCCEEDED:
        raise RuntimeError(f"the run failed: {run.error}")
    ref = f"{run.model}/{run.version}"

    def verdict() -> Verdict | None:
        return next((v for v in state.find(Verdict) if v.version == run.version), None)

    await shop.until(verdict)
    decided = verdict()
    assert decided is not None
    if not decided.passed:
        raise RuntimeError(f"the gates refused {ref}: {'; '.join(decided.reasons)}")

    def over() -> bool:
        rollout = state.get(Rollout, decided.id)
        return rollout is not None and rollout.stage.finished

    await shop.until(over)
    rollout = state.get(Rollout, decided.id)
    assert rollout is not None
    return _parts(state, run, decided, rollout, changed)


def _parts(state: StateStore, run: Run, verdict: Verdict, rollout: Rollout, changed: datetime) -> dict[str, float]:
    alert = next(a for a in state.find(Alert) if _id(a) == run.trigger.cause)
    steps = {step.name: step for step in run.steps}
    assert run.finished_at is not None
    shadow = rollout.history[0].at
    promoted = rollout.history[-1].at
    if rollout.history[-1].stage.value != "promoted":
        raise RuntimeError(f"{run.model}/{run.version} was rolled back: {rollout.history[-1].reason}")
    return {
        "change_to_alert": (alert.raised_at - changed).total_seconds(),
        "alert_to_run": (run.started_at - alert.raised_at).total_seconds(),
        "run_to_training": (steps["train"].started_at - run.started_at).total_seconds(),
        "labels": (steps["labels"].finished_at - run.started_at).total_seconds(),
        "train": (steps["train"].finished_at - steps["train"].started_at).total_seconds(),
        "training_to_candidate": (run.finished_at - steps["train"].finished_at).total_seconds(),
        "gates": (verdict.decided_at - run.finished_at).total_seconds(),
        "verdict_to_shadow": (shadow - verdict.decided_at).total_seconds(),
        "shadow_and_canary": (promoted - shadow).total_seconds(),
        "alert_to_serving": (promoted - alert.raised_at).total_seconds(),
    }


def _id(alert: Alert) -> str:
    return AlertRaised(endpoint=alert.endpoint, alert_id=alert.id, at=alert.raised_at).id


async def _rollback(shop: Shop, callers: Callers) -> tuple[float, float]:
    """Wall time of `noria rollback`, and until callers only get the version before."""
    begun = time.monotonic()
    newest = max(callers.versions, key=lambda ref: int(ref.rpartition("/")[2]))
    seconds = await asyncio.to_thread(
        shop.noria, "rollback", "triage", "--reason", "to see how long it takes", "--by", "benchmark"
    )
    await asyncio.sleep(1)
    return seconds, max(callers.last[newest] - begun, 0.0)
