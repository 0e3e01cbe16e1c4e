"""The loop's worker is killed everywhere: what comes of a run is what would have come of it without.

`pytest tests/chaos -m loop` kills at every boundary between steps, inside the steps, and fifty times at random, and
ends with a table; with `--few-kills` only at some of these places.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.wheel import Nursery, Wheel, new_wheel
from noria.domain.endpoint import Route

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.loop, pytest.mark.timeout(1200)]


def around(step: str, *inside: str) -> tuple[str, ...]:
    """The places around a durable step, and those in it, in the order in which a run comes to them."""
    return (f"before {step}", *inside, f"after {step}", f"written {step}")


TRIGGER = (
    "after hand-over of an event",
    *around("Triggers.consider: decide", "in run.started", "committed run.started"),
)
PIPELINE = (
    *around("Pipeline.execute: labels"),
    *around("Pipeline.execute: snapshot"),
    *around("Pipeline.execute: validate"),
    *around(
        "Pipeline.execute: train",
        "before training job",
        "before fit",
        "after fit",
        "after logging of the model",
        "after training job",
    ),
    *around("Pipeline.execute: evaluate", "before attaching of files", "after attaching of files"),
    *around("Pipeline.execute: register", "before making of the version", "after making of the version"),
    *around("Pipeline.execute: card"),
    *("before Pipeline.execute: finish", "in candidate.registered", "committed candidate.registered"),
)
BRING_UP = ("after start of the model server", "after note of the model server")
GATES = (
    "after Pipeline.execute: finish",
    *around("Release.judge_candidate: bring up the candidate", *BRING_UP),
    *around(
        "Release.judge_candidate: judge", "before trial", "after trial", "in verdict.passed", "committed verdict.passed"
    ),
    *around("Release.judge_candidate: let go of the refused"),
)
BEGIN = (
    "written Pipeline.execute: finish",
    *around("Rollouts.begin: take the place"),
    *around("Rollouts.begin: bring up the candidate"),
    *around("Rollouts.begin: route", "in rollout.started", "committed rollout.started"),
    *around("Rollouts.begin: tell the registry", "after setting of an alias"),
)
"""A rollout's beginning: there is no traffic meanwhile, or it would be over before."""
ROLLOUT = (
    *BEGIN,
    *("in rollout.stepped", "committed rollout.stepped", "in version.promoted", "committed version.promoted"),
)
EVERYWHERE = {"trigger": TRIGGER, "pipeline": PIPELINE, "gates": GATES, "rollout": ROLLOUT}
FEW = (
    "committed run.started",
    "after logging of the model",
    "after Pipeline.execute: train",
    "after making of the version",
    "in candidate.registered",
    "after start of the model server",
    "in verdict.passed",
    "committed rollout.started",
    "in version.promoted",
)
"""One of each kind, for a run of all tests."""
FITTED = ("after fit", "after logging of the model")
"""Where a fit is lost with its MLflow run."""
RANDOM, FEW_RANDOM = 50, 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The places, a run for each part of the way."""
    if "points" in metafunc.fixturenames:
        parts = {"everywhere": FEW} if metafunc.config.getoption("--few-kills") else EVERYWHERE
        metafunc.parametrize("points", list(parts.values()), ids=list(parts))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    nursery = Nursery()
    try:
        wheel = new_wheel(tmp_path_factory.mktemp("wheel") / "shop", nursery)
        yield wheel
        if not wheel.pid:
            wheel.live()
        wheel.until(wheel.quiet)
        wheel.stop()
    finally:
        nursery.close()
    assert not wheel.servers(), "model servers were left behind"


@pytest.fixture(scope="module")
def undisturbed(wheel: Wheel) -> tuple[dict[str, Any], float]:
    """What a run comes to that nobody disturbs, and how many seconds it takes."""
    begun = time.monotonic()
    alert = wheel.ask()
    wheel.until(lambda: wheel.ended(alert))
    took = time.monotonic() - begun
    account = wheel.account(alert)
    assert account["run"][0] == "succeeded"
    assert account["route"] == [("candidate", "champion", 100)]
    assert account["chain"]
    wheel.kill()
    return account, took


def in_order(wheel: Wheel) -> list[tuple[str, str]]:
    """Steps that were begun again after a later one of their workflow had begun: there must be none."""
    places: dict[tuple[str, str], list[str]] = {}
    again = []
    for event, step in wheel.beginnings():
        steps = places.setdefault((event, step.partition(":")[0]), [])
        if step not in steps:
            steps.append(step)
        elif steps[-1] != step:
            again.append((event, step))
    return again


def test_a_worker_that_is_killed_everywhere_does_what_one_does_that_lives(
    wheel: Wheel, undisturbed, points: tuple[str, ...], kills: Callable[..., None]
) -> None:
    """Every death is the next life's beginning: one run meets all the places."""
    fits, repeated = wheel.fits(), dict[str, Counter[tuple[str, str]]]()
    alert = wheel.ask()
    before = known = wheel.steps_begun()
    last = ""
    for point in (*points, ""):
        wheel.quietly = point in BEGIN
        wheel.live(point)
        wheel.until(lambda: wheel.ended(alert) if not point else wheel.pid == 0)  # noqa: B023 (called at once)
        begun = wheel.steps_begun()
        if last:
            repeated[last] = (begun - known) & known
        last, known = point, begun
    account = wheel.account(alert)
    right = account == undisturbed[0]
    for point, steps in repeated.items():
        kills(point, 1, int(right), f"{steps.total()} of {len(known - before)} steps")
    wheel.kill()
    assert account == undisturbed[0]
    assert wheel.fits() - fits == 1 + sum(point in FITTED for point in points), "trained again what was trained"
    assert not in_order(wheel)
    for point, steps in repeated.items():
        most = max(Counter(event for event, _ in steps).values(), default=0)
        assert most <= 1, f"the death {point} had more than the step under way done again: {steps}"


