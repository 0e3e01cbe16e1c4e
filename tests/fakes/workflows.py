"""Workflows in memory: handlers run at once, in the caller's thread; steps are kept as JSON like the durable ones."""

import json
from collections.abc import Callable
from typing import Any

from noria.adapters.codec import error_from_json, error_to_json
from noria.adapters.workflows import ATTEMPTS, FINAL
from noria.domain.errors import InvalidData, NoriaError
from noria.domain.events import Event
from noria.ports import Handlers


class MemoryWorkflows:
    """`ports.Workflows` without durability, and without a pause between attempts."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers
        self.started: list[Event] = []
        self.problems: list[str] = []
        """What handlers raised."""

    def start(self, event: Event) -> None:
        if event in self.started:
            return
        self.started.append(event)
        for handler in self.handlers.get(type(event), ()):
            try:
                handler(event, MemorySteps())
            except NoriaError as error:
                self.problems.append(str(error))

    def busy(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is under way."""


class MemorySteps:
    """`ports.Steps` that are remembered for as long as the object lives."""

    def __init__(self) -> None:
        self.done: dict[str, dict[str, Any]] = {}

    def __call__(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if name not in self.done:
            self.done[name] = self._outcome(name, function, arguments)
        outcome = self.done[name]
        if "error" in outcome:
            raise error_from_json(outcome["error"])
        return outcome["value"]

    def _outcome(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
        failure: Exception = NoriaError("never tried")
        for _ in range(ATTEMPTS):
            try:
                value = function(*arguments)
                break
            except FINAL as error:
                return {"error": error_to_json(error)}
            except Exception as error:
                failure = error
        else:
            return {"error": error_to_json(failure)}
        try:
            return {"value": json.loads(json.dumps(value))}
        except TypeError:
            return {"error": error_to_json(InvalidData(f"{name} returned something that JSON can't hold."))}
