"""One `noria up` per project: its socket, its children, and what it says when something is in the way."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import noria.supervisor as supervisor_module
import noria.supervisor.children as children_module
from noria.domain.errors import AlreadyRunning, InvalidProject, NoriaError, PortInUse, Refused
from noria.projectfile import parse_project
from noria.settings import Project, Settings
from noria.supervisor import Supervisor, running
from noria.supervisor.children import Child, mlflow_child
from noria.supervisor.listener import is_loopback, listen, url_of
from noria.supervisor.upfile import UpFile

PROJECT = """\
project: shop
endpoints:
  triage: {task: classification, policy: p.yaml, training: {data: d.csv}}
"""
API = """\
import http.server, socket, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *args): pass
server = http.server.HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server.serve_forever()
"""
WORKER = """\
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path(sys.argv[1]).write_text("stopped in order")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return parse_project(PROJECT, tmp_path)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[str]]:
    """Small programs in the place of the API and the worker; a test may replace them."""
    commands = {
        "api": [sys.executable, "-c", API, "{fd}"],
        "worker": [sys.executable, "-c", WORKER, str(tmp_path / "worker-said")],
    }

    def child(name: str, module: str, _settings: Settings, *arguments: str) -> Child:
        fd = arguments[1] if arguments else ""
        return Child(name, [part.replace("{fd}", fd) for part in commands[module]], begins_deaf=module == "worker")

    monkeypatch.setattr(supervisor_module, "noria_child", child)
    return commands


class Running:
    """A supervisor in a thread (signals go to the main thread only, so they are tested with real processes)."""

    def __init__(
        self,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        in_service: Callable[[], Project] | None = None,
    ) -> None:
        monkeypatch.setattr(supervisor_module, "SIGNALS", ())
        self.said: list[str] = []
        self.error: Exception | None = None
        self.supervisor = Supervisor(settings, "127.0.0.1", 0, False, self.said.append, in_service=in_service)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self.supervisor.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def up(settings: Settings, stand_ins: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    run = Running(settings, monkeypatch)
    yield run
    run.stop()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something that has to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def announced(run: Running) -> bool:
    return any(line.startswith("Noria is up") for line in run.said)


def get(url: str) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_one_line_says_where_the_project_is_up(up: Running) -> None:
    until(lambda: announced(up))
    assert up.supervisor.url in up.said[-1]
    assert up.said[0].startswith("no API key is configured, so only this machine can ask")
    assert get(up.supervisor.url) == 200


def test_who_asks_where_the_project_runs_is_told(up: Running, settings: Settings) -> None:
    until(lambda: announced(up))
    found = running(settings.run_dir)
    assert found is not None
    assert (found.pid, found.url) == (os.getpid(), up.supervisor.url)
    assert set(found.children) == {"api-0", "worker"}


def test_a_second_up_in_the_same_project_is_told_of_the_first(up: Running, settings: Settings) -> None:
    until(lambda: announced(up))
    with pytest.raises(AlreadyRunning) as caught:
        Supervisor(settings, "127.0.0.1", 0, False)
    assert up.supervisor.url in caught.value.problem
    assert str(os.getpid()) in caught.value.problem


def test_a_killed_api_is_replaced_and_callers_meanwhile_wait_instead_of_being_refused(
    up: Running, settings: Settings
) -> None:
    until(lambda: announced(up))
    found = running(settings.run_dir)
    assert found is not None
    os.kill(found.children["api-0"], signal.SIGKILL)
    assert get(up.supervisor.url) == 200
    until(lambda: any("api-0 was ended by SIGKILL" in line for line in up.said))
    after = running(settings.run_dir)
    assert after is not None
    assert after.restarts["api-0"] == 1
    assert after.children["worker"] == found.children["worker"]


def test_neither_a_full_disk_nor_a_terminal_that_is_gone_ends_a_project_whose_process_is_replaced(
    up: Running, settings: Settings
) -> None:
    def gone(_line: str) -> None:
        raise OSError("no terminal")

    until(lambda: announced(up))
    found = running(settings.run_dir)
    assert found is not None
    (settings.run_dir / "up.tmp").mkdir()  # where the draft of up.json would be written
    up.supervisor._say = gone
    os.kill(found.children["api-0"], signal.SIGKILL)
    until(lambda: up.supervisor.children[0].pid not in (0, found.children["api-0"]))
    assert get(up.supervisor.url) == 200
    assert up.error is None


def test_a_process_that_cannot_be_started_now_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children_module, "LONGEST_PAUSE_S", 0)
    child = Child("api-0", ["/nowhere/python"])
    with pytest.raises(FileNotFoundError):
        child.start()
    assert child.due
    child.command[:] = [sys.executable, "-S", "-c", ""]
    child.start()
    assert child.pid
    assert not child.due
    until(child.ended)


