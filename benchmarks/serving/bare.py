"""The gateway with its log on nothing: `python -m benchmarks.serving.bare --project DIR --port N`.

A request is parsed, routed, redacted, encoded for the log, passed on and counted, but nothing is written. No setting
of the product does this; it is the floor that durable rows are measured from.
"""

import sys
from typing import Any

from noria.adapters.spool import writer as spool
from noria.adapters.spool.groups import pack
from noria.api.__main__ import main
from noria.domain.inference import Entry


class NoSpool:
    """A spool that packs what it gets, as the real one does on the event loop, and forgets it."""

    id = "0" * 32

    def __init__(self, *_: Any, **__: Any) -> None:
        self._last = 0

    async def append(self, entry: Entry) -> int:
        """Nothing is written."""
        pack(entry)
        self._last += 1
        return self._last

    def close(self) -> None:
        """Nothing is open."""


if __name__ == "__main__":
    spool.SqliteSpool = NoSpool  # type: ignore[assignment,misc]
    sys.exit(main())
