"""Reading `noria.yaml` and policy files: every mistake is named with its line, its key and what to write instead."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from noria.domain.errors import InvalidProject
from noria.projectfile import advice
from noria.projectfile.lines import compose, dotted, leaves, line_of
from noria.settings import Policy, Project, Settings

FILE_NAME = "noria.yaml"
SCHEMA_FILE = ".noria/noria.schema.json"
"""Where `noria init` leaves the schema that editors read, relative to the project."""

M = TypeVar("M", bound=BaseModel)


def parse_yaml(text: str, model: type[M], source: str) -> M:
    """Read YAML into a pydantic model.

    Args:
        text: The YAML.
        model: What it should hold.
        source: File name to use in messages.

    Raises:
        InvalidProject: Names every mistake as `file:line: key: what is wrong; what to write`.
    """
    data, lines, mistakes = compose(text)
    if mistakes:
        raise _invalid(source, mistakes)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = [(line_of(lines, e["loc"]), advice.on(model, e)) for e in error.errors(include_url=False)]
        raise _invalid(source, found) from None


def parse_project(text: str, root: Path, source: str = FILE_NAME) -> Settings:
    """Settings from the text of a project file; `root` is the folder that its paths start from.

    Raises:
        InvalidProject: See `parse_yaml`.
    """
    return Settings(root=root.resolve(), project=parse_yaml(text, Project, source))


def load_project(root: Path) -> Settings:
    """Settings from `noria.yaml` in a folder.

    Raises:
        InvalidProject: There is none, it can't be read, or something in it is wrong.
    """
    return parse_project(read_text(root, FILE_NAME), root)


def check_files(settings: Settings, text: str, source: str = FILE_NAME) -> None:
    """See that the policies, data and model files that a project names are there, and the policies valid.

    Raises:
        InvalidProject: Names every file that is missing or wrong, with the line that names it.
    """
    _, lines, _ = compose(text)
    mistakes: list[tuple[int, str]] = []
    wrong_policies: set[str] = set()
    for name, endpoint in settings.project.endpoints.items():
        named: list[tuple[tuple[str, ...], str]] = [(("policy",), endpoint.policy)]
        if endpoint.training is not None:
            named.append((("training", "data"), endpoint.training.data))
        if endpoint.holdout is not None:
            named.append((("holdout",), endpoint.holdout))
        if endpoint.gguf is not None and not endpoint.gguf.gguf.startswith("python:"):
            named.append((("gguf", "gguf"), str(Path(endpoint.gguf.gguf).expanduser())))
        for keys, path in named:
            at = ("endpoints", name, *keys)
            if not (settings.root / path).is_file():
                what = f"{dotted(at)}: there is no file {path}; write it, or correct the path"
                mistakes.append((line_of(lines, at), what))
        if (settings.root / endpoint.policy).is_file():
            try:
                parse_yaml(read_text(settings.root, endpoint.policy), Policy, endpoint.policy)
            except InvalidProject as error:
                wrong_policies.add(error.problem)
    if mistakes or wrong_policies:
        raise _invalid(source, mistakes, sorted(wrong_policies))


def read_text(root: Path, name: str) -> str:
    """The text of one of a project's files.

    Args:
        root: The project's folder.
        name: The file, relative to it.

    Raises:
        InvalidProject: It isn't there, isn't UTF-8, or may not be read.
    """
    path = root / name
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidProject(
            f"There is no {name} in {root}.",
            "Change to the project's folder, say --project DIR, or write a new project with `noria init`.",
        ) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InvalidProject(f"{name}:{line}: this line isn't UTF-8.", "Save the file as UTF-8.") from None
    except OSError as error:
        raise InvalidProject(
            f"{name} can't be read: {error.strerror}.", "See that it is a file you may read."
        ) from None


def json_schema() -> dict[str, Any]:
    """JSON Schema of `noria.yaml`, for editors."""
    schema = Project.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": FILE_NAME}


def schema_text() -> str:
    """The schema as it is written to a file."""
    return json.dumps(json_schema(), indent=2) + "\n"


def diff(old_text: str, new_text: str) -> str:
    """What a changed project file changes, one line for each key; empty if nothing but layout and comments.

    Both texts are YAML that was parsed before.
    """
    old, new = (dict(leaves(compose(text)[0])) for text in (old_text, new_text))
    rows = [f"- {dotted(key)}: {advice.shown(value)}" for key, value in old.items() if key not in new]
    rows += [f"+ {dotted(key)}: {advice.shown(value)}" for key, value in new.items() if key not in old]
    rows += [
        f"~ {dotted(key)}: {advice.shown(old[key])} → {advice.shown(value)}"
        for key, value in new.items()
        if key in old and old[key] != value
    ]
    return "\n".join(rows)


def _invalid(source: str, mistakes: list[tuple[int, str]], more: list[str] | None = None) -> InvalidProject:
    """All mistakes in one error, in the order of the file."""
    found = [f"{source}:{line}: {what}." for line, what in sorted(mistakes)] + (more or [])
    problem = found[0] if len(found) == 1 else f"{len(found)} mistakes:\n  " + "\n  ".join(found)
    return InvalidProject(problem, "Correct it and try again; `noria schema` prints everything that may be written.")