def test_fifty_deaths_at_any_moment_change_nothing_of_what_runs_come_to(
    wheel: Wheel, undisturbed, few_kills: bool, kills: Callable[..., None]
) -> None:
    """The worker's compute child dies, too, now and then."""
    account, took = undisturbed
    chance, deaths, jobs, right, accounts = random.Random(7), 0, 0, 0, []
    before, wanted = wheel.steps_begun(), FEW_RANDOM if few_kills else RANDOM
    alert = ""
    while deaths < wanted or alert:
        if not wheel.pid:
            wheel.live()
        if not alert:
            alert = wheel.ask()
        ends = time.monotonic() + (chance.uniform(0.05, took) if deaths < wanted else 120)
        wheel.until(lambda: wheel.ended(alert) or time.monotonic() > ends)  # noqa: B023 (called at once)
        if wheel.ended(alert):
            accounts.append(wheel.account(alert))
            right += accounts[-1] == account
            alert = ""
        elif deaths < wanted and chance.random() < 0.2 and (children := compute_children(wheel.pid)):
            os.kill(chance.choice(children), signal.SIGKILL)
            jobs, deaths = jobs + 1, deaths + 1
        elif deaths < wanted:
            wheel.kill()
            deaths += 1
        else:
            raise AssertionError(f"the last run did not end\n{wheel.log()}")
    begun = wheel.steps_begun() - before
    again = sum(begun.values()) - len(begun)
    kills(f"at random: {deaths - jobs} × worker, {jobs} × job", len(accounts), right, f"{again} of {len(begun)} steps")
    assert accounts == [account] * len(accounts)
    assert not in_order(wheel)
    assert again <= 2 * deaths


def test_in_the_end_only_what_serves_is_up(wheel: Wheel, undisturbed) -> None:
    if not wheel.pid:
        wheel.live()
    route = wheel.state.get(Route, "triage")
    serving = {route.champion.version: 1, route.previous.version: 1}
    wheel.until(lambda: wheel.servers() == serving, 60)


def compute_children(worker: int) -> list[int]:
    """The worker's own children: those that work for it, not the model servers."""
    try:
        children = [int(pid) for pid in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()]
        return [pid for pid in children if b"noria.modelserver" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []
