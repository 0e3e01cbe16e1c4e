"""Where the work of monitors is done: on this machine, or on Spark."""

import re
from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Strict

_MASTER = re.compile(r"local(\[(\*|[1-9]\d*)(,\d+)?\])?|(spark|k8s)://\S+|yarn")


class Engine(StrEnum):
    """What does the work."""

    LOCAL = "local"
    SPARK = "spark"


class Spark(Strict):
    """A session of Spark; needs noria[spark], and Java 17 or newer."""

    master: str = Field(
        "local[*]",
        description="Where it runs: local[N] on N cores of this machine, spark://HOST:PORT on a cluster.",
    )
    configuration: Mapping[str, str] = Field(
        default_factory=dict,
        description="Spark's own settings, for example spark.executor.memory: 4g. No secrets: those belong into "
        "spark-defaults.conf.",
    )

    @field_validator("master")
    @classmethod
    def _master_is_one(cls, value: str) -> str:
        if not _MASTER.fullmatch(value):
            raise PydanticCustomError("master", "write local[N], local[*], spark://HOST:PORT, k8s://URL or yarn")
        return value

    @field_validator("configuration")
    @classmethod
    def _keys_are_sparks(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if wrong := next((key for key in value if not key.startswith("spark.")), None):
            raise PydanticCustomError("configuration", "begin {key} with spark.", {"key": wrong})
        return value


class Compute(Strict):
    """Where what monitors count is counted. Training always runs on this machine."""

    engine: Engine = Field(Engine.LOCAL, description="local or spark.")
    processes: int = Field(
        1, ge=1, le=256, description="Child processes of the local engine that count side by side, some 200 MB each."
    )
    spark: Spark = Field(default_factory=Spark)
