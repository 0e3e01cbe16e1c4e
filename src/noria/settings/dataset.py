"""What an endpoint's model is trained on."""

from datetime import timedelta

from pydantic import Field

from noria.settings.basics import Duration, Strict


class Dataset(Strict):
    """The rows of a run: the project's own, and production records that people labelled."""

    data: str = Field(description="CSV or Parquet file with the columns text, label and, optionally, group.")
    holdout: float = Field(0.25, gt=0, lt=0.9, description="Share of the rows that nothing is learnt from.")
    min_labels: int = Field(
        200, ge=1, description="Fresh labels that a run waits for before it takes its snapshot of the records."
    )
    label_wait: Duration = Field(
        timedelta(hours=24), description="Longest time that a run waits for min_labels before it fails."
    )
