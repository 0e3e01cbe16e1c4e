"""When an endpoint's model is trained again, by itself."""

from datetime import timedelta

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from noria.settings.alerts import Severity
from noria.settings.basics import Duration, Strict


class Triggering(Strict):
    """What starts runs that nobody asked for, and what holds them back."""

    on_alert: bool = Field(True, description="Start a run when a monitor of this endpoint alarms.")
    alert_monitors: tuple[str, ...] = Field(
        (), description="Monitors and alert rules whose alerts may start a run; default is every one that asks for it."
    )
    alert_severity: Severity = Field(
        Severity.INFO, description="The least grave alert that may start a run: info, warning or critical."
    )
    every: Duration | None = Field(None, description="Start a run so long after the last one began.")
    schedule: str | None = Field(None, description="Cron expression (UTC) that starts runs.")
    on_labels: int | None = Field(None, ge=1, description="Start a run after this many new labels.")
    on_feedback: int | None = Field(
        None, ge=1, description="Start a run after so many new statements about answers, labels or not."
    )
    on_base_model: bool = Field(False, description="Start a run when the model that training starts from is another.")
    max_runs_per_month: int | None = Field(None, ge=1, description="Runs in a calendar month (UTC), asked for or not.")
    max_usd_per_month: float | None = Field(
        None, gt=0, description="US dollars that runs may cost in a calendar month; none begins once it is spent."
    )
    cooldown: Duration = Field(timedelta(hours=1), description="Shortest time between runs that nobody asked for.")

    @field_validator("schedule")
    @classmethod
    def _schedule_is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            from croniter import croniter  # only projects with a schedule pay for it

            if not croniter.is_valid(value):
                raise PydanticCustomError("cron", "write a cron expression such as '0 3 * * *' (every day at 3 UTC)")
        return value
