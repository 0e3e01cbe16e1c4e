"""The items of recorded requests: every text or row that was asked about, with what was said to it.

A request may hold many items (a list of texts, a data frame) and have many answers; where there are as many of one as
of the other they belong together in order, else the shorter side has nothing for the rest.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from noria.evaluation.frames import PREFIX, FeatureColumns, features
from noria.evaluation.payloads import Texts, asked, likely, parse, said

_STOPPED = "content_filter"
"""What an OpenAI or Azure model server calls an answer, or a question, that its own filter stopped."""


class Items:
    """Items of many records, read one record after another.

    Args:
        wanted: Names of the columns that are needed; None for all.
    """

    def __init__(self, wanted: Collection[str] | None = None) -> None:
        named = None if wanted is None else [n.removeprefix(PREFIX) for n in wanted if n.startswith(PREFIX)]
        self._features = FeatureColumns(named) if named is None or named else None
        self._record: list[int] = []
        self._asked: Texts = []
        self._said: Texts = []
        self._confidence: list[float | None] = []
        self._refused: list[bool] = []
        self.stopped: list[bool | None] = []
        """Of each record, whether the model server's own filter stopped it; None where nothing came back."""

    def read(self, record: int, request: bytes | None, response: bytes | None, *, answered: bool) -> None:
        """Read one record: its number, its bodies, and whether it was answered."""
        asks = parse(request) if request else None
        reply = parse(response) if response else None
        self.stopped.append(None if reply is None else _stopped(reply))
        question = asked(asks)
        answer = said(reply) if answered else []
        frame = features(asks) if self._features is not None else {}
        number = max(len(question), len(answer), *map(len, frame.values()))
        if self._features is not None and frame:
            self._features.add(len(self._record), frame)
        self._add(record, question, answer, reply, number)

    def _add(self, record: int, question: Texts, answer: Texts, reply: Any, number: int) -> None:
        sure, refused = _confidence(reply, answer), _refusals(reply, len(answer))
        if number == 1:  # most are like that, and lists are dear
            self._record.append(record)
            self._asked.append(question[0] if question else None)
            self._said.append(answer[0] if answer else None)
            self._confidence.append(sure[0] if sure else None)
            self._refused.append(bool(refused and refused[0]))
            return
        self._record += [record] * number
        self._asked += question + [None] * (number - len(question))
        self._said += answer + [None] * (number - len(answer))
        self._confidence += [*sure, *[None] * (number - len(sure))]
        self._refused += [*refused, *[False] * (number - len(refused))]

    def columns(self, types: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
        """`record`, `asked`, `said`, `confidence`, `refused` and the features.

        Args:
            types: What features are known to be, `double` or `string`, by name with the prefix.
        """
        rows = len(self._record)
        return {
            "record": pa.array(self._record, pa.int64()),
            "asked": pa.array(self._asked, pa.string()),
            "said": pa.array(self._said, pa.string()),
            "confidence": pa.array(self._confidence, pa.float64()),
            "refused": pa.array(self._refused, pa.bool_()),
        } | (self._features.arrays(rows, types) if self._features is not None else {})


def _confidence(reply: Any, answer: Texts) -> Sequence[float | None]:
    """How sure the model was of each answer, 0 to 1: the probability of the class that it named."""
    if not isinstance(reply, dict):
        return []
    if chances := likely(reply):
        return [_chance(row, label) for row, label in zip(chances, answer, strict=False)]
    predictions = reply.get("predictions")
    if isinstance(predictions, list) and any(isinstance(item, dict) for item in predictions[:1]):
        return [_score(item) for item in predictions[: len(answer)]]
    return []


def _chance(row: Mapping[str, float], label: str | None) -> float | None:
    chance = row.get(label or "", max(row.values(), default=None))
    return chance if chance is not None and 0 <= chance <= 1 else None


def _score(item: Any) -> float | None:
    """The `score` of a prediction such as `{"label": "late", "score": 0.9}`."""
    score = item.get("score") if isinstance(item, dict) else None
    if not isinstance(score, int | float) or isinstance(score, bool):
        return None
    return float(score) if 0 <= score <= 1 else None


def _refusals(reply: Any, number: int) -> Sequence[bool]:
    """Of each choice, whether the model server itself calls it a refusal."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list):
        return []
    return [_refuses(choice) for choice in choices[:number]]


def _refuses(choice: Any) -> bool:
    message = choice.get("message") if isinstance(choice, dict) else None
    return isinstance(message, dict) and bool(message.get("refusal"))


def _stopped(reply: Any) -> bool:
    if not isinstance(reply, dict):
        return False
    if isinstance(choices := reply.get("choices"), list):
        return any(isinstance(choice, dict) and choice.get("finish_reason") == _STOPPED for choice in choices)
    error = reply.get("error")
    return isinstance(error, dict) and error.get("code") == _STOPPED