def test_several_api_processes_share_the_socket_and_are_replaced_and_stopped_one_and_all(
    tmp_path: Path, stand_ins: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_project(PROJECT + "server: {processes: 3}\n", tmp_path)
    (settings.run_dir / "counts").mkdir(parents=True)
    run = Running(settings, monkeypatch)
    try:
        until(lambda: announced(run))
        assert not (settings.run_dir / "counts").exists()
        found = running(settings.run_dir)
        assert found is not None
        assert set(found.children) == {"api-0", "api-1", "api-2", "worker"}
        assert all(child.command[-2:] == ["--pool", "3"] for child in run.supervisor.children[:3])
        os.kill(found.children["api-1"], signal.SIGKILL)
        until(lambda: running(settings.run_dir).restarts["api-1"] == 1)
        assert running(settings.run_dir).children["api-0"] == found.children["api-0"]
        assert get(run.supervisor.url) == 200
    finally:
        run.stop()
    assert not any("did not stop by itself" in line for line in run.said)


def test_the_redactor_comes_and_goes_with_a_project_that_asks_for_names(
    settings: Settings, stand_ins: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_ins["redactor"] = [*stand_ins["worker"][:-1], str(tmp_path / "redactor-said")]
    asking = parse_project(PROJECT.replace("task:", "redact: [name], task:"), tmp_path).project
    seen: list[Project | None] = [settings.project]

    def in_service() -> Project:
        if seen[-1] is None:
            raise NoriaError("The state is away.")
        return seen[-1]

    def children() -> set[str]:
        found = running(settings.run_dir)
        return set() if found is None else set(found.children)

    monkeypatch.setattr(supervisor_module, "SEE_PROJECT_S", 0)
    run = Running(settings, monkeypatch, in_service)
    try:
        until(lambda: announced(run))
        assert children() == {"api-0", "worker"}
        seen.append(asking)
        until(lambda: children() == {"api-0", "worker", "redactor"})
        seen.append(None)
        time.sleep(3 * supervisor_module.POLL_S)
        assert "redactor" in children()
        seen.append(settings.project)
        until(lambda: children() == {"api-0", "worker"})
        assert any("the redactor is stopped" in line for line in run.said)
        assert not any("did not stop by itself" in line for line in run.said)
    finally:
        run.stop()


def test_stopping_lets_the_worker_finish_and_leaves_nothing_behind(up: Running, settings: Settings) -> None:
    until(lambda: announced(up))
    up.stop()
    assert (settings.root / "worker-said").read_text() == "stopped in order"
    assert running(settings.run_dir) is None
    with pytest.raises(ConnectionRefusedError):
        get(up.supervisor.url)


def dead(pid: int) -> bool:
    """Whether a process has ended, whoever still has to hear of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_worker_that_dies_right_before_the_stop_is_started_to_ship_what_is_left(
    up: Running, settings: Settings, tmp_path: Path
) -> None:
    until(lambda: announced(up))
    worker = running(settings.run_dir).children["worker"]
    os.kill(worker, signal.SIGKILL)
    until(lambda: dead(worker))
    up.stop()
    assert (tmp_path / "worker-said").read_text() == "stopped in order"


def test_a_process_that_ends_by_itself_again_and_again_while_starting_is_given_up_with_its_name(
    settings: Settings, stand_ins: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins["api"] = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    run = Running(settings, monkeypatch)
    run.thread.join(60)
    assert isinstance(run.error, NoriaError)
    assert run.error.problem == "api-0 ended by itself 5 times in a row while starting."
    assert any("exit code 3" in line for line in run.said)
    assert running(settings.run_dir) is None


def test_a_child_that_ignores_the_request_to_stop_is_ended_after_its_patience() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    child = Child("stubborn", [sys.executable, "-S", "-c", code])
    child.start()
    time.sleep(0.5)
    assert child.stop(0.2, threading.Event()) is False


def test_the_next_up_ends_what_a_killed_supervisor_left_running_and_nobody_else(settings: Settings) -> None:
    command = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    orphan = subprocess.Popen(command, start_new_session=True)
    bystander = subprocess.Popen(command, start_new_session=True)
    file = UpFile(settings.run_dir)
    try:
        file.hold()
        file.write("http://127.0.0.1:1", "", {"worker": orphan.pid, "api-0": bystander.pid}, {})
        said = json.loads((settings.run_dir / "up.json").read_text())
        said["born"]["api-0"] += "1"  # as if the number had gone to another process since
        (settings.run_dir / "up.json").write_text(json.dumps(said))
        reaper = threading.Thread(target=orphan.wait)
        reaper.start()
        file.end_orphans()
        reaper.join(20)
        assert orphan.returncode == -signal.SIGTERM
        assert bystander.poll() is None
    finally:
        file.release()
        for process in (orphan, bystander):
            process.kill()
            process.wait()


def test_a_project_that_nobody_brought_up_is_not_running(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    file = UpFile(tmp_path)
    file.hold()
    file.release()
    assert running(tmp_path) is None


def test_a_port_in_use_is_named_with_the_process_that_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            listen("127.0.0.1", port)
    assert f"Port {port} on 127.0.0.1 is taken" in caught.value.problem
    assert "--port 0" in caught.value.remedy
    if sys.platform == "linux":
        assert f"process {os.getpid()}" in caught.value.problem


def test_an_address_that_others_can_reach_is_refused_while_there_are_no_keys() -> None:
    with pytest.raises(Refused, match="can be reached from other machines"):
        listen("0.0.0.0", 0)
    with listen("0.0.0.0", 0, keys=True) as listener:
        assert not is_loopback(listener)


def test_a_host_that_is_no_address_is_told_what_to_say() -> None:
    with pytest.raises(InvalidProject, match="is no address to listen on"):
        listen("no.such.host.invalid", 0)


def test_a_name_of_the_loopback_address_is_fine() -> None:
    with listen("localhost", 0) as listener:
        assert url_of(listener).startswith(("http://127.", "http://[::1]"))


def test_mlflow_is_not_started_beside_a_tracking_server(tmp_path: Path) -> None:
    settings = parse_project(PROJECT + "mlflow: {tracking_uri: 'http://127.0.0.1:5000'}\n", tmp_path)
    with pytest.raises(Refused, match="MLflow is a server already"):
        Supervisor(settings, "127.0.0.1", 0, True)


def test_a_broken_up_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text(json.dumps({"pid": 1}) + "x")
    file = UpFile(tmp_path)
    file.hold()
    file.end_orphans()
    file.release()


@pytest.mark.slow
def test_mlflow_s_own_server_opens_the_projects_runs_and_leaves_no_process_behind(settings: Settings) -> None:
    settings.run_dir.mkdir(parents=True)
    child = mlflow_child(settings)
    child.start()
    group = child.pid
    try:
        until(lambda: answers_ok(child.url + "/health"), 120)
    finally:
        assert child.stop(20, threading.Event())
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def answers_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False
