"""`python -m demo --seed 0 --port 8480`: tell the story, end by itself, print what happened and where to look."""

import argparse
import asyncio
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from demo.data import world, write_training_file
from demo.story import Story
from demo.summary import show, summarise

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".noria"
MARK = HOME / "demo"


def prepare(seed: int) -> None:
    """Begin anew: an earlier demo's `.noria/` goes, anybody else's stays."""
    if HOME.exists() and not MARK.exists():
        raise SystemExit(f"{HOME} holds a project that is not the demo's: move it away first.")
    if HOME.exists():
        shutil.rmtree(HOME)
    write_training_file(world(seed).train, MARK / "data" / "train.csv")


def main() -> int:
    """Run the demo; the exit status is 0 only if the whole story happened."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    parser.add_argument("--port", type=int, default=8480, help="port to listen on; 0 picks a free one")
    parser.add_argument("--rate", type=float, default=80.0, help="messages a second")
    arguments = parser.parse_args()
    began = time.monotonic()
    console = Console()
    prepare(arguments.seed)
    story = Story(ROOT, arguments.seed, arguments.port, arguments.rate, console)
    try:
        asyncio.run(story.tell())
    finally:
        story.stop()
        story.write_down(MARK / "story.txt")
    summary = summarise(ROOT, story, time.monotonic() - began)
    return show(summary, MARK / "summary.json", console)


if __name__ == "__main__":
    sys.exit(main())
