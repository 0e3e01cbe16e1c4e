"""What a training job says of itself while it runs: how far it is, and whether anybody still wants it."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from noria.domain.run import Progress, Run, RunState
from noria.ports import StateStore


@dataclass
class Following:
    """Reads a job's progress file on and shows its newest line in the run.

    Args:
        state: Where the run is.
        run_id: Which run.
        step: Which of its steps the job is.
        path: The file; it needn't be there yet.
    """

    state: StateStore
    run_id: str
    step: str
    path: Path
    _read_until: int = 0
    _since: datetime | None = field(default=None)

    def wanted(self) -> bool:
        """Whether the run still goes on; shows on the way what its job said since the last look."""
        said = self._newest()
        run = self.state.get(Run, self.run_id)
        if run is None or run.state is not RunState.RUNNING:
            return False
        if said is not None:
            self._show(said)
        return True

    def over(self) -> None:
        """The job has ended: nothing of it is under way any more."""
        with self.state.note() as note:
            run = note.get(Run, self.run_id)
            if run is not None and run.progress is not None:
                note.put(run.telling(None))

    def _newest(self) -> dict[str, Any] | None:
        """The last whole line that was written since; None if there is none."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read_until)
                fresh = file.read()
        except FileNotFoundError:
            return None
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read_until += len(whole)
        lines = [line for line in whole.splitlines() if line.strip()]
        if not lines:
            return None
        said: dict[str, Any] = json.loads(lines[-1])
        self._since = self._since or datetime.fromisoformat(json.loads(lines[0])["at"])
        return said

    def _show(self, said: dict[str, Any]) -> None:
        at = datetime.fromisoformat(said["at"])
        told = Progress(
            step=self.step,
            since=self._since or at,
            at=at,
            done=float(said["done"]),
            of=float(said["of"]),
            message=said["message"],
            numbers=said["numbers"],
        )
        with self.state.note() as note:
            run = note.get(Run, self.run_id)
            if run is not None and run.state is RunState.RUNNING:
                note.put(run.telling(told))
