"""The book of what is owed: one delivery for each alert and recipient, and one list of those that are open."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from noria.domain.alert import Alert
from noria.domain.delivery import Delivery, Outgoing
from noria.ports import Change, Recipient, StateStore

EVERY = 100_000
"""More than there are of anything."""


def delivery_id(alert_id: str, notifier: str) -> str:
    """Identity of the delivery of an alert by a notifier."""
    return f"{alert_id} → {notifier}"


def owe(writing: Change, alert: Alert, notifiers: Iterable[str], due_at: datetime) -> None:
    """Within an alert's own change: these have to tell the state that it is in."""
    opened = [_delivery(writing, alert, name, due_at) for name in notifiers]
    for delivery in opened:
        writing.put(delivery)
    outgoing = writing.get(Outgoing, Outgoing().id) or Outgoing()
    writing.put(replace(outgoing, open=tuple(dict.fromkeys((*outgoing.open, *(d.id for d in opened))))))


def close(writing: Change, delivery: Delivery) -> None:
    """Nothing is owed of this delivery any more."""
    writing.put(delivery)
    outgoing = writing.get(Outgoing, Outgoing().id) or Outgoing()
    writing.put(replace(outgoing, open=tuple(name for name in outgoing.open if name != delivery.id)))


def waiting(state: StateStore) -> dict[str, list[Delivery]]:
    """Notifier → what it still has to tell, what has waited longest first."""
    outgoing = state.get(Outgoing, Outgoing().id) or Outgoing()
    found: dict[str, list[Delivery]] = {}
    for name in outgoing.open:
        delivery = state.get(Delivery, name)
        if delivery is not None and delivery.open:
            found.setdefault(delivery.notifier, []).append(delivery)
    return {name: sorted(owed, key=lambda d: d.due_at) for name, owed in found.items()}


def remind(state: StateStore, recipients: Sequence[Recipient], now: datetime) -> None:
    """Owe again what still fires to those who want to hear it again, unless somebody looks after it."""
    repeated = [r for r in recipients if r.repeat is not None]
    for alert in state.find(Alert, limit=EVERY) if repeated else ():
        for recipient in repeated if alert.fires else ():
            if recipient.repeat is not None and (recipient.always or alert.acknowledged is None):
                _remind_of(state, alert, recipient.name, now - recipient.repeat, now)


def _remind_of(state: StateStore, alert: Alert, notifier: str, before: datetime, now: datetime) -> None:
    known = state.get(Delivery, delivery_id(alert.id, notifier))
    if known is None or known.delivered_at is None or known.delivered_at > before:
        return
    with state.note() as note:
        if note.get(Delivery, known.id) == known and note.get(Alert, alert.id) == alert:
            owe(note, alert, [notifier], now)


def _delivery(writing: Change, alert: Alert, notifier: str, due_at: datetime) -> Delivery:
    name = delivery_id(alert.id, notifier)
    known = writing.get(Delivery, name)
    if known is not None:
        return known.owing(alert, due_at)
    return Delivery(
        id=name,
        endpoint=alert.endpoint,
        alert_id=alert.id,
        notifier=notifier,
        state=alert.state,
        at=alert.changed_at,
        due_at=due_at,
    )
