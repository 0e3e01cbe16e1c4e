"""The fleet: a model server for every version that is needed, and for no other."""

import threading
from pathlib import Path

import pytest

from fakes.host import MemoryHost
from fakes.registry import FakeRegistry
from fakes.release import HandClock
from fakes.state import FakeState
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.errors import NoriaError, UpstreamFailed
from noria.domain.gate import GateResult, Verdict
from noria.domain.model import Flavor, ModelVersion
from noria.release.fleet import Fleet


class Stage:
    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.state = FakeState(self.clock)
        self.registry = FakeRegistry(folder, self.clock)
        self.host = MemoryHost()
        self.fleet = Fleet(self.state, self.registry, self.host, self.clock)
        for number in range(3):
            file = folder / f"{number}.gguf"
            file.write_bytes(b"GGUF" + bytes([number]))
            self.registry.register_file("m", file, flavor=Flavor.GGUF, source="here", licence="MIT", tags={})

    def route(self, champion: str, previous: str = "", url: str = "") -> None:
        with self.state.note() as note:
            note.put(
                Route(
                    endpoint="e",
                    wire=Wire.OPENAI,
                    revision=1,
                    targets=(target(champion, url or f"unix:/fake/m/{champion}.sock"),),
                    previous=target(previous, f"unix:/fake/m/{previous}.sock") if previous else None,
                )
            )

    def verdict(self, version: str, passed: bool) -> None:
        result = GateResult(gate="g", passed=passed, summary="s")
        with self.state.note() as note:
            note.put(
                Verdict(
                    id=f"v{version}",
                    endpoint="e",
                    model="m",
                    version=version,
                    champion="",
                    decided_at=self.clock.now(),
                    policy_hash="",
                    results=(result,),
                )
            )


def target(version: str, url: str) -> Target:
    return Target(model="m", version=version, role=Role.CHAMPION, weight=100, url=url, verdict_id="v")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_the_champion_and_the_one_before_it_are_brought_up(stage: Stage) -> None:
    stage.route("2", previous="1")
    stage.fleet.reconcile()
    assert set(stage.host.running()) == {"m/1", "m/2"}


def test_a_server_that_died_comes_back(stage: Stage) -> None:
    stage.route("1")
    stage.fleet.reconcile()
    stage.host.crash("m/1")
    stage.fleet.reconcile()
    assert stage.host.starts == ["m/1", "m/1"]


def test_a_server_that_comes_up_elsewhere_moves_its_targets_and_nothing_else(stage: Stage) -> None:
    stage.route("1", url="unix:/old.sock")
    stage.fleet.reconcile()
    route = stage.state.get(Route, "e")
    assert route is not None
    assert (route.champion.url, route.revision, route.champion.weight) == ("unix:/fake/m/1.sock", 2, 100)


def test_one_broken_version_does_not_keep_the_others_down(stage: Stage) -> None:
    stage.route("1")
    with stage.state.note() as note:
        broken = Target(model="m", version="9", role=Role.CHAMPION, weight=100, url="unix:/x", verdict_id="v")
        note.put(Route(endpoint="a", wire=Wire.OPENAI, revision=1, targets=(broken,)))
    with pytest.raises(Exception, match="9"):
        stage.fleet.reconcile()
    assert "m/1" in stage.host.running()


def test_a_slow_start_holds_no_other_up_and_is_made_once(stage: Stage) -> None:
    slow, start = threading.Event(), stage.host.start
    asked = []

    def held(version: ModelVersion) -> str:
        asked.append(version.ref)
        if version.ref == "m/1":
            assert slow.wait(30)
        return start(version)

    stage.host.start = held  # type: ignore[method-assign]
    stage.route("1", url="unix:/old.sock")
    stage.fleet.reconcile()
    with stage.state.note() as note:
        other = Target(model="m", version="2", role=Role.CHAMPION, weight=100, url="unix:/x", verdict_id="v")
        note.put(Route(endpoint="a", wire=Wire.OPENAI, revision=1, targets=(other,)))
    while "m/2" not in stage.host.running():
        stage.fleet.reconcile()
    assert sorted(asked) == ["m/1", "m/2"]
    moved = stage.state.get(Route, "a")
    assert moved is not None
    slow.set()
    while stage.state.get(Route, "e").champion.url != "unix:/fake/m/1.sock":  # type: ignore[union-attr]
        stage.fleet.reconcile()
    assert sorted(asked) == ["m/1", "m/2"]
    stage.fleet.close()


def test_what_a_start_failed_of_is_said_until_it_works(stage: Stage) -> None:
    start = stage.host.start

    def failing(_: ModelVersion) -> str:
        raise UpstreamFailed("m/1 ended while it started: no memory", "Its log is there.")

    stage.host.start = failing  # type: ignore[method-assign]
    stage.route("1")
    for _ in range(2):
        with pytest.raises(NoriaError, match="no memory"):
            stage.fleet.reconcile()
    stage.host.start = start  # type: ignore[method-assign]
    stage.fleet.reconcile()
    assert "m/1" in stage.host.running()


def test_a_version_that_nobody_needs_any_more_is_stopped(stage: Stage) -> None:
    stage.route("1")
    stage.verdict("2", passed=False)
    stage.host.start(stage.registry.version("m", "2"))
    stage.fleet.reconcile()
    assert set(stage.host.running()) == {"m/1", "m/2"}, "an API process may still send requests there"
    stage.clock.pass_s(5)
    stage.fleet.reconcile()
    assert set(stage.host.running()) == {"m/1"}


def test_a_version_on_trial_is_left_alone(stage: Stage) -> None:
    stage.route("1")
    stage.host.start(stage.registry.version("m", "2"))
    stage.fleet.reconcile()
    assert "m/2" in stage.host.running()


def test_a_passed_version_is_kept_until_its_rollout_has_had_time_to_begin(stage: Stage) -> None:
    stage.route("1")
    stage.verdict("2", passed=True)
    stage.host.start(stage.registry.version("m", "2"))
    stage.fleet.reconcile()
    assert "m/2" in stage.host.running()
    stage.clock.pass_s(61)
    stage.fleet.reconcile()
    stage.clock.pass_s(5)
    stage.fleet.reconcile()
    assert "m/2" not in stage.host.running()


def test_a_server_that_the_worker_before_started_elsewhere_is_found_there(stage: Stage) -> None:
    stage.host.start(stage.registry.version("m", "1"))
    stage.route("1", url="unix:/old.sock")
    stage.fleet.reconcile()
    route = stage.state.get(Route, "e")
    assert route is not None
    assert route.champion.url == "unix:/fake/m/1.sock"
    assert stage.host.starts == ["m/1"]
