"""What judges candidates: the release room with its rows, prices, probes and gates."""

from collections.abc import Callable
from hashlib import file_digest
from typing import TYPE_CHECKING

from noria.bootstrap.judging import prices
from noria.bootstrap.parts import policies, upstream
from noria.domain.errors import InvalidData
from noria.ports import Clock, ModelHost, ModelRegistry, StateStore
from noria.settings import Policy, Settings

if TYPE_CHECKING:
    from noria.release.case import Rows
    from noria.release.judging import Release
    from noria.training.datasets import HeldOut
    from noria.training.pipeline import Pipeline


def release(
    settings: Settings,
    store: StateStore,
    times: Clock,
    models: ModelRegistry,
    servers: ModelHost,
    pipeline: "Pipeline",
) -> "Release":
    """Compose it for the project in service."""
    from noria.adapters.gates import load_gate
    from noria.governance.probes import load_probes
    from noria.release.judging import Release
    from noria.release.trial import Trial

    project = settings.project

    def holdout(endpoint: str, run_id: str) -> "Rows | None":
        held = pipeline.holdout(endpoint, run_id)
        return None if held is None else _rows(held)

    return Release(
        state=store,
        registry=models,
        host=servers,
        trial=Trial(lambda: upstream(lambda: project)),
        clock=times,
        policy=policies(settings),
        task=lambda endpoint: project.endpoints[endpoint].task,
        holdout=holdout,
        frozen=_frozen(settings, pipeline),
        learnt=pipeline.learnt,
        price=prices(project, store, times),
        probes=lambda policy: load_probes(policy, settings.root),
        find=load_gate,
    )


def _frozen(settings: Settings, pipeline: "Pipeline") -> "Callable[[str, Policy], tuple[Rows, str] | None]":
    """A policy's frozen set and its checksum, which has to be the one that the policy names, if it names one."""

    def read(endpoint: str, policy: Policy) -> "tuple[Rows, str] | None":
        if policy.frozen is None:
            return None
        path = settings.root / policy.frozen
        if not path.is_file():
            raise InvalidData(f"The frozen set {policy.frozen} isn't there.", "Correct frozen: in the policy.")
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        if policy.frozen_sha256 not in (None, digest):
            raise InvalidData(
                f"The frozen set {policy.frozen} was changed: its checksum is {digest}.",
                "Put the file back as it was, or have the policy's owner name the new checksum.",
            )
        return _rows(pipeline.frozen(endpoint, path)), digest

    return read


def _rows(held: "HeldOut") -> "Rows":
    from noria.release.case import Rows

    return Rows(texts=held.texts, labels=held.labels, groups=held.groups, origins=held.origins)
