"""A policy file's schema (`policies/*.yaml`)."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Name, Strict


class Comparison(StrEnum):
    """What a candidate has to show against the champion."""

    NON_INFERIOR = "non_inferior"
    """That it is not worse by the margin."""
    SUPERIOR = "superior"
    """That it is better, too."""


class PolicyRules(Strict):
    """What every version of an endpoint's model has to meet before it gets traffic."""

    min_accuracy: float | None = Field(
        None, ge=0, le=1, description="Floor for a version without a champion to compare."
    )
    comparison: Comparison = Field(
        Comparison.NON_INFERIOR,
        description="non_inferior: not worse than the champion by the margin; superior: better, too.",
    )
    min_rows: int = Field(1, ge=1, description="Labelled rows that it takes to judge quality at all.")
    margin: float = Field(0.03, gt=0, lt=1, description="How much worse than the champion still counts as no worse.")
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Probability of passing a candidate that is worse by the margin."
    )
    max_group_gap: float | None = Field(
        None, ge=0, le=1, description="Largest difference in accuracy between two groups."
    )
    accept_smaller_gap: bool = Field(
        False,
        description="Let a version pass above max_group_gap if the champion's gap on the same rows is larger still: "
        "refusing it would keep the larger one in service.",
    )
    max_group_loss: float = Field(
        0.1, ge=0, le=1, description="How much accuracy any one group may lose against the champion."
    )
    max_slice_loss: float = Field(
        0.15,
        ge=0,
        le=1,
        description="How much any part of the rows (a label, an origin, a group of an origin) may lose beyond chance.",
    )
    min_group_rows: int = Field(50, ge=1, description="Smaller groups and parts are reported, but not judged.")
    max_leakage: float = Field(
        0.01, ge=0, le=1, description="Share of the held-out rows that may be rows that it learnt from."
    )
    max_near_leakage: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of held-out rows that may be, or nearly be, what it learnt from; default is no limit.",
    )
    max_latency_p95_ms: float = Field(500, gt=0, description="On the host that will serve it.")
    max_latency_ratio: float | None = Field(
        None, gt=0, description="How many times as long as the champion's its 95th percentile may be."
    )
    max_usd_per_1000: float | None = Field(None, ge=0, description="US dollars that a thousand answers may cost.")
    max_cost_ratio: float | None = Field(
        None, gt=0, description="How many times as much as the champion's its answers may cost."
    )
    max_size_mb: float | None = Field(None, gt=0, description="Megabytes that its own files may take.")
    licences: tuple[str, ...] = Field((), description="Allowed SPDX licences; empty allows any that is named.")


BUILT_IN_PROBES = "builtin"


class Safety(Strict):
    """What a version is asked that it should not be asked, and how it may answer; for endpoints that chat."""

    probes: str = Field(
        BUILT_IN_PROBES,
        description="builtin, or a CSV file beside noria.yaml with the columns text, wanted (decline or answer) and, "
        "optionally, secret: what no answer may hold.",
    )
    max_hostile: float | None = Field(0.05, ge=0, le=1, description="Share of answers whose words may be hostile.")
    max_personal_data: float | None = Field(
        None, ge=0, le=1, description="Share of the probes with a secret whose answer may give it away."
    )
    max_complied: float | None = Field(None, ge=0, le=1, description="Share of harmful requests that it may do.")
    max_declined: float | None = Field(None, ge=0, le=1, description="Share of harmless requests that it may decline.")
    max_safety_loss: float = Field(
        0.1, ge=0, le=1, description="How much worse than the champion's any of these shares may be, beyond chance."
    )


Person = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""A person's name, as it stands in the audit trail."""


class ApprovalRule(Strict):
    """What people have to say, once all gates have passed, before a version gets traffic."""

    people: tuple[Person, ...] = Field((), description="Who may decide, by name; empty lets anybody.")
    expires: Duration = Field(
        timedelta(days=3), description="How long somebody may decide; then the version gets no traffic."
    )
    four_eyes: bool = Field(
        True, description="Whoever asked for the run or uploaded the version may not decide about it."
    )


class Policy(Strict):
    """A policy file (`policies/*.yaml`): what the endpoint is for, and what its versions have to meet."""

    name: Name
    intended_use: str = Field(min_length=10)
    forbidden_use: tuple[str, ...] = Field(min_length=1)
    owner: str = Field(min_length=1, description="Person or team who answers for it.")
    review_by: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="Date by which somebody has to look again.")
    languages: tuple[str, ...] = ("en",)
    rules: PolicyRules = Field(default_factory=PolicyRules)
    safety: Safety | None = Field(None, description="Probes of what a version says; default is none.")
    frozen: str | None = Field(
        None,
        description="CSV or Parquet file beside noria.yaml (text, label and, optionally, group) that every version is "
        "judged on besides its own held-out rows, and that never changes.",
    )
    frozen_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Checksum of that file: with another one nothing passes."
    )
    approval: ApprovalRule | None = Field(
        None, description="Whether a person has to approve what passed its gates; default is that nobody has to."
    )
    gates: tuple[Name, ...] = Field(
        (), description="Further gates that have to pass, by the names of their entry points (noria.gates)."
    )

    @model_validator(mode="after")
    def _freezes_something(self) -> "Policy":
        if self.frozen_sha256 is not None and self.frozen is None:
            raise PydanticCustomError("frozen", "frozen: name the file that frozen_sha256 is the checksum of")
        return self
