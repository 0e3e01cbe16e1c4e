"""Whose files may run code: those of our runs, and those that a person answers for, as long as they are the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.models import version
from fakes.release import HandClock
from fakes.state import FakeState
from noria.adapters.registry.modelfiles import checksum
from noria.adapters.registry.trust import trusts
from noria.domain.model import ModelVersion, Trusted
from noria.domain.run import Run, RunState, Trigger, TriggerKind


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "model.pkl").write_bytes(b"code")
    return tmp_path


@pytest.fixture
def tagged(files: Path) -> ModelVersion:
    return replace(version(**{"noria.trusted": "yes"}), checksum=checksum(files))


@pytest.fixture
def state() -> FakeState:
    return FakeState(HandClock())


def test_a_tag_alone_is_nobodys_word(state: FakeState, tagged: ModelVersion, files: Path) -> None:
    assert not trusts(state, tagged, files)


def test_a_persons_word_holds_for_the_very_files_that_it_was_given_for(
    state: FakeState, tagged: ModelVersion, files: Path
) -> None:
    with state.note() as note:
        note.put(Trusted(id=tagged.checksum, by="ada", reason="ours", at=HandClock().now()))
    assert trusts(state, tagged, files)
    (files / "model.pkl").write_bytes(b"other code")
    assert not trusts(state, tagged, files)
    assert not trusts(state, replace(tagged, checksum=checksum(files)), files)


@pytest.mark.parametrize(("ended", "trusted"), [(RunState.SUCCEEDED, True), (RunState.FAILED, False)])
def test_what_a_run_of_ours_made_is_trusted(
    state: FakeState, tagged: ModelVersion, files: Path, ended: RunState, trusted: bool
) -> None:
    run = Run(
        id="r",
        endpoint="triage",
        trigger=Trigger(kind=TriggerKind.PERSON, cause="asked", actor="ada", reason="because"),
        state=ended,
        started_at=HandClock().now(),
        model="triage",
        version="1",
    )
    with state.note() as note:
        note.put(run)
    assert trusts(state, tagged, files) is trusted
    assert not trusts(state, replace(tagged, version="2"), files)
