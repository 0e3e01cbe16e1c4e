"""Passes a stream on event by event and keeps the last one back until the outcome is on disk."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from noria.domain.errors import LogUnavailable, NoriaError, UpstreamTimeout
from noria.domain.inference import OutcomeKind
from noria.ports import UpstreamReply
from noria.serving import streams
from noria.serving.passage import Passage, our_fault
from noria.serving.replies import Reply, garbage, with_usage
from noria.serving.streams import DONE, Assembly, Splitter
from noria.serving.wires import Call

GIVEN = 200
"""A stream's status is given before anything can go wrong with it."""
LONGEST_STREAM = 256 * 1024 * 1024
"""Bytes after which a stream is given up: what it adds up to is held in memory until it is on record."""


async def relay(
    call: Call,
    upstream: UpstreamReply,
    passage: Passage,
    explain: Callable[[NoriaError], bytes],
    ending: Callable[[], OutcomeKind],
    answered: Callable[[], None],
) -> AsyncGenerator[bytes, None]:
    """Yield nothing (so that the caller can begin this), then a model server's events, and when what they add up to
    is recorded, the end.

    Args:
        call: What was asked.
        upstream: The stream.
        passage: Where the outcome goes.
        explain: The body that tells the caller of an error.
        ending: How the request ended if the task is cancelled or this generator closed.
        answered: Called when the outcome is on disk.
    """
    assembly = Assembly()
    try:
        yield b""
        async with aclosing(_events(call, upstream, assembly, passage)) as pieces:
            async for events in pieces:
                yield events
        await passage.end(OutcomeKind.ANSWERED, GIVEN, _reply(assembly))
        answered()
        yield DONE
    except (asyncio.CancelledError, GeneratorExit):
        await passage.leave(ending(), GIVEN, _reply(assembly))
        raise
    except NoriaError as error:
        kind = OutcomeKind.TIMED_OUT if isinstance(error, UpstreamTimeout) else OutcomeKind.FAILED
        if not isinstance(error, LogUnavailable):
            await passage.leave(kind, GIVEN, _reply(assembly), (error.code,))
        yield b"data: " + explain(error) + b"\n\n"
    except Exception as error:  # whatever it is, the caller hears of it and the record gets its end
        fault = our_fault(error)
        await passage.leave(OutcomeKind.FAILED, GIVEN, _reply(assembly), (fault.code,))
        yield b"data: " + explain(fault) + b"\n\n"
    finally:
        await upstream.chunks.aclose()


async def _events(
    call: Call, upstream: UpstreamReply, assembly: Assembly, passage: Passage
) -> AsyncGenerator[bytes, None]:
    """The events before `[DONE]` as they come, without the usage that the caller didn't ask for."""
    splitter, size = Splitter(), 0
    async for data in upstream.chunks:
        size += len(data)
        if size > LONGEST_STREAM:
            raise garbage(f"a stream longer than {LONGEST_STREAM} bytes")
        passed = b""
        for event in splitter.feed(data):
            payload = streams.payload(event)
            if payload == b"[DONE]":
                if passed:
                    yield passed
                return
            if payload is not None:
                value = streams.chunk(payload)
                if assembly.add(value):
                    passage.first_content()
                if streams.only_usage(value) and not call.shows_usage:
                    continue
            passed += event
        if passed:
            yield passed
    if not assembly.complete:
        raise garbage("the stream ended in the middle")


def _reply(assembly: Assembly) -> Reply:
    """What the stream's events add up to, with the tokens counted."""
    return with_usage(Reply(body=assembly.body()), assembly.usage)
