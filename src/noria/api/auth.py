"""Who may ask what: every address needs a right, and what isn't in the table needs an admin's.

Once a key was ever made, nobody gets in without one; revoking the last one doesn't open the door again. Before that,
only this machine may ask, and only by its own names. A key is found by the SHA-256 of its token in the router's
snapshot: no caller can steer that hash, so how long the lookup takes tells nothing.
"""

import binascii
import logging
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request as PageRequest

from noria.api.addresses import OPENAI_PREFIXES, address
from noria.api.messages import Request, Send, respond
from noria.api.problems import RETRY_AFTER_S, ForbiddenOrigin, explain
from noria.domain.errors import Forbidden, NoriaError, NotReady, Unauthenticated
from noria.domain.key import ApiKey, Right, digest
from noria.ports import Clock
from noria.serving.router import UNREAD, Router
from noria.serving.wires import Form

log = logging.getLogger("noria.api.auth")

OPEN = frozenset({"/livez", "/readyz", "/ping", "/health", "/version"})
"""Probes, which anybody may ask: a load balancer has no key. They tell of health, endpoints' names and versions."""
RIGHTS: dict[str, Right] = {
    "/predict": Right.INFER,
    "/invocations": Right.INFER,
    "/openapi.json": Right.INFER,
    "/feedback": Right.FEEDBACK,
    "/": Right.VIEW,
    "/runs": Right.VIEW,
    "/audit": Right.VIEW,
    "/metrics": Right.VIEW,
    "/api/status": Right.VIEW,
    "/api/runs": Right.VIEW,
}
"""Address → the right that it needs."""
BELOW: tuple[tuple[str, Right], ...] = (
    ("/v1/", Right.INFER),
    ("/openai/", Right.INFER),
    ("/predict/", Right.INFER),
    ("/api/2.0/", Right.INFER),
    ("/serving-endpoints/", Right.INFER),
    ("/api/trace/", Right.VIEW),
    ("/api/runs/", Right.VIEW),
    ("/trace/", Right.VIEW),
    ("/console/", Right.VIEW),
    ("/endpoints/", Right.VIEW),
    ("/runs/", Right.VIEW),
    ("/verdicts/", Right.VIEW),
)
"""The same for whatever begins so."""
KEY = "noria.key"
"""Where a request's scope has the API key that it came with, for what Starlette answers."""
LOG_EVERY_US = 60_000_000
"""Pause between two log lines about callers without a key, in microseconds."""
_LONGEST_NAME = 128
"""Longer names of hosts are not remembered."""
_SEND_ONE = "Send Authorization: Bearer sk-noria-… (api-key and x-api-key are read, too)."
_BEARER = 'Bearer realm="noria"'
_BASIC = 'Basic realm="Noria: any name, and as the password an API key with the role viewer", charset="UTF-8"'


def needed(path: str) -> Right | None:
    """The right that an address needs; None if it is open to anybody."""
    if path in OPEN:
        return None
    right = RIGHTS.get(path)
    if right is not None:
        return right
    if path.startswith("/endpoints/") and address(path) is not None:  # below it are the console's pages, too
        return Right.INFER
    return next((right for start, right in BELOW if path.startswith(start)), Right.MANAGE)


