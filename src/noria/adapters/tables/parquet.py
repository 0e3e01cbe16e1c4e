"""Reads Parquet, which takes more than an API process may load, in a child process of its own.

What comes out is JSON, before anything is recorded or asked: so the record is redacted like any other, says what the
model was asked, and every model server that speaks MLflow's wire can answer. The child is started by the first such
request, ends when none came for a while, and may neither take much memory nor much time: files come from callers.
"""

import asyncio
import contextlib
import io
import os
import select
import struct
import sys
from typing import Any, Final

from noria.domain.errors import InvalidRequest, NoriaError, Overloaded, RequestTooLarge

MOST_ROWS: Final = 1_000_000
MOST_BYTES: Final = 256 << 20
"""Bytes that a file's columns may take when they are unpacked: a file of a few kilobytes can hold gigabytes."""
MOST_JSON: Final = 64_000_000
"""Bytes of JSON that may become of it; no model server takes more."""
MOST_MEMORY: Final = 4 << 30
"""Address space of the child, in bytes; Arrow reserves far more than it uses."""
LONGEST_S: Final = 20.0
"""How long a file may take to be read, in seconds."""
IDLE_S: Final = 60.0
"""How long the child waits for the next file, in seconds."""
_HEAD: Final = struct.Struct("<BQ")
_FINE, _INVALID, _TOO_LARGE = range(3)
_REMEDY: Final = "Send what pandas' DataFrame.to_parquet() writes, or JSON."


class ParquetReader:
    """The `FrameReader` port. Belongs to the event loop that first uses it."""

    def __init__(self) -> None:
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def read(self, body: bytes) -> bytes:
        try:
            async with asyncio.timeout(LONGEST_S):
                await self._turn.acquire()
        except TimeoutError:
            raise Overloaded("Other Parquet files are being read.", "Send JSON, or come back later.") from None
        try:
            kind, said = await self._in_turn(body)
        finally:
            self._turn.release()
        if kind == _FINE:
            return said
        raise (RequestTooLarge if kind == _TOO_LARGE else InvalidRequest)(said.decode(), _REMEDY)

    async def aclose(self) -> None:
        child = self._child
        self._end()
        if child is not None:
            await child.wait()

    async def _in_turn(self, body: bytes) -> tuple[int, bytes]:
        """What the child says of a file; a child that says nothing in time is ended."""
        try:
            async with asyncio.timeout(LONGEST_S):
                return await self._ask(body)
        except BaseException as error:
            self._end()
            if isinstance(error, TimeoutError):
                raise InvalidRequest(f"The file can't be read within {LONGEST_S:g} seconds.", _REMEDY) from None
            if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
                raise InvalidRequest("Reading the Parquet file ended its reader.", _REMEDY) from None
            if isinstance(error, OSError):
                raise Overloaded(
                    f"Nothing can be started that reads Parquet: {error.strerror}.",
                    "Send JSON, or come back later.",
                ) from error
            raise

    async def _ask(self, body: bytes) -> tuple[int, bytes]:
        if self._child is not None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                return await self._exchange(self._child, body)
            self._end()  # it ended while nothing was asked
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "noria.adapters.tables.parquet"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return await self._exchange(self._child, body)

    async def _exchange(self, child: asyncio.subprocess.Process, body: bytes) -> tuple[int, bytes]:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(_HEAD.pack(0, len(body)) + body)
        await child.stdin.drain()
        kind, size = _HEAD.unpack(await child.stdout.readexactly(_HEAD.size))
        return kind, await child.stdout.readexactly(size)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()


def frame(body: bytes) -> bytes:
    """What `ParquetReader.read` gives. Loads Arrow, and is called in the child only.

    Raises:
        InvalidRequest: It is no Parquet file.
        RequestTooLarge: It holds more than is read.
    """
    import msgspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(body))
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if file.metadata.num_rows > MOST_ROWS or sum(group.total_byte_size for group in groups) > MOST_BYTES:
            raise RequestTooLarge(f"The file holds more than {MOST_ROWS} rows or {MOST_BYTES} bytes.", "Send less.")
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise InvalidRequest(
            f"The body is not Parquet: {str(error).splitlines()[0][:200].rstrip('.')}.", _REMEDY
        ) from None
    index = (table.schema.pandas_metadata or {}).get("index_columns", ())
    table = table.drop_columns([name for name in index if isinstance(name, str) and name in table.column_names])
    if not table.num_rows or not table.num_columns:
        raise InvalidRequest("The file has no rows.", "Send at least one.")
    columns = [_plain(column).to_pylist() for column in table.columns]
    split = {"columns": table.column_names, "data": list(zip(*columns, strict=True))}
    said = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode({"dataframe_split": split})
    if len(said) > MOST_JSON:
        raise RequestTooLarge(f"The file's rows are more than {MOST_JSON} bytes of JSON.", "Send less.")
    return said


def _plain(column: Any) -> Any:
    """A column whose values JSON can carry: nanoseconds are more than Python's own times know."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


def main() -> int:
    """Read files from stdin until it is closed, or none comes any more."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    source, sink = sys.stdin.buffer, sys.stdout.fileno()
    while select.select([sys.stdin.fileno()], [], [], IDLE_S)[0]:
        head = source.read(_HEAD.size)
        if len(head) < _HEAD.size:
            break
        body = source.read(_HEAD.unpack(head)[1])
        try:
            kind, said = _FINE, frame(body)
        except MemoryError:
            kind, said = _TOO_LARGE, b"The file takes too much memory when it is unpacked."
        except NoriaError as error:
            kind, said = (_TOO_LARGE if isinstance(error, RequestTooLarge) else _INVALID), error.problem.encode()
        reply = memoryview(_HEAD.pack(kind, len(said)) + said)
        while reply:
            reply = reply[os.write(sink, reply) :]
    return 0


if __name__ == "__main__":
    sys.exit(main())
