"""Whether a process that isn't our child answers."""

import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

from noria.adapters.processes import answers


class Well(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_socket_answers_also_in_a_folder_whose_name_has_blanks_and_colons(tmp_path: Path) -> None:
    folder = tmp_path / "My Shop: 1"
    folder.mkdir()
    path = folder / "s.sock"
    assert not answers(f"unix:{path}")
    with UnixStreamServer(str(path), Well) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            assert answers(f"unix:{path}")
            assert not answers(f"unix:{path}", "/ready")
        finally:
            server.shutdown()
            thread.join()
