"""The feedback loop on one page: what each event sets off.

Handlers are durable and run at least once; each is idempotent by its event's id. What they do is in their rooms:
here is only who answers to what. A handler that fails is retried step by step and never dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from noria.domain.alert import Alert
from noria.domain.events import (
    AlertRaised,
    CandidateRegistered,
    DriftDetected,
    GateFailed,
    GatePassed,
    LabelsArrived,
    QualityDropped,
    RetrainRequested,
    RolledBack,
    RunFailed,
    RunStarted,
    ScheduleDue,
    VersionPromoted,
    WindowClosed,
    WindowJudged,
)
from noria.governance.cards import Cards
from noria.monitoring.alerts import Alerts
from noria.monitoring.measuring import Quality
from noria.monitoring.monitors import Monitors
from noria.ports import Handlers, Notifier, StateStore, Steps
from noria.release.gates import Release
from noria.release.rollouts import Rollouts
from noria.training.pipeline import Pipeline
from noria.training.triggers import Triggers


@dataclass(frozen=True, slots=True)
class Notifications:
    """Tells every notifier of an alert, each in a step of its own, so that one that fails is retried alone."""

    state: StateStore
    notifiers: Sequence[Notifier]

    def deliver(self, event: AlertRaised, step: Steps) -> None:
        """Deliver the alert that an event names."""
        for notifier in self.notifiers:
            step(f"notify {notifier.name}", self._tell, notifier, event.alert_id)

    def _tell(self, notifier: Notifier, alert_id: str) -> None:
        alert = self.state.get(Alert, alert_id)
        assert alert is not None, f"alert {alert_id} was raised, so it is in the state"
        notifier.notify(alert)


@dataclass(frozen=True, slots=True)
class Rooms:
    """The services whose methods are the loop's handlers."""

    monitors: Monitors
    quality: Quality
    alerts: Alerts
    notifications: Notifications
    triggers: Triggers
    pipeline: Pipeline
    release: Release
    rollouts: Rollouts
    cards: Cards


def handlers(rooms: Rooms) -> Handlers:
    """Event → what it sets off, in order."""
    return {
        WindowClosed: (rooms.monitors.evaluate, rooms.quality.measure),
        WindowJudged: (rooms.quality.measure,),
        DriftDetected: (rooms.alerts.raise_alert,),
        QualityDropped: (rooms.alerts.raise_alert,),
        AlertRaised: (rooms.notifications.deliver, rooms.triggers.consider),
        ScheduleDue: (rooms.triggers.consider,),
        LabelsArrived: (rooms.triggers.consider,),
        RetrainRequested: (rooms.triggers.consider,),
        RunStarted: (rooms.pipeline.execute,),
        RunFailed: (rooms.alerts.raise_alert,),
        CandidateRegistered: (rooms.release.judge_candidate,),
        GatePassed: (rooms.rollouts.begin,),
        GateFailed: (rooms.alerts.raise_alert,),
        VersionPromoted: (rooms.alerts.resolve_for, rooms.cards.refresh),
        RolledBack: (rooms.alerts.raise_alert,),
    }
