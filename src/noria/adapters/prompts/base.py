"""Base language models by name: where their weights lie here, and whether those are the ones that were meant."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.adapters.registry.modelfiles import checksum, resolve_gguf
from noria.domain.errors import InvalidData, InvalidProject, UnknownModel, UnknownUpstream
from noria.domain.prompt import FILE, Base, Prompt
from noria.settings import Upstream

VARIABLE = "NORIA_UPSTREAM"
"""Environment variable by which a model server is told of the one upstream that it asks, as JSON without its key."""
AT = "at"
"""In a training job's base: the upstream as the project file describes it, without its key."""


def named(base: Mapping[str, Any]) -> Base:
    """The base that a training job starts from, its weights known by their checksum.

    Args:
        base: `TrainingJob.base`.

    Raises:
        InvalidProject: The project names none.
        InvalidData: The model file isn't there.
    """
    if base.get("upstream"):
        return Base(upstream=str(base["upstream"]), model=str(base["model"]))
    if not base.get("gguf"):
        raise InvalidProject(
            "This trainer starts from a language model, and the project names none.",
            "Write training.base in noria.yaml: gguf (with licence and source), or upstream and model.",
        )
    file = resolve_gguf(str(base["gguf"]), Path.cwd())
    return Base(
        gguf=str(base["gguf"]),
        sha256=checksum(file),
        context=int(base.get("context", 2048)),
        threads=int(base.get("threads", 1)),
        slots=int(base.get("slots", 4)),
    )


def read(folder: Path) -> Prompt:
    """The prompt in a version's folder.

    Raises:
        UnknownModel: There is none.
        InvalidData: It can't be read.
    """
    try:
        return Prompt.from_json((folder / FILE).read_bytes())
    except OSError as error:
        raise UnknownModel(f"{folder} holds no {FILE}.", "Give the folder of a prompt version.") from error


def weights(base: Base) -> Path:
    """The base's model file on this machine.

    Raises:
        InvalidData: It isn't there, or is another one than the version was made with.
    """
    file = resolve_gguf(base.gguf, Path.cwd())
    if base.sha256 and checksum(file) != base.sha256:
        raise InvalidData(
            f"{base.gguf} is another model file than the version was made with.",
            "Put the file with that checksum back, or train again on the new one.",
        )
    return file


def told(upstream: Upstream) -> dict[str, str]:
    """The environment by which a model server is told of its upstream."""
    return {VARIABLE: upstream.model_dump_json()}


def upstream_of(base: Base, at: Mapping[str, Any] | None = None) -> Upstream:
    """Where a base at an upstream is asked: as a job says, as the host of this process said, else as the project file
    in this folder says.

    Raises:
        UnknownUpstream: Nobody says.
    """
    if at:
        return Upstream(**at)
    if said := os.environ.get(VARIABLE):
        return Upstream(**json.loads(said))
    from noria.projectfile import FILE_NAME, load_project

    known = load_project(Path.cwd()).project.upstreams if Path(FILE_NAME).is_file() else {}
    if base.upstream not in known:
        raise UnknownUpstream(
            f"Nothing here says where the upstream {base.upstream[:64]!r} is.",
            "Load the model in the folder whose noria.yaml has it under upstreams:.",
        )
    return known[base.upstream]
