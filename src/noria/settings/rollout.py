"""How a candidate gets its traffic."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Strict

Guard = Literal["errors", "latency", "refusals", "guardrails", "feedback"]
"""What a candidate is watched for beside its champion."""
GUARDS: tuple[Guard, ...] = ("errors", "latency", "refusals", "guardrails", "feedback")


class RolloutPlan(Strict):
    """How a candidate gets its traffic."""

    shadow_requests: int = Field(200, ge=0, description="Shadow answers to see before the first canary step.")
    steps: tuple[int, ...] = Field((10, 50), description="Per cent of the traffic at each canary step.")
    step_requests: int = Field(200, ge=1, description="Candidate's answers to see at each step.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Probability of rolling back a candidate that is no worse.")
    guards: tuple[Guard, ...] = Field(
        GUARDS, description="What a candidate is watched for; alpha is shared out among them."
    )
    slow_ms: float | None = Field(
        None, gt=0, description="An answer is slow if it takes longer, milliseconds; default is slow_factor."
    )
    slow_factor: float = Field(
        1.5, ge=1, description="An answer is slow if it takes longer than so many times the champion's 95th percentile."
    )

    @model_validator(mode="after")
    def _steps_rise(self) -> "RolloutPlan":
        if list(self.steps) != sorted(set(self.steps)) or not all(0 < s < 100 for s in self.steps):
            raise PydanticCustomError("steps", "write rising percentages between 1 and 99, for example [10, 50]")
        if len(set(self.guards)) != len(self.guards):
            raise PydanticCustomError("guards", "name each guard once")
        return self
