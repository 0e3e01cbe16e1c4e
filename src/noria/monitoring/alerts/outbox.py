"""What is owed to whom: written with the alert's own change, delivered at least once, shown while it is owed.

An alert and a recipient have one document, which says what the recipient should know and what he does know. What is
about to be sent is written down first, with an identity that stays the same when it is sent again after a crash.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock

from noria.domain.alert import Alert, AlertState, Silence, silenced
from noria.domain.delivery import GIVE_UP, Delivery, Notice, batch_id
from noria.domain.status import NotifierStatus
from noria.monitoring.alerts import ledger
from noria.ports import Change, Clock, Recipient, StateStore

log = logging.getLogger("noria.alerts")

MOST_ALERTS = 20
"""Alerts that one notice holds."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """Deliveries to the project's recipients.

    Attributes:
        state: Alerts, silences, deliveries.
        clock: Times.
        recipients: Who is told.
        group_wait: How long a first alert waits for others of its group.
        describe: An identity and alerts → the notice about them.
    """

    state: StateStore
    clock: Clock
    recipients: Sequence[Recipient]
    group_wait: timedelta
    describe: Callable[[str, Sequence[Alert]], Notice]
    _delivered: dict[str, int] = field(default_factory=dict)
    _failed: dict[str, int] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def owe(self, writing: Change, alert: Alert) -> None:
        """Within an alert's own change: every recipient who wants it has to be told of its state.

        Who can't have heard that it fires, because it was silenced, isn't told that it is over.
        """
        names = [recipient.name for recipient in self.recipients if recipient.wants(alert)]
        ledger.owe(writing, alert, names, self.clock.now() + self.group_wait)

    def remind(self) -> None:
        """Owe again what still fires to those who want to hear it again. Reads every alert, so not for every turn."""
        ledger.remind(self.state, self.recipients, self.clock.now())

    def turn(self, submit: Callable[[Callable[[], None]], object]) -> None:
        """Tell each recipient who isn't being told already what is due, each in a task of his own.

        Args:
            submit: Runs a task, now or elsewhere.
        """
        waiting = ledger.waiting(self.state)
        silences = self.state.find(Silence, limit=ledger.EVERY) if waiting else []
        for recipient in self.recipients:
            with self._lock:
                if recipient.name in self._busy:
                    continue
                self._busy.add(recipient.name)
            batch: Sequence[tuple[Delivery, Alert]] = ()
            try:
                batch = self._claim(waiting.get(recipient.name, []), silences)
            finally:
                if not batch:
                    self._busy.discard(recipient.name)
            if batch:
                submit(self._task(recipient, batch))
        self._drop_strangers(waiting)

    def status(self) -> Mapping[str, NotifierStatus]:
        """Recipient → what became of what he was owed, since this process began."""
        waiting = ledger.waiting(self.state)
        return {r.name: self._status(r.name, waiting.get(r.name, [])) for r in self.recipients}

    def _status(self, name: str, waiting: Sequence[Delivery]) -> NotifierStatus:
        failing = [d for d in waiting if d.first_failed_at is not None]
        newest = max(failing, key=lambda d: d.attempts, default=None)
        return NotifierStatus(
            delivered=self._delivered.get(name, 0),
            failed=self._failed.get(name, 0),
            waiting=len(waiting),
            failing_since=min((d.first_failed_at for d in failing if d.first_failed_at is not None), default=None),
            problem=newest.last_error if newest is not None else "",
        )

    def _claim(self, waiting: Sequence[Delivery], silences: list[Silence]) -> list[tuple[Delivery, Alert]]:
        """What is due to one recipient and belongs together, marked as about to be sent."""
        now = self.clock.now()
        if not any(d.due_at <= now for d in waiting):
            return []
        speaking = [(d, a) for d in waiting if (a := self._to_tell(d, silences, now)) is not None]
        first = next(((d, a) for d, a in speaking if d.due_at <= now), None)
        if first is None:
            return []
        if first[0].batch:
            together = [(d, a) for d, a in speaking if d.batch == first[0].batch]
        else:
            alike = (first[0].state, first[1].grouping)
            together = [(d, a) for d, a in speaking if not d.batch and (d.state, a.grouping) == alike][:MOST_ALERTS]
        identity = first[0].batch or batch_id([d for d, _ in together])
        return self._mark(identity, together, now)

    def _mark(
        self, identity: str, together: Sequence[tuple[Delivery, Alert]], now: datetime
    ) -> list[tuple[Delivery, Alert]]:
        """Write down that these are about to be sent; what changed meanwhile is left for the next turn."""
        claimed = []
        with self.state.note() as note:
            for delivery, alert in together:
                if note.get(Delivery, delivery.id) == delivery:
                    mine = delivery.claimed(identity, now)
                    note.put(mine)
                    claimed.append((mine, alert))
        return claimed

    def _to_tell(self, delivery: Delivery, silences: list[Silence], now: datetime) -> Alert | None:
        """The alert, unless it is silenced; what nobody will miss is closed."""
        alert = self.state.get(Alert, delivery.alert_id)
        if alert is None or (alert.state, alert.changed_at) != (delivery.state, delivery.at):
            self._close(delivery, "the alert is another one now")
            return None
        silence = silenced(alert, silences, now)
        if silence is None:
            return alert
        if delivery.state is AlertState.RESOLVED and not delivery.alarmed:
            self._close(delivery, f"it was over before silence {silence.id} was")
        elif delivery.batch and delivery.due_at <= now:
            with self.state.note() as note:
                if note.get(Delivery, delivery.id) == delivery:
                    note.put(delivery.held())
        return None

    def _task(self, recipient: Recipient, batch: Sequence[tuple[Delivery, Alert]]) -> Callable[[], None]:
        def tell() -> None:
            try:
                self._tell(recipient, batch)
            finally:
                self._busy.discard(recipient.name)

        return tell

    def _tell(self, recipient: Recipient, batch: Sequence[tuple[Delivery, Alert]]) -> None:
        problem, name = "", recipient.name
        try:
            recipient.notifier.notify(self.describe(batch[0][0].batch, [alert for _, alert in batch]))
        except Exception as error:  # whatever a notifier stumbles over is noted, shown and tried again
            problem = " ".join(str(error).split()) or type(error).__name__
            log.warning("%s could not be told: %s", name, problem)
        counts = self._failed if problem else self._delivered
        counts[name] = counts.get(name, 0) + len(batch)
        for delivery, _ in batch:
            self._note(delivery, problem)

    def _note(self, sent: Delivery, problem: str) -> None:
        """Write down what became of a delivery; of an alert that changed meanwhile only that it was told."""
        now = self.clock.now()
        with self.state.note() as note:
            known = note.get(Delivery, sent.id) or sent
            if (known.state, known.at) != (sent.state, sent.at):
                if not problem:
                    note.put(known.heard(sent.state))
                return
            if not problem:
                ledger.close(note, known.done(now))
            elif known.first_failed_at is not None and now - known.first_failed_at > GIVE_UP:
                ledger.close(note, replace(known.failed(problem, now), closed=f"given up: {problem}"))
            else:
                note.put(known.failed(problem, now))

    def _close(self, delivery: Delivery, why: str) -> None:
        with self.state.note() as note:
            if note.get(Delivery, delivery.id) == delivery:
                ledger.close(note, replace(delivery, closed=why))

    def _drop_strangers(self, waiting: Mapping[str, Sequence[Delivery]]) -> None:
        """What is owed to nobody whom the project names any more."""
        known = {recipient.name for recipient in self.recipients}
        for name in waiting.keys() - known:
            log.warning("%s is in the project no more and is owed nothing now", name)
            for delivery in waiting[name]:
                self._close(delivery, "the project names no such notifier any more")
