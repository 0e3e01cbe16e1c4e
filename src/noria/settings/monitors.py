"""What an endpoint's monitors watch: which columns, in which windows and slices, and compared with what."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Strict


class MonitorName(StrEnum):
    """The monitors that every endpoint has unless its project file names others."""

    TEXT = "text"
    LENGTH = "length"
    PREDICTION = "prediction"
    QUALITY = "quality"


SHORT = {MonitorName.TEXT: "input", MonitorName.LENGTH: "input_length", MonitorName.PREDICTION: "prediction"}
"""Short name → the observed column that it means. `quality` is what people and judges say of answers."""
_SIDES = ("input", "output")
TEXTS = frozenset(_SIDES)
"""Observed columns that are texts: topics are their cells."""
CATEGORIES = frozenset({"prediction", "input_language", "output_language"})
"""Observed columns of few different values."""
FAULTS = frozenset(
    {"error", "rejected", "disconnected", "guardrail_hit", "pii", "refusal", "output_refusal"}
    | {f"{side}_{measure}" for side in _SIDES for measure in ("pii", "toxicity", "empty")}
)
"""Observed columns between 0 and 1 where less is better: they are watched for being more than was promised."""
NUMBERS = frozenset(
    {"execution_duration_ms", "ttft_ms", "input_tokens", "output_tokens", "cost_usd", "tries", "status_code"}
    | {"confidence", "cache_hit"}
    | {f"{s}_{m}" for s in _SIDES for m in ("length", "tokens_estimate", "repetition", "readability")}
)
"""Observed columns that are other numbers."""
FEATURE = "feature."
"""What the name of a data frame's column begins with."""
SCORERS = "noria.scorers"
"""Entry points of scorers of texts; what each measures of prompts and answers can be watched like what is built in."""
JUDGE = "judge:"
"""What the name of what a judge says of answers begins with."""
METADATA = "metadata."
"""What the name of a slice by a key of requests' metadata begins with."""


def _scored(name: str) -> bool:
    """Whether an installed scorer measures that of prompts or answers."""
    side, _, measure = name.partition("_")
    return side in _SIDES and any(scorer.name == measure for scorer in entry_points(group=SCORERS))


def _watchable(name: str) -> str:
    known = {*MonitorName, *TEXTS, *CATEGORIES, *FAULTS, *NUMBERS}
    named = any(name.startswith(start) and len(name) > len(start) for start in (FEATURE, JUDGE))
    if name not in known and not named and not _scored(name):
        raise PydanticCustomError(
            "watch",
            "{name} can't be watched: write text, length, prediction, quality, judge:NAME, feature.NAME or one of "
            "{known}",
            {"name": name, "known": ", ".join(sorted(known - set(MonitorName)))},
        )
    return name


def _sliceable(key: str) -> str:
    named = key.startswith((METADATA, FEATURE)) and not key.endswith(".")
    if key not in {"requester", "model", *CATEGORIES} and not named:
        raise PydanticCustomError(
            "slices",
            "{key} is no slice: write requester, model, metadata.KEY, feature.NAME or one of {known}",
            {"key": key, "known": ", ".join(sorted(CATEGORIES))},
        )
    return key


Watchable = Annotated[str, AfterValidator(_watchable)]
Sliceable = Annotated[str, AfterValidator(_sliceable)]


class Span(Strict):
    """A span of time in the past that counts as normal."""

    since: datetime = Field(description="First moment of the span, for example 2026-01-01T00:00:00Z.")
    until: datetime = Field(description="End of the span, not included.")

    @field_validator("since", "until")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> "Span":
        if self.since >= self.until:
            raise PydanticCustomError("span", "write a span whose until lies after its since")
        return self


class Monitors(Strict):
    """What is watched, how often, and how rarely a false alarm may come: never more than alpha, for ever."""

    window: Duration = Field(timedelta(hours=1), description="Length of a tumbling window, whole seconds.")
    granularities: tuple[Duration, ...] = Field(
        (), description="Longer windows that are summed from these, whole multiples of them, for example [1d, 30d]."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Probability of ever raising a false alarm on this endpoint.")
    watch: tuple[Watchable, ...] = Field(
        tuple(MonitorName),
        description="What may alarm: text, length, prediction, quality, judge:NAME, or any observed column "
        "(execution_duration_ms, error, output_refusal, feature.NAME, …).",
    )
    slices: tuple[Sliceable, ...] = Field(
        (),
        description="By what profile and drift are told apart, too: requester, model, metadata.KEY, or a column of few "
        "values. Slices inform, they don't alarm.",
    )
    slice_values: int = Field(
        10, ge=1, le=1000, description="Most frequent values of a slice in a window; the rest is `:other`."
    )
    baseline: Literal["training", "first"] | Span = Field(
        "training",
        description="What is normal: what the version's trainer left (else its first records), its first records, or "
        "a span of the past, `{since: …, until: …}`.",
    )
    baseline_records: int = Field(
        500, ge=50, description="For what the training data can't know: the first records that become the baseline."
    )
    floors: Mapping[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict,
        description="Promised averages: quality and judge:NAME at least that, columns where less is better (error, "
        "refusal, output_toxicity, …) at most that. Default is what the baseline shows, with its uncertainty.",
    )

    @field_validator("watch", "slices", "granularities")
    @classmethod
    def _each_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(value)) != len(value):
            raise PydanticCustomError("twice", "name each only once")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Monitors":
        for longer in self.granularities:
            if longer <= self.window or (longer / self.window) % 1:
                raise PydanticCustomError("granularities", "write whole multiples of window, such as [1d, 30d]")
        promised = {MonitorName.QUALITY.value, *FAULTS}
        for name in self.floors:
            if name not in promised and not name.startswith(JUDGE):
                raise PydanticCustomError(
                    "floors",
                    "{name} has no floor: write quality, judge:NAME or one of {known}",
                    {"name": name, "known": ", ".join(sorted(FAULTS))},
                )
        for name in self.watch:
            if name.startswith(JUDGE) and name not in self.floors:
                raise PydanticCustomError(
                    "floors", "{name} is watched against a promise: write floors: {{{name}: 0.8}}", {"name": name}
                )
        columns = [column_of(name) for name in self.watch]
        if len(set(columns)) != len(columns):
            raise PydanticCustomError("twice", "text is input, length is input_length: watch one of the two")
        return self


def column_of(monitor: str) -> str:
    """The observed column that a monitor watches."""
    return SHORT.get(monitor, monitor)  # type: ignore[call-overload, no-any-return]  # a StrEnum is its text


def retrains(monitor: str) -> bool:
    """Whether a model that is trained anew may be the cure: what callers send, or what the model makes of it, is other
    than it was. Slow, dear or failing answers have other causes."""
    column = column_of(monitor)
    content = column.startswith(("input", "output", "prediction", FEATURE)) and column not in _USAGE
    return monitor == MonitorName.QUALITY or content


_USAGE = frozenset({"input_tokens", "output_tokens"})
