"""The servers that Noria is compared with, each in a virtual environment of its own, with its logging off.

They are installed on demand into `.noria-bench/` beside this repository. A peer that can't be had is left out, with the
reason.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.load import Target
from benchmarks.serving.processes import Server

CACHE = Path(__file__).parents[2] / ".noria-bench"
INSTALL_S = 600
"""Longest time for an installation, in seconds."""
QUIET = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_DO_NOT_TRACK": "True"}


@dataclass(frozen=True)
class Peer:
    """A server to be compared with.

    Attributes:
        name: As in the figures.
        packages: What pip installs; nothing where our own environment has it.
        command: Its start, as a list that begins with a program of its environment.
        path: Where its requests go.
        body: The request.
        files: Name → content of the files that it needs, in its folder; `{folder}` in the command is that.
        environment: Variables for it.
    """

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    path: str
    body: str
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, work: Path) -> tuple[Server, Target]:
        """Install it if need be and start it.

        Raises:
            RuntimeError: It can't be installed or does not come up.
        """
        programs = Path(sys.prefix, "bin") if not self.packages else installed(self.name, self.packages)
        folder = work / self.name
        folder.mkdir(exist_ok=True)
        for name, content in self.files.items():
            folder.joinpath(name).write_text(content)
        words = [word.replace("{folder}", str(folder)) for word in self.command]
        server = Server(
            self.name,
            [str(programs / words[0]), *words[1:]],
            work,
            {**QUIET, **self._paths(programs), **self.environment},
        )
        return server, Target(server.port, self.path, self.body)

    def _paths(self, programs: Path) -> dict[str, str]:
        """Programs that it calls by name are its own."""
        return {"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": ""}


def installed(name: str, packages: tuple[str, ...]) -> Path:
    """The folder of the programs of a virtual environment with these packages; made if it isn't there.

    Raises:
        RuntimeError: pip can't install them; the message says why.
    """
    folder = CACHE / "venvs" / name
    done = folder / ".installed"
    wanted = "\n".join(packages)
    if not (done.exists() and done.read_text() == wanted):
        _install(folder, packages)
        done.write_text(wanted)
    return folder / "bin"


def _install(folder: Path, packages: tuple[str, ...]) -> None:
    """With uv, which takes a fifth of the time; with pip where uv can't be had or can't do it."""
    print(f"installing {' '.join(packages)} …", file=sys.stderr, flush=True)
    base = getattr(sys, "_base_executable", sys.executable)
    python, uv = str(folder / "bin/python"), CACHE / "uv"
    quick = [] if (uv / "bin/uv").exists() else [[base, "-m", "venv", str(uv)], [str(uv / "bin/pip"), "install", "uv"]]
    quick.append([str(uv / "bin/uv"), "venv", "--python", base, str(folder)])
    quick.append([str(uv / "bin/uv"), "pip", "install", "--python", python, *packages])
    if not _run(quick):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if said := _run([[base, "-m", "venv", str(folder)], [python, "-m", "pip", "install", "-q", *packages]]):
        raise RuntimeError(f"pip install {' '.join(packages)} failed: {said}")


def _run(steps: list[list[str]]) -> str:
    """Run commands until one fails; what that one says, empty if none does."""
    ours = {"UV_CACHE_DIR": str(CACHE / "uv-cache"), "UV_NATIVE_TLS": "true"}
    for step in steps:
        try:
            done = subprocess.run(
                step, capture_output=True, text=True, timeout=INSTALL_S, check=False, env={**os.environ, **ours}
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)[-300:]
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
            return " ".join(said)[-300:] or f"{step[0]} ended with {done.returncode}"
    return ""


def litellm(upstream_port: int, body: str) -> Peer:
    """LiteLLM's proxy."""
    config = f"""
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: http://127.0.0.1:{upstream_port}/v1
      api_key: none
litellm_settings: {{telemetry: false, set_verbose: false}}
"""
    command = ("litellm", "--config", "{folder}/config.yaml", "--host", "127.0.0.1", "--port", "{port}")
    return Peer(
        "litellm",
        ("litellm[proxy]",),
        (*command, "--num_workers", "1"),
        "/v1/chat/completions",
        body,
        {"config.yaml": config},
        {
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
    )


def mlflow_gateway(upstream_port: int, body: str) -> Peer:
    """MLflow's AI gateway."""
    config = f"""
endpoints:
  - name: bench
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: bench
      config: {{openai_api_key: none, openai_api_base: "http://127.0.0.1:{upstream_port}/v1"}}
"""
    command = ("mlflow", "gateway", "start", "--config-path", "{folder}/config.yaml", "--port", "{port}")
    return Peer(
        "mlflow_gateway",
        ("mlflow[gateway]",),
        (*command, "--workers", "1"),
        "/v1/chat/completions",
        body,
        {"config.yaml": config},
    )
