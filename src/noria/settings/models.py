"""Where an endpoint's first version comes from unless Noria trains it: a file, the registry, a command, elsewhere."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Name, Strict

_LICENCE = "SPDX identifier of the weights' licence, for example Apache-2.0."
_SOURCE = "Where the weights come from."


class GgufModel(Strict):
    """A llama.cpp model file to register and serve."""

    gguf: str = Field(description="Path to the .gguf file, or python:PACKAGE/FILE for a file inside a package.")
    licence: str = Field(description=_LICENCE)
    source: str = Field(description=_SOURCE)
    context: int = Field(2048, ge=256, description="Tokens of context.")
    threads: int = Field(1, ge=1, description="CPU threads for decoding.")
    slots: int = Field(4, ge=1, description="Requests that are decoded together.")


class Deployment(Strict):
    """A model that an upstream of this project serves already: an Azure OpenAI deployment, a model of OpenAI's, …"""

    upstream: Name = Field(description="One of the project's upstreams.")
    model: str = Field(min_length=1, description="What the upstream calls it: a model, or on Azure a deployment.")
    licence: str = Field("LicenseRef-provider-terms", description="SPDX identifier of what the provider grants.")
    source: str = Field("", description="Where the model comes from; default is the upstream and the model.")


class Command(Strict):
    """A model server that Noria starts: any command that listens on a port."""

    run: tuple[str, ...] = Field(
        min_length=1,
        description="The command and its arguments; {port} stands for the port that it shall listen on.",
    )
    wire: Literal["openai", "mlflow"] = Field("openai", description="The protocol that it speaks.")
    model: str = Field("", description="What it calls the model; default is the endpoint's model name.")
    health: str = Field("/health", pattern="^/", description="Path that answers 200 once it is ready.")
    start_timeout: Duration = Field(timedelta(minutes=5), description="Longest time until it is ready.")
    environment: Mapping[str, str] = Field(default_factory=dict, description="Variables on top of Noria's own.")
    licence: str = Field(description=_LICENCE)
    source: str = Field(description=_SOURCE)

    @field_validator("run")
    @classmethod
    def _names_its_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not any("{port}" in word for word in value):
            raise PydanticCustomError("port", "write {port} where the command takes its port")
        return value


class Registered(Strict):
    """A version that is in the MLflow registry already."""

    version: str = Field(min_length=1, description="Its number, or an alias.")


class Price(Strict):
    """What an endpoint's tokens cost."""

    input: float = Field(ge=0, description="US dollars for a million input tokens.")
    output: float = Field(0.0, ge=0, description="US dollars for a million output tokens.")
    cached_input: float | None = Field(
        None, ge=0, description="The same for input tokens that the provider had in its cache; default is input."
    )
