"""The feedback loop on one page: what each event sets off.

Handlers are durable and run at least once; each is idempotent by its event's id. What they do is in their rooms:
here is only who answers to what. A handler that fails is retried step by step and never dropped. People are told of
alerts by the outbox, which each change of an alert fills in its own transaction.
"""

from dataclasses import dataclass

from noria.domain.events import (
    AlertRaised,
    BaseModelChanged,
    CandidateRegistered,
    DriftDetected,
    ExperimentStarted,
    FeedbackArrived,
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
from noria.monitoring.alerts import Alerts, Rules
from noria.monitoring.judging import Judges
from noria.monitoring.measuring import Quality
from noria.monitoring.monitors import Monitors
from noria.ports import Handlers
from noria.release.experiments import Experiments
from noria.release.judging import Release
from noria.release.rollouts import Rollouts
from noria.training.pipeline import Pipeline
from noria.training.triggers import Triggers


@dataclass(frozen=True, slots=True)
class Rooms:
    """The services whose methods are the loop's handlers."""

    monitors: Monitors
    quality: Quality
    rules: Rules
    judges: Judges
    alerts: Alerts
    triggers: Triggers
    pipeline: Pipeline
    release: Release
    rollouts: Rollouts
    experiments: Experiments
    cards: Cards


def handlers(rooms: Rooms) -> Handlers:
    """Event → what it sets off, in order."""
    return {
        WindowClosed: (rooms.monitors.evaluate, rooms.quality.measure, rooms.rules.judge, rooms.judges.judge),
        WindowJudged: (rooms.quality.measure, rooms.rules.judge),
        DriftDetected: (rooms.alerts.raise_alert,),
        QualityDropped: (rooms.alerts.raise_alert,),
        AlertRaised: (rooms.triggers.consider,),
        ScheduleDue: (rooms.triggers.consider,),
        LabelsArrived: (rooms.triggers.consider,),
        FeedbackArrived: (rooms.triggers.consider,),
        BaseModelChanged: (rooms.triggers.consider,),
        RetrainRequested: (rooms.triggers.consider,),
        RunStarted: (rooms.pipeline.execute,),
        RunFailed: (rooms.alerts.raise_alert,),
        CandidateRegistered: (rooms.release.judge_candidate,),
        GatePassed: (rooms.rollouts.begin,),
        GateFailed: (rooms.alerts.raise_alert,),
        VersionPromoted: (rooms.alerts.resolve_for, rooms.cards.refresh),
        RolledBack: (rooms.alerts.raise_alert,),
        ExperimentStarted: (rooms.experiments.begin,),
    }
