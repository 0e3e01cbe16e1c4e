"""The double as a process: `python -m doubles.azure_openai --folder FOLDER`, with `tests` on the path.

The data plane is HTTP, the management plane HTTPS under a certificate of its own (`FOLDER/ca.pem`), as azure-core sends
no token over anything else. Tokens come from where an App Service has them (`/msi/token`). `FOLDER/where.json` says
where all is, once it is there. `/double/…` is for tests: faults to inject, and what was asked.
"""

import argparse
import json
import os
import secrets
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from doubles.azure_openai.arm import Management
from doubles.azure_openai.certificate import make_certificate
from doubles.azure_openai.wire import Data, Stream
from doubles.azure_openai.world import Fault, Refusal, World

KEY, IDENTITY = "key-of-the-double", "identity-of-the-double"


class Handler(BaseHTTPRequestHandler):
    """Answers both planes."""

    protocol_version = "HTTP/1.1"
    world: World
    data: Data
    management: Management
    manages = False
    url = ""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """See `http.server`."""
        parts = urlsplit(self.path)
        query, line = dict(parse_qsl(parts.query)), f"{self.command} {parts.path}"
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if parts.path.startswith("/double/"):
            self._send(200, self._control(parts.path.removeprefix("/double/"), raw))
            return
        try:
            after = self._suffer(line)
            answer = self._answer(parts.path, query, raw)
            if after is not None:  # done, and the caller never hears of it
                raise after
        except Refusal as no:
            status, answer, headers = no.status, {"error": {"code": no.code, "message": no.message}}, no.headers
        except ConnectionAbortedError:
            self._note(line, 0)
            self.close_connection = True
            return
        else:
            status, answer, headers = answer
        self._note(line, status)
        self._send(status, answer, headers)

    do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self, path: str, query: dict[str, str], raw: bytes) -> tuple[int, Any, Any]:
        if path == "/msi/token":
            return 200, self._token(), {}
        self._demand_known()
        kind = self.headers.get("content-type", "")
        body: Any = raw
        if kind.startswith("application/json"):
            try:
                body = json.loads(raw or b"{}")
            except ValueError as error:
                raise Refusal(400, "invalidPayload", "The body isn't JSON.") from error
        if self.manages:
            return self.management.answer(self.command, path, body, self.url)
        return 200, self.data.answer(self.command, path, query, body, kind), {}

    def _token(self) -> dict[str, str]:
        if self.headers.get("x-identity-header") != IDENTITY:
            raise Refusal(401, "unauthorized", "That is nobody's identity.")
        token, until = secrets.token_hex(16), time.time() + 3600
        self.world.tokens[token] = until
        return {"access_token": token, "expires_on": str(int(until)), "resource": "double", "token_type": "Bearer"}

    def _demand_known(self) -> None:
        given = self.headers.get("authorization", "").removeprefix("Bearer ")
        if self.world.tokens.get(given, 0.0) > time.time():
            return
        if not self.manages and KEY in (given, self.headers.get("api-key")):
            return
        raise Refusal(401, "401", "Access denied due to an invalid key or an expired token.")

    def _suffer(self, line: str) -> Refusal | None:
        """Let a fault happen that was asked for; one that happens after the work is returned."""
        with self.world.lock:
            fault = next((f for f in self.world.faults if f.times > 0 and f.match in line), None)
            if fault is None:
                return None
            fault.times -= 1
        match fault.kind:
            case "429":
                raise Refusal(429, "429", "Too many requests.", **{"Retry-After": str(fault.seconds)})
            case "500":
                raise Refusal(500, "InternalServerError", "Something went wrong.")
            case "500 after":
                return Refusal(500, "InternalServerError", "Something went wrong, afterwards.")
            case "expired":
                self.world.tokens.clear()
            case "slow":
                time.sleep(fault.seconds)
            case "cut":
                raise ConnectionAbortedError
        return None

    def _control(self, what: str, raw: bytes) -> Any:
        with self.world.lock:
            match what:
                case "faults":
                    self.world.faults.append(Fault(**json.loads(raw)))
                case "jobs":
                    return [job.json() for job in self.world.jobs.values()]
                case "uploads":
                    return [f.json() for f in self.world.files.values() if f.purpose == "fine-tune"]
                case "deployments":
                    return {name: each.state for name, each in self.world.deployments.items()}
                case "hold":
                    self.world.released.clear()
                case "release":
                    self.world.released.set()
                case "half":  # what a broken upload leaves: the first half of a file, under that name
                    asked = json.loads(raw)
                    text = asked["content"].encode()
                    return self.world.upload(asked["name"], "fine-tune", text[: len(text) // 2]).json()
            return self.world.ledger

    def _note(self, line: str, status: int) -> None:
        with self.world.lock:
            self.world.ledger.append({"asked": line, "status": status})

    def _send(self, status: int, answer: Any, headers: Any = ()) -> None:
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if isinstance(answer, Stream):
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for event in answer.events:
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True
            return
        content = b"" if answer is None else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_header(
            "Content-Type", "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        )
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve until the process that started this one is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--epoch-seconds", type=float, default=0.0)
    parser.add_argument("--operation-seconds", type=float, default=0.05)
    chosen = parser.parse_args()
    world = World(epoch_s=chosen.epoch_seconds, operation_s=chosen.operation_seconds)
    shared = {"world": world, "data": Data(world), "management": Management(world)}
    planes = [type("Plane", (Handler,), {**shared, "manages": manages}) for manages in (False, True)]
    data, management = (ThreadingHTTPServer(("127.0.0.1", 0), plane) for plane in planes)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(chosen.folder))
    management.socket = context.wrap_socket(management.socket, server_side=True)
    where = {"url": f"http://127.0.0.1:{data.server_port}", "management": f"https://127.0.0.1:{management.server_port}"}
    planes[1].url = where["management"]  # type: ignore[attr-defined]
    for server in (data, management):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    half = chosen.folder / "where.new"
    half.write_text(json.dumps(where))
    half.rename(chosen.folder / "where.json")
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)


if __name__ == "__main__":
    main()
