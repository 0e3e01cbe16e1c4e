"""Model servers on this machine: one process for each version, on a unix socket; commands on a loopback port.

They are nobody's children: they go on when the worker dies, and the next worker finds them by the note that each has in
the run folder (process id and the time that process was born, so that a recycled id is no mistake) and adopts them. A
server that nobody adopts ends by itself.
"""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from noria.adapters.codec import decode, encode, error_from_json, error_to_json
from noria.adapters.processes import answers, birth
from noria.adapters.prompts.base import read, told
from noria.adapters.registry.packages import chats, describe
from noria.domain.deployment import WIRE, CommandLine, wire_of
from noria.domain.endpoint import Wire
from noria.domain.errors import (
    NoriaError,
    NotReady,
    Refused,
    StorageCorrupted,
    UnknownModel,
    UnknownUpstream,
    UpstreamFailed,
)
from noria.domain.model import Flavor, ModelVersion
from noria.settings import Upstream

LONGEST_SOCKET_PATH = 100
"""Bytes; the operating systems' own limits are 104 and 108."""
LOG_LIMIT = 5_000_000
"""A server's log longer than this is put aside when the server starts."""
_FAILURE = "noria-failure: "
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Note:
    """What the run folder remembers of a server."""

    ref: str
    pid: int
    born: str
    url: str
    health: str = "/health"
    group: bool = False
    """Whether it is a command, which is ended with everything that it started."""


