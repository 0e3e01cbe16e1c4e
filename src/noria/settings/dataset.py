"""What an endpoint's model is trained on."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Strict


class Dataset(Strict):
    """The rows of a run: the project's own, and production records that people labelled."""

    data: str = Field(
        description="CSV, Parquet or JSONL file with the columns text, label and, optionally, group; a line of JSONL "
        "may hold messages instead, as OpenAI's fine-tuning takes them."
    )
    holdout: float = Field(0.25, gt=0, lt=0.9, description="Share of the rows that nothing is learnt from.")
    split: Literal["text", "group", "time"] = Field(
        "text",
        description="What decides which rows are held out: the text alone, the group that split_key names (its rows "
        "stay together), or time (the newest records).",
    )
    split_key: str | None = Field(
        None, min_length=1, description="Key in a record's metadata whose rows stay on one side, such as user."
    )
    min_labels: int = Field(
        200, ge=1, description="Fresh labels that a run waits for before it takes its snapshot of the records."
    )
    label_wait: Duration = Field(
        timedelta(hours=24), description="Longest time that a run waits for min_labels before it fails."
    )

    @model_validator(mode="after")
    def _groups_have_a_key(self) -> "Dataset":
        if self.split == "group" and self.split_key is None:
            raise PydanticCustomError("split_key", "say by split_key which key of the metadata names a group")
        return self
