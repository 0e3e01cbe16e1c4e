"""Calls model servers over HTTP: unix sockets for the ones that we run, TCP for the others.

One connection pool for each address. Whether a failed request may have reached the server is said with the error,
because that decides whether it may be sent again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import aiohttp

from noria.domain.errors import UpstreamFailed, UpstreamTimeout
from noria.ports import Chunks, UpstreamReply

CONNECT_S = 2.0
"""Longest time to wait for a connection, in seconds."""
KEEP_ALIVE_S = 2.0
"""How long an idle connection is kept, in seconds: less than any server's own limit (uvicorn's is 5), so that
a request is never written to a connection that the server is about to close."""
UNIX = "unix:"
_REMEDY = "The worker starts it again by itself; see noria status if this goes on."


class HttpUpstream:
    """The `Upstream` port over aiohttp. Belongs to the event loop that first uses it."""

    def __init__(self) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def post(
        self, url: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> UpstreamReply:
        """See the port. Redirects are answers like any other: they are not followed."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_S, timeout_s))
        session, base = self._session(url)
        with explained(url):
            response = await session.post(
                base + path, data=body, headers=headers, timeout=timeout, allow_redirects=False
            )
        return read(response, url)

    async def reachable(self, url: str) -> bool:
        """Whether something listens there. Connects and sends nothing."""
        try:
            async with asyncio.timeout(CONNECT_S):
                if url.startswith(UNIX):
                    _, writer = await asyncio.open_unix_connection(url.removeprefix(UNIX))
                else:
                    parts = urlsplit(url)
                    port = parts.port or (443 if parts.scheme == "https" else 80)
                    _, writer = await asyncio.open_connection(parts.hostname, port)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _session(self, url: str) -> tuple[aiohttp.ClientSession, str]:
        """The pool for an address, and what a path is appended to."""
        unix = url.startswith(UNIX)
        key = url if unix else "tcp"
        if key not in self._sessions:
            self._sessions[key] = _new_session(url.removeprefix(UNIX) if unix else "")
        return self._sessions[key], "http://localhost" if unix else url.rstrip("/")


def read(response: aiohttp.ClientResponse, url: str, remedy: str = _REMEDY) -> UpstreamReply:
    """A response that has begun, as the port gives it."""
    names = {name.lower(): value for name, value in response.headers.items()}
    return UpstreamReply(response.status, names, _Body(response, url, remedy))


class _Body:
    """A response's bytes; holds the connection until the end or until it is closed."""

    def __init__(self, response: aiohttp.ClientResponse, url: str, remedy: str) -> None:
        self._response = response
        self._remedy = remedy
        self._chunks: AsyncIterator[bytes] = response.content.iter_any()
        self._url = url

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        with explained(self._url, self._remedy):
            return await anext(self._chunks)

    async def aclose(self) -> None:
        """Close the connection if bytes are still to come; else it is back in the pool already."""
        self._response.close()


def _new_session(socket_path: str) -> aiohttp.ClientSession:
    """A pool without a limit on connections: the gateway says how much may be under way."""
    connector: aiohttp.BaseConnector = (
        aiohttp.UnixConnector(socket_path, limit=0, keepalive_timeout=KEEP_ALIVE_S)
        if socket_path
        else aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )


@contextmanager
def explained(url: str, remedy: str = _REMEDY) -> Iterator[None]:
    """Turn what aiohttp raises into errors of the domain."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise UpstreamTimeout(f"The model server at {url} took no connection in time.", remedy, sent=False) from error
    except TimeoutError as error:
        raise UpstreamTimeout(
            f"The model server at {url} took too long.", "Ask for less, or raise the endpoint's timeout."
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamFailed(f"The model server at {url} is not listening.", remedy, sent=False) from error
    except (aiohttp.ClientError, ConnectionError, ValueError) as error:
        raise UpstreamFailed(f"The model server at {url} broke off: {type(error).__name__}.", remedy) from error
