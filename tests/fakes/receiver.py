"""Receivers of alerts on real sockets of this machine: one for HTTP, one for mail."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller


@dataclass
class Receiver:
    """Answers with the statuses in turn, the last one for ever."""

    statuses: list[int] = field(default_factory=lambda: [200])
    reply: bytes = b""
    location: str = "http://127.0.0.1:1/elsewhere"
    hang: threading.Event | None = None
    drip: bool = False
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def took(self) -> None:
        """Something was received, and is not answered yet."""

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[str]:
        """Serve on a port of loopback, a free one if none is given, and say where."""
        ThreadingHTTPServer.daemon_threads = True
        server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hooks/t0ken?room=ops"
        finally:
            if self.hang:
                self.hang.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers = {k.lower(): v for k, v in self.headers.items()} | {"path": self.path}
                receiver.got.append((headers, self.rfile.read(int(self.headers["content-length"]))))
                receiver.took()
                if receiver.drip:
                    self._drip()
                elif receiver.hang:
                    receiver.hang.wait(20)
                else:
                    status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
                    self.send_response(status)
                    self.send_header("Location", receiver.location)
                    self.send_header("Content-Length", str(len(receiver.reply)))
                    self.end_headers()
                    self.wfile.write(receiver.reply)

            def _drip(self) -> None:
                try:
                    for _ in range(1000):
                        self.wfile.write(b"H")
                        time.sleep(0.02)
                except OSError:
                    return

            def log_message(self, *args: object) -> None:
                return

        return Handler


class Mailbox:
    """Takes mail for anybody."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], str]] = []
        self.answer = "250 OK"

    async def handle_DATA(self, _server: object, _session: object, envelope) -> str:
        if self.answer.startswith("250"):
            self.mails.append((envelope.rcpt_tos, envelope.content.decode()))
        return self.answer

    @contextmanager
    def open(self) -> Iterator[int]:
        """Take mail on a free port of loopback, and say on which."""
        controller = _Controller(self, hostname="127.0.0.1", port=0)
        controller.start()
        try:
            yield controller.port
        finally:
            controller.stop()


class _Controller(Controller):
    """aiosmtpd asks its own port whether it listens; with port 0 the one that it got."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
