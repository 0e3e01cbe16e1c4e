"""Passes a stream on event by event and keeps the last one back until the outcome is on disk."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from noria.domain.errors import NoriaError, UpstreamFailed, UpstreamTimeout
from noria.domain.inference import OutcomeKind
from noria.ports import UpstreamReply
from noria.serving import streams
from noria.serving.cache import Kept
from noria.serving.passage import Passage, about, our_fault
from noria.serving.replies import Reply, garbage, with_usage
from noria.serving.streams import DONE, Assembly, Splitter

GIVEN = 200
"""A stream's status is given before anything can go wrong with it."""
LONGEST_STREAM = 256 * 1024 * 1024
"""Bytes after which a stream is given up: what it adds up to is held in memory until it is on record."""


class Incoming:
    """A model server's stream as it is read: cut into events, checked, added up.

    Args:
        reply: The stream.
        shows_usage: Whether the caller asked for the usage at the end.
        silence_s: Longest time that nothing may come, seconds; None if only the whole is bounded.

    Attributes:
        held: What was read and not given away yet.
        over: Whether all was read.
        said: Whether something came that can be read.
        pieces: What was given away, if it is wanted again; else None.
        settle: Told once how it ended: True at the end, False if it broke, None if nobody wanted more of it.
    """

    __slots__ = (
        "_assembly",
        "_reply",
        "_shows_usage",
        "_silence_s",
        "_size",
        "_splitter",
        "held",
        "over",
        "pieces",
        "said",
        "settle",
    )

    def __init__(self, reply: UpstreamReply, shows_usage: bool, silence_s: float | None = None) -> None:
        self._reply = reply
        self._shows_usage = shows_usage
        self._silence_s = silence_s
        self._splitter = Splitter()
        self._assembly = Assembly()
        self._size = 0
        self.held = b""
        self.over = False
        self.said = False
        self.pieces: list[bytes] | None = None
        self.settle: Callable[[bool | None], None] | None = None

    async def begin(self, content: bool) -> None:
        """Read so far that it can be told from a stream that never begins, and keep what came.

        Args:
            content: Wait for something that can be read; else the first event is enough.

        Raises:
            UpstreamFailed: It never began.
        """
        while not (self.over or self.said or (self.held and not content)):
            self.held += await self._next()

    async def read(self) -> bytes:
        """What is to be passed on next; empty if nothing of what came is. See `over` for the end.

        Raises:
            UpstreamFailed: It broke off, or isn't a stream of answers.
        """
        piece, self.held = self.held, b""
        try:
            piece = piece or await self._next()
        except UpstreamFailed:
            self._settle(False)
            raise
        if self.pieces is not None and piece:
            self.pieces.append(piece)
        return piece

    def reply(self) -> Reply:
        """What the events add up to, with the tokens counted."""
        return with_usage(Reply(body=self._assembly.body()), self._assembly.usage)

    async def aclose(self) -> None:
        """Let go of the call."""
        self._settle(True if self.over else None)
        await self._reply.chunks.aclose()

    async def _next(self) -> bytes:
        try:
            data = await self._piece()
        except StopAsyncIteration:
            if not self._assembly.complete:
                raise UpstreamFailed("The model server's stream ended in the middle.", "Its log says more.") from None
            self.over = True
            return b""
        return self._passed_on(data)

    async def _piece(self) -> bytes:
        if self._silence_s is None:
            return await anext(self._reply.chunks)
        try:
            async with asyncio.timeout(self._silence_s):
                return await anext(self._reply.chunks)
        except TimeoutError:
            raise UpstreamTimeout(
                f"The model server's stream was silent for {self._silence_s:g} s.", "See routing.try_timeout."
            ) from None

    def _passed_on(self, data: bytes) -> bytes:
        """The events before `[DONE]`, without the usage that the caller didn't ask for."""
        self._size += len(data)
        if self._size > LONGEST_STREAM:
            raise garbage(f"a stream longer than {LONGEST_STREAM} bytes")
        passed = b""
        for event in self._splitter.feed(data):
            payload = streams.payload(event)
            if payload == b"[DONE]":
                self.over = True
                break
            if payload is not None:
                value = streams.chunk(payload)
                if self._assembly.add(value):
                    self.said = True
                if streams.only_usage(value) and not self._shows_usage:
                    continue
            passed += event
        return passed

    def _settle(self, worked: bool | None) -> None:
        settle, self.settle = self.settle, None
        if settle is not None:
            settle(worked)


class Replay:
    """A stream that was given before, given again as it was; for its attributes see `Incoming`."""

    __slots__ = ("_kept", "_left", "held", "over", "said")

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._left = iter(kept.pieces or ())
        self.held = b""
        self.over = False
        self.said = True

    async def read(self) -> bytes:
        """The next piece."""
        piece = next(self._left, b"")
        self.over = not piece
        return piece

    def reply(self) -> Reply:
        """The whole answer."""
        return self._kept.reply

    async def aclose(self) -> None:
        """Nobody is at the other end."""


async def relay(
    incoming: Incoming | Replay,
    passage: Passage,
    explain: Callable[[NoriaError], bytes],
    ending: Callable[[], OutcomeKind],
    answered: Callable[[], None],
) -> AsyncGenerator[bytes, None]:
    """Yield nothing (so that the caller can begin this), then a model server's events, and when what they add up to
    is recorded, the end.

    Args:
        incoming: The stream.
        passage: Where the outcome goes.
        explain: The body that tells the caller of an error.
        ending: How the request ended if the task is cancelled or this generator closed.
        answered: Called when the outcome is on disk.
    """
    try:
        yield b""
        while not incoming.over or incoming.held:
            piece = await incoming.read()
            if incoming.said and passage.ttft_us is None:
                passage.first_content()
            if piece:
                yield piece
        await passage.end(OutcomeKind.ANSWERED, GIVEN, incoming.reply())
        answered()
        yield DONE
    except (asyncio.CancelledError, GeneratorExit):
        await passage.leave(ending(), GIVEN, incoming.reply())
        raise
    except NoriaError as error:
        kind = OutcomeKind.TIMED_OUT if isinstance(error, UpstreamTimeout) else OutcomeKind.FAILED
        await passage.leave(kind, GIVEN, incoming.reply(), (error.code,))
        yield b"data: " + explain(error) + b"\n\n"
    except Exception as error:  # whatever it is, the caller hears of it and the record gets its end
        fault = our_fault(error, about(passage.intent))
        await passage.leave(OutcomeKind.FAILED, GIVEN, incoming.reply(), (fault.code,))
        yield b"data: " + explain(fault) + b"\n\n"
    finally:
        await incoming.aclose()
