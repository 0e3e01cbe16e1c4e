"""A prompt version as `mlflow.pyfunc.load_model` gives it: texts to labels, or chats to answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noria.adapters.prompts.asking import open_folder
from noria.domain.errors import InvalidRequest


class PromptModel:
    """A prompt over its base, which is brought up here; `close` lets go of it."""

    def __init__(self, folder: Path) -> None:
        self._prompted = open_folder(folder)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:  # noqa: ARG002
        """Labels for texts; for a chat, the answers to conversations (a list of messages each, or a column
        `messages`).

        Raises:
            InvalidRequest: The input is neither.
        """
        rows = _rows(model_input)
        if not self._prompted.prompt.labels:
            return self._prompted.complete([_chat(row) for row in rows])
        if not all(isinstance(row, str) for row in rows):
            raise InvalidRequest("A row isn't a text.", "Give one text a row.")
        return [max(likely, key=lambda label: likely[label]) for likely in self._prompted.classify(rows)]

    def close(self) -> None:
        """Let go of the base."""
        self._prompted.close()


def _rows(given: Any) -> list[Any]:
    if hasattr(given, "columns"):  # a data frame: its column of texts or chats
        name = "messages" if "messages" in given.columns else given.columns[0]
        return list(given[name])
    if isinstance(given, Mapping):
        return list(given["messages"]) if "messages" in given else list(next(iter(given.values())))
    if isinstance(given, str):
        return [given]
    return [row[0] if not isinstance(row, str | Mapping) and len(row) == 1 else row for row in given]


def _chat(row: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(row, str):
        return [{"role": "user", "content": row}]
    if isinstance(row, Mapping):
        return [row] if "role" in row else list(row["messages"])
    return list(row)
