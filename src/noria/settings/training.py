"""How an endpoint's model is trained."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from noria.settings.dataset import Dataset
from noria.settings.models import Deployment, GgufModel
from noria.settings.triggering import Triggering


class Training(Dataset, Triggering):
    """How the endpoint's model is trained, on what, and when again."""

    trainer: str = Field("classifier", description="Name of a trainer (entry point noria.trainers).")
    base: GgufModel | Deployment | None = Field(
        None, description="The language model that the trainer starts from, for trainers that need one."
    )
    licence: str = Field(
        "LicenseRef-proprietary", min_length=1, description="SPDX identifier of the licence of what is trained."
    )
    parameters: Mapping[str, Any] = Field(default_factory=dict, description="Passed to the trainer.")
    seed: int = Field(0, description="Seed of every random choice.")
