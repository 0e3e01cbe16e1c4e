"""Where an answer comes from, as a tree: each link names a thing and says what is known of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Kind(StrEnum):
    """What a link is about."""

    ANSWER = "answer"
    FEEDBACK = "feedback"
    VERSION = "version"
    ADDITION = "addition"
    """Somebody brought the version: no run of ours made it."""
    RUN = "run"
    DATASET = "dataset"
    RECORDS = "records"
    """Production records that were learnt from or judged on."""
    TRIGGER = "trigger"
    ALERT = "alert"
    VERDICT = "verdict"
    GATE = "gate"
    APPROVER = "approver"
    """A person without whom the version had no traffic."""
    ROLLOUT = "rollout"
    CHANGE = "change"
    """A change of who answers, from the audit trail."""
    ANSWERS = "answers"
    LESSON = "lesson"
    """A run that learnt from the answer, or judged on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One thing in the lineage.

    Attributes:
        kind: What it is.
        id: Its identity, as other commands take it; empty where it has none.
        says: What is known of it, in words.
        at: When it happened.
        facts: The same for a program: JSON values.
        missing: Why nothing more is known; empty if nothing is missing.
        links: What it leads to.
    """

    kind: Kind
    id: str = ""
    says: str = ""
    at: datetime | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    missing: str = ""
    links: tuple["Link", ...] = ()

    def walk(self) -> Iterator["Link"]:
        """This link and all that it leads to, from above."""
        yield self
        for link in self.links:
            yield from link.walk()


def lost(kind: Kind, why: str, id: str = "") -> Link:
    """A link that should be there and isn't."""
    return Link(kind=kind, id=id, missing=why)
