"""Answers that were paid for, kept in the run's folder: an attempt that goes on after a kill doesn't ask again."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Notebook:
    """Remembers answers by what was asked.

    Args:
        folder: The run's own; empty for none, and nothing is remembered.
        name: Of the file.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._file = Path(folder) / f"{name}.jsonl" if folder else None
        self._known: dict[str, Any] = {}
        if self._file is not None and self._file.is_file():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                try:
                    said = json.loads(line)
                except ValueError:  # the last line of an attempt that was killed
                    continue
                self._known[said["of"]] = said["is"]

    def answers(
        self,
        way: str,
        asked: Sequence[Any],
        ask: Callable[[Sequence[Any]], Sequence[Any]],
        *,
        at_once: int = 32,
        told: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> list[Any]:
        """The answer to each, asked for if it isn't known yet.

        Args:
            way: What else the answer depends on, for example the prompt.
            asked: What is asked.
            ask: Asks for some of them.
            at_once: How many are asked for together, and lost if the process is killed meanwhile.
            told: Is told how many are there, of how many.
        """
        keys = [_key(way, each) for each in asked]
        missing = {key: each for key, each in zip(keys, asked, strict=True) if key not in self._known}
        todo = list(missing.items())
        for first in range(0, len(todo), at_once):
            some = todo[first : first + at_once]
            for (key, _), answer in zip(some, ask([each for _, each in some]), strict=True):
                self._known[key] = answer
            self._write([key for key, _ in some])
            told(first + len(some), len(todo))
        return [self._known[key] for key in keys]

    def _write(self, keys: Sequence[str]) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        cut = self._file.is_file() and not self._file.read_bytes().endswith(b"\n")  # an attempt was killed as it wrote
        with self._file.open("a", encoding="utf-8") as file:
            lines = [json.dumps({"of": key, "is": self._known[key]}) + "\n" for key in keys]
            file.write("\n" * cut + "".join(lines))


def _key(way: str, asked: Any) -> str:
    text = json.dumps([way, asked], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]
