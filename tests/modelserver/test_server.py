"""Addresses, warm-up and the process as a whole."""

import http.client
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.models import TEXT, classifier, save
from noria.domain.errors import PortInUse, UpstreamFailed
from noria.modelserver.batching import Answer, Batcher, Call
from noria.modelserver.models import Model
from noria.modelserver.server import bind, warm_up


def test_a_unix_socket_is_for_this_user_only_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    bind(f"unix:{path}").close()
    with bind(f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_port_that_is_taken_is_reported() -> None:
    with bind("tcp:127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            bind(f"tcp:127.0.0.1:{port}")


def test_a_socket_where_none_can_be_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PortInUse, match="no-such-folder"):
        bind(f"unix:{tmp_path}/no-such-folder/m.sock")


async def test_a_model_is_warmed_up_on_its_example() -> None:
    seen: list[Call] = []

    def predict(call: Call) -> Answer:
        seen.append(call)
        return Answer(call.rows)

    batcher = Batcher(predict)
    await warm_up(Model(predict, b'{"inputs": ["a"]}'), batcher)
    await warm_up(Model(predict), batcher)
    batcher.close()
    assert seen == [Call(["a"])]


@pytest.mark.parametrize("example", [b"{", b'{"inputs": ["a"]}'])
async def test_a_model_that_fails_on_its_example_does_not_start(example: bytes) -> None:
    def predict(_: Call) -> Answer:
        raise RuntimeError("broken")

    batcher = Batcher(predict)
    with pytest.raises(UpstreamFailed, match="its own input example"):
        await warm_up(Model(predict, example), batcher)
    batcher.close()


def test_the_process_answers_over_tcp_and_ends_cleanly(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT, example=["good"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["--path", str(folder), "--listen", f"tcp:127.0.0.1:{port}", "--name", "triage", "--version", "1"]
    process = subprocess.Popen([sys.executable, "-m", "noria.modelserver", *command])
    try:
        reply = _post(port, b'{"inputs": ["good"]}')
        process.send_signal(signal.SIGTERM)
        assert (reply, process.wait(30)) == (200, 0)
    finally:
        process.kill()


def _post(port: int, body: bytes) -> int:
    """The status of an invocation, once somebody listens."""
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/invocations", body, {"content-type": "application/json"})
            return connection.getresponse().status
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "it never listened"
            time.sleep(0.05)
        finally:
            connection.close()
