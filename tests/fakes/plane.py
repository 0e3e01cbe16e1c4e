"""A data plane in memory: a gateway with everything around it, and what it left in the log."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from fakes.meters import MemoryMeters
from fakes.spool import MemorySpool
from fakes.state import FakeState
from fakes.story import PROJECT, StoppedClock
from fakes.upstream import FakeUpstream, Handler
from noria.api.problems import explain
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.errors import LogUnavailable
from noria.domain.inference import Intent, Outcome
from noria.serving.admission import Admission, Inbound
from noria.serving.allowance import Allowances
from noria.serving.calls import Caller
from noria.serving.gateway import Gateway
from noria.serving.log.recorder import Recorder, new_request_id
from noria.serving.passage import Passages
from noria.serving.router import Router
from noria.serving.wires import Form
from noria.settings import Project, Server


def target(version: str = "1", role: Role = Role.CHAMPION, weight: int = 100, model: str = "triage") -> Target:
    """A version at an address of its own."""
    url = f"unix:/{model}-{version}.sock"
    return Target(model=model, version=version, role=role, weight=weight, url=url, verdict_id=f"v{version}")


def route(*targets: Target, endpoint: str = "triage", wire: Wire = Wire.MLFLOW, revision: int = 1) -> Route:
    """A route, by default to version 1 of the classifier."""
    return Route(endpoint=endpoint, wire=wire, revision=revision, targets=targets or (target(),), policy_hash="p")


TRIAGE = route()
ASSISTANT = route(target(model="assistant"), endpoint="assistant", wire=Wire.OPENAI)


class PartlyFullSpool(MemorySpool):
    """A log that refuses one kind of entry when it is told so."""

    refuses: type | tuple[type, ...] = ()

    async def append(self, entry) -> int:
        if isinstance(entry, self.refuses):
            raise LogUnavailable("The disk is full.", "Free some space.")
        return await super().append(entry)


class Counts:
    """Metrics that only count."""

    def __init__(self) -> None:
        self.under_way, self.ended, self.dropped, self.refused = 0, [], 0, []

    def started(self, endpoint):
        self.under_way += 1

    def finished(self, intent, outcome):
        self.under_way -= 1
        version, role = outcome.version or intent.version, intent.role.value
        self.ended.append((intent.endpoint, version, role, outcome.kind.value, outcome.status))

    def log_refused(self, entry):
        self.refused.append(entry)

    def shadow_dropped(self, endpoint):
        self.dropped += 1


@dataclass
class Plane:
    """A gateway and its surroundings."""

    servers: dict[str, Handler]
    routes: tuple[Route, ...] = (TRIAGE, ASSISTANT)
    most_under_way: int = 100
    most_streams: int = 50
    patience_s: float = 0.0
    project: Project = PROJECT
    clock: StoppedClock = field(default_factory=StoppedClock)
    spool: PartlyFullSpool = field(default_factory=PartlyFullSpool)
    counts: Counts = field(default_factory=Counts)
    meters: MemoryMeters = field(default_factory=MemoryMeters)
    asked: int = 0
    upstream: Any = None
    """By default one without sockets."""

    def __post_init__(self) -> None:
        self.state = FakeState(self.clock)
        self.put(*self.routes)
        self.upstream = self.upstream or FakeUpstream(self.servers)
        room = Server(max_requests=self.most_under_way, max_streams=self.most_streams)
        project = self.project.model_copy(update={"server": room})
        self.router = Router(self.state, project, lambda text: project, self.clock)
        self.router.refresh()
        passages = Passages(
            Recorder(self.spool, {}, self.clock),
            self.counts,
            self.clock,
            Allowances(self.meters, self.clock),
            self.router.price,
        )
        self.caller = Caller(self.upstream, self.router, lambda: 0.5, self.patience_s)
        admission = Admission(self.router, passages)
        self.gateway = Gateway(admission, self.caller, passages, explain, lambda: new_request_id(self.clock))

    def put(self, *routes: Route) -> None:
        """Bring routes into service."""
        with self.state.change("noria", "route.changed", "test") as change:
            for one in routes:
                change.put(one)

    def rule(self, endpoint: str = "", **changed) -> None:
        """Change rules of an endpoint, or of all; routes that are put in service later keep them."""
        rules = self.router.snapshot.rules
        mine = {n: replace(r, **changed) if endpoint in ("", n) else r for n, r in rules.items()}
        self.router.snapshot = replace(self.router.snapshot, rules=mine)

    def inbound(self, form: Form, body: bytes, **more) -> Inbound:
        """A request with a fresh id."""
        self.asked += 1
        return Inbound(request_id=f"{self.asked:032x}", form=form, body=body, **more)

    async def predict(self, body: bytes = b'{"input": "hello"}', **more):
        """Ask over the lab's wire."""
        return await self.gateway.answer(self.inbound(Form.PREDICT, body, **more))

    async def chat(self, endpoint: str = "assistant", **more):
        """Ask over OpenAI's wire."""
        asked = {"model": endpoint, "messages": [{"role": "user", "content": "hello"}], **more}
        return await self.gateway.answer(self.inbound(Form.CHAT, json.dumps(asked).encode()))

    @property
    def intents(self) -> list[Intent]:
        return [e for e in self.spool.entries.values() if isinstance(e, Intent)]

    @property
    def outcomes(self) -> list[Outcome]:
        return [e for e in self.spool.entries.values() if isinstance(e, Outcome)]

    @property
    def endings(self) -> list[tuple[str, int]]:
        """Outcome and status of every record, in order."""
        return [(o.kind.value, o.status) for o in self.outcomes]
