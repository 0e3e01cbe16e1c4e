"""The worker's log lane as a process of its own: `python -m fakes.shipping SPOOLS TABLES`.

It ships what is there and ends what dead processes left open, turn after turn, as `noria.worker` does, without the
seconds that the rest of the worker takes to start.
"""

import sys
import time
from pathlib import Path

from noria.adapters.clock import SystemClock
from noria.adapters.spool.writer import SpoolFolder, close_orphans, discover
from noria.adapters.tables.delta import DeltaStore
from noria.domain.errors import NoriaError
from noria.serving.log.shipping import Shipper

A_TURN = 100
"""Entries of each spool that are shipped in one go: few, so that there are many commits to die at."""


def main() -> None:
    """Ship until killed."""
    spools, clock = Path(sys.argv[1]), SystemClock()
    shipper = Shipper(SpoolFolder(spools).readers, DeltaStore(Path(sys.argv[2])), clock)
    while True:
        try:
            shipper.turn(A_TURN)
            for problem in shipper.problems:
                print(f"problem: {problem}", file=sys.stderr, flush=True)
            for path in discover(spools):
                close_orphans(path, clock)
        except NoriaError as error:
            print(f"problem: {error}", file=sys.stderr, flush=True)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
