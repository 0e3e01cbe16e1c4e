"""POST to an address of the operator's, and to nothing else.

Addresses stand in the project file, so loopback and private networks are allowed. Link-local, metadata and multicast
addresses are never a receiver's, whatever name they hide behind, and are refused; the connection goes to the very
address that was checked, and no redirect is followed.
"""

import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from noria.adapters.upstreams.addresses import forbidden, parse
from noria.domain.errors import InvalidProject, NotDelivered

log = logging.getLogger("noria.alerts")

TIMEOUT_S = 10.0
"""Longest time that a receiver may take in all."""
RETRY = "Noria tries again; see that the receiver is up and that its address in noria.yaml is right."
Resolve = Callable[..., Sequence[tuple[Any, ...]]]
"""Name and port → addresses, as `socket.getaddrinfo`."""


class Post:
    """One address, and how it is told.

    Args:
        url: http(s) address. Its path may hold a token, so only its host is ever shown.
        key: Where the address stands in the project file.
        kind: What it is, for `label`.
        timeout_s: Longest time in all, seconds.
        resolve: Tests give their own.

    Raises:
        InvalidProject: The address is not http(s).
    """

    def __init__(self, url: str, key: str, kind: str, timeout_s: float, resolve: Resolve) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidProject(f"{key} is not an http(s) address.", "Write https://….")
        self.label = f"{kind} ({parts.hostname})"
        """What it is called; without its secrets."""
        self._parts, self._host = parts, parts.hostname
        self._timeout_s, self._resolve = timeout_s, resolve

    def send(self, body: bytes, headers: Mapping[str, str], path: str = "") -> None:
        """POST JSON; a status other than 2xx is a failure.

        Args:
            body: The JSON.
            headers: Beside Content-Type and User-Agent.
            path: What follows the address's own path.

        Raises:
            NotDelivered: Refused address, no connection, no answer in time, or an answer that isn't 2xx.
        """
        every = {"Content-Type": "application/json", "User-Agent": "noria", **headers}
        try:
            status = self._post(body, every, path)
        except (OSError, http.client.HTTPException) as error:
            reason = "took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise NotDelivered(f"The {self.label} could not be told: {reason}.", RETRY) from error
        if not 200 <= status < 300:
            raise NotDelivered(f"The {self.label} answered {status}.", RETRY)

    def _post(self, body: bytes, headers: dict[str, str], path: str) -> int:
        """Send the request; the watchdog ends a receiver that sends byte after byte for ever."""
        port = self._parts.port or (443 if self._parts.scheme == "https" else 80)
        plain = self._connect(port)
        connection = http.client.HTTPConnection(self._host, port, timeout=self._timeout_s)
        late = threading.Event()
        watchdog = threading.Timer(self._timeout_s, _hang_up, (plain, late))
        watchdog.start()
        try:
            connection.sock = self._secured(plain)
            connection.request("POST", _target(self._parts, path), body, headers)
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
            NotDelivered: One of the name's addresses is none that a receiver can have.
            OSError: No such name, or no address takes the connection.
        """
        found = self._resolve(self._host, port, type=socket.SOCK_STREAM)
        addresses = [str(a[4][0]) for a in found]
        for address in addresses:
            if forbidden(parse(address)):
                raise NotDelivered(
                    f"The {self.label} is at {address}, a link-local, metadata or multicast address.",
                    "Correct its address in noria.yaml, or its name in DNS.",
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


def _target(parts: SplitResult, path: str) -> str:
    whole = (parts.path.rstrip("/") + path) if path else (parts.path or "/")
    return whole + (f"?{parts.query}" if parts.query else "")


def _hang_up(connection: socket.socket, late: threading.Event) -> None:
    """End a connection that took too long, whatever is waiting for it."""
    late.set()
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("the connection was gone already")
