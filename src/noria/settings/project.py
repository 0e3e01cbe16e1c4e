"""The schema of `noria.yaml` as a whole: endpoints, and what they share."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.alerts import RESERVED, AlertRule, Notify, other_windows, unknown_monitors
from noria.settings.audit import Audit
from noria.settings.basics import Duration, Name, Strict
from noria.settings.compute import Compute
from noria.settings.judges import Judge
from noria.settings.log import SPELLED, Log, RedactElse, Redaction, Region, Telemetry
from noria.settings.models import Command, Deployment, GgufModel, Price, Registered
from noria.settings.monitors import JUDGE, Monitors
from noria.settings.rollout import RolloutPlan
from noria.settings.traffic import Limits, Routing, Server, Upstream, UpstreamKind
from noria.settings.training import Training


class Task(StrEnum):
    """What an endpoint does."""

    CLASSIFICATION = "classification"
    CHAT = "chat"


class Mlflow(Strict):
    """Where MLflow keeps runs and models."""

    tracking_uri: str = Field("", description="MLflow tracking and registry URI; default is SQLite beside the project.")
    experiment: str = Field("", description="Experiment that runs are logged to; default is the project's name.")


SOURCES = ("training", "gguf", "registered", "command", "deployment")
"""Where an endpoint's first version can come from."""


class Endpoint(Strict):
    """One thing that answers requests."""

    task: Task = Field(description="classification or chat.")
    policy: str = Field(description="Path of the policy file that every version has to meet.")
    model: Name | None = Field(None, description="Registered model name; default is the endpoint's name.")
    training: Training | None = Field(None, description="For models that Noria trains.")
    gguf: GgufModel | None = Field(None, description="For model files that Noria serves as they are.")
    registered: Registered | None = Field(None, description="For versions that are in the MLflow registry.")
    command: Command | None = Field(None, description="For model servers that are a command.")
    deployment: Deployment | None = Field(None, description="For models that are served elsewhere.")
    holdout: str | None = Field(
        None,
        description="CSV or Parquet file (text, label and, optionally, group) that versions made elsewhere are judged "
        "on; default is what the newest training run held out.",
    )
    group: str | None = Field(
        None, description="Key in a request's metadata that names its group, for fairness and by-group quality."
    )
    redact: tuple[Redaction, ...] = Field(
        SPELLED,
        description="What is taken out before anything is written; name, location and organisation need noria[pii].",
    )
    redact_else: RedactElse = Field(
        RedactElse.REFUSE,
        description="If names can't be looked for: refuse the request, or withhold its body from the log.",
    )
    redact_regions: tuple[Region, ...] = Field(
        ("US",), description="Countries whose phone numbers are known as they are written there; +49 … always is."
    )
    retention: Duration | None = Field(None, description="How long records are kept; default is for ever.")
    timeout: Duration = Field(timedelta(seconds=60), description="Longest time a request may take in all.")
    routing: Routing = Field(default_factory=Routing)
    limits: Limits = Field(default_factory=Limits)
    price: Price | None = Field(None, description="Default is the provider's price list, where there is one.")
    monitors: Monitors = Field(default_factory=Monitors)
    alerts: Mapping[Name, AlertRule] = Field(
        default_factory=dict, description="Rules by name: when alerts fire beside the monitors' own alarms."
    )
    judges: Mapping[Name, Judge] = Field(
        default_factory=dict, description="Language models that judge a sample of the answers."
    )
    rollout: RolloutPlan = Field(default_factory=RolloutPlan)

    @model_validator(mode="after")
    def _one_source(self) -> "Endpoint":
        if sum(getattr(self, source) is not None for source in SOURCES) != 1:
            raise PydanticCustomError("source", "give exactly one of {sources}", {"sources": ", ".join(SOURCES)})
        return self

    @model_validator(mode="after")
    def _rules_are_about_monitors_that_are_on(self) -> "Endpoint":
        if taken := sorted(RESERVED & self.alerts.keys()):
            raise PydanticCustomError("rule", "alerts.{rule}: Noria's own alerts are called that", {"rule": taken[0]})
        watched = frozenset(str(name) for name in self.monitors.watch)
        if unknown := unknown_monitors(self.alerts, watched):
            raise PydanticCustomError(
                "rule",
                "alerts.{rule}.monitor: that monitor isn't on; name one of monitors.watch: {watched}",
                {"rule": unknown[0], "watched": ", ".join(sorted(watched))},
            )
        lengths = frozenset((self.monitors.window, *self.monitors.granularities))
        if other := other_windows(self.alerts, lengths):
            raise PydanticCustomError(
                "rule",
                "alerts.{rule}.window: no windows are that long; write one of monitors.granularities",
                {"rule": other[0]},
            )
        return self


