"""Write docs/reference from the code: commands, settings, tables, metrics, problems.

`--check` only says what is out of date.
"""

import argparse
import enum
import inspect
import sys
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from noria import bootstrap
from noria.api.counts import SECONDS
from noria.api.metrics import Metrics
from noria.cli import app
from noria.domain import errors
from noria.settings import Policy, Project, Settings
from noria.tables import PARTITION, SCHEMAS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py from the code: change it there, then `make reference`. -->\n\n"


def pages() -> Mapping[str, str]:
    """File name → text of every page."""
    return {
        "commands.md": NOTE + "# Commands\n\n" + "\n".join(_commands()),
        "settings.md": NOTE + "\n".join(_settings()),
        "tables.md": NOTE + "\n".join(_tables()),
        "metrics.md": NOTE + "\n".join(_metrics()),
        "problems.md": NOTE + "\n".join(_problems()),
    }


# --- commands -------------------------------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield "A command is about the project in the nearest folder above that holds a `noria.yaml`, or the one that"
    yield "`--project DIR` names. A failure that you can act on is two lines on standard error and exit code 1.\n"
    for path, command in _leaves(typer.main.get_command(app), "noria"):
        yield f"## `{path}`\n"
        yield inspect.cleandoc(command.help or "") + "\n"
        rows = [_parameter(p) for p in command.params if "--help" not in p.opts]
        if rows:
            yield "\n".join(_table(("argument or option", "default", "meaning"), rows)) + "\n"


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Commands without commands below them."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, inner in below.items():
        yield from _leaves(inner, f"{path} {name}")


def _parameter(parameter: Any) -> tuple[str, str, str]:
    """One row: how it is written, its default, what it means."""
    if parameter.param_type_name == "argument":
        written = parameter.metavar or parameter.name.upper()
        return f"`{written}`", "" if parameter.required else "optional", parameter.help or ""
    flag = parameter.is_flag
    names = (*parameter.opts, *parameter.secondary_opts)
    written = ", ".join(f"`{name}`" if flag else f"`{name} {_metavar(parameter)}`" for name in names)
    shown = parameter.show_default
    if isinstance(shown, str):
        default = f"`{shown}`"
    elif parameter.required:
        default = "required"
    else:
        default = (
            ""
            if flag or not shown or callable(parameter.default) or parameter.default in (None, "")
            else f"`{parameter.default}`"
        )
    return written, default, parameter.help or ""


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or "VALUE")


# --- settings -------------------------------------------------------------------------------------------------------


def _settings() -> Iterator[str]:
    """Every key of noria.yaml and of a policy file, and every environment variable."""
    yield "# Settings\n"
    yield "Durations are written `10s`, `5m`, `1h` or `1d`. A key that nobody knows is an error, with its line and the"
    yield "key that was probably meant. `noria schema` prints the same as a JSON Schema for editors.\n"
    yield "## `noria.yaml`\n"
    yield "\n".join(_table(("key", "type", "default", "meaning"), list(_keys(Project, "")))) + "\n"
    yield "## A policy file\n"
    yield "\n".join(_table(("key", "type", "default", "meaning"), list(_keys(Policy, "")))) + "\n"
    yield "## Environment\n"
    rows = [
        ("`NORIA_STATE_URL`", "SQLAlchemy URL of the control plane's memory; default is SQLite in `.noria/`."),
        ("`NORIA_WORKFLOWS_URL`", "SQLAlchemy URL of the durable workflows; default is SQLite in `.noria/`."),
        ("`MLFLOW_TRACKING_URI`", "MLflow's tracking and registry URI, where `noria.yaml` names none."),
        ("`NORIA_WEBHOOK_SECRET`", "Key with which webhook alerts are signed (HMAC-SHA256)."),
        ("`OTEL_EXPORTER_OTLP_ENDPOINT`", "OTLP/HTTP collector, where `noria.yaml` names none."),
        (
            "`OTEL_EXPORTER_OTLP_HEADERS`",
            "Headers for the collector, such as its key; see [how](../how-to/trace-and-measure.md).",
        ),
        (
            "`APPLICATIONINSIGHTS_CONNECTION_STRING`",
            "Azure Monitor gets the same traces and metrics; needs `noria[azure]`.",
        ),
        ("`NORIA_LOG_LEVEL`", "What processes log: debug, info (the default), warning or error."),
        ("`NORIA_DEBUG`", "Anything: commands show the traceback of a failure, too."),
    ]
    yield "\n".join(_table(("variable", "meaning"), rows)) + "\n"


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """One row for each key, the parts' keys below their own."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        part, suffix = _part(field.annotation)
        if part is None:
            yield f"`{key}`", _type(field.annotation), _default(field), field.description or ""
        else:
            if field.description:
                yield f"`{key}`", "part", _default(field), field.description
            yield from _keys(part, f"{key}{suffix}.")


def _part(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model below a key, and how its entries are written (`.NAME`, `[]`)."""
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option, ""
        arguments = typing.get_args(option)
        if arguments:
            inner = arguments[-1] if typing.get_origin(option) is not tuple else arguments[0]
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                return inner, "[]" if typing.get_origin(option) is tuple else ".NAME"
    return None, ""


