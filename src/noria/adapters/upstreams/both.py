"""Calls everything that a project's versions are at: its own model servers, and its upstreams elsewhere."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from noria.adapters.upstreams.own import HttpUpstream
from noria.adapters.upstreams.places import PREFIX, named
from noria.ports import Credentials, UpstreamReply
from noria.settings import Upstream, UpstreamKind

if TYPE_CHECKING:
    from noria.adapters.upstreams.elsewhere import Elsewhere


class ProjectUpstream:
    """The `Upstream` port for a whole project. Belongs to the event loop that first uses it.

    Args:
        local: Calls what is at an address of its own.
        upstreams: The upstreams of the project in service.
        credentials: What they know us by.
    """

    def __init__(
        self, local: HttpUpstream, upstreams: Callable[[], Mapping[str, Upstream]], credentials: Credentials
    ) -> None:
        self._local = local
        self._upstreams = upstreams
        self._credentials = credentials
        self._made: Elsewhere | None = None

    def post(
        self, url: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> Coroutine[Any, Any, UpstreamReply]:
        """See the port."""
        if url.startswith(PREFIX):
            return self._elsewhere().post(url, path, body, headers, timeout_s)
        if url.startswith("http:") and "#" in url:  # a command, with what it calls its model
            url, _, model = url.partition("#")
            body = named(UpstreamKind.OPENAI, unquote(model), body)
        return self._local.post(url, path, body, headers, timeout_s)

    def reachable(self, url: str) -> Awaitable[bool]:
        """Whether something listens there and could be asked. Connects, if at all, and sends nothing.

        Raises:
            NotReady: It can't be asked; the sentence says why.
        """
        if url.startswith(PREFIX):
            return self._elsewhere().reachable(url)
        return self._local.reachable(url.partition("#")[0] if url.startswith("http:") else url)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._local.aclose()
        if self._made is not None:
            await self._made.aclose()

    def _elsewhere(self) -> "Elsewhere":
        """What calls upstreams; it brings a library of 8 MB, which a project without any doesn't need."""
        if self._made is None:
            from noria.adapters.upstreams.elsewhere import Elsewhere

            self._made = Elsewhere(self._upstreams, self._credentials)
        return self._made
