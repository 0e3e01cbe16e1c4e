"""A chat model in a process of its own, that takes its time: `python -m fakes.talkative SOCKET`."""

import asyncio
import sys
from pathlib import Path

from fakes.upstream import Asked, Script, Step, listening, talker

WORDS = tuple(f"word{number} " for number in range(200))


def slowly(asked: Asked) -> Script:
    """The answer with a rest between its pieces."""
    whole = talker(*WORDS)(asked)
    return Script(200, [part for piece in whole.pieces for part in (piece, Step.REST)], whole.content_type)


async def main() -> None:
    """Talk until killed."""
    async with listening(slowly, Path(sys.argv[1])):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
