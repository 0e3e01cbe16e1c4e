"""Versions that are added by hand, over fakes: what becomes of each kind, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.models import TEXT, classifier, save
from fakes.registry import FakeRegistry
from fakes.release import HandClock
from fakes.state import FakeState
from noria.adapters.registry.packages import prepare
from noria.domain.errors import InvalidData, Refused, UnknownEndpoint, UnknownModel, UntrustedArtifact
from noria.domain.events import CandidateRegistered
from noria.domain.gate import Verdict
from noria.domain.model import Flavor, Origin, Trusted
from noria.settings import Project
from noria.training.adding import Additions, Wanted
from noria.training.first import FirstVersions

PROJECT = Project.model_validate(
    {
        "project": "shop",
        "upstreams": {
            "azure": {"kind": "azure", "url": "https://r.example", "key": "AZURE_KEY"},
            "hub": {"kind": "openai", "url": "https://h.example", "auth": "none"},
        },
        "endpoints": {
            "triage": {"task": "classification", "policy": "p", "training": {"data": "d.csv"}},
            "assistant": {
                "task": "chat",
                "policy": "p",
                "gguf": {"gguf": "m.gguf", "licence": "MIT", "source": "s", "context": 512},
            },
        },
    }
)


class Stage:
    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.state = FakeState(self.clock)
        self.registry = FakeRegistry(folder / "registry", self.clock)
        self.cards: list[str] = []
        self.fetched: Callable[[str, Path], Origin] = lambda *_: Origin(folder)

        def card(_: str, version: Any) -> None:
            self.cards.append(version.ref)

        first = FirstVersions(self.state, self.registry, self.clock, Path, card, lambda _: None)
        self.additions = Additions(
            state=self.state,
            registry=self.registry,
            clock=self.clock,
            project=PROJECT,
            first=first,
            prepare=prepare,
            fetch=lambda what, into: self.fetched(what, into),
            write_card=card,
        )

    def add(self, endpoint: str, what: object, **more: Any) -> Any:
        known = {"licence": "MIT", "source": "ours", "by": "ada"}
        return self.additions.add(Wanted(endpoint=endpoint, what=str(what), **(known | more)))

    @property
    def events(self) -> list[Any]:
        return self.state.pending_events()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": {"pickled_model": "model.pkl"}}}))
    return folder


def test_the_folder_of_a_model_is_registered_with_a_card_and_goes_to_the_gates(stage: Stage, tmp_path: Path) -> None:
    version = stage.add("triage", save(tmp_path / "m", classifier(), inputs=TEXT), reason="made by the other team")
    assert (version.ref, version.flavor, version.licence) == ("triage/1", Flavor.PYFUNC, "MIT")
    assert stage.cards == ["triage/1"]
    assert stage.events == [CandidateRegistered(endpoint="triage", model="triage", version="1")]
    entry = list(stage.state.audit_trail())[-1]
    assert (entry.actor, entry.action, entry.reason) == ("ada", "version.registered", "made by the other team")
    assert entry.evidence["checksum"] == version.checksum


def test_a_model_file_gets_the_endpoints_own_options(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "new.gguf"
    file.write_bytes(b"GGUF new")
    assert stage.add("assistant", file).tags["noria.gguf.context"] == "512"


def test_a_pickle_needs_a_person_who_answers_for_it(stage: Stage, pickled: Path) -> None:
    with pytest.raises(UntrustedArtifact, match=r"model\.pkl") as caught:
        stage.add("triage", pickled)
    assert "--trust --by NAME --reason TEXT" in caught.value.remedy
    for missing in ({"by": "", "reason": "ours"}, {"reason": " "}):
        with pytest.raises(Refused, match="Trust is a person's"):
            stage.add("triage", pickled, trust=True, **missing)
    assert stage.events == []
    version = stage.add("triage", pickled, trust=True, reason="our own, from before")
    assert (version.tags["noria.trusted"], version.tags["noria.trusted_by"]) == ("yes", "ada")
    assert list(stage.state.audit_trail())[-1].evidence["trusted"] is True
    word = stage.state.get(Trusted, version.checksum)
    assert word is not None
    assert (word.by, word.reason) == ("ada", "our own, from before")


def test_trust_is_not_given_to_what_does_not_need_it(stage: Stage, tmp_path: Path) -> None:
    version = stage.add("triage", save(tmp_path / "m", classifier(), inputs=TEXT), trust=True, reason="why not")
    assert "noria.trusted" not in version.tags
    assert stage.state.get(Trusted, version.checksum) is None


def test_licence_and_source_have_to_be_known(stage: Stage, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT)
    with pytest.raises(Refused, match="licence is not said"):
        stage.add("triage", folder, licence="")
    with pytest.raises(Refused, match="source is not said"):
        stage.add("triage", folder, source="")


def test_what_the_hub_says_of_licence_and_source_is_taken_over(stage: Stage, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT)
    stage.fetched = lambda what, into: Origin(folder, f"https://hub/{what}", "apache-2.0")
    version = stage.add("triage", "hf:org/model@main", licence="", source="")
    assert (version.licence, version.source) == ("apache-2.0", "https://hub/hf:org/model@main")


def test_a_version_of_another_model_is_copied_and_one_of_its_own_is_proposed(stage: Stage, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT)
    add = stage.registry.register_file
    add("theirs", folder, flavor=Flavor.PYFUNC, source="s", licence="BSD-3-Clause", tags={})
    copied = stage.add("triage", "models:/theirs/1", licence="", source="")
    assert (copied.ref, copied.licence, copied.source) == ("triage/1", "BSD-3-Clause", "models:/theirs/1")
    stage.clock.pass_s(1)
    assert stage.add("triage", "models:/triage/1") == copied
    with pytest.raises(UnknownModel):
        stage.add("triage", "models:/theirs@production")


@pytest.mark.parametrize("what", ["azure:gpt-4o", "azure_openai:gpt-4o"])
def test_a_model_of_an_upstream_is_named(stage: Stage, what: str) -> None:
    version = stage.add("assistant", what, licence="", source="")
    assert (version.flavor, version.source) == (Flavor.EXTERNAL, "azure:gpt-4o")
    assert version.licence == "LicenseRef-provider-terms"


@pytest.mark.parametrize("what", ["other:gpt-4o", "https://169.254.169.254/x", "nowhere.gguf", "azure:"])
def test_what_is_neither_a_path_nor_an_upstreams_model_is_refused(stage: Stage, what: str) -> None:
    with pytest.raises(InvalidData):
        stage.add("assistant", what)
    assert stage.events == []


def test_a_model_that_predicts_is_none_for_an_endpoint_that_chats(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="predicts, but assistant chats"):
        stage.add("assistant", save(tmp_path / "m", classifier(), inputs=TEXT))
    assert stage.registry.versions("assistant") == []


def test_an_endpoint_that_is_not_there_is_said_so(stage: Stage) -> None:
    with pytest.raises(UnknownEndpoint):
        stage.add("nothing", "azure:gpt-4o")


def test_a_version_that_was_judged_is_judged_once_more(stage: Stage) -> None:
    stage.add("assistant", "azure:gpt-4o")
    verdict = Verdict(
        id="v1",
        endpoint="assistant",
        model="assistant",
        version="1",
        champion="",
        decided_at=stage.clock.now(),
        policy_hash="",
        results=(),
    )
    with stage.state.note() as note:
        note.put(verdict)
    stage.add("assistant", "azure:gpt-4o")
    first, second = stage.events
    assert (first.again, bool(second.again), second.version) == ("", True, "1")
