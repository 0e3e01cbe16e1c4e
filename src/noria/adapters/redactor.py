"""Asks the redactor's process over its unix socket; implements ports.EntityReader.

A question and its answer are MessagePack, each with its length before it in four bytes. Who can't be answered in time
is told so: whether that refuses a request is the endpoint's to say.
"""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from noria.domain.errors import RedactionUnavailable

Found = list[tuple[int, int, str]]
LONGEST: Final = 64 << 20
"""Bytes of a question or an answer."""
PATIENCE_S: Final = 5.0
"""How long a request waits for its names to be found, in seconds."""
LEISURE_S: Final = 120.0
"""How long the worker waits, in seconds: the process may only just be starting."""
_RETRY_S: Final = 0.2
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_ANSWER: Final = msgspec.msgpack.Decoder(list[list[tuple[int, int, str]]])


class Question(msgspec.Struct, frozen=True):
    """What the process is asked: texts, and the kinds to look for in them."""

    texts: list[str]
    kinds: list[str]


class SocketReader:
    """Implements ports.EntityReader.

    Args:
        path: The socket.
        patience_s: How long a request waits, in seconds.
        leisure_s: How long `find_now` waits.
    """

    def __init__(self, path: Path, patience_s: float = PATIENCE_S, leisure_s: float = LEISURE_S) -> None:
        self._path = path
        self._patience_s = patience_s
        self._leisure_s = leisure_s

    async def find(self, texts: Sequence[str], kinds: frozenset[str]) -> list[Found]:
        try:
            async with asyncio.timeout(self._patience_s):
                return _read(await self._ask(_question(texts, kinds)), len(texts))
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError, msgspec.MsgspecError) as error:
            raise _unavailable(error) from error

    async def _ask(self, question: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            writer.write(len(question).to_bytes(4) + question)
            await writer.drain()
            return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
        finally:
            writer.close()

    def find_now(self, texts: Sequence[str], kinds: frozenset[str]) -> list[Found]:
        import time

        deadline = time.monotonic() + self._leisure_s
        while True:
            try:
                return _read(self._ask_now(_question(texts, kinds)), len(texts))
            except (OSError, EOFError, msgspec.MsgspecError) as error:
                if time.monotonic() > deadline:
                    raise _unavailable(error) from error
            time.sleep(_RETRY_S)

    def _ask_now(self, question: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._leisure_s)
            connection.connect(str(self._path))
            connection.sendall(len(question).to_bytes(4) + question)
            return _exactly(connection, int.from_bytes(_exactly(connection, 4)))


def _question(texts: Sequence[str], kinds: frozenset[str]) -> bytes:
    safe = [text.encode(errors="replace").decode() for text in texts]  # half characters, which become one `?` each
    return _ENCODE(Question(texts=safe, kinds=sorted(kinds)))


def _read(answer: bytes, count: int) -> list[Found]:
    found = _ANSWER.decode(answer)
    if len(found) != count:
        raise msgspec.ValidationError(f"{len(found)} answers to {count} texts")
    return found


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise EOFError("the redactor hung up")
        data += more
    return bytes(data)


def _unavailable(error: Exception) -> RedactionUnavailable:
    said: Any = str(error) or type(error).__name__
    return RedactionUnavailable(
        f"Names could not be looked for: {said}.",
        "Try again in some seconds: the redactor may only just be starting; noria up says if it can't.",
    )
