"""Calls a project's upstreams elsewhere: over TLS, with the project's credentials, and only where they may be.

Whether an address may be called (`addresses`) is asked about the address that a connection is made to, so
neither a name nor an IP literal nor a DNS answer that changes leads anywhere else. No redirect is followed, no proxy of
the environment used.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from yarl import URL

from noria.adapters.upstreams.addresses import parse, why_not
from noria.adapters.upstreams.places import named, split, url_of
from noria.adapters.upstreams.replies import explained, read
from noria.domain.errors import ForbiddenAddress, NoCredentials, UnknownUpstream, UpstreamFailed, UpstreamTimeout
from noria.ports import Credentials, UpstreamReply
from noria.settings import Upstream

CONNECT_S = 10.0
"""Longest time to wait for a connection, name and TLS included, in seconds."""
KEEP_ALIVE_S = 20.0
"""How long an idle connection is kept, in seconds: less than the load balancers of the services do."""
FRESH_S = 30.0
"""How long the last answer of a model says whether it can be asked, in seconds."""
_REFUSED = (401, 403)
_ALWAYS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "noria"}
_JSON = "application/json"
_REMEDY = "See whether the service is up, and whether its url in noria.yaml is right."

Upstreams = Mapping[str, Upstream]


class Elsewhere:
    """The `Upstream` port for addresses `upstream:NAME/MODEL`."""

    def __init__(self, upstreams: Callable[[], Upstreams], credentials: Credentials) -> None:
        self._upstreams = upstreams
        self._credentials = credentials
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._known: Upstreams | None = None
        self._urls: dict[tuple[str, str], tuple[Upstream, str, URL]] = {}
        self._last: dict[str, tuple[float, int]] = {}

    async def post(
        self, url: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> UpstreamReply:
        """See the port."""
        upstream, model, where = self._place(url, path)
        begun = asyncio.get_running_loop().time()
        known_by = await self._known_by(upstream, timeout_s)
        timeout_s = max(begun + timeout_s - asyncio.get_running_loop().time(), 0.001)
        if headers.get("content-type", _JSON).startswith(_JSON):
            body = named(upstream.kind, model, body)
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_S, timeout_s))
        sent = {**headers, **_ALWAYS, **upstream.headers, **known_by}
        with _refusals(url), explained(url, _REMEDY):
            response = await self._session(upstream.private).post(
                where, data=body, headers=sent, timeout=timeout, allow_redirects=False
            )
        self._last[url] = (asyncio.get_running_loop().time(), response.status)
        reply = read(response, url, _REMEDY)
        if reply.headers.get("content-encoding", "identity") != "identity":
            await reply.chunks.aclose()
            raise UpstreamFailed(f"{url} answered in an encoding that nobody asked for.", "See what is at its address.")
        return reply

    async def _known_by(self, upstream: Upstream, timeout_s: float) -> Mapping[str, str]:
        """The headers that authorise a request.

        Raises:
            UpstreamTimeout: Whoever grants them said nothing in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._credentials.headers(upstream)
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"No token for {upstream.url} was granted in time.", "See whether this machine reaches it.", sent=False
            ) from error

    async def reachable(self, url: str) -> bool:
        """See `ProjectUpstream`. What it answered lately counts; else one connection is tried."""
        upstream, _, where = self._place(url, "/v1/models")
        await self._known_by(upstream, CONNECT_S)
        now = asyncio.get_running_loop().time()
        at, status = self._last.get(url, (0.0, 0))
        if status and now - at < FRESH_S:
            if status in _REFUSED:
                name = split(url)[0]
                raise NoCredentials(f"The upstream {name} refused our credentials ({status}).", "Renew its key.")
            return True
        try:
            async with asyncio.timeout(CONNECT_S):
                await _connect(where, private_allowed=upstream.private)
        except (OSError, TimeoutError):
            return False
        self._last[url] = (now, 200)
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _place(self, url: str, path: str) -> tuple[Upstream, str, URL]:
        """Upstream, its name for the model, and where to ask; worked out once for each project in service.

        Raises:
            UnknownUpstream: The project has none of that name.
        """
        known = self._upstreams()
        if known is not self._known:
            self._known = known
            self._urls.clear()
            self._last.clear()
        found = self._urls.get((url, path))
        if found is None:
            name, model = split(url)
            if name not in known or not model or not model.isprintable():
                raise UnknownUpstream(
                    f"This project has no upstream {name[:64]!r}.", "Write it under upstreams: in noria.yaml."
                )
            where = URL(url_of(known[name], model, path), encoded=True)
            found = self._urls[url, path] = (known[name], model, where)
        return found

    def _session(self, private_allowed: bool) -> aiohttp.ClientSession:
        if private_allowed not in self._sessions:
            self._sessions[private_allowed] = _new_session(private_allowed)
        return self._sessions[private_allowed]


def _new_session(private_allowed: bool) -> aiohttp.ClientSession:
    """A pool that connects to no address that it may not; what is sent is ours to say, what comes back isn't touched.

    Addresses are tried one after the other, since only then does a refusal end the attempt.
    """

    def guarded(info: Any) -> socket.socket:
        family, kind, protocol, _, where = info
        demand(where[0], private_allowed=private_allowed)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=KEEP_ALIVE_S, happy_eyeballs_delay=None, socket_factory=guarded
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )


@contextmanager
def _refusals(url: str) -> Iterator[None]:
    """Tell what no time heals: a certificate that isn't to be trusted, a host that is none."""
    try:
        yield
    except UpstreamFailed as error:
        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            why = f"The certificate of {url} can't be trusted: {cause.os_error or cause}."
            raise ForbiddenAddress(why, "Correct its url, or have this machine trust who signed it.") from error
        if isinstance(cause, aiohttp.InvalidURL):
            raise ForbiddenAddress(f"The host of {url} is no name and no address.", "Correct its url.") from error
        raise


def demand(address: str, *, private_allowed: bool) -> None:
    """See that an address may be called.

    Raises:
        ForbiddenAddress: It may not.
    """
    if why := why_not(parse(address), private_allowed=private_allowed):
        remedy = "Write private: true at the upstream if it is meant to be there." if "private" in why else ""
        raise ForbiddenAddress(
            f"The upstream is at {address}, {why}.", remedy or "Correct its url, or its name in DNS."
        )


async def _connect(where: URL, *, private_allowed: bool) -> None:
    """Connect to a URL's host and hang up.

    Raises:
        ForbiddenAddress: It has an address that may not be called.
        OSError: Nobody listens there.
    """
    host, port = where.host or "", where.port or 443
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for info in found:
        demand(str(info[4][0]), private_allowed=private_allowed)
    problem: OSError = OSError(f"{host} has no address")
    for info in found:
        try:
            _, writer = await asyncio.open_connection(str(info[4][0]), port)
        except OSError as error:
            problem = error
            continue
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:  # it hung up first, which is as good
            return
        return
    raise problem
