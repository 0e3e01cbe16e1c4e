"""`noria up`: owns the listening socket, starts the API and the worker, restarts what dies, and stops in order.

Connections wait in the socket's queue while an API process is replaced, so a restart refuses nobody.
"""

import http.client
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from noria.domain.errors import NoriaError, Refused
from noria.settings import READ, Project, Settings
from noria.supervisor.children import Child, mlflow_child, noria_child
from noria.supervisor.listener import is_loopback, listen, url_of
from noria.supervisor.upfile import Up, UpFile, running

__all__ = ["Supervisor", "Up", "running"]

POLL_S = 0.1
"""Pause between two looks at the children, in seconds."""
READY_POLL_S = 0.3
"""Pause between two questions whether the API is ready, in seconds."""
API_STOP_S = 10.0
"""How long an API process may take to stop beside finishing what it is answering, in seconds."""
WORKER_STOP_S = 45.0
"""How long the worker may ship what is left and stop its model servers, in seconds."""
SEE_PROJECT_S = 1.0
"""Pause between two looks at the project in service, in seconds."""
REDACTOR_STOP_S = 5.0
"""How long the redactor may take to stop, in seconds."""
MLFLOW_STOP_S = 10.0
"""How long MLflow's server may take to stop, in seconds."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What stops a project: Ctrl-C, a service manager, a closed terminal."""


