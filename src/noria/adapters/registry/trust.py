"""Whose word counts for files that can run code when they are loaded."""

from pathlib import Path

from noria.adapters.registry.modelfiles import checksum
from noria.domain.model import ModelVersion, Trusted
from noria.domain.run import Run, RunState
from noria.ports import StateStore


def trusts(store: StateStore, version: ModelVersion, files: Path) -> bool:
    """Whether a version's files may run code: a run of this project made them or a person answers for them, and they
    are still the same."""
    made = any(
        run.state is RunState.SUCCEEDED and (run.model, run.version) == (version.name, version.version)
        for run in store.find(Run)
    )
    return (made or store.get(Trusted, version.checksum) is not None) and checksum(files) == version.checksum
