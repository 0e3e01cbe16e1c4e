"""What a person may do about alerts: look after one, silence some for a while, end a silence. Each is audited."""

from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from noria.domain.alert import Alert, Silence
from noria.domain.errors import Conflict, InvalidRequest, UnknownAlert, UnknownSilence
from noria.monitoring.alerts.changing import Move, change
from noria.monitoring.alerts.outbox import Outbox
from noria.ports import Clock, StateStore

_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Matcher:
    """Which alerts a silence is about: patterns of endpoint, monitor (or rule) and severity."""

    endpoint: str = "*"
    monitor: str = "*"
    severity: str = "*"


@dataclass(frozen=True, slots=True)
class Desk:
    """Acknowledges and silences alerts."""

    state: StateStore
    clock: Clock
    outbox: Outbox

    def find(self, name: str) -> Alert:
        """An alert by its id, or by what its id begins with if only one begins so.

        Raises:
            UnknownAlert: None does, or several do.
        """
        known = self.state.get(Alert, name)
        if known is not None:
            return known
        like = [a for a in self.state.find(Alert, limit=_MOST) if a.id.startswith(name)]
        firing = [a for a in like if a.fires]
        for found in (like, firing):
            if len(found) == 1:
                return found[0]
        several = f"Several begin so: {', '.join(sorted(a.id for a in like)[:5])}." if like else ""
        raise UnknownAlert(f"There is no alert {name!r}.", several or "`noria alerts list --all` names them all.")

    def acknowledge(self, alert_id: str, actor: str, reason: str) -> Alert:
        """Say that somebody looks after an alert that fires; it is not told again while it does.

        Raises:
            UnknownAlert: There is no such alert.
            Conflict: It doesn't fire.
        """
        alert = self.find(alert_id)

        def decide(known: Alert | None) -> Move | None:
            assert known is not None, "alerts are never deleted"
            mine = known.acknowledge(actor, self.clock.now(), reason)
            return Move(alert=mine, action="alert.acknowledged", reason=reason, actor=actor, news=False)

        return change(self.state, self.outbox, alert.id, decide) or alert

    def silence(self, matcher: Matcher, until: datetime, actor: str, reason: str) -> Silence:
        """Keep alerts from being sent until then.

        Raises:
            InvalidRequest: It would end before it begins.
        """
        now = self.clock.now()
        if until <= now:
            raise InvalidRequest(f"A silence until {until:%Y-%m-%d %H:%M} is over already.", "Give a later time.")
        identity = f"{matcher.endpoint} {matcher.monitor} {matcher.severity} {now.isoformat()} {actor}"
        silence = Silence(
            id=f"s-{sha256(identity.encode()).hexdigest()[:10]}",
            endpoint=matcher.endpoint,
            monitor=matcher.monitor,
            severity=matcher.severity,
            begun_at=now,
            until=until,
            by=actor,
            reason=reason,
        )
        evidence = {
            "endpoint": matcher.endpoint,
            "monitor": matcher.monitor,
            "severity": matcher.severity,
            "until": until.isoformat(),
        }
        with self.state.change(actor, "alerts.silenced", silence.id, reason=reason, evidence=evidence) as writing:
            writing.put(silence)
        return silence

    def lift(self, silence_id: str, actor: str, reason: str) -> Silence:
        """End a silence; what still fires is sent now.

        Raises:
            UnknownSilence: There is none of that name.
            Conflict: It is over already.
        """
        known = self.state.get(Silence, silence_id)
        if known is None:
            raise UnknownSilence(f"There is no silence {silence_id!r}.", "`noria alerts silences` names them.")
        now = self.clock.now()
        if not known.holds(now):
            raise Conflict(f"Silence {silence_id} is over already.", "There is nothing to lift.")
        with self.state.change(actor, "alerts.unsilenced", silence_id, reason=reason) as writing:
            lifted = replace(known, lifted_at=now, lifted_by=actor)
            writing.put(lifted)
        return lifted

    def silences(self) -> list[Silence]:
        """Those in force, the one that ends first first."""
        now = self.clock.now()
        found = [s for s in self.state.find(Silence, limit=_MOST) if s.holds(now)]
        return sorted(found, key=lambda s: s.until)