class LocalHost:
    """`ports.ModelHost` on this machine.

    Args:
        run_dir: Folder for notes, sockets and logs.
        download: Where the version's model files are on this machine (`ModelRegistry.download`).
        lock_file: The worker's lock; servers end when nobody has held it for `orphan_after_s` seconds.
        trusts: Whether somebody answers for a version that is tagged so and for its files: a tag alone is anybody's.
        command: Checksum → the command that the project file named; None for one that it never did.
        folder: Where commands are run.
        secrets: Environment variables that no model server is given; a command's own `environment` may name them anew,
            and a prompt's server gets the key of the upstream that it asks.
        upstreams: The upstreams of the project in service.
        start_timeout_s: Longest time that a start may take.
        patience_s: How long a server that is there already may be silent before it is replaced.
        drain_s: Longest time that requests under way may take when a server is stopped.
    """

    def __init__(
        self,
        run_dir: Path,
        download: Callable[[ModelVersion], Path],
        lock_file: Path,
        *,
        trusts: Callable[[ModelVersion, Path], bool] = lambda *_: False,
        command: Callable[[str], CommandLine | None] = lambda _: None,
        folder: Path | None = None,
        secrets: Collection[str] = (),
        upstreams: Callable[[], Mapping[str, Upstream]] = dict,
        start_timeout_s: float = 120,
        patience_s: float = 30,
        drain_s: float = 30,
        orphan_after_s: float = 60,
    ) -> None:
        self._run_dir = run_dir
        self._download = download
        self._lock_file = lock_file
        self._trusts = trusts
        self._command = command
        self._folder = folder
        self._secrets = secrets
        self._upstreams = upstreams
        self._start_timeout_s = start_timeout_s
        self._patience_s = patience_s
        self._drain_s = drain_s
        self._orphan_after_s = orphan_after_s
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        run_dir.mkdir(parents=True, exist_ok=True)

    def wire(self, version: ModelVersion) -> Wire:
        """See `ports.ModelHost`; a model that others registered says in its own description whether it chats."""
        if version.flavor is Flavor.PYFUNC and WIRE not in version.tags:
            with suppress(NoriaError):
                return Wire.OPENAI if chats(describe(self._download(version))) else Wire.MLFLOW
        return wire_of(version)

    def start(self, version: ModelVersion) -> str:
        """See `ports.ModelHost`.

        Raises:
            NoriaError: What the server itself says it failed of, for example UntrustedArtifact or MissingExtra.
            Refused: It is a command that no project file in service has named.
            UpstreamFailed: It died while it started.
            NotReady: It didn't answer in time.
        """
        with self._exclusively(version.ref):
            note = self._note(version.ref)
            if note is not None and self._alive(note):
                with suppress(NoriaError):
                    return self._wait(note, 0, self._patience_s)
            if note is not None:
                self._end_what_is_left(note)
                self._file(version.ref, "json").unlink(missing_ok=True)  # or the next one would take itself for another
            log_size = self._make_room(version.ref)
            if version.flavor is Flavor.COMMAND:
                line = self._demand_command(version)
                return self._wait(self._spawn_command(version, line), log_size, line.start_timeout_s)
            return self._wait(self._spawn(version), log_size, self._start_timeout_s)

    def running(self) -> Mapping[str, str]:
        """See `ports.ModelHost`."""
        for pid, child in list(self._children.items()):  # others may be started this moment
            if child.poll() is not None:
                self._children.pop(pid, None)
        return {note.ref: note.url for note in self._notes() if self._alive(note) and answers(note.url, note.health)}

    def stop(self, ref: str) -> None:
        """See `ports.ModelHost`. A version that isn't running is left alone."""
        with self._exclusively(ref):
            note = self._note(ref)
            if note is not None:
                self._end(note)

    def stop_all(self) -> None:
        """Stop every server, all at the same time."""
        notes = list(self._notes())
        for note in notes:
            self._signal(note, signal.SIGTERM)
        for note in notes:
            self.stop(note.ref)
        for child in list(self._children.values()):  # stopped by another host and not quite gone, or its note is lost
            child.kill()
            child.wait()
        self._children.clear()

    # --- one server ---------------------------------------------------------------------------------------------------

    def _spawn(self, version: ModelVersion) -> Note:
        url = f"unix:{self._socket(version.ref)}"
        command = [sys.executable, "-m", "noria.modelserver", *self._arguments(version), "--listen", url]
        process = self._popen(version.ref, command, dict.fromkeys(_THREAD_LIMITS, "1") | self._asked_elsewhere(version))
        return self._noted(Note(version.ref, process.pid, birth(process.pid) or "", url))

    def _asked_elsewhere(self, version: ModelVersion) -> dict[str, str]:
        """What the server of a prompt has to know of the upstream that it asks: where that is, and the one key.

        Raises:
            UnknownUpstream: The project has no upstream of that name.
        """
        if version.flavor is not Flavor.PROMPT:
            return {}
        name = read(self._download(version)).base.upstream
        if not name:
            return {}
        upstream = self._upstreams().get(name)
        if upstream is None:
            raise UnknownUpstream(
                f"{version.ref} asks the upstream {name[:64]!r}, which this project doesn't have.",
                "Write it under upstreams: in noria.yaml; a registration alone never says where requests go.",
            )
        return told(upstream) | {key: os.environ[key] for key in (upstream.key,) if key in os.environ}

    def _spawn_command(self, version: ModelVersion, line: CommandLine) -> Note:
        port = free_port()
        watcher = [sys.executable, "-m", "noria.modelserver", *self._identity(version)]
        process = self._popen(version.ref, [*watcher, "--command", *line.arguments(port)], line.environment)
        name = f"#{quote(line.model, safe='')}" if line.wire is Wire.OPENAI else ""
        url, born = f"http://127.0.0.1:{port}{name}", birth(process.pid) or ""
        return self._noted(Note(version.ref, process.pid, born, url, line.health, group=True))

    def _popen(self, ref: str, command: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        public = {name: value for name, value in os.environ.items() if name not in self._secrets}
        with self._file(ref, "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=public | dict(environment),
                cwd=self._folder,
                start_new_session=True,
            )
        self._children[process.pid] = process
        return process

    def _noted(self, note: Note) -> Note:
        _write(self._file(note.ref, "json"), encode(note))
        return note

    def _demand_command(self, version: ModelVersion) -> CommandLine:
        """The version's command as the project file had it: what the registry says is compared, never run."""
        line = self._command(version.checksum)
        if line is None:
            raise Refused(
                f"{version.ref} is a command that noria.yaml never named, so it isn't run.",
                "Write the command under command: of its endpoint and take the file into service with noria apply.",
            )
        return line

    def _identity(self, version: ModelVersion) -> list[str]:
        arguments = ["--name", version.name, "--version", version.version]
        arguments += ["--note", str(self._file(version.ref, "json"))]
        return [*arguments, "--project-lock", str(self._lock_file), "--orphan-after", str(self._orphan_after_s)]

    def _arguments(self, version: ModelVersion) -> list[str]:
        arguments = self._identity(version)
        path = self._download(version)
        if version.flavor is Flavor.GGUF:
            arguments += ["--gguf", str(gguf_file(path))]
            for option in ("context", "threads", "slots"):
                if value := version.tags.get(f"noria.gguf.{option}"):
                    arguments += [f"--{option}", value]
        elif version.flavor is Flavor.PROMPT:
            arguments += ["--prompt", str(path)]
        else:
            arguments += ["--path", str(path)]
            if version.tags.get("noria.trusted") == "yes" and self._trusts(version, path):
                arguments.append("--trust")
        return arguments

    def _wait(self, note: Note, log_size: int, timeout_s: float) -> str:
        """The server's URL, once it answers; one that doesn't is killed."""
        deadline = time.monotonic() + timeout_s
        while not answers(note.url, note.health):
            if not self._alive(note):
                raise self._failure(note, log_size)
            if time.monotonic() > deadline:
                self._end(note, drain_s=0)
                raise NotReady(
                    f"{note.ref} did not answer within {timeout_s:.0f} s.",
                    f"Its log is {self._file(note.ref, 'log')}.",
                )
            time.sleep(0.02)
        return note.url

    def _failure(self, note: Note, log_size: int) -> NoriaError:
        """Why a server died while it started: as it said itself, else the last line of its log."""
        log = self._file(note.ref, "log")
        lines = log.read_bytes()[log_size:].decode(errors="replace").strip().splitlines()
        for line in reversed(lines):
            if line.startswith(_FAILURE):
                return error_from_json(json.loads(line.removeprefix(_FAILURE)))
        said = lines[-1] if lines else "it said nothing"
        return UpstreamFailed(f"{note.ref} ended while it started: {said}", f"Its log is {log}.")

    def _end(self, note: Note, drain_s: float | None = None) -> None:
        self._signal(note, signal.SIGTERM)
        deadline = time.monotonic() + (self._drain_s if drain_s is None else drain_s)
        while self._alive(note) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal(note, signal.SIGKILL)
        while self._alive(note):
            time.sleep(0.01)
        self._end_what_is_left(note)
        self._file(note.ref, "json").unlink(missing_ok=True)
        if not note.url.startswith("unix:"):
            return
        path = Path(note.url.removeprefix("unix:"))
        path.unlink(missing_ok=True)
        if path.parent != self._run_dir:
            with suppress(OSError):
                path.parent.rmdir()

    def _end_what_is_left(self, note: Note) -> None:
        """End what a command's watcher left behind. Its number belongs to nobody else while anything of it lives."""
        if note.group and birth(note.pid) is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(note.pid, signal.SIGKILL)

    def _signal(self, note: Note, number: int) -> None:
        if self._alive(note):
            with suppress(ProcessLookupError):
                os.kill(note.pid, number)

    def _alive(self, note: Note) -> bool:
        alive = birth(note.pid) == note.born
        if not alive and (child := self._children.pop(note.pid, None)):
            child.wait()
        return alive

    # --- the run folder -----------------------------------------------------------------------------------------------

    def _file(self, ref: str, suffix: str) -> Path:
        name = re.sub(r"[^A-Za-z0-9._-]", "-", ref)
        if name.replace("-", "/", 1) != ref:  # two names could look the same
            name += f"-{sha256(ref.encode()).hexdigest()[:8]}"
        return self._run_dir / f"{name}.{suffix}"

    def _socket(self, ref: str) -> Path:
        path = self._file(ref, "sock")
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        return Path(tempfile.mkdtemp(prefix="noria-")) / "model.sock"

    def _note(self, ref: str) -> Note | None:
        try:
            return decode(Note, self._file(ref, "json").read_text())
        except (FileNotFoundError, StorageCorrupted):
            return None

    def _notes(self) -> Iterator[Note]:
        for path in sorted(self._run_dir.glob("*.json")):
            with suppress(FileNotFoundError, StorageCorrupted):  # removed meanwhile, or not one of ours
                yield decode(Note, path.read_text())

    def _make_room(self, ref: str) -> int:
        """Put a long log aside; returns how long the log is now."""
        log = self._file(ref, "log")
        size = log.stat().st_size if log.exists() else 0
        if size <= LOG_LIMIT:
            return size
        log.replace(log.with_suffix(".log.1"))
        return 0

    @contextmanager
    def _exclusively(self, ref: str) -> Iterator[None]:
        """Start and stop of one version, one after the other, in all processes."""
        with self._file(ref, "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def gguf_file(path: Path) -> Path:
    """The one GGUF file at a path that is it or holds it.

    Raises:
        UnknownModel: There is none, or there are several.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.gguf"))
    if len(files) != 1:
        raise UnknownModel(f"{path} holds {len(files)} GGUF files.", "Register a version with exactly one.")
    return files[0]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def failure_line(error: NoriaError) -> str:
    """The line by which a model server tells its host why it could not start."""
    return _FAILURE + json.dumps(error_to_json(error))


def _write(path: Path, text: str) -> None:
    """Replace a file's text at once, so that nobody reads half of it."""
    half = path.with_suffix(".new")
    half.write_text(text)
    half.replace(path)
