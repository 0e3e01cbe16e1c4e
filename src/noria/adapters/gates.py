"""Gates, found by name (entry points `noria.gates`): a plug-in's comes in by the same door as our own."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from noria.domain.errors import InvalidProject, MissingExtra

GROUP = "noria.gates"
"""Entry-point group: callables that take a `noria.release.case.Case` and return a `noria.domain.gate.GateResult`."""


def load_gate(name: str) -> Any:
    """The gate of that name.

    Raises:
        InvalidProject: Nobody installed one, or two packages bring one each: which of them holds isn't for chance.
        MissingExtra: It is installed without something that it needs.
    """
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        known = ", ".join(sorted({point.name for point in entry_points(group=GROUP)}))
        raise InvalidProject(
            f"No gate is called {name}.", f"Write one of {known} under gates:, or install the package that brings it."
        )
    if len({point.value for point in found}) > 1:
        packages = ", ".join(sorted({_package(point) for point in found}))
        raise InvalidProject(f"Several packages bring a gate called {name}: {packages}.", "Uninstall all but one.")
    try:
        return found[0].load()
    except ImportError as error:
        raise MissingExtra(
            f"The gate {name} can't be loaded: {error}.", "Install the package that is missing."
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
