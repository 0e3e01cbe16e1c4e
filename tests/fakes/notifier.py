"""A notifier that keeps what it was told, or fails as a test wants it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from noria.domain.alert import Alert
from noria.domain.delivery import Notice
from noria.domain.errors import NotDelivered


class Dies(BaseException):
    """The process is gone."""


@dataclass
class FakeNotifier:
    """Implements ports.Notifier."""

    name: str = "fake"
    failures: int = 0
    """How many deliveries fail before the next one works."""
    dies: bool = False
    """Whether the process dies once it has delivered."""
    notices: list[Notice] = field(default_factory=list)

    @property
    def told(self) -> list[Alert]:
        """Every alert that was told, in order."""
        return [alert for notice in self.notices for alert in notice.alerts]

    def notify(self, notice: Notice) -> None:
        if self.failures:
            self.failures -= 1
            raise NotDelivered(f"{self.name} could not be told of {notice.alerts[0].id}.", "Try again.")
        self.notices.append(notice)
        if self.dies:
            raise Dies

    @contextmanager
    def dying(self) -> Iterator[None]:
        """For a while the process dies once something was delivered, before anybody could note that."""
        self.dies = True
        try:
            yield
        finally:
            self.dies = False
