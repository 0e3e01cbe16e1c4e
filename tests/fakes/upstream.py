"""Model servers that do as a test tells them: behind the port, and behind real sockets."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import msgspec

from noria.domain.errors import UpstreamFailed, UpstreamTimeout
from noria.ports import UpstreamReply


class Step(Enum):
    """What a server can do instead of sending bytes."""

    CUT = "break the connection off"
    HANG = "say nothing more"
    REST = "wait a moment, then go on"


@dataclass
class Script:
    """An answer: `before` happens instead of the status line, `pieces` are sent one by one, events are waited for."""

    status: int = 200
    pieces: Iterable[bytes | Step | asyncio.Event] = ()
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    before: Step | bytes | None = None
    """Bytes here are sent raw in place of HTTP."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the caller has let go before the end."""


@dataclass(frozen=True)
class Asked:
    """A request that arrived."""

    path: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self):
        return msgspec.json.decode(self.body)


REST_S = 0.01

Handler = Callable[[Asked], Script]


def reply(value: object, status: int = 200) -> Script:
    """A whole JSON answer."""
    return Script(status, (msgspec.json.encode(value),))


def labels(asked: Asked) -> Script:
    """A classifier: every input is what it says, in upper case."""
    return reply({"predictions": [str(item).upper() for item in asked.json["inputs"]]})


def events(*chunks: object, done: bool = True, then: tuple[Step, ...] = ()) -> Script:
    """A stream of OpenAI's."""
    pieces = tuple(b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in chunks)
    return Script(200, (*pieces, *((b"data: [DONE]\n\n",) if done else ()), *then), "text/event-stream")


def chat(*words: str, usage: bool = True) -> list[dict]:
    """The chunks of a chat's answer."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunk(delta, finish=None):
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    said = [chunk({"role": "assistant", "content": None}), *(chunk({"content": w}) for w in words), chunk({}, "stop")]
    count = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
    return [*said, *([{**head, "choices": [], "usage": count}] if usage else [])]


def talker(*words: str) -> Handler:
    """A chat model that always says the same, streamed or whole."""

    def handle(asked: Asked) -> Script:
        if asked.json.get("stream"):
            return events(*chat(*words, usage=bool(asked.json.get("stream_options", {}).get("include_usage"))))
        return reply(completion("".join(words), len(words)))

    return handle


def completion(text: str, tokens: int = 1) -> dict:
    """A chat's answer in one piece."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens},
    }


class FakeUpstream:
    """The port without sockets. Nobody listens at an address that isn't in `servers`."""

    def __init__(self, servers: Mapping[str, Handler] | None = None) -> None:
        self.servers = dict(servers or {})
        self.asked: list[tuple[str, Asked]] = []
        self.arrived = asyncio.Event()
        """Set when somebody asked."""
        self.closed = False

    async def post(self, url, path, body, headers, timeout_s):
        await asyncio.sleep(0)
        if url not in self.servers:
            raise UpstreamFailed(f"The model server at {url} is not listening.", sent=False)
        asked = Asked(path, body, headers)
        self.asked.append((url, asked))
        self.arrived.set()
        script = self.servers[url](asked)
        deadline = asyncio.get_running_loop().time() + timeout_s
        await _before(script, deadline)
        names = {"content-type": script.content_type, **script.headers}
        return UpstreamReply(script.status, names, _Body(script, deadline))

    async def reachable(self, url: str) -> bool:
        return url in self.servers

    async def aclose(self):
        self.closed = True


async def _before(script: Script, deadline: float) -> None:
    if script.before is Step.HANG:
        await _hang(script, deadline)
    if script.before is not None:
        raise UpstreamFailed("The model server broke off.")


async def _hang(script: Script, deadline: float) -> None:
    try:
        await asyncio.sleep(max(0, deadline - asyncio.get_running_loop().time()))
    except asyncio.CancelledError:
        script.gone.set()
        raise
    raise UpstreamTimeout("The model server took too long.")


class _Body:
    def __init__(self, script: Script, deadline: float) -> None:
        self.script, self.deadline, self.left = script, deadline, list(script.pieces)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        piece = self.left.pop(0)
        if piece is Step.HANG:
            await _hang(self.script, self.deadline)
        if piece is Step.CUT:
            raise UpstreamFailed("The model server broke off.")
        if isinstance(piece, asyncio.Event):
            await piece.wait()
            return b""
        if piece is Step.REST:
            await asyncio.sleep(REST_S)
            return b""
        await asyncio.sleep(0)
        return piece

    def rest(self) -> bytes | None:
        return None

    async def aclose(self):
        if self.left:
            self.script.gone.set()
            self.left.clear()


_numbers = itertools.count()


@asynccontextmanager
async def listening(handler: Handler, where: Path | None = None) -> AsyncIterator[str]:
    """A real server that does the same, on that unix socket, on one in that folder, or else on a TCP port. Gives its
    URL."""
    serving: set[asyncio.Task] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        script = Script()
        try:
            while asked := await _read(reader):
                script = handler(asked)
                if not await _answer(script, reader, writer):
                    break
        except ConnectionError:
            script.gone.set()
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            serving.discard(asyncio.current_task())

    if where is None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        path = where / f"m{next(_numbers)}.sock" if where.suffix != ".sock" else where
        server = await asyncio.start_unix_server(serve, path)
        url = f"unix:{path}"
    try:
        yield url
    finally:
        for _ in range(5):  # who has connected is seen first
            await asyncio.sleep(0)
        server.close()
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        if where is not None:
            path.unlink(missing_ok=True)


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return Asked(first.split()[1], await reader.readexactly(int(headers.get("content-length", "0"))), headers)


async def _answer(script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection can go on."""
    if script.before is Step.CUT:
        writer.transport.abort()
        return False
    if script.before is Step.HANG:
        return await _wait(script, reader)
    if isinstance(script.before, bytes):
        writer.write(script.before)
        return False
    head = [f"HTTP/1.1 {script.status} X", f"content-type: {script.content_type}", "transfer-encoding: chunked"]
    head += [f"{name}: {value}" for name, value in script.headers.items()]
    writer.write("\r\n".join([*head, "", ""]).encode())
    for piece in script.pieces:
        if piece is Step.CUT:
            await writer.drain()
            writer.close()
            return False
        if piece is Step.HANG:
            return await _wait(script, reader)
        if isinstance(piece, asyncio.Event):
            await piece.wait()
            continue
        if piece is Step.REST:
            await asyncio.sleep(REST_S)
            continue
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    return True


async def _wait(script: Script, reader: asyncio.StreamReader) -> bool:
    while await reader.read(65536):
        pass
    script.gone.set()
    return False
