"""The process that tells one notice through apprise: JSON on standard input, what went wrong on standard output.

Whatever apprise and its services' redirects lead to, no connection goes to a link-local, metadata or multicast address:
the interpreter itself asks before each one.
"""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from noria.adapters.upstreams.addresses import forbidden, parse

_SHORTEST_SECRET = 6


class Guard:
    """Refuses connections to addresses that no service can have."""

    def __init__(self) -> None:
        self.refused = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The interpreter's audit hook (PEP 578)."""
        if event != "socket.connect" or not isinstance(arguments[1], tuple):
            return
        address = str(arguments[1][0])
        try:
            no = forbidden(parse(address))
        except ValueError:  # a name: the resolver's answer is asked about, when it comes to that
            return
        if no:
            self.refused = address
            raise PermissionError(f"{address} is a link-local, metadata or multicast address")


class Words(logging.Handler):
    """Keeps what apprise says went wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remember it."""
        self.said.append(" ".join(record.getMessage().split()))


def tell(told: dict[str, Any], guard: Guard) -> str:
    """Tell it; what went wrong, empty if nothing did."""
    import apprise
    from apprise.attachment.memory import AttachMemory

    words = Words()
    logger = logging.getLogger("apprise")
    logger.addHandler(words)
    logger.propagate = False
    asset = apprise.AppriseAsset(app_id="Noria", app_desc="Noria", app_url="")
    asset.http_redirects = False
    service = apprise.Apprise(asset=asset)
    if not service.add(told["url"]):
        return "that is no URL that apprise knows."
    attach: Callable[..., Any] = AttachMemory
    drawn = [png for spec in told["pictures"] if (png := _png(spec))]
    pictures = [
        attach(content=png, name=f"what-moved-{n}.png", mimetype="image/png") for n, png in enumerate(drawn, start=1)
    ]
    kind = apprise.NotifyType(told["type"])
    taken = service.notify(
        body=told["body"], title=told["title"], notify_type=kind, body_format="text", attach=pictures or None
    )
    if guard.refused:
        return f"it is at {guard.refused}, a link-local, metadata or multicast address."
    if taken:
        return ""
    return scrubbed("; ".join(words.said) or "it was not taken.", told["url"])[:500]


def scrubbed(said: str, url: str) -> str:
    """What was said, without any part of the URL that may be a secret."""
    parts = urlsplit(url)
    secrets = {url, parts.netloc, parts.username or "", parts.password or "", parts.query, *parts.path.split("/")}
    for secret in sorted(secrets | {unquote(s) for s in secrets}, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET and secret != parts.hostname:
            said = said.replace(secret, "…")
    return said


def _png(spec: dict[str, Any]) -> bytes:
    """The picture; empty if it can't be drawn, which is no reason to tell nobody."""
    import vl_convert

    try:
        drawn: bytes = vl_convert.vegalite_to_png(spec, scale=2, allowed_base_urls=[])
    except ValueError:
        return b""
    return drawn


def main() -> None:
    """Tell what standard input holds."""
    guard = Guard()
    sys.addaudithook(guard)
    said = json.loads(sys.stdin.buffer.read())
    out = sys.stdout
    sys.stdout = sys.stderr  # what a plug-in prints is no answer of ours
    try:
        problem = tell(said, guard)
    except Exception as error:  # whatever a plug-in raises
        problem = scrubbed(f"{type(error).__name__}: {error}", said.get("url", ""))[:500]
    out.write(json.dumps({"problem": problem}))


if __name__ == "__main__":
    main()
