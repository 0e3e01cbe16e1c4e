"""Rows as OpenAI's fine-tuning takes them, and what a check of them counts first."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from noria.domain.errors import InvalidData

CHARACTERS_A_TOKEN = 4
"""Characters of English that make about one token; for limits of orders of magnitude, not for bills."""
Example = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long examples are, in tokens as they are estimated.

    Attributes:
        examples: How many there are.
        tokens: Of all.
        longest: Of the longest.
        too_long: Examples above the limit, which a service would cut off.
    """

    examples: int
    tokens: int
    longest: int
    too_long: int


def examples(folder: Path, split: str, preference: bool = False) -> Iterator[Example]:
    """The rows of a side as chats.

    Args:
        folder: A run's folder.
        split: `train` or `holdout`.
        preference: Pairs of a wanted and a rejected answer, of the rows that have both, instead of chats.

    Raises:
        InvalidData: The folder holds no dataset.
    """
    file = folder / f"{split}.parquet"
    if not file.is_file():
        raise InvalidData(f"The run {folder.name} has no dataset.", "Name another by --run, or run noria retrain.")
    for row in pq.read_table(file).to_pylist():
        if not preference:
            yield {"messages": [*_asked(row), _answer(row["label"])]}
        elif row.get("rejected"):
            yield {
                "input": {"messages": _asked(row)},
                "preferred_output": [_answer(row["label"])],
                "non_preferred_output": [_answer(row["rejected"])],
            }


def lengths(found: Iterator[Example], limit: int) -> Lengths:
    """How long examples are; above `limit` tokens one is too long."""
    tokens = [_tokens(example) for example in found]
    return Lengths(
        examples=len(tokens),
        tokens=sum(tokens),
        longest=max(tokens, default=0),
        too_long=sum(each > limit for each in tokens),
    )


def _asked(row: Mapping[str, Any]) -> list[Example]:
    messages: list[Example] = (
        json.loads(row["messages"]) if row.get("messages") else [{"role": "user", "content": row["text"]}]
    )
    return messages


def _answer(text: str) -> Example:
    return {"role": "assistant", "content": text}


def _tokens(example: Example) -> int:
    return -(-len(json.dumps(example, ensure_ascii=False)) // CHARACTERS_A_TOKEN)
