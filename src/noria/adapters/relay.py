"""A door on this machine for one job: what is asked there in OpenAI's wire is answered by a function of ours.

So a job in a process of its own can ask a model without knowing where it is, what its key is or what it may cost.
"""

import hmac
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from noria.domain.errors import BudgetExhausted, NoriaError

PATH = "/v1/chat/completions"
_LONGEST = 10_000_000


@contextmanager
def relay(answer: Callable[[bytes], bytes]) -> Iterator[tuple[str, str]]:
    """Listen on a free port of the loopback address; gives the base URL and the token that a caller has to show.

    Args:
        answer: The body of a chat completion request → that of the reply. What it raises becomes an error body.
    """
    token = secrets.token_urlsafe(24)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if not hmac.compare_digest(self.headers.get("authorization", ""), f"Bearer {token}"):
                self._say(401, _error("A token is missing."), close=True)
            elif not self.path.endswith(PATH) or not 0 < length <= _LONGEST:
                self._say(404, _error("Only chat completions are answered here."), close=True)
            else:
                self._say(*self._answered(self.rfile.read(length)))

        def _answered(self, body: bytes) -> tuple[int, bytes]:
            try:
                return 200, answer(body)
            except BudgetExhausted as error:
                return 402, _error(str(error))
            except (NoriaError, ValueError) as error:
                return 400, _error(str(error))

        def _say(self, status: int, body: bytes, *, close: bool = False) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            if close:
                self.send_header("connection", "close")
                self.close_connection = True
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="relay", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", token
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "param": None, "code": None}}).encode()
