"""The project in service, and the memory that knows it."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from noria.adapters.clock import SystemClock
from noria.adapters.state.sqlite import SqliteState, file_of, is_current
from noria.domain.audit import LOOP
from noria.domain.status import AppliedProject
from noria.ports import Clock, StateStore
from noria.projectfile import FILE_NAME, load_project, parse_project, read_text
from noria.settings import Project, Settings

if TYPE_CHECKING:
    from noria.adapters.state.sql import SqlState

APPLIED = "project"
"""Id of the one AppliedProject."""


def settings(root: Path) -> Settings:
    """What `noria.yaml` in that folder says now, whether it is in service or not."""
    return load_project(root)


def clock() -> Clock:
    """The system's clock."""
    return SystemClock()


def state(settings: Settings) -> "SqliteState | SqlState":
    """The control plane's memory, its schema brought up to date."""
    settings.home.mkdir(parents=True, exist_ok=True)
    file = file_of(settings.state_url)
    if file is None or not is_current(file):
        from noria.adapters.state.sql import migrate

        migrate(settings.state_url)
    if file is not None:
        return SqliteState(file, clock())
    from noria.adapters.state.sql import SqlState

    return SqlState(settings.state_url, clock())


def opened(root: Path) -> tuple[Settings, "SqliteState | SqlState"]:
    """The project in service and its state; the file is read only if nothing was applied yet.

    So a file that somebody is in the midst of editing keeps no process from starting.

    Raises:
        InvalidProject: There is no project, or nothing was applied yet and the file is wrong.
    """
    if not (root / FILE_NAME).exists():
        settings(root)  # raises
    bare = Settings.model_construct(root=root, project=Project.model_construct(project="", endpoints={}))
    store = state(bare)  # the folder is all it takes to find it
    applied = store.get(AppliedProject, APPLIED)
    return (settings(root) if applied is None else parse_project(applied.text, root)), store


def in_service(settings: Settings, store: StateStore) -> Settings:
    """The project as it was applied last; the file is applied if none was yet."""
    applied = store.get(AppliedProject, APPLIED)
    if applied is not None:
        return parse_project(applied.text, settings.root)
    text = read_text(settings.root, FILE_NAME)
    apply(store, settings, text, LOOP, "first start")
    return settings


def project_in_service(settings: Settings) -> Callable[[], Project]:
    """What says which project was applied last; its text is read anew only when it is another.

    What it returns raises NoriaError while that can't be known.
    """
    store, seen, project = state(settings), "", settings.project

    def now() -> Project:
        nonlocal seen, project
        applied = store.get(AppliedProject, APPLIED)
        if applied is not None and applied.hash != seen:
            project, seen = parse_project(applied.text, settings.root).project, applied.hash
        return project

    return now


def apply(store: StateStore, settings: Settings, text: str, actor: str, reason: str, changes: str = "") -> str:
    """Take a project's text into service; returns its hash."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    before = store.get(AppliedProject, APPLIED)
    evidence = {"hash": digest, "before": before.hash if before else "", "changes": changes.splitlines()}
    with store.change(actor, "project.applied", settings.project.project, reason=reason, evidence=evidence) as change:
        change.put(AppliedProject(text=text, hash=digest, applied_at=datetime.now(UTC), actor=actor))
    return digest


def keys_exist(settings: Settings) -> bool:
    """Whether an API key was ever made, so that nobody gets in without one."""
    from noria.governance.keys import any_ever

    return any_ever(state(settings))
