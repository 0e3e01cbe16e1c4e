"""Traces and metrics for others, made by the worker from the records that it has shipped.

Whoever ships hands records over and goes on at once. Each way out has a bounded queue and a thread of its own
(`outlet.py`), so one that is slow or gone holds up neither the log nor another. A record is handed over once, after its
row is in the table; what waits in a queue when the worker is killed is not exported, and nothing is counted twice.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from noria.adapters.telemetry.genai import Places, is_fault
from noria.adapters.telemetry.outlet import Outlet
from noria.domain.errors import InvalidProject, MissingExtra
from noria.domain.inference import Intent, Outcome
from noria.domain.status import OutletStatus
from noria.settings import Settings

if TYPE_CHECKING:
    from noria.adapters.telemetry.opentelemetry import Way

CLOSE_S: Final = 3.0
"""How long the last export may take in all, seconds."""


class Telemetry:
    """The ways out.

    Args:
        outlets: They.
        metrics: Name → why metrics are not taken at the moment, empty if they are.
        finish: What to do at the very end, until that moment of the monotonic clock.
        problems: What was asked for and can't be done at all.
    """

    def __init__(
        self,
        outlets: Sequence[Outlet],
        metrics: Mapping[str, Callable[[], str]],
        finish: Callable[[float], None],
        problems: Iterable[str] = (),
    ) -> None:
        self._outlets, self._metrics, self._finish, self._problems = outlets, metrics, finish, tuple(problems)

    def shipped(self, records: Sequence[tuple[int, Intent, Outcome]]) -> None:
        """Take records that are in the tables now; returns at once."""
        for outlet in self._outlets:
            outlet.offer(records)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is not exported at the moment, in words."""
        found = [f"{outlet.name} takes no traces: {outlet.problem}" for outlet in self._outlets if outlet.problem]
        found += [f"{name} takes no metrics: {why}" for name, ask in self._metrics.items() if (why := ask())]
        return (*self._problems, *found)

    def status(self) -> Mapping[str, OutletStatus]:
        """Way out → what became of the records since the worker began."""
        return {outlet.name: outlet.status() for outlet in self._outlets}

    def close(self) -> None:
        """Export what waits, as far as that goes quickly."""
        deadline = time.monotonic() + CLOSE_S
        for outlet in self._outlets:
            outlet.close(deadline)
        self._finish(deadline)


def telemetry(
    settings: Settings, experiment: Callable[[], str], metrics_every_s: float | None = None
) -> Telemetry | None:
    """What the project and the environment ask for; None if they ask for nothing.

    Args:
        settings: The project in service.
        experiment: Says, by its id, which of MLflow's experiments traces belong to; called only if MLflow gets any.
        metrics_every_s: Between two exports of metrics, seconds; None for OTEL_METRIC_EXPORT_INTERVAL, a minute.
    """
    asked = settings.project.telemetry
    if not (settings.otlp_traces_url or settings.azure_monitor or asked.mlflow_sample):
        return None
    from noria.adapters.telemetry.metrics import Histograms
    from noria.adapters.telemetry.opentelemetry import SCOPE, SpanOutlet, resource, span

    places, sender = Places(settings.project), resource(settings)
    ways, problems = _ways(settings)
    outlets: list[Outlet] = []
    counting: list[Histograms] = []
    for way in ways:
        spans = SpanOutlet(way.spans, lambda record: span(places, sender, record, asked.payloads), way.said)
        every_s = settings.metrics_every_s if metrics_every_s is None else metrics_every_s
        counting.append(Histograms(places, sender, SCOPE, way.metrics, every_s))
        outlets.append(Outlet(way.name, spans.send, _traced))
        outlets.append(Outlet(f"{way.name}_metrics", counting[-1].send))
    if asked.mlflow_sample:
        from noria.adapters.telemetry.mlflow_traces import RATE, WAITING, MlflowTraces, sampled

        traces = MlflowTraces(settings.tracking_uri, experiment, places, sender)
        outlets.append(Outlet("mlflow", traces.send, sampled(asked.mlflow_sample), capacity=WAITING, rate=RATE))

    def finish(deadline: float) -> None:
        for histograms in counting:
            histograms.close(max(0.1, deadline - time.monotonic()))
        for way in ways:
            way.spans.shutdown()
            way.said.close()

    return Telemetry(outlets, {way.name: _problem(way) for way in ways}, finish, problems)


def _ways(settings: Settings) -> "tuple[list[Way], list[str]]":
    """Whom spans and metrics go to, and who can't be reached for want of a package."""
    from noria.adapters.telemetry import opentelemetry

    found: list[Way] = []
    problems: list[str] = []
    if settings.otlp_traces_url and settings.otlp_protocol != "http/protobuf":
        problems.append(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {settings.otlp_protocol}, but OTLP is spoken over HTTP only. Set it to"
            " http/protobuf and OTEL_EXPORTER_OTLP_ENDPOINT to the collector's HTTP port, usually 4318."
        )
    elif settings.otlp_traces_url:
        found.append(opentelemetry.otlp(settings.otlp_traces_url, settings.otlp_metrics_url))
    if settings.azure_monitor:
        try:
            found.append(opentelemetry.azure_monitor(settings.azure_monitor))
        except (MissingExtra, InvalidProject) as error:
            problems.append(str(error))
    return found, problems


def _problem(way: "Way") -> Callable[[], str]:
    return lambda: way.metrics.problem


def _traced(intent: Intent, outcome: Outcome) -> bool:
    """Which records become spans: those of sampled traces, and every fault."""
    return intent.sampled or is_fault(outcome)