class Project(Strict):
    """A project: the whole of `noria.yaml`."""

    project: Name = Field(description="The project's name.")
    default_endpoint: Name | None = Field(None, description="Endpoint that /predict and /invocations mean.")
    server: Server = Field(default_factory=Server)
    upstreams: Mapping[Name, Upstream] = Field(
        default_factory=dict, description="Services elsewhere that endpoints' deployments are at."
    )
    mlflow: Mlflow = Field(default_factory=Mlflow)
    notify: Notify = Field(default_factory=Notify)
    log: Log = Field(default_factory=Log)
    audit: Audit = Field(default_factory=Audit)
    telemetry: Telemetry = Field(default_factory=Telemetry)
    compute: Compute = Field(default_factory=Compute)
    endpoints: Mapping[Name, Endpoint] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> "Project":
        if self.default_endpoint is not None and self.default_endpoint not in self.endpoints:
            raise PydanticCustomError("default_endpoint", "name one of the endpoints below")
        for name, endpoint in self.endpoints.items():
            at = {"name": name}
            if endpoint.deployment is not None and endpoint.deployment.upstream not in self.upstreams:
                raise PydanticCustomError("upstream", "endpoints.{name}.deployment: name one of the upstreams", at)
            base = endpoint.training.base if endpoint.training is not None else None
            if isinstance(base, Deployment) and base.upstream not in self.upstreams:
                raise PydanticCustomError("upstream", "endpoints.{name}.training.base: name one of the upstreams", at)
            if (problem := _mismatch(endpoint, self.upstreams)) is not None:
                raise PydanticCustomError("wire", "endpoints.{name}." + problem, at)
            for watched in endpoint.monitors.watch:
                if watched.startswith(JUDGE) and watched.removeprefix(JUDGE) not in endpoint.judges:
                    raise PydanticCustomError(
                        "watch", "endpoints.{name}.monitors.watch: {judge} is no judge of it", {**at, "judge": watched}
                    )
            for judge in endpoint.judges.values():
                _can_judge(judge, self.endpoints, self.upstreams)
            if any(other not in self.endpoints or other == name for other in endpoint.routing.fallbacks):
                raise PydanticCustomError("fallbacks", "endpoints.{name}.routing.fallbacks: name other endpoints", at)
            if any(self.endpoints[other].task is not endpoint.task for other in endpoint.routing.fallbacks):
                raise PydanticCustomError(
                    "fallbacks", "endpoints.{name}.routing.fallbacks: name endpoints of the same task", at
                )
        return self

    @property
    def default(self) -> str:
        """Name of the default endpoint: as said, else the first."""
        return self.default_endpoint or next(iter(self.endpoints))

    def model_name(self, endpoint: str) -> str:
        """Registered model behind an endpoint."""
        return self.endpoints[endpoint].model or endpoint


def _can_judge(judge: Judge, endpoints: Mapping[str, Endpoint], upstreams: Mapping[str, Upstream]) -> None:
    """See that who judges is there and writes texts."""
    if judge.endpoint is not None and (
        judge.endpoint not in endpoints or endpoints[judge.endpoint].task is not Task.CHAT
    ):
        raise PydanticCustomError(
            "judge", "judges: {name} is no chat endpoint of this project", {"name": judge.endpoint}
        )
    if judge.upstream is not None and (
        judge.upstream not in upstreams or upstreams[judge.upstream].kind is UpstreamKind.MLFLOW
    ):
        raise PydanticCustomError(
            "judge", "judges: {name} is no upstream that speaks OpenAI's wire", {"name": judge.upstream}
        )


def _mismatch(endpoint: Endpoint, upstreams: Mapping[str, Upstream]) -> str | None:
    """Why what an endpoint's model is can't do what the endpoint does; None if it can."""
    predicts = endpoint.task is Task.CLASSIFICATION
    if endpoint.deployment is not None:
        kind = upstreams[endpoint.deployment.upstream].kind
        if predicts and kind not in (UpstreamKind.MLFLOW, UpstreamKind.DATABRICKS):
            return "deployment: a classification endpoint needs an upstream of kind mlflow or databricks"
    if endpoint.command is not None and predicts != (endpoint.command.wire == "mlflow"):
        return "command: write wire: mlflow for classification, wire: openai for chat"
    return None
