"""Every seam of the house.

A room above asks for one of these; `bootstrap` alone knows which adapter stands behind it. Each port has one
conformance suite in `tests/ports/` that every adapter passes, and so does its fake.
"""

from noria.ports.audit import AnchorStore, Signer
from noria.ports.log import Part, PartFile, Poison, RecordSpool, RecordStore, RecordView, SpoolReader, Where
from noria.ports.measures import TextScorer
from noria.ports.models import ModelHost, ModelRegistry
from noria.ports.plane import Chunks, Clock, Credentials, EntityReader, FrameReader, Meters, Upstream, UpstreamReply
from noria.ports.state import Change, StateStore
from noria.ports.work import (
    NOTIFIER,
    ComputeEngine,
    Handlers,
    JobSpec,
    Notifier,
    Recipient,
    Steps,
    Trainer,
    TrainingJob,
    TrainingResult,
    Workflows,
)

__all__ = [
    "NOTIFIER",
    "AnchorStore",
    "Change",
    "Chunks",
    "Clock",
    "ComputeEngine",
    "Credentials",
    "EntityReader",
    "FrameReader",
    "Handlers",
    "JobSpec",
    "Meters",
    "ModelHost",
    "ModelRegistry",
    "Notifier",
    "Part",
    "PartFile",
    "Poison",
    "Recipient",
    "RecordSpool",
    "RecordStore",
    "RecordView",
    "Signer",
    "SpoolReader",
    "StateStore",
    "Steps",
    "TextScorer",
    "Trainer",
    "TrainingJob",
    "TrainingResult",
    "Upstream",
    "UpstreamReply",
    "Where",
    "Workflows",
]