def _options(annotation: Any) -> Sequence[Any]:
    """The alternatives of a union, without None and without Annotated."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [o for a in typing.get_args(annotation) if a is not type(None) for o in _options(a)]
    return [annotation]


def _type(annotation: Any) -> str:
    """A type as a person would say it."""
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", timedelta: "duration"}
    said = []
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, enum.Enum):
            said.append(", ".join(f"`{member.value}`" for member in option))
        elif typing.get_origin(option) is tuple:
            said.append(f"list of {_type(typing.get_args(option)[0])}")
        else:
            said.append(words.get(option, "mapping"))
    return " or ".join(said)


def _default(field: FieldInfo) -> str:
    """A default as it would be written."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value is None or value in ("", (), {}):
        return ""
    return f"`{_written(value)}`"


def _written(value: Any) -> str:
    """A value in YAML's short form."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        size, unit = next((s, u) for s, u in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")) if seconds % s == 0)
        return f"{seconds / size:g}{unit}"
    if isinstance(value, tuple):
        return f"[{', '.join(_written(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, enum.Enum) else value)


# --- tables and problems --------------------------------------------------------------------------------------------


def _tables() -> Iterator[str]:
    """Every Delta table's columns."""
    yield "# Tables\n"
    yield "Delta tables in `.noria/tables/`; `noria records query` reads them in SQL. The columns of Databricks' own"
    yield "inference and monitoring tables come first, with the same names and types.\n"
    for name, schema in SCHEMAS.items():
        yield f"## `{name}`\n"
        if name in PARTITION:
            yield f"Split into folders by {', '.join(f'`{column}`' for column in PARTITION[name])}.\n"
        yield "\n".join(_table(("column", "type"), [(f"`{f.name}`", _arrow(f.type)) for f in schema])) + "\n"


def _arrow(kind: pa.DataType) -> str:
    """A column's type in Spark's words."""
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name} {_arrow(field.type)}' for field in kind)}>"
    if pa.types.is_list(kind):
        return f"array<{_arrow(kind.value_type)}>"
    if pa.types.is_map(kind):
        return f"map<{_arrow(kind.key_type)}, {_arrow(kind.item_type)}>"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    return {"int64": "bigint", "int32": "int", "date32[day]": "date"}.get(str(kind), str(kind))


def _metrics() -> Iterator[str]:
    """Every metric of `/metrics`, with its labels."""
    yield "# Metrics\n"
    yield "What `/metrics` shows to Prometheus; [how to watch it run](../how-to/watch-it-run.md) says what to ask."
    yield "Counters and histograms add up over all API processes. `process_*` are the client library's own: memory,"
    yield "CPU, open files.\n"
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_construct(
            root=Path(folder), project=Project.model_construct(project="", endpoints={})
        )
        metrics = Metrics(bootstrap.state(settings), bootstrap.clock(), spool_bytes=lambda: 0)
        families = [family for source in metrics.collectors for family in source.collect()]
    rows = [
        (
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ())),
            family.documentation,
        )
        for family in families
    ]
    yield "\n".join(_table(("metric", "kind", "labels", "meaning"), sorted(rows))) + "\n"
    bounds = ", ".join(f"{seconds:g}" for seconds in SECONDS)
    yield f"Upper bounds of the histograms' buckets, in seconds: {bounds}.\n"


def _problems() -> Iterator[str]:
    """Every error's code."""
    yield "# Problems\n"
    yield "What can go wrong has a code, a sentence that says what is wrong and one that says what to do. The API sends"
    yield "all three; the command line prints the sentences.\n"
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.NoriaError)]
    rows = [
        (f"`{kind.code}`", (inspect.getdoc(kind) or "").split("\n\n")[0])
        for kind in found
        if kind is not errors.NoriaError
    ]
    yield "\n".join(_table(("code", "meaning"), rows)) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"


def main() -> int:
    """Write the pages, or say which differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        text = text.rstrip() + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run `make reference`", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
