"""A notifier that keeps what it was told, or fails as a test wants it."""

from dataclasses import dataclass, field

from noria.domain.alert import Alert
from noria.domain.errors import NotDelivered


@dataclass
class FakeNotifier:
    """Implements ports.Notifier."""

    name: str = "fake"
    failures: int = 0
    """How many deliveries fail before the next one works."""
    told: list[Alert] = field(default_factory=list)

    def notify(self, alert: Alert) -> None:
        if self.failures:
            self.failures -= 1
            raise NotDelivered(f"{self.name} could not be told of {alert.id}.", "Try again.")
        self.told.append(alert)
