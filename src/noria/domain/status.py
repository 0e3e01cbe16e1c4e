"""What the processes say of themselves, and the project text that is in service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStatus:
    """How far one spool has been shipped."""

    written: int
    """Highest sequence number in the spool."""
    shipped: int
    """Highest sequence number in the tables."""
    open_intents: int = 0
    """Requests under way, whose outcome isn't there yet."""

    @property
    def unshipped(self) -> int:
        """Entries on disk that aren't in the tables yet."""
        return self.written - self.shipped


@dataclass(frozen=True, slots=True, kw_only=True)
class OutletStatus:
    """What became of the records that were to be exported one way, since the worker began."""

    sent: int = 0
    dropped: int = 0
    """Records that were not exported: the receiver was gone, or there were more than it takes."""
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierStatus:
    """What became of what one notifier had to tell, since the worker began."""

    delivered: int = 0
    failed: int = 0
    """Tries in vain."""
    waiting: int = 0
    """Alerts that still have to be told, or are silenced."""
    failing_since: datetime | None = None
    """When it began to fail; None if it doesn't."""
    problem: str = ""
    """Why it failed last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The worker's sign of life; one per project."""

    id: str = "worker"
    at: datetime
    pid: int
    spools: Mapping[str, SpoolStatus] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    """`model/version` → URL of every model server that answers."""
    telemetry: Mapping[str, OutletStatus] = field(default_factory=dict)
    """Way out for traces and metrics → what became of them."""
    notifiers: Mapping[str, NotifierStatus] = field(default_factory=dict)
    """Notifier → what became of what it had to tell."""
    problems: tuple[str, ...] = ()
    """What the worker could not do at its last turn, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedProject:
    """The project file that is in service: `noria apply` replaces it, processes read it from here."""

    id: str = "project"
    text: str
    """The YAML as it was applied."""
    hash: str
    """SHA-256 of the text, hex."""
    applied_at: datetime
    actor: str
