"""When an endpoint's model is trained again, by itself."""

from datetime import timedelta

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Strict


class Triggering(Strict):
    """What starts runs that nobody asked for, and what holds them back."""

    on_alert: bool = Field(True, description="Start a run when a monitor of this endpoint alarms.")
    schedule: str | None = Field(None, description="Cron expression (UTC) that starts runs.")
    on_labels: int | None = Field(None, ge=1, description="Start a run after this many new labels.")
    cooldown: Duration = Field(timedelta(hours=1), description="Shortest time between runs that nobody asked for.")

    @field_validator("schedule")
    @classmethod
    def _schedule_is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            from croniter import croniter  # only projects with a schedule pay for it

            if not croniter.is_valid(value):
                raise PydanticCustomError("cron", "write a cron expression such as '0 3 * * *' (every day at 3 UTC)")
        return value
