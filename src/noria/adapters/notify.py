"""Telling people of alerts: in the log, as a table on the terminal, by webhook.

A notifier that can't deliver raises; the worker calls each in a durable step of its own and tries again, so a receiver
may see the same delivery twice and can tell by its `X-Noria-Delivery` header. What callers wrote to a model is in an
alert's examples, so control characters are taken out before anything reaches a terminal or a log.

Webhook addresses are the operator's: they stand in the project file, so loopback and private networks are allowed.
Link-local, metadata and multicast addresses are never a webhook's, whatever name they hide behind, and are refused; the
connection goes to the very address that was checked, and no redirect is followed.
"""

import hashlib
import hmac
import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from noria.adapters.upstreams.addresses import forbidden, parse
from noria.domain.alert import Alert, AlertState
from noria.domain.errors import InvalidProject, NotDelivered
from noria.ports import Notifier
from noria.settings import Settings

log = logging.getLogger("noria.alerts")

TIMEOUT_S = 10.0
"""Longest time that a webhook's receiver may take in all."""


def notifiers(settings: Settings) -> list[Notifier]:
    """The notifiers that the project file asks for, each with a name of its own.

    Raises:
        InvalidProject: A webhook's address is not http(s).
    """
    asked = settings.project.notify
    found: list[Notifier] = []
    if asked.log:
        found.append(LogNotifier())
    if asked.console:
        found.append(ConsoleNotifier(Console()))
    for number, webhook in enumerate(asked.webhooks, start=1):
        found.append(WebhookNotifier(webhook.url, number=number, secret=settings.webhook_secret))
    return found


