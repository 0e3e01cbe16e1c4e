"""Whether a project can answer now, and why not: what `/readyz` says."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from noria.domain.errors import NoriaError
from noria.serving.breaker import BreakerState
from noria.serving.router import Router
from noria.settings import READ, RedactElse


class Siblings:
    """Which routes the API processes of a project have read: each writes it down whenever it has read new ones.

    Args:
        folder: Where they do.
        slot: This process's own name.
        count: How many processes there are.
    """

    def __init__(self, folder: Path, slot: str, count: int) -> None:
        self._folder, self._slot = folder, slot
        self._others = [name for name in (f"api-{number}" for number in range(count)) if name != slot]
        self._together = False
        self._said: Mapping[str, int] | None = None

    def tell(self, routes: Mapping[str, int]) -> None:
        """Write down which revision of which endpoint's route this process goes by.

        Raises:
            OSError: There is no room for it.
        """
        if routes == self._said:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f"{self._slot}.routes.tmp"
        draft.write_bytes(msgspec.json.encode(routes))
        draft.replace(draft.with_suffix(""))
        self._said = dict(routes)

    def behind(self, routes: Mapping[str, int]) -> list[str]:
        """Processes that don't go by these routes yet; once there was none, one that is replaced is no reason."""
        if self._together:
            return []
        found = [name for name in self._others if not self._goes_by(name, routes)]
        self._together = not found
        return found

    def _goes_by(self, name: str, routes: Mapping[str, int]) -> bool:
        try:
            read = msgspec.json.decode((self._folder / f"{name}.routes").read_bytes(), type=dict[str, int])
        except (OSError, msgspec.MsgspecError, UnicodeError):
            return False
        return all(read.get(endpoint, -1) >= revision for endpoint, revision in routes.items())


async def _nothing() -> str:
    return ""


@dataclass
class Readiness:
    """Looks for what keeps a project from answering.

    Attributes:
        router: What is in service.
        reachable: Whether anything listens at a model server's URL; raises NoriaError if it can't be asked.
        log_problem: Why the log can't be written now; empty if it can.
        names_problem: Why names can't be looked for now; empty if they can.
        breakers: `model/version` → whether it may be asked.
        siblings: The project's other API processes; None if there are none.
        draining: Whether this process takes no more connections and ends once it has answered what is under way.
    """

    router: Router
    reachable: Callable[[str], Awaitable[bool]]
    log_problem: Callable[[], str] = str
    names_problem: Callable[[], Awaitable[str]] = _nothing
    breakers: Callable[[], Mapping[str, BreakerState]] = dict
    siblings: Siblings | None = None
    draining: bool = field(default=False)

    def tell_siblings(self) -> None:
        """Say which routes this process goes by. Blocks on the disk.

        Raises:
            OSError: There is no room for it.
        """
        if self.siblings is not None:
            self.siblings.tell(self._routes())

    async def look(self) -> tuple[list[str], dict[str, Any]]:
        """Why we aren't ready, in sentences, none if we are; and facts, with warnings among them.

        State that can't be read is only a warning: inference goes on by what is known. So is a version that is left
        alone: those who stand in for it may answer.
        """
        stale = self.router.stale_since
        problems, warnings = await self._problems()
        if stale:
            warnings.append(f"The state can't be read since {stale.isoformat()}; routes stay as they were.")
        tripped = {ref: str(state) for ref, state in self.breakers().items() if state is not BreakerState.CLOSED}
        warnings += [
            f"{ref} failed again and again and is left alone for the moment."
            for ref, state in tripped.items()
            if state == BreakerState.OPEN
        ]
        facts = {
            "revision": self.router.snapshot.revision,
            "stale_since": stale.isoformat() if stale else None,
            "endpoints": list(self.router.project.endpoints),
            "breakers": tripped,
            "warnings": warnings,
        }
        return problems, facts

    async def problem(self, endpoint: str) -> str:
        """Why an endpoint can't answer; empty if it can."""
        try:
            champion = self.router.route(endpoint).champion
            reachable = await self.reachable(champion.url)
        except NoriaError as error:
            return await self._why_not_asked(endpoint) or error.problem
        if not reachable:
            return f"The model server of {endpoint}'s champion {champion.ref} does not answer."
        return ""

    async def _problems(self) -> tuple[list[str], list[str]]:
        if self.draining:
            return ["This process is stopping: it finishes what is under way and takes nothing new."], []
        found = await asyncio.gather(*(self.problem(name) for name in self.router.project.endpoints))
        unread, warnings = await self._unread()
        problems = [problem for problem in (self.log_problem(), *found, unread) if problem]
        if not problems and self.siblings is not None:
            behind = await asyncio.to_thread(self.siblings.behind, self._routes())
            problems += [f"{name} does not know the newest routes yet." for name in behind]
        return problems, warnings

    async def _unread(self) -> tuple[str, list[str]]:
        """Why requests whose names can't be looked for are refused; a warning if they are only kept out of the log."""
        asking = {n: e.redact_else for n, e in self.router.project.endpoints.items() if READ.intersection(e.redact)}
        why = await self.names_problem() if asking else ""
        if not why:
            return "", []
        said = f"{', '.join(asking)} asked for names to be taken out, and the redactor does not answer yet: {why}"
        return (said, []) if RedactElse.REFUSE in asking.values() else ("", [said])

    async def _why_not_asked(self, endpoint: str) -> str:
        """Why a model elsewhere that the project names for an endpoint couldn't be asked; empty if it could."""
        named = self.router.project.endpoints[endpoint].deployment
        if named is None:
            return ""
        try:
            await self.reachable(f"upstream:{named.upstream}/{named.model}")
        except NoriaError as error:
            return error.problem
        return ""

    def _routes(self) -> dict[str, int]:
        return {endpoint: route.revision for endpoint, route in self.router.snapshot.routes.items()}
