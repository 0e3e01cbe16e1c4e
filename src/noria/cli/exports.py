"""Writes rows into a file (Parquet, CSV, lines of JSON), piece by piece; the file is there only once it is whole."""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from noria.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

GROUP_ROWS, GROUP_BYTES = 10_000, 32 << 20
"""Rows of a row group in Parquet, and bytes at which it has fewer."""
Writer = Callable[[Path, Iterable["pa.Table"]], int]


def write(path: Path, pieces: Iterable["pa.Table"]) -> int:
    """Write rows into a file of the kind that its name says, and return how many they were.

    Args:
        path: What is there is replaced once everything is written.
        pieces: At least one, though it may be empty.

    Raises:
        InvalidRequest: The name says no kind, or the file can't be written.
    """
    writer = writer_of(path)
    try:
        with _whole(path) as part:
            return writer(part, pieces)
    except OSError as error:
        raise InvalidRequest(
            f"{path} can't be written: {os.strerror(error.errno) if error.errno else error}.",
            "Name a file in a folder that is there, may be written to and has room.",
        ) from error


def writer_of(path: Path) -> Writer:
    """What writes files of such a name.

    Raises:
        InvalidRequest: Nothing does.
    """
    found = _WRITERS.get(path.suffix.lower())
    if found is None:
        raise InvalidRequest(
            f"What kind of file {path} is to be isn't clear.", f"Name a file that ends in {', '.join(_WRITERS)}."
        )
    return found


@contextmanager
def _whole(path: Path) -> "Iterator[Path]":
    """A file beside the one that is meant, which takes its place in the end, or goes."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _gathered(pieces: Iterable["pa.Table"]) -> "Iterator[pa.Table]":
    """Pieces put together to the size of a good row group, or less where bodies are huge."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(each.num_rows for each in waiting) >= GROUP_ROWS or sum(each.nbytes for each in waiting) >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting.clear()
    if waiting:
        yield pa.concat_tables(waiting)


def _parquet(path: Path, pieces: Iterable["pa.Table"]) -> int:
    import pyarrow.parquet as pq

    rows, writer = 0, None
    try:
        for piece in _gathered(pieces):
            writer = writer or pq.ParquetWriter(path, piece.schema, compression="zstd")
            writer.write_table(piece)
            rows += piece.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _csv(path: Path, pieces: Iterable["pa.Table"]) -> int:
    import pyarrow.csv as csv

    rows, writer = 0, None
    try:
        for piece in pieces:
            flat = _flat(piece)
            writer = writer or csv.CSVWriter(path, flat.schema)
            writer.write_table(flat)
            rows += piece.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _flat(piece: "pa.Table") -> "pa.Table":
    """Lists and maps as JSON: a cell of CSV holds one text."""
    import pyarrow as pa

    for index, field in enumerate(piece.schema):
        if pa.types.is_nested(field.type):
            texts = [None if value is None else _text(field.type, value) for value in piece[field.name].to_pylist()]
            piece = piece.set_column(index, field.name, pa.array(texts, pa.string()))
    return piece


def _lines(path: Path, pieces: Iterable["pa.Table"]) -> int:
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        for piece in pieces:
            _write_lines(file, piece)
            rows += piece.num_rows
    return rows


def _write_lines(file: IO[str], piece: "pa.Table") -> None:
    kinds = {field.name: field.type for field in piece.schema}
    for row in piece.to_pylist():
        plain = {name: _plain(kinds[name], value) for name, value in row.items()}
        file.write(json.dumps(plain, ensure_ascii=False, default=str) + "\n")


def _text(kind: "pa.DataType", value: Any) -> str:
    return json.dumps(_plain(kind, value), ensure_ascii=False, default=str)


def _plain(kind: "pa.DataType", value: Any) -> Any:
    """A map as an object, a time as ISO 8601."""
    import pyarrow as pa

    if value is not None and pa.types.is_map(kind):
        return dict(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


_WRITERS: dict[str, Writer] = {".parquet": _parquet, ".csv": _csv, ".jsonl": _lines}
