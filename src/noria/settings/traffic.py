"""How requests come in, where they may go, and how many there may be."""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Name, Strict


class Server(Strict):
    """Where the API listens and how much it takes."""

    host: str = Field("127.0.0.1", description="Address to listen on. Without API keys only loopback is allowed.")
    port: int = Field(8480, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    processes: int = Field(1, ge=1, le=64, description="API processes that share the port.")
    max_body_bytes: int = Field(10_000_000, ge=1024, description="Longest request body that is accepted.")
    max_bodies_bytes: int = Field(
        500_000_000, ge=1024, description="Bytes of long bodies that one API process holds at a time."
    )
    max_header_bytes: int = Field(65_536, ge=1024, description="Longest request line and headers together.")
    max_requests: int = Field(1000, ge=1, description="Requests that one API process holds at a time.")
    max_streams: int = Field(500, ge=1, description="Streams that one API process holds at a time.")
    slow_client: Duration = Field(
        timedelta(seconds=30),
        description="Longest time that a caller may take to send a request, or to take a piece of an answer.",
    )
    drain: Duration = Field(
        timedelta(seconds=20), description="Longest time that answers under way may take when Noria stops."
    )
    access_log: bool = Field(
        False, description="Log a line of JSON for each request: id, address, version, status; never what was sent."
    )


AT_START = ("host", "port", "processes", "drain", "access_log")
"""Settings of the server that a running project doesn't take over."""


class UpstreamKind(StrEnum):
    """What kind of service an upstream is."""

    OPENAI = "openai"
    """OpenAI's wire: OpenAI, vLLM, Ollama, llama.cpp, any base URL."""
    AZURE = "azure"
    """Azure OpenAI: its v1 path, or with `api_version` the classic one."""
    DATABRICKS = "databricks"
    """Databricks model serving, by `/serving-endpoints`."""
    MLFLOW = "mlflow"
    """MLflow's scoring wire: `mlflow models serve`, MLServer."""


class Auth(StrEnum):
    """How an upstream knows us."""

    KEY = "key"
    ENTRA = "entra"
    NONE = "none"


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_OURS = ("authorization", "api-key", "host", "content-length", "content-type", "transfer-encoding", "connection")


class Upstream(Strict):
    """A service elsewhere that answers requests.

    Only the project file says where requests and keys go: a registered version names an upstream and a model of it.
    """

    kind: UpstreamKind = Field(UpstreamKind.OPENAI, description="What it is.")
    url: str = Field(
        pattern=r"^https?://[^\s?#]+$", description="Its base URL; for OpenAI's wire without or with `/v1`."
    )
    auth: Auth = Field(Auth.KEY, description="key, entra (Microsoft Entra ID, needs noria[azure]) or none.")
    key: str = Field("", description="Environment variable that holds the key.")
    api_version: str = Field(
        "",
        pattern=r"^[A-Za-z0-9.-]*$",
        description="Azure's api-version; a date asks for the classic deployments path.",
    )
    private: bool = Field(False, description="Whether it may be at a loopback or private address.")
    headers: Mapping[str, str] = Field(default_factory=dict, description="Sent with every request.")

    @model_validator(mode="after")
    def _has_its_key(self) -> "Upstream":
        if self.auth is Auth.KEY and not self.key:
            raise PydanticCustomError("key", "name the environment variable that holds the key, or write auth: none")
        if self.auth is Auth.ENTRA and self.kind not in (UpstreamKind.AZURE, UpstreamKind.DATABRICKS):
            raise PydanticCustomError("entra", "auth: entra is for the kinds azure and databricks")
        if self.auth is not Auth.NONE and self.url.startswith("http:") and not self.private:
            raise PydanticCustomError(
                "https", "credentials go over https only; write https:// in its url, or private: true if it is nearby"
            )
        return self

    @field_validator("url")
    @classmethod
    def _has_a_host(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or parts.username is not None:
            raise PydanticCustomError("url", "write https://HOST/PATH, without a user name or a password")
        return value

    @field_validator("headers")
    @classmethod
    def _headers_are_headers(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
                raise PydanticCustomError("header", "write a header's name and its value, each on one line")
            if name.lower() in _OURS:
                raise PydanticCustomError("header", "{name} is written by Noria itself; leave it out", {"name": name})
        return value


class Breaker(Strict):
    """When a version that keeps failing is left alone for a while."""

    failures: int = Field(5, ge=1, description="Failures in a row after which nobody is sent there.")
    open_for: Duration = Field(timedelta(seconds=10), description="How long, until one request tries it again.")


class Cache(Strict):
    """Answers that are given again to the very same request; each is recorded as a hit."""

    ttl: Duration = Field(timedelta(minutes=5), description="How long an answer stays.")
    entries: int = Field(1000, ge=1, description="Answers that one API process keeps.")
    max_bytes: int = Field(64_000_000, ge=1024, description="Bytes that they may take.")


STICKY = r"^(header:[A-Za-z0-9-]+|[^:\s]+)$"
"""What `routing.sticky` may name: a header, or a key of the metadata."""


class Routing(Strict):
    """What happens to a request on its way."""

    fallbacks: tuple[Name, ...] = Field(
        (), description="Endpoints whose champion answers, in this order, if this one's versions can't."
    )
    tries: int = Field(2, ge=1, le=10, description="Most requests that reach a version before the next is asked.")
    try_timeout: Duration | None = Field(
        None,
        description="Longest time of one try, and for a stream until it begins and between two pieces of it; "
        "default is the endpoint's timeout.",
    )
    patience: Duration = Field(
        timedelta(seconds=20), description="How long a request waits for a version that isn't there at the moment."
    )
    sticky: tuple[Annotated[str, Field(pattern=STICKY)], ...] = Field(
        ("user", "conversation"),
        description="Keys of the metadata, or header:NAME, whose value is always answered by the same version.",
    )
    breaker: Breaker = Field(default_factory=Breaker)
    cache: Cache | None = Field(None, description="Answer the very same request from memory.")


class Limits(Strict):
    """How much may be asked: of an endpoint, or by a key."""

    requests_per_minute: int | None = Field(None, ge=1, description="Requests.")
    tokens_per_minute: int | None = Field(None, ge=1, description="Input and output tokens together.")
    usd_per_day: float | None = Field(None, gt=0, description="Money, by the price table; a day begins at 0:00 UTC.")
