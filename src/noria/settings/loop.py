"""How an endpoint's model is trained and rolled out."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Strict


class Training(Strict):
    """How the endpoint's model is trained, and when again."""

    trainer: str = Field("classifier", description="Name of a trainer (entry point noria.trainers).")
    data: str = Field(description="CSV or Parquet file with the columns text, label and, optionally, group.")
    licence: str = Field(
        "LicenseRef-proprietary", min_length=1, description="SPDX identifier of the licence of what is trained."
    )
    parameters: Mapping[str, Any] = Field(default_factory=dict, description="Passed to the trainer.")
    holdout: float = Field(0.25, gt=0, lt=0.9, description="Share of the rows that nothing is learnt from.")
    on_alert: bool = Field(True, description="Start a run when a monitor of this endpoint alarms.")
    schedule: str | None = Field(None, description="Cron expression (UTC) that starts runs.")
    on_labels: int | None = Field(None, ge=1, description="Start a run after this many new labels.")
    min_labels: int = Field(
        200, ge=1, description="Fresh labels that a run waits for before it takes its snapshot of the records."
    )
    label_wait: Duration = Field(
        timedelta(hours=24), description="Longest time that a run waits for min_labels before it fails."
    )
    cooldown: Duration = Field(timedelta(hours=1), description="Shortest time between runs that nobody asked for.")
    seed: int = Field(0, description="Seed of every random choice.")

    @field_validator("schedule")
    @classmethod
    def _schedule_is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            from croniter import croniter  # only projects with a schedule pay for it

            if not croniter.is_valid(value):
                raise PydanticCustomError("cron", "write a cron expression such as '0 3 * * *' (every day at 3 UTC)")
        return value


class RolloutPlan(Strict):
    """How a candidate gets its traffic."""

    shadow_requests: int = Field(200, ge=0, description="Shadow answers to see before the first canary step.")
    steps: tuple[int, ...] = Field((10, 50), description="Per cent of the traffic at each canary step.")
    step_requests: int = Field(200, ge=1, description="Candidate's answers to see at each step.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Probability of rolling back a candidate that is no worse.")

    @model_validator(mode="after")
    def _steps_rise(self) -> "RolloutPlan":
        if list(self.steps) != sorted(set(self.steps)) or not all(0 < s < 100 for s in self.steps):
            raise PydanticCustomError("steps", "write rising percentages between 1 and 99, for example [10, 50]")
        return self
