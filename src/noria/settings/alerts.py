"""When alerts fire, beside the monitors' own alarms, and who is told of them."""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Name, Strict


class Severity(StrEnum):
    """How grave an alert is, the least grave first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Against(StrEnum):
    """What a window's drift is measured against."""

    BASELINE = "baseline"
    PREVIOUS = "previous"


PROFILE_STATISTICS: Final = (
    "count", "num_nulls", "avg", "min", "max", "stddev", "median", "num_zeros", "num_nan", "min_length", "max_length",
    "avg_length", "distinct_count", "percent_nan", "percent_null", "percent_zeros", "percent_distinct",
)  # fmt: skip
"""Columns of profile_metrics that are numbers; beside them the percentiles p0 to p100."""
DRIFT_STATISTICS: Final = (
    "population_stability_index", "js_distance", "ks_test", "wasserstein_distance", "chi_squared_test", "tv_distance",
    "l_infinity_distance", "count_delta", "avg_delta", "percent_null_delta", "percent_zeros_delta",
    "percent_distinct_delta",
)  # fmt: skip
"""Columns of drift_metrics that are numbers; of a test its statistic."""
QUALITY: Final = "quality."
"""What the name of a quality measure begins with."""
RESERVED: Final = frozenset({"gate", "run", "rollout", "registry", "spool"})
"""What the alerts of the system itself are called, and no rule."""
_PERCENTILE: Final = re.compile(r"p(\d{1,2}|100)")
_WINDOWS: Final = re.compile(r"(\d{1,3}) of (\d{1,3})")
_ENVIRONMENT: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
_ADDRESS: Final = r"^https?://[^\s?#]+$"


def percentile(statistic: str) -> int | None:
    """The percentile that a statistic names (`p95`); None if it names none."""
    found = _PERCENTILE.fullmatch(statistic)
    return int(found[1]) if found else None


def _metric(name: str) -> str:
    column, _, statistic = name.rpartition(".")
    known = statistic in PROFILE_STATISTICS or statistic in DRIFT_STATISTICS or percentile(statistic) is not None
    if not column or not (known or name.startswith(QUALITY)):
        raise PydanticCustomError(
            "metric",
            "write COLUMN.STATISTIC, such as execution_duration_ms.p95, error.avg, text.population_stability_index or"
            " quality.accuracy_score; statistics are p0 to p100, {statistics}",
            {"statistics": ", ".join((*PROFILE_STATISTICS, *DRIFT_STATISTICS))},
        )
    return name


def _windows(text: str) -> str:
    found = _WINDOWS.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= 100:
        raise PydanticCustomError(
            "windows",
            "write how many of the last windows have to be beyond the threshold, such as 3 of 5 (at most 100)",
        )
    return text


def _slice(text: str) -> str:
    key, is_one, value = text.partition("=")
    if text and not (key and is_one and value):
        raise PydanticCustomError("slice", "write KEY=VALUE as the tables have it, such as metadata.country=DE")
    return text


