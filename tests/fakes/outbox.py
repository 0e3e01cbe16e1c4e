"""An outbox that tells nobody unless a test names recipients; what is due is told here and now."""

from datetime import timedelta

from noria.domain.delivery import Notice
from noria.monitoring.alerts import Outbox, Showing
from noria.ports import Recipient
from noria.settings import Task


def outbox(state, clock, *notifiers, wait=timedelta(seconds=10), **recipient):
    """An outbox for these notifiers."""
    recipients = [Recipient(notifier=n, **recipient) if not isinstance(n, Recipient) else n for n in notifiers]
    return Outbox(state, clock, recipients, wait, lambda identity, alerts: Notice(id=identity, alerts=tuple(alerts)))


def showing(records):
    """Looks into these tables, for a classifier."""
    return Showing(records, lambda _: Task.CLASSIFICATION)


def at_once(task):
    """Runs a task now."""
    task()