def printable(text: str) -> str:
    """The text without characters that a terminal or a log would obey; runs of white space become one blank."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


class LogNotifier:
    """Writes one line a delivery."""

    name = "log"

    def notify(self, alert: Alert) -> None:
        """Write the alert to the log `noria.alerts`: a warning when it fires, information when it is resolved."""
        level = logging.WARNING if alert.state is AlertState.FIRING else logging.INFO
        log.log(level, "%s %s: %s", alert.state.value, printable(alert.id), printable(_sentence(alert)))


class ConsoleNotifier:
    """Prints a table of what moved, with examples, on the terminal."""

    name = "console"

    def __init__(self, console: Console) -> None:
        self._console = console

    def notify(self, alert: Alert) -> None:
        """Print the alert."""
        firing = alert.state is AlertState.FIRING
        head = Text.assemble(
            (" ALERT " if firing else " RESOLVED ", "bold reverse red" if firing else "bold reverse green"),
            (f" {printable(alert.endpoint)} · {printable(alert.monitor)} ", "bold"),
            (f"{alert.raised_at:%Y-%m-%d %H:%M:%S} UTC", "dim"),
        )
        self._console.print(head)
        self._console.print(Text(printable(_sentence(alert))))
        if firing and alert.moved:
            self._console.print(_moved(alert))


def _sentence(alert: Alert) -> str:
    """What is wrong, or why it no longer is."""
    return alert.summary if alert.state is AlertState.FIRING else f"{alert.resolution} (was: {alert.summary})"


def _moved(alert: Alert) -> Table:
    table = Table("what moved", "before", "now", "for example")
    for column in table.columns[1:3]:
        column.justify = "right"
    for cell in alert.moved:
        examples = Text("\n".join(printable(e) for e in cell.examples))
        table.add_row(Text(printable(cell.name)), f"{cell.share_before:.1%}", f"{cell.share_now:.1%}", examples)
    return table


class WebhookNotifier:
    """POSTs each delivery as JSON.

    The body is `{"type": "alert.firing" | "alert.resolved", "text": …, "alert": {…}}` with the alert under its own
    field names. With a secret, `X-Noria-Signature` is `sha256=` and the hex HMAC-SHA256 of the body.

    Args:
        url: http(s) address. Its path may hold a token, so only its host is ever shown.
        number: Tells two webhooks on one host apart.
        secret: Key of the signature; empty for none.
        timeout_s: Longest time in all, seconds.
        resolve: Name and port → addresses, as `socket.getaddrinfo`; tests give their own.

    Raises:
        InvalidProject: The address is not http(s).
    """

    def __init__(
        self,
        url: str,
        *,
        number: int = 1,
        secret: str = "",
        timeout_s: float = TIMEOUT_S,
        resolve: Callable[..., Sequence[tuple[Any, ...]]] = socket.getaddrinfo,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidProject(f"notify.webhooks[{number - 1}].url is not an http(s) address.", "Write https://….")
        self.name = f"webhook {number} ({parts.hostname})"
        self._parts, self._host, self._secret = parts, parts.hostname, secret
        self._timeout_s, self._resolve = timeout_s, resolve

    def notify(self, alert: Alert) -> None:
        """POST the alert; a status other than 2xx is a failure.

        Raises:
            NotDelivered: Refused address, no connection, no answer in time, or an answer that isn't 2xx.
        """
        body = msgspec.json.encode({"type": f"alert.{alert.state.value}", "text": _sentence(alert), "alert": alert})
        try:
            status = self._post(body, self._headers(alert, body))
        except (OSError, http.client.HTTPException) as error:
            reason = "took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise NotDelivered(f"The {self.name} could not be told of {alert.id}: {reason}.", _RETRY) from error
        if not 200 <= status < 300:
            raise NotDelivered(f"The {self.name} answered {status} to {alert.id}.", _RETRY)

    def _headers(self, alert: Alert, body: bytes) -> dict[str, str]:
        when = alert.raised_at if alert.state is AlertState.FIRING else alert.resolved_at or alert.raised_at
        delivery = hashlib.sha256(f"{alert.id} {alert.state.value} {when.isoformat()}".encode()).hexdigest()[:32]
        headers = {"Content-Type": "application/json", "User-Agent": "noria", "X-Noria-Delivery": delivery}
        if self._secret:
            digest = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Noria-Signature"] = f"sha256={digest}"
        return headers

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        """Send the request; the watchdog ends a receiver that sends byte after byte for ever."""
        port = self._parts.port or (443 if self._parts.scheme == "https" else 80)
        plain = self._connect(port)
        connection = http.client.HTTPConnection(self._host, port, timeout=self._timeout_s)
        late = threading.Event()
        watchdog = threading.Timer(self._timeout_s, _hang_up, (plain, late))
        watchdog.start()
        try:
            connection.sock = self._secured(plain)
            connection.request("POST", _target(self._parts), body, headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            if late.is_set():
                raise TimeoutError from error
            raise
        finally:
            watchdog.cancel()
            connection.close()
            plain.close()

    def _connect(self, port: int) -> socket.socket:
        """A connection to the first of the name's addresses that takes one.

        Raises:
            NotDelivered: One of the name's addresses is none that a webhook can have.
            OSError: No such name, or no address takes the connection.
        """
        found = self._resolve(self._host, port, type=socket.SOCK_STREAM)
        addresses = [str(a[4][0]) for a in found]
        for address in addresses:
            if forbidden(parse(address)):
                raise NotDelivered(
                    f"The {self.name} is at {address}, a link-local, metadata or multicast address.",
                    "Correct the webhook's address in noria.yaml, or its name in DNS.",
                )
        problem: OSError = OSError(f"{self._host} has no address")
        for address in addresses:
            try:
                return socket.create_connection((address, port), self._timeout_s)
            except OSError as error:
                problem = error
        raise problem

    def _secured(self, plain: socket.socket) -> socket.socket:
        """The connection with TLS where the address says https; the certificate is checked against the name."""
        if self._parts.scheme == "http":
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=self._host)


_RETRY = "Noria tries again; see that the receiver is up and that its address in noria.yaml is right."


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _hang_up(connection: socket.socket, late: threading.Event) -> None:
    """End a connection that took too long, whatever is waiting for it."""
    late.set()
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("the connection was gone already")
