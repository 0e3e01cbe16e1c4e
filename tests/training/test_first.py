"""First versions: every endpoint gets a candidate, once, and the gates decide about it."""

from pathlib import Path

import pytest

from fakes.registry import FakeRegistry
from fakes.release import HandClock
from fakes.state import FakeState
from noria.domain.events import CandidateRegistered, RetrainRequested
from noria.domain.model import Alias, Flavor
from noria.settings import Endpoint, GgufModel, Project, Training
from noria.training.first import FirstVersions

GGUF = Endpoint(task="chat", policy="p", gguf=GgufModel(gguf="m.gguf", licence="MIT", source="here"))
TRAINED = Endpoint(task="classification", policy="p", training=Training(data="d.csv"))


class Stage:
    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.state = FakeState(self.clock)
        self.registry = FakeRegistry(folder, self.clock)
        self.cards: list[str] = []
        self.folder = folder
        (folder / "m.gguf").write_bytes(b"GGUF and more")
        self.first = FirstVersions(
            self.state, self.registry, self.clock, lambda name: folder / name, lambda e, v: self.cards.append(v.ref)
        )

    def ensure(self, endpoint: Endpoint, times: int = 1) -> list[object]:
        for _ in range(times):
            self.first.ensure(Project(project="p", endpoints={"e": endpoint}))
            self.clock.pass_s(5)
        return self.state.pending_events()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_model_file_is_uploaded_with_its_options_and_proposed_with_a_card(stage: Stage) -> None:
    events = stage.ensure(GGUF)
    assert events == [CandidateRegistered(endpoint="e", model="e", version="1")]
    version = stage.registry.version("e", "1")
    assert (version.licence, version.tags["noria.gguf.threads"], stage.cards) == ("MIT", "1", ["e/1"])


def test_a_version_is_proposed_once_however_often_the_worker_looks(stage: Stage) -> None:
    assert len(stage.ensure(GGUF, times=3)) == 1
    assert len(stage.cards) == 1


def test_an_endpoint_with_training_data_asks_for_a_run(stage: Stage) -> None:
    (event,) = stage.ensure(TRAINED, times=2)
    assert isinstance(event, RetrainRequested)
    assert event.actor == "noria"


def test_a_champion_that_the_registry_knows_already_is_taken_over(stage: Stage) -> None:
    file = stage.folder / "other.gguf"
    file.write_bytes(b"GGUF other")
    stage.registry.register_file("e", file, flavor=Flavor.GGUF, source="s", licence="MIT", tags={})
    stage.registry.set_alias("e", Alias.CHAMPION, "1")
    assert stage.ensure(TRAINED) == [CandidateRegistered(endpoint="e", model="e", version="1")]
