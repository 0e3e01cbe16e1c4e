"""Gates, found by name (entry points `noria.gates`): a plug-in's comes in by the same door as our own."""

from typing import Any

from noria.adapters.plugins import load

GROUP = "noria.gates"
"""Entry-point group: callables that take a `noria.release.case.Case` and return a `noria.domain.gate.GateResult`."""


def load_gate(name: str) -> Any:
    """The gate of that name.

    Raises:
        InvalidProject: Nobody installed one, or two packages bring one each: which of them holds isn't for chance.
        MissingExtra: It is installed without something that it needs.
    """
    return load(GROUP, name, "gate", "under gates:")
