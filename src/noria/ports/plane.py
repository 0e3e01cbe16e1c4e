"""The seams of the data plane: how requests are answered, read, redacted and metered."""

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from noria.domain.limits import Meter

if TYPE_CHECKING:
    from noria.settings import Upstream as UpstreamSettings


class Clock(Protocol):
    """Where times come from."""

    def now(self) -> datetime:
        """The current time, timezone-aware UTC."""
        ...

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        ...


class Chunks(AsyncIterable[bytes], Protocol):
    """A body as it comes, an asynchronous iterator: raises UpstreamFailed or UpstreamTimeout where it ends too soon."""

    async def __anext__(self) -> bytes:
        """The next bytes, as they came."""
        ...

    async def aclose(self) -> None:
        """Let go of the call: one that isn't over is cancelled at the model server."""
        ...

    def rest(self) -> bytes | None:
        """All that is left, if it is there already: then the call is over. None if it has to be waited for."""
        ...


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """A model server's answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    chunks: Chunks


class Upstream(Protocol):
    """Calls model servers, over unix sockets and TCP alike."""

    async def post(
        self, url: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> UpstreamReply:
        """Send a request and return as soon as the status line is there.

        Args:
            url: `unix:/path/to.sock`, `http://host:port` (with `#MODEL` where it has a name of its own for the model),
                or `upstream:NAME/MODEL` for a model of one of the project's upstreams, which gets its path,
                credentials, headers and name for the model from the project file.
            path: Path on that server, as OpenAI and MLflow write it.
            body: Bytes to send, untouched but for the model's name at an upstream.
            headers: Headers to send.
            timeout_s: Until the last byte.

        Raises:
            UpstreamFailed: No connection, reset, or not HTTP.
            UpstreamTimeout: Took too long.
            NotReady: The upstream can't be asked as things are (NoCredentials, UnknownUpstream, ForbiddenAddress):
                nothing was sent, and asking again won't help.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class FrameReader(Protocol):
    """Reads tables that take more than an API process may load."""

    async def read(self, body: bytes) -> bytes:
        """A Parquet file as the JSON object `{"dataframe_split": {"columns": […], "data": [[…], …]}}`.

        Raises:
            InvalidRequest: It is no Parquet file.
            RequestTooLarge: It holds more than is read.
            Overloaded: Too many are being read, or this machine has no room for what reads them.
        """
        ...

    async def aclose(self) -> None:
        """End what reads them."""
        ...


class Credentials(Protocol):
    """What the project's upstreams know us by."""

    async def headers(self, upstream: "UpstreamSettings") -> Mapping[str, str]:
        """The headers that authorise a request to an upstream.

        Raises:
            NoCredentials: There are none; the sentence names the environment variable that isn't set.
            MissingExtra: They come from a package that isn't installed.
        """
        ...


class EntityReader(Protocol):
    """Reads texts for names, places and organisations: what no pattern finds."""

    async def find(self, texts: Sequence[str], kinds: frozenset[str]) -> Sequence[Sequence[tuple[int, int, str]]]:
        """Where they stand in each text: from, to, and which kind (`name`, `location`, `organisation`).

        Raises:
            RedactionUnavailable: It could not be done in time.
        """
        ...

    def find_now(self, texts: Sequence[str], kinds: frozenset[str]) -> Sequence[Sequence[tuple[int, int, str]]]:
        """The same for who has time to wait for it."""
        ...


class Meters(Protocol):
    """What was used of limits, counted by all API processes of a project together."""

    def change(self, names: Sequence[str], rule: Callable[[Sequence[Meter]], Sequence[Meter]]) -> None:
        """Let a rule say what becomes of some meters, while nobody else reads or changes them.

        Args:
            names: Which, no name twice; one that nobody used yet is `Meter()`.
            rule: Their values → their new values. What it raises is passed on, and nothing is changed. It is called
                while others wait, so it computes and does nothing else.
        """
        ...

    def read(self, name: str) -> Meter:
        """A meter as it is now."""
        ...

    def close(self) -> None:
        """Let go of what is shared; what was counted stays."""
        ...
