"""Calls model servers that are at an address of their own: a unix socket for those that we run, TCP for commands.

Every request passes here, so this is HTTP/1.1 with nothing that these servers don't need: no TLS, no redirects, no
compression, no cookies. One pool of connections for each address. Whether a failed request may have reached the server
is said with the error, because that decides whether it may be sent again.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from noria.adapters.upstreams.connections import REMEDY, Connection
from noria.domain.errors import UpstreamFailed, UpstreamTimeout
from noria.ports import UpstreamReply

CONNECT_S = 2.0
"""Longest time to wait for a connection, in seconds."""
KEEP_ALIVE_S = 2.0
"""How long an idle connection is kept, in seconds: less than any server's own limit (uvicorn's is 5), so that
a request is never written to a connection that the server is about to close."""
CLOSE_S = 1.0
"""How long the end of connections that are aborted is waited for, in seconds: nothing must hang on it."""
UNIX = "unix:"
_MOST_PATHS = 64
"""Request lines that a pool remembers."""


class HttpUpstream:
    """The `Upstream` port over plain sockets. Belongs to the event loop that first uses it."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}

    async def post(
        self, url: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> UpstreamReply:
        """See the port. Redirects are answers like any other: they are not followed."""
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = Pool(url)
        request = pool.request(path, headers, body)
        connection = pool.idle()
        if connection is None:
            connect_s = min(CONNECT_S, timeout_s)
            begun = asyncio.get_running_loop().time()
            connection = await pool.connect(connect_s)
            timeout_s = max(begun + timeout_s - asyncio.get_running_loop().time(), 0.001)
        exchange = connection.send(request, timeout_s)
        await exchange.begin()
        return UpstreamReply(exchange.status, exchange.headers, exchange)

    async def reachable(self, url: str) -> bool:
        """Whether something listens there. Connects and sends nothing."""
        try:
            async with asyncio.timeout(CONNECT_S):
                if url.startswith(UNIX):
                    _, writer = await asyncio.open_unix_connection(url.removeprefix(UNIX))
                else:
                    parts = urlsplit(url)
                    _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()


class Pool:
    """The connections to one address, as many as are asked for: the gateway says how much may be under way.

    Args:
        url: `unix:/path/to.sock` or `http://host:port`.

    Raises:
        UpstreamFailed: It is neither.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._socket = url.removeprefix(UNIX) if url.startswith(UNIX) else ""
        parts = urlsplit(url)
        if not self._socket and (parts.scheme != "http" or not parts.hostname):
            raise UpstreamFailed(f"{url} is no address of a model server.", REMEDY, sent=False)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._name = "localhost" if self._socket else parts.netloc.rpartition("@")[2]
        self._base = "" if self._socket else parts.path.rstrip("/")
        self._lines: dict[str, str] = {}
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._reaper: asyncio.TimerHandle | None = None

    def request(self, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """A request as it is sent.

        Raises:
            UpstreamFailed: A header or the path would be read as something else than it is.
        """
        line = self._lines.get(path) or self._line(path)
        said = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if said.count("\n") != len(headers) or said.count("\r") != len(headers):
            raise UpstreamFailed("A header holds a line break.", "Send it without.", sent=False)
        return f"{line}{said}content-length: {len(body)}\r\n\r\n".encode("latin-1", "replace") + body

    def idle(self) -> Connection | None:
        """The connection that was used last, if it is still good."""
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_for() < KEEP_ALIVE_S:
                return connection
            connection.abort()
        return None

    async def connect(self, timeout_s: float) -> Connection:
        """A new connection.

        Raises:
            UpstreamFailed: Nobody listens.
            UpstreamTimeout: Nobody took it in time.
        """
        loop, connection, reached = asyncio.get_running_loop(), Connection(self), False
        try:
            async with asyncio.timeout(timeout_s):
                if self._socket:
                    await loop.create_unix_connection(lambda: connection, self._socket)
                else:
                    await loop.create_connection(lambda: connection, self._host, self._port)
            reached = True
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"The model server at {self.url} took no connection in time.", REMEDY, sent=False
            ) from error
        except (OSError, ValueError) as error:
            raise UpstreamFailed(f"The model server at {self.url} is not listening.", REMEDY, sent=False) from error
        finally:
            if not reached:  # one that came about too late is closed by uvloop, which doesn't tell it so
                self._connections.discard(connection)
        return connection

    def made(self, connection: Connection) -> None:
        """A connection is open; one that never was, since nobody listened, is none to wait for at the end."""
        self._connections.add(connection)

    def released(self, connection: Connection) -> None:
        """A connection's exchange is over and it can have another one."""
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._reap)

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def aclose(self) -> None:
        """Close all connections, and come back once they are."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        closing = [connection.closed for connection in self._connections]
        for connection in list(self._connections):
            connection.abort()
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_S)

    def _reap(self) -> None:
        """Close what was idle for too long."""
        self._reaper = None
        for connection in [one for one in self._idle if one.idle_for() >= KEEP_ALIVE_S]:
            self._idle.remove(connection)
            connection.abort()
        if self._idle:
            self._reaper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._reap)

    def _line(self, path: str) -> str:
        target = f"{self._base}{path}"
        if not (target.isascii() and target.isprintable() and " " not in target and target.startswith("/")):
            raise UpstreamFailed(f"{target[:64]!r} is no path.", "Ask for another.", sent=False)
        if len(self._lines) >= _MOST_PATHS:
            self._lines.clear()
        line = self._lines[path] = f"POST {target} HTTP/1.1\r\nhost: {self._name}\r\n"
        return line
