"""A double of the Hugging Face Hub on a real socket: enough of it for huggingface_hub to look at and fetch models."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(
    repositories: Mapping[str, Mapping[str, bytes]], licence: str = "apache-2.0"
) -> Iterator[tuple[str, list[str]]]:
    """Repositories (`owner/repo` → file → bytes) at one commit; gives the address and the files that were fetched."""
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            for name, files in repositories.items():
                if path.startswith(f"api/models/{name}/tree/"):
                    listed = [{"type": "file", "path": f, "size": len(b), "oid": _id(b)} for f, b in files.items()]
                    return self._json(listed)
                if path in (f"api/models/{name}", *(f"api/models/{name}/revision/{r}" for r in ("main", SHA))):
                    siblings = [{"rfilename": file} for file in files]
                    return self._json(
                        {"id": name, "sha": SHA, "siblings": siblings, "cardData": {"license": licence}, "tags": []}
                    )
                file = path.removeprefix(f"{name}/resolve/{SHA}/")
                if file != path and file in files:
                    return self._file(file, files[file])
            return self._send(404, b"{}", {"x-error-code": "RepoNotFound"})

        def _json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"content-type": "application/json"})

        def _file(self, name: str, content: bytes) -> None:
            if self.command == "GET":
                fetched.append(name)
            self._send(200, content, {"etag": f'"{_id(content)}"', "x-repo-commit": SHA})

        def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", fetched
        finally:
            server.shutdown()
            thread.join()


def _id(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
