"""First versions: every endpoint gets a candidate, once, and the gates decide about it."""

import json
from pathlib import Path

import pytest

from fakes.registry import FakeRegistry
from fakes.release import HandClock
from fakes.state import FakeState
from noria.domain.deployment import CommandLine
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.errors import NoCredentials, UnknownModel
from noria.domain.events import CandidateRegistered, RetrainRequested
from noria.domain.model import Alias, Flavor
from noria.settings import Command, Deployment, Endpoint, GgufModel, Project, Registered, Training, Upstream
from noria.training import first
from noria.training.first import FirstVersions

GGUF = Endpoint(task="chat", policy="p", gguf=GgufModel(gguf="m.gguf", licence="MIT", source="here"))
TRAINED = Endpoint(task="classification", policy="p", training=Training(data="d.csv"))
AZURE = Endpoint(task="chat", policy="p", deployment=Deployment(upstream="azure", model="gpt-4o"))
VLLM = Command(
    run=("vllm", "serve", "--port", "{port}"), licence="MIT", source="hub", environment={"HF_TOKEN": "secret"}
)
COMMAND = Endpoint(task="chat", policy="p", command=VLLM)


class Stage:
    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.state = FakeState(self.clock)
        self.registry = FakeRegistry(folder, self.clock)
        self.cards: list[str] = []
        self.folder = folder
        (folder / "m.gguf").write_bytes(b"GGUF and more")
        self.keys = {"azure"}
        self.begin_anew()

    def begin_anew(self) -> None:
        """A worker that takes another project text into service begins anew."""
        self.first = FirstVersions(
            self.state,
            self.registry,
            self.clock,
            lambda name: self.folder / name,
            lambda e, v: self.cards.append(v.ref),
            self.demand_key,
        )

    def demand_key(self, upstream: str) -> None:
        if upstream not in self.keys:
            raise NoCredentials("AZURE_KEY isn't set.", "Set it.")

    def serves(self, version: str) -> None:
        """That version is champion now."""
        target = Target(model="e", version=version, role=Role.CHAMPION, weight=100, url="u", verdict_id="v")
        with self.state.note() as note:
            note.put(Route(endpoint="e", wire=Wire.OPENAI, revision=1, targets=(target,)))

    def ensure(self, endpoint: Endpoint, times: int = 1) -> list[object]:
        for _ in range(times):
            upstream = Upstream(kind="azure", url="https://r.example", key="AZURE_KEY")
            self.first.ensure(Project(project="p", endpoints={"e": endpoint}, upstreams={"azure": upstream}))
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


def test_a_model_elsewhere_becomes_a_version_that_names_upstream_and_model_and_nothing_secret(stage: Stage) -> None:
    assert stage.ensure(AZURE, times=3) == [CandidateRegistered(endpoint="e", model="e", version="1")]
    version = stage.registry.version("e", "1")
    assert (version.flavor, version.source, version.licence) == (
        Flavor.EXTERNAL,
        "azure:gpt-4o",
        "LicenseRef-provider-terms",
    )
    assert (version.tags["noria.upstream"], version.tags["noria.model"]) == ("azure", "gpt-4o")
    document = json.loads(stage.registry.download(version).read_text())
    assert document == {"upstream": "azure", "model": "gpt-4o", "wire": "openai"}


def test_nothing_is_judged_for_want_of_a_key(stage: Stage) -> None:
    stage.keys.clear()
    with pytest.raises(NoCredentials):
        stage.ensure(AZURE)
    assert stage.state.pending_events() == []
    stage.keys.add("azure")
    assert len(stage.ensure(AZURE)) == 1


def test_a_command_is_kept_where_only_the_project_file_can_put_it(stage: Stage) -> None:
    assert len(stage.ensure(COMMAND, times=2)) == 1
    version = stage.registry.version("e", "1")
    assert version.flavor is Flavor.COMMAND
    kept = stage.state.get(CommandLine, version.checksum)
    assert kept is not None
    assert kept.arguments(81) == ["vllm", "serve", "--port", "81"]
    assert kept.environment == {"HF_TOKEN": "secret"}
    assert "secret" not in stage.registry.download(version).read_text()


def test_another_model_in_the_project_file_is_a_candidate_and_the_same_is_none(stage: Stage) -> None:
    stage.ensure(AZURE)
    stage.serves("1")
    stage.begin_anew()
    assert len(stage.ensure(AZURE, times=2)) == 1
    stage.begin_anew()
    other = AZURE.model_copy(update={"deployment": Deployment(upstream="azure", model="gpt-5")})
    assert stage.ensure(other, times=2)[1:] == [CandidateRegistered(endpoint="e", model="e", version="2")]
    stage.serves("2")
    stage.begin_anew()
    back = stage.ensure(AZURE, times=2)[2]
    assert isinstance(back, CandidateRegistered)
    assert (back.version, bool(back.again)) == ("1", True), "it was judged before, under another day's policy"


def registered(stage: Stage, content: bytes) -> str:
    file = stage.folder / "r.gguf"
    file.write_bytes(b"GGUF" + content)
    return stage.registry.register_file("e", file, flavor=Flavor.GGUF, source="s", licence="MIT", tags={}).version


def test_a_version_of_the_registry_is_taken_by_number_or_alias(stage: Stage) -> None:
    numbered = Endpoint(task="chat", policy="p", registered=Registered(version="2"))
    with pytest.raises(UnknownModel):
        stage.ensure(numbered)
    registered(stage, b"1")
    registered(stage, b"2")
    assert stage.ensure(numbered, times=2) == [CandidateRegistered(endpoint="e", model="e", version="2")]
    stage.serves("2")
    stage.begin_anew()
    stage.registry.set_alias("e", Alias.PREVIOUS, "1")
    aliased = Endpoint(task="chat", policy="p", registered=Registered(version="previous"))
    assert stage.ensure(aliased, times=2)[1:] == [CandidateRegistered(endpoint="e", model="e", version="1")]


def test_an_alias_that_moves_brings_a_candidate(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first, "LOOK_S", 0.0)
    aliased = Endpoint(task="chat", policy="p", registered=Registered(version="previous"))
    for content in (b"1", b"2"):
        registered(stage, content)
    stage.registry.set_alias("e", Alias.PREVIOUS, "1")
    stage.ensure(aliased)
    stage.serves("1")
    assert len(stage.ensure(aliased)) == 1
    stage.registry.set_alias("e", Alias.PREVIOUS, "2")
    assert stage.ensure(aliased)[1:] == [CandidateRegistered(endpoint="e", model="e", version="2")]


def test_a_model_file_of_a_project_that_is_older_than_this_rule_is_left_alone(stage: Stage) -> None:
    registered(stage, b"newer")
    stage.serves("1")
    assert stage.ensure(GGUF, times=2) == []