class AlertRule(Strict):
    """When an alert fires: on a statistic of the tables (`metric`), or on a monitor's evidence (`monitor`)."""

    metric: Annotated[str, AfterValidator(_metric)] | None = Field(
        None, description="COLUMN.STATISTIC of profile_metrics or drift_metrics, or quality.MEASURE. A plain threshold."
    )
    monitor: str | None = Field(None, description="Monitor whose evidence it is about; its promise about chance holds.")
    above: float | None = Field(
        None, description="Fires above this. With monitor: the odds to 1; default is the monitor's own alarm."
    )
    below: float | None = Field(None, description="Fires below this.")
    clear: float | None = Field(
        None, description="A window is well again only on this side of it (hysteresis); default is the threshold."
    )
    windows: Annotated[str, AfterValidator(_windows)] = Field(
        "1 of 1", description="How many of the last windows, and the newest, have to be beyond the threshold."
    )
    window: Duration | None = Field(
        None,
        description="Length of its windows: one of monitors.granularities; default is monitors.window.",
    )
    against: Against = Field(Against.BASELINE, description="What drift statistics compare with: baseline or previous.")
    slice: Annotated[str, AfterValidator(_slice)] = Field(
        "", description="KEY=VALUE of the slice that it is about; default is all records."
    )
    severity: Severity = Field(Severity.WARNING, description="info, warning or critical.")
    group: Name | None = Field(
        None, description="Alerts of one group are told together; default is one group for each endpoint."
    )
    trigger: bool = Field(False, description="Start a run of the endpoint's training when it fires.")

    @property
    def needed(self) -> tuple[int, int]:
        """How many windows of how many."""
        least, _, most = self.windows.partition(" of ")
        return int(least), int(most)

    @model_validator(mode="after")
    def _says_what_when(self) -> "AlertRule":
        if (self.metric is None) == (self.monitor is None):
            raise PydanticCustomError("rule", "give either metric or monitor")
        if self.monitor is not None:
            self._of_evidence()
        elif (self.above is None) == (self.below is None):
            raise PydanticCustomError("rule", "give either above or below")
        elif self.clear is not None and not self._clears(self.clear):
            side = "at or below above" if self.above is not None else "at or above below"
            raise PydanticCustomError("rule", "clear has to be {side}, or it would never be well again", {"side": side})
        return self

    def _of_evidence(self) -> None:
        """Evidence adds up over all windows, so what is said of single windows has no meaning for it."""
        if self.below is not None or self.clear is not None or self.slice or self.window or self.windows != "1 of 1":
            raise PydanticCustomError("rule", "with monitor only above, severity, group and trigger can be said")
        if self.above is not None and self.above <= 1:
            raise PydanticCustomError("rule", "write odds above 1, such as above: 20 for 20 to 1")

    def _clears(self, clear: float) -> bool:
        if self.above is not None:
            return clear <= self.above
        return self.below is not None and clear >= self.below


class Told(Strict):
    """Which alerts somebody is told of."""

    severity: Severity = Field(Severity.INFO, description="Only alerts at least so grave: info, warning or critical.")
    endpoints: tuple[str, ...] = Field(
        ("*",), min_length=1, description="Only alerts of these endpoints; * and ? stand for anything."
    )
    repeat: Duration | None = Field(
        None, description="Tell again after so long of what still fires and nobody acknowledged; default is once."
    )


class Webhook(Told):
    """An address that is told of alerts with a JSON POST."""

    url: str = Field(description="http(s) address to POST alerts to.")


class Service(Told):
    """A service that apprise can tell: Slack, Teams, e-mail, PagerDuty and a hundred more. Needs noria[notify]."""

    url_env: str = Field(
        pattern=_ENVIRONMENT,
        description="Environment variable that holds the service's apprise URL, which is a secret: slack://…, "
        "msteams://…, mailtos://…, pagerduty://…",
    )


class Alertmanager(Told):
    """A Prometheus Alertmanager that alerts are pushed to."""

    url: str = Field(pattern=_ADDRESS, description="Its address, such as http://127.0.0.1:9093.")


class Notify(Strict):
    """Who is told of alerts."""

    group_wait: Duration = Field(
        timedelta(seconds=10), description="Alerts of one group that fire within so long are told together."
    )
    log: bool = Field(True, description="Write alerts to the worker's log.")
    console: bool = Field(False, description="Print alerts as a table on the terminal that runs noria up.")
    webhooks: tuple[Webhook, ...] = ()
    services: tuple[Service, ...] = ()
    alertmanagers: tuple[Alertmanager, ...] = ()
    azure_monitor: bool = Field(
        False, description="Send alerts as events to what APPLICATIONINSIGHTS_CONNECTION_STRING names."
    )


def other_windows(rules: Mapping[str, AlertRule], lengths: "frozenset[timedelta]") -> list[str]:
    """Names of rules about windows of a length that is not computed."""
    return [name for name, rule in rules.items() if rule.window is not None and rule.window not in lengths]


def unknown_monitors(rules: Mapping[str, AlertRule], watched: "frozenset[str]") -> list[str]:
    """Names of rules about a monitor that is not on."""
    return [name for name, rule in rules.items() if rule.monitor is not None and rule.monitor not in watched]
