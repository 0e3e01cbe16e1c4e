"""A policy file's schema (`policies/*.yaml`)."""

from pydantic import Field

from noria.settings.basics import Name, Strict


class PolicyRules(Strict):
    """What every version of an endpoint's model has to meet before it gets traffic."""

    min_accuracy: float | None = Field(
        None, ge=0, le=1, description="Floor for a version without a champion to compare."
    )
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
    min_group_rows: int = Field(50, ge=1, description="Smaller groups are reported, but not judged.")
    max_latency_p95_ms: float = Field(500, gt=0, description="On the host that will serve it.")
    licences: tuple[str, ...] = Field((), description="Allowed SPDX licences; empty allows any that is named.")


class Policy(Strict):
    """A policy file (`policies/*.yaml`): what the endpoint is for, and what its versions have to meet."""

    name: Name
    intended_use: str = Field(min_length=10)
    forbidden_use: tuple[str, ...] = Field(min_length=1)
    owner: str = Field(min_length=1, description="Person or team who answers for it.")
    review_by: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="Date by which somebody has to look again.")
    languages: tuple[str, ...] = ("en",)
    rules: PolicyRules = Field(default_factory=PolicyRules)
