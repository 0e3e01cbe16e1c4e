"""The one composition root: here, and nowhere else, ports meet adapters.

Heavy libraries are imported by the functions that need them, so that a command which only reads the state starts fast
and an API process stays small.
"""

from noria.bootstrap.api_process import Api, api
from noria.bootstrap.backfilling import backfill
from noria.bootstrap.comparing import labelled_rows, offline
from noria.bootstrap.labelling import unlabelled
from noria.bootstrap.parts import (
    additions,
    anchors,
    anchors_kept,
    cards,
    counting,
    desk,
    first_versions,
    follower,
    host,
    log,
    manual,
    meters,
    outbox,
    policies,
    recorder,
    records,
    redactor_socket,
    registry,
    resolver,
    spending,
    upstream,
)
from noria.bootstrap.project import (
    APPLIED,
    apply,
    clock,
    in_service,
    keys_exist,
    opened,
    project_in_service,
    settings,
    state,
)
from noria.bootstrap.reporting import reporter
from noria.bootstrap.tracing import lineage
from noria.bootstrap.worker_process import Loop, loop

__all__ = [
    "APPLIED",
    "Api",
    "Loop",
    "additions",
    "anchors",
    "anchors_kept",
    "api",
    "apply",
    "backfill",
    "cards",
    "clock",
    "counting",
    "desk",
    "first_versions",
    "follower",
    "host",
    "in_service",
    "keys_exist",
    "labelled_rows",
    "lineage",
    "log",
    "loop",
    "manual",
    "meters",
    "offline",
    "opened",
    "outbox",
    "policies",
    "project_in_service",
    "recorder",
    "records",
    "redactor_socket",
    "registry",
    "reporter",
    "resolver",
    "settings",
    "spending",
    "state",
    "unlabelled",
    "upstream",
]
