"""How a candidate gets its traffic."""

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Strict


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