class Supervisor:
    """Runs one project's processes until it is told to stop.

    Args:
        settings: The project.
        host: Address to listen on; only loopback while there are no API keys.
        port: Port to listen on; 0 picks a free one.
        with_mlflow: Also run MLflow's own server.
        keys: Whether API keys were made, so that nobody gets in without one.
        say: Where lines for the person at the terminal go.
        in_service: The project as it was applied last; raises NoriaError if that can't be known now.

    Raises:
        AlreadyRunning: The project is up already.
        PortInUse: The address is taken.
        Refused: The address could be reached from outside, or MLflow is a server elsewhere.
    """

    def __init__(
        self,
        settings: Settings,
        host: str,
        port: int,
        with_mlflow: bool,
        say: Callable[[str], None] = print,
        *,
        keys: bool = False,
        in_service: Callable[[], Project] | None = None,
    ) -> None:
        if with_mlflow and settings.tracking_uri.startswith("http"):
            raise Refused(
                f"MLflow is a server already, at {settings.tracking_uri}.", "Leave --mlflow away and open that address."
            )
        self._say = say
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._ready = False
        self._upfile = UpFile(settings.run_dir)
        self._upfile.hold()
        try:
            self._upfile.end_orphans()
            self._socket = listen(host, port, keys=keys)
            shutil.rmtree(settings.run_dir / "counts", ignore_errors=True)  # all processes begin to count together
        except BaseException:
            self._upfile.release()
            raise
        self.url = url_of(self._socket)
        self._who_may_ask = _who_may_ask(keys, is_loopback(self._socket))
        server = settings.project.server
        self._api_patience_s = server.drain.total_seconds() + API_STOP_S
        self._apis = [self._api(settings, f"api-{number}") for number in range(server.processes)]
        self._worker = noria_child("worker", "worker", settings)
        self._mlflow = mlflow_child(settings) if with_mlflow else None
        self._settings = settings
        self._in_service = in_service or (lambda: settings.project)
        self._redactor = noria_child("redactor", "redactor", settings) if _asks_for_names(settings.project) else None
        self._see_again = time.monotonic() + SEE_PROJECT_S

    @property
    def children(self) -> list[Child]:
        """The processes in the order in which they are stopped."""
        return [*self._apis, self._worker, *filter(None, (self._redactor, self._mlflow))]

    def _api(self, settings: Settings, name: str) -> Child:
        """An API process on our socket; each alone writes the spool that has its name."""
        descriptor = self._socket.fileno()
        child = noria_child(name, "api", settings, "--fd", str(descriptor), "--slot", name)
        if settings.project.server.processes > 1:
            child.command += ["--pool", str(settings.project.server.processes)]
        child.pass_fds = (descriptor,)
        return child

    def run(self) -> None:
        """Start everything, keep it up, and come back once everything has stopped.

        Raises:
            NoriaError: A process could not be brought up: it ended by itself again and again.
        """
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if number != signal.SIGHUP or handler is not signal.SIG_IGN:  # nohup keeps its meaning
                signal.signal(number, self._on_signal)
        announcing = threading.Thread(target=self._announce, name="announce", daemon=True)
        self._tell(self._who_may_ask)
        try:
            for child in self.children:
                child.start()
            self._record()
            announcing.start()
            while not self._stop.wait(POLL_S):
                self._look()
        finally:
            self._stop.set()
            self._stop_all()
            self._upfile.release()
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Ask `run` to stop everything and come back; a second call ends at once what still runs."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()

    def _look(self) -> None:
        """Restart what has died, after a pause that grows with each death; see what the project asks for."""
        if time.monotonic() >= self._see_again:
            self._see_project()
            self._see_again = time.monotonic() + SEE_PROJECT_S
        for child in self.children:
            ending = child.ended()
            if ending is not None:
                self._tell(f"{child.name} {ending}; it is started again.")
                if child.hopeless and not self._ready and child is not self._mlflow:
                    raise NoriaError(
                        f"{child.name} ended by itself {child.failures} times in a row while starting.",
                        "What it said last stands above.",
                    )
            if child.due:
                self._restart(child)

    def _restart(self, child: Child) -> None:
        """Start a process again; a machine that has no room for it now may have it later."""
        try:
            child.start()
        except OSError as error:
            self._tell(f"{child.name} can't be started: {error}; it is tried again.")
        self._record()

    def _see_project(self) -> None:
        """Start the redactor when a project is in service that asks for names, and stop it when none does."""
        try:
            asked = _asks_for_names(self._in_service())
        except NoriaError:  # the state is away: it is asked again
            return
        if asked and self._redactor is None:
            self._redactor = noria_child("redactor", "redactor", self._settings)
            self._redactor.start()
            self._tell("the project asks for names to be taken out: the redactor is started")
            self._record()
        elif not asked and self._redactor is not None:
            self._stop_together([self._redactor], REDACTOR_STOP_S)
            self._redactor = None
            self._tell("the project asks for no names to be taken out any more: the redactor is stopped")
            self._record()

    def _record(self) -> None:
        """Leave word of who runs where, for `noria status` and for the next `noria up`."""
        children = {child.name: child.pid for child in self.children}
        restarts = {child.name: child.restarts for child in self.children}
        try:
            self._upfile.write(self.url, self._mlflow.url if self._mlflow else "", children, restarts)
        except OSError as error:  # a full disk ends no process that answers
            self._tell(f"who runs where can't be written down: {error}")

    def _tell(self, line: str) -> None:
        """Say something to whoever is at the terminal, if it is there still."""
        with suppress(OSError):
            self._say(line)

    def _announce(self) -> None:
        """Say once that the project is up, and until then what it waits for, whenever that changes."""
        said = ""
        while not self._stop.wait(READY_POLL_S):
            status, waits_for = _readiness(self.url)
            if status == http.client.OK:
                self._ready = True
                also = f" · MLflow {self._mlflow.url}" if self._mlflow else ""
                self._tell(f"Noria is up: {self.url} (console and API){also} · Ctrl-C stops it")
                return
            if waits_for and waits_for != said:
                self._tell(f"not ready yet: {waits_for}")
                said = waits_for

    def _stop_all(self) -> None:
        """Let the API finish its answers, then the worker ship them, then stop the rest.

        Whoever connects from now on is refused at once, and doesn't wait in the queue of a socket that nobody serves. A
        worker that died just now is started for the end: the log is to be shipped, and its model servers are to end.
        """
        self._socket.close()
        self._stop_together(self._apis, self._api_patience_s)
        if self._worker.down and self._ready and not self._hurry.is_set():
            self._worker.start()
        self._stop_together([self._worker], WORKER_STOP_S)
        self._stop_together([*filter(None, (self._redactor, self._mlflow))], MLFLOW_STOP_S)

    def _stop_together(self, children: Sequence[Child], patience_s: float) -> None:
        """Stop processes at the same time."""
        for child in children:
            child.ask_to_stop()
        deadline = time.monotonic() + patience_s
        for child in children:
            if not child.wait_until_stopped(deadline, self._hurry):
                self._tell(f"{child.name} did not stop by itself and was ended; what it had recorded is on disk.")


def _asks_for_names(project: Project) -> bool:
    return any(READ.intersection(endpoint.redact) for endpoint in project.endpoints.values())


def _who_may_ask(keys: bool, loopback: bool) -> str:
    """One line for the person at the terminal."""
    if not keys:
        return "no API key is configured, so only this machine can ask; noria key create NAME makes one"
    if loopback:
        return "every request needs an API key; only this machine can ask, since it listens on loopback"
    return "every request needs an API key; texts and keys cross the network as they are: put a proxy with TLS in front"


def _readiness(url: str) -> tuple[int, str]:
    """The status of `GET /readyz` (0 if nobody answers) and what it says it waits for."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        status, body = response.status, response.read(65536)
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
    try:
        said: Any = json.loads(body)
    except ValueError:
        return status, ""
    return status, str(said.get("detail") or "") if isinstance(said, dict) else ""
