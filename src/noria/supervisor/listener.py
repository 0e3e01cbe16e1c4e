"""The socket that the supervisor owns and the API processes share."""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from noria.domain.errors import InvalidProject, PortInUse, Refused

BACKLOG = 2048
"""Connections that wait while no API process takes them; the system may allow fewer."""
_LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


def listen(host: str, port: int, *, keys: bool = False) -> socket.socket:
    """A listening socket.

    Args:
        host: Loopback address or a name of one; with keys any address of this machine.
        port: Port; 0 picks a free one.
        keys: Whether an API key is needed to ask anything.

    Raises:
        PortInUse: Somebody else listens there.
        Refused: The address could be reached from other machines, and no key is needed.
        InvalidProject: There is no such address here, or this user may not listen there.
    """
    family, address = _resolve(host, port)
    if not keys and not ipaddress.ip_address(address[0]).is_loopback:
        raise Refused(
            f"{host} can be reached from other machines, and anybody who reaches it could call every endpoint.",
            "Make an API key first (noria key create NAME), or listen on 127.0.0.1.",
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Port {port} on {host} is taken{_by_whom(port)}.",
                "Stop that process, say --port with another number, or --port 0 to pick a free one.",
            ) from None
        raise InvalidProject(
            f"Can't listen on {host}:{port}: {os.strerror(error.errno or 0)}.", "Say another --host or --port."
        ) from None
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """The socket's address as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Address family and address of a host name."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InvalidProject(f"{host!r} is no address to listen on ({error}).", "Say --host 127.0.0.1.") from None
    return family, (str(address[0]), int(address[1]))


def _by_whom(port: int) -> str:
    """` by process N (command)`, where the system tells; it does for the same user's processes on Linux."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        with suppress(OSError):
            if any(str(descriptor.readlink()) in inodes for descriptor in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f" by process {process.name} ({command[:80]})"
    return ""


def _listening_inodes(port: int) -> Iterator[str]:
    """Inodes of the sockets that listen on a port."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
