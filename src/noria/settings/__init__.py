"""The project file's schema (`noria.yaml`) and the one frozen settings object; nothing else reads the environment."""

import logging
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from noria.settings.alerts import Against, Alertmanager, AlertRule, Notify, Service, Severity, Told, Webhook
from noria.settings.basics import Duration, Name, Strict
from noria.settings.compute import Compute, Engine, Spark
from noria.settings.judges import Judge, Scorer
from noria.settings.log import READ, SPELLED, Log, RedactElse, Redaction, Region, Telemetry
from noria.settings.models import Command, Deployment, GgufModel, Price, Registered
from noria.settings.monitors import MonitorName, Monitors, Span
from noria.settings.policy import BUILT_IN_PROBES, ApprovalRule, Comparison, Policy, PolicyRules, Safety
from noria.settings.project import Endpoint, Mlflow, Project, Task
from noria.settings.rollout import RolloutPlan
from noria.settings.traffic import Auth, Breaker, Cache, Limits, Routing, Server, Upstream, UpstreamKind
from noria.settings.training import Training

__all__ = [
    "BUILT_IN_PROBES",
    "READ",
    "SPELLED",
    "Against",
    "AlertRule",
    "Alertmanager",
    "ApprovalRule",
    "Auth",
    "Breaker",
    "Cache",
    "Command",
    "Comparison",
    "Compute",
    "Deployment",
    "Duration",
    "Endpoint",
    "Engine",
    "GgufModel",
    "Judge",
    "Limits",
    "Log",
    "Mlflow",
    "MonitorName",
    "Monitors",
    "Name",
    "Notify",
    "Policy",
    "PolicyRules",
    "Price",
    "Project",
    "RedactElse",
    "Redaction",
    "Region",
    "Registered",
    "RolloutPlan",
    "Routing",
    "Safety",
    "Scorer",
    "Server",
    "Service",
    "Settings",
    "Severity",
    "Span",
    "Spark",
    "Strict",
    "Task",
    "Telemetry",
    "Told",
    "Training",
    "Upstream",
    "UpstreamKind",
    "Webhook",
    "log_level",
    "secret",
]


def secret(variable: str) -> str:
    """What an environment variable that the project file names holds; empty if it isn't set."""
    return os.environ.get(variable, "").strip()


_SECRETS = frozenset(
    {
        "NORIA_STATE_URL",
        "NORIA_WORKFLOWS_URL",
        "NORIA_WEBHOOK_SECRET",
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "OTEL_EXPORTER_OTLP_HEADERS",
    }
)


def log_level() -> int:
    """How grave an event has to be for the processes' logs: what NORIA_LOG_LEVEL names, else information."""
    named = logging.getLevelNamesMapping()
    return named.get(os.environ.get("NORIA_LOG_LEVEL", "").strip().upper(), logging.INFO)


class Settings(BaseModel):
    """Everything a process of Noria needs to know: the project and where its files lie."""

    model_config = ConfigDict(frozen=True)

    root: Path
    """Folder that holds noria.yaml, absolute."""
    project: Project

    @property
    def home(self) -> Path:
        """`.noria/` beside the project file."""
        return self.root / ".noria"

    @property
    def spool_dir(self) -> Path:
        return self.home / "spool"

    @property
    def tables_dir(self) -> Path:
        return self.home / "tables"

    @property
    def anchors_dir(self) -> Path:
        """Where the account's roots are kept."""
        named = self.project.audit.anchors
        return (self.root / Path(named).expanduser()) if named else self.home / "anchors"

    @property
    def run_dir(self) -> Path:
        """Sockets, locks, pid files."""
        return self.home / "run"

    @property
    def work_dir(self) -> Path:
        """Dataset snapshots and what runs leave between their steps."""
        return self.home / "work"

    @property
    def state_url(self) -> str:
        """SQLAlchemy URL of the control plane's memory."""
        return os.environ.get("NORIA_STATE_URL", f"sqlite:///{self.home / 'state.db'}")

    @property
    def workflows_url(self) -> str:
        """SQLAlchemy URL of the durable workflows' database."""
        return os.environ.get("NORIA_WORKFLOWS_URL", f"sqlite:///{self.home / 'workflows.db'}")

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking and registry URI."""
        return (
            self.project.mlflow.tracking_uri
            or os.environ.get("MLFLOW_TRACKING_URI", "")
            or f"sqlite:///{self.home / 'mlflow.db'}"
        )

    @property
    def webhook_secret(self) -> str:
        """Key that webhook deliveries are signed with; empty for none."""
        return os.environ.get("NORIA_WEBHOOK_SECRET", "")

    @property
    def otlp_traces_url(self) -> str:
        """Where OTLP traces are posted to; empty for nowhere."""
        return self._otlp_url("traces")

    @property
    def otlp_metrics_url(self) -> str:
        """Where OTLP metrics are posted to; empty for nowhere."""
        return self._otlp_url("metrics")

    def _otlp_url(self, signal: str) -> str:
        """The project's collector, else the one that OpenTelemetry's variables name."""
        base = self.project.telemetry.otlp
        if not base:
            if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
                return ""
            if url := os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", ""):
                return url
            base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        return f"{base.rstrip('/')}/v1/{signal}" if base else ""

    @property
    def otlp_protocol(self) -> str:
        """What OTEL_EXPORTER_OTLP_PROTOCOL asks for where the collector comes from the environment, too."""
        default = "http/protobuf"
        return default if self.project.telemetry.otlp else os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "") or default

    @property
    def metrics_every_s(self) -> float:
        """Between two exports of metrics, seconds: OTEL_METRIC_EXPORT_INTERVAL, which counts milliseconds."""
        said = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
        return max(int(said) / 1000, 0.1) if said.isascii() and said.isdigit() else 60.0

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the environment variables that hold what only Noria itself has to know."""
        named = {upstream.key for upstream in self.project.upstreams.values() if upstream.key}
        if self.project.audit.key:
            named.add(self.project.audit.key)
        return _SECRETS | named | {service.url_env for service in self.project.notify.services}

    @property
    def azure_monitor(self) -> str:
        """Connection string of Azure Monitor; empty if nothing goes there."""
        return os.environ.get("APPLICATIONINSIGHTS_CONNECTION_STRING", "")

    @property
    def artifacts_dir(self) -> Path:
        return self.home / "mlartifacts"

    @property
    def experiment(self) -> str:
        return self.project.mlflow.experiment or self.project.project
