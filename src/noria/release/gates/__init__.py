"""The gates: what a version has to show before it gets traffic, a function each, found by name.

Built-in gates come in by the same door as a plug-in's, the entry points `noria.gates`. One that can't look raises:
that is a gate which has not passed.
"""

from collections.abc import Callable, Mapping

from noria.domain.errors import InvalidProject, NoriaError
from noria.domain.gate import GateResult
from noria.release.case import Case
from noria.release.gates import checks, leakage, parity, quality, running, safety, slices
from noria.settings import Task

Gate = Callable[[Case], GateResult]
"""Looks at a case; raises if it can't."""
Find = Callable[[str], Gate]
"""Name → gate. Raises InvalidProject if nobody has installed it."""

BUILT_IN: Mapping[str, Gate] = {
    "policy": checks.policy,
    "answers": checks.answers,
    "quality": quality.quality,
    "slices": slices.slices,
    "groups": parity.groups,
    "leakage": leakage.leakage,
    "safety": safety.safety,
    "latency": running.latency,
    "cost": running.cost,
    "size": checks.size,
    "licence": checks.licence,
    "card": checks.card,
}
"""Name → gate, for those that Noria brings."""
CLASSIFIER: tuple[str, ...] = tuple(name for name in BUILT_IN if name != "safety")
CHAT: tuple[str, ...] = ("policy", "answers", "leakage", "safety", "latency", "cost", "size", "licence", "card")
"""What a version of each kind of endpoint has to pass."""
LABELLED: tuple[str, ...] = ("quality", "slices")
"""What a chat has to pass besides, where there are rows with wanted answers or its policy sets a floor."""


def needed(task: Task, case: Case) -> tuple[str, ...]:
    """Names of the gates that a version has to pass, in order: those of its kind of endpoint, and the policy's own."""
    own = CLASSIFIER
    if task is Task.CHAT:
        judged = case.rows is not None or case.policy.rules.min_accuracy is not None
        own = (*CHAT[:2], *LABELLED, *CHAT[2:]) if judged else CHAT
    return (*own, *(name for name in case.policy.gates if name not in own))


def built_in(name: str) -> Gate:
    """A gate that Noria brings.

    Raises:
        InvalidProject: It brings none of that name.
    """
    if name not in BUILT_IN:
        raise InvalidProject(f"No gate is called {name}.", "Install the package that brings it, or leave it out.")
    return BUILT_IN[name]


def judge(task: Task, case: Case, find: Find = built_in) -> tuple[GateResult, ...]:
    """What every gate says; one that could not look, or isn't there, has not passed."""
    return tuple(_ask(name, case, find) for name in needed(task, case))


def _ask(name: str, case: Case, find: Find) -> GateResult:
    try:
        said = find(name)(case)
        if not isinstance(said, GateResult) or said.gate != name or not isinstance(said.passed, bool):
            raise TypeError(f"it returned no result of the gate {name}")
    except Exception as error:  # whatever went wrong, the version has not been shown to be fit
        why = error.problem if isinstance(error, NoriaError) else f"{type(error).__name__}: {error}"
        return GateResult(gate=name, passed=False, summary=f"Could not be judged: {why}")
    return said
