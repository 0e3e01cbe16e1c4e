"""How far a training job is, told from inside it: a line of JSON for each thing that people want to see."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Progress:
    """Appends to the file that the pipeline follows while the job runs.

    Attributes:
        path: The file; nothing is written if it is empty.
    """

    path: str

    def say(self, done: float, of: float, message: str = "", **numbers: float) -> None:
        """Tell how much is done.

        Args:
            done: Units of work done, of whatever kind.
            of: Units in all; 0 if nobody knows.
            message: What is being done, in words.
            **numbers: What was measured on the way (loss, tokens a second).
        """
        if not self.path:
            return
        said = {"at": datetime.now(UTC).isoformat(), "done": done, "of": of, "message": message, "numbers": numbers}
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(said) + "\n")
