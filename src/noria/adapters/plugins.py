"""Plug-ins, found by name: what another package brings comes in by the same door as our own, an entry point."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from noria.domain.errors import InvalidProject, MissingExtra


def names(group: str) -> frozenset[str]:
    """What is installed of an entry-point group."""
    return frozenset(point.name for point in entry_points(group=group))


def load(group: str, name: str, noun: str, where: str, *, made: bool = False) -> Any:
    """What an entry point of that name brings.

    Args:
        group: Entry-point group.
        name: The plug-in's name.
        noun: What it is, such as `gate`.
        where: How the project file names one, such as `under gates:`.
        made: Whether the entry point names a class: then one of it is made.

    Raises:
        InvalidProject: Nobody installed one, or two packages bring one each: which of them holds isn't for chance.
        MissingExtra: It is installed without something that it needs.
    """
    found = [point for point in entry_points(group=group) if point.name == name]
    if not found:
        known = ", ".join(sorted(names(group)))
        raise InvalidProject(
            f"No {noun} is called {name}.", f"Write one of {known} {where}, or install the package that brings it."
        )
    if len({point.value for point in found}) > 1:
        packages = ", ".join(sorted({_package(point) for point in found}))
        raise InvalidProject(f"Several packages bring a {noun} called {name}: {packages}.", "Uninstall all but one.")
    try:
        brought = found[0].load()
        return brought() if made else brought
    except ImportError as error:
        raise MissingExtra(
            f"The {noun} {name} can't be loaded: {error}.", "Install the package that is missing."
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