class Door:
    """Lets requests in, or says why not.

    Args:
        router: Has the keys in its snapshot.
        clock: Says whether a key's time is over.
        loopback: Whether we listen on loopback only.
        count: Told the reason of every refusal: `missing`, `unknown`, `expired`, `revoked` or `role`.
    """

    def __init__(self, router: Router, clock: Clock, loopback: bool, count: Callable[[str], None]) -> None:
        self._router = router
        self._clock = clock
        self._loopback = loopback
        self._count = count
        self._refused = 0
        self._log_at_us = 0

    def refusal(self, request: Request) -> NoriaError | None:
        """Why a request may not come in; None if it may. One that came with a key has it as `request.key` then."""
        snapshot = self._router.snapshot
        keys = snapshot.keys
        if keys is None and self._loopback and snapshot.revision != UNREAD:
            return foreign(request)
        right = needed(request.path)
        if right is None:
            return foreign(request) if keys is None and self._loopback else None
        if snapshot.revision == UNREAD:
            return NotReady("The API keys haven't been read yet.", "Come back in a second.")
        try:
            request.key = self._known(request, keys or {}, right)
        except NoriaError as error:
            return error
        return None

    def _known(self, request: Request, keys: Mapping[str, ApiKey], right: Right) -> ApiKey:
        """The caller's key, if it is in force and has the right."""
        token = _token(request, right)
        if not token:
            raise self._turned_away("missing", "No API key came with the request.", _SEND_ONE)
        key = keys.get(digest(token))
        if key is None:
            raise self._turned_away("unknown", "That is none of this project's API keys.", _SEND_ONE)
        if key.revoked_at is not None:
            raise self._turned_away("revoked", f"The API key {key.name} was revoked.", "Ask for a new one.")
        if key.expires_at is not None and key.expired(self._clock.now()):
            said = f"The API key {key.name} expired at {key.expires_at.isoformat(timespec='seconds')}."
            raise self._turned_away("expired", said, "Ask for a new one.")
        if not key.may(right):
            self._turned_away("role", "", "")
            roles = " and ".join(key.roles) or "none"
            raise Forbidden(
                f"The API key {key.name} has the role {roles}, which isn't enough for this address.",
                "Use a key of another role: client asks endpoints, viewer reads the console, admin does both.",
            )
        return key

    def _turned_away(self, reason: str, problem: str, remedy: str) -> Unauthenticated:
        """Count a refusal, and say in the log that there are such: once a minute at most, and never with the key."""
        self._count(reason)
        self._refused += 1
        now_us = self._clock.now_us()
        if now_us >= self._log_at_us:
            log.warning("refused for want of a valid API key: %d requests, the last one: %s", self._refused, reason)
            self._refused, self._log_at_us = 0, now_us + LOG_EVERY_US
        return Unauthenticated(problem, remedy)


async def turn_away(send: Send, request: Request, error: NoriaError) -> None:
    """Tell a caller why he may not come in, in the shape that he can read."""
    found = address(request.path)
    form = found[0] if found else Form.CHAT if request.path.startswith(OPENAI_PREFIXES) else None
    status, body = explain(error, form)
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Unauthenticated):
        page = needed(request.path) is Right.VIEW and request.method in ("GET", "HEAD")
        headers = (("www-authenticate", _BASIC if page else _BEARER),)
    elif status == 503:
        headers = (("retry-after", RETRY_AFTER_S),)
    await respond(send, request.id, status, body, headers=headers)


def asker(request: PageRequest) -> ApiKey | None:
    """The key that a page's request came with; None where none is needed."""
    key: ApiKey | None = request.scope.get(KEY)
    return key


def foreign(request: Request) -> ForbiddenOrigin | None:
    """Why a request comes from another site's page; None if it doesn't. Only asked where no key is needed.

    A page that has its own name point to 127.0.0.1 (DNS rebinding) shows that name as Host; a page that posts here
    across sites shows itself as Origin.
    """
    host, origin = request.header(b"host"), request.header(b"origin")
    if host and not _is_loopback(f"//{host}"):
        return ForbiddenOrigin(
            f"Noria listens on loopback only and isn't known as {host[:64]!r}.", "Ask http://127.0.0.1 or localhost."
        )
    if origin and not _is_loopback(origin):
        return ForbiddenOrigin(
            f"Pages of {origin[:64]!r} may not use Noria from a browser.",
            "Call it from a program, or from its console.",
        )
    return None


def _token(request: Request, right: Right) -> str:
    """The token that came with a request, empty if none did.

    HTTP Basic, any name with the key as its password, is what a browser can do; it is read only where pages are read,
    since a browser would send it with whatever another site's page makes it post.
    """
    scheme, _, value = request.header(b"authorization").partition(" ")
    scheme = scheme.lower()
    if scheme == "bearer":
        return value.strip()
    if scheme == "basic" and right is Right.VIEW and request.method in ("GET", "HEAD"):
        return _password(value)
    return request.header(b"api-key") or request.header(b"x-api-key")


def _password(value: str) -> str:
    try:
        return b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_loopback(url: str) -> bool:
    return _names_loopback(url) if len(url) > _LONGEST_NAME else _known_loopback(url)


@lru_cache(maxsize=64)
def _known_loopback(url: str) -> bool:
    return _names_loopback(url)


def _names_loopback(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
