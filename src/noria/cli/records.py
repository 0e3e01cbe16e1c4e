"""Read the log: `noria records tail`, `noria records query`, `noria records export`."""

import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.cli.shared import AsJson, Root, err, known, moment_of, opened, out, print_json, print_table, shown
from noria.domain.errors import InvalidRequest

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.serving.log.records import Log

records = typer.Typer(no_args_is_help=True, help="Read the log of requests, answers and feedback.")
COLUMNS = (
    "request_time, endpoint, model_version, route, outcome, status_code, execution_duration_ms AS ms, request, response"
)
TAIL = "SELECT {columns} FROM inference{where} ORDER BY request_time DESC LIMIT {limit}"
ID = "databricks_request_id"
SHOWN = 100
"""Rows that a table on the terminal shows unless more are asked for; JSON holds them all."""
PAUSE_S = 0.5
"""Between two looks of `tail --follow`, in seconds."""


class Exported(StrEnum):
    """Tables that can be exported."""

    INFERENCE = "inference"
    FEEDBACK = "feedback"


TIMES = {Exported.INFERENCE: ("request_time", "request_date"), Exported.FEEDBACK: ("feedback_time", "feedback_date")}


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    records.command()(tail)
    records.command()(query)
    records.command()(export)
    app.add_typer(records, name="records")


def tail(
    project: Root,
    endpoint: Annotated[str, typer.Option(metavar="ENDPOINT", help="Only this endpoint's.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Requests to show.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    json: AsJson = False,
) -> None:
    """Show the newest requests and outcomes, shipped or not.

    The newest stands last. With --follow and --json each request is a line.
    """
    from noria import bootstrap

    settings, _ = opened(project)
    if endpoint:
        known(settings, endpoint)  # so that only a name of the project gets into the SQL
    where = f" WHERE endpoint = '{endpoint}'" if endpoint else ""
    log = bootstrap.log(settings)
    follower = bootstrap.follower(settings) if follow else None
    found = log.query(TAIL.format(columns=f"{COLUMNS}, {ID}", where=where, limit=limit))
    _warn(log)
    rows = list(reversed(found.to_pylist()))
    before = {row.pop(ID) for row in rows}
    if follower is None:
        _print(found.num_rows, rows, [name for name in found.column_names if name != ID], json)
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background processes begin without one
    for row in rows:
        _line(row, json)
    while True:
        new = follower.new().to_pylist()
        for row in new:
            if row[ID] not in before and endpoint in ("", row["endpoint"]):
                row["ms"] = row["execution_duration_ms"]
                _line({name.split()[-1]: row[name.split()[-1]] for name in COLUMNS.split(", ")}, json)
        time.sleep(PAUSE_S)


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="SELECT … FROM inference …")],
    project: Root,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help="Rows to show; default is 100, and all with --json."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Run a read-only SQL query over the log, shipped or not.

    The tables are inference, feedback, profile_metrics, drift_metrics and dead_letter.
    """
    from noria import bootstrap

    log = bootstrap.log(opened(project)[0])
    found = log.query(sql)
    _warn(log)
    _print(
        found.num_rows, _rows(found.slice(0, limit or (found.num_rows if json else SHOWN))), found.column_names, json
    )


def export(
    project: Root,
    to: Annotated[Path, typer.Option(metavar="FILE", help="A name in .parquet, .csv or .jsonl.")],
    table: Annotated[Exported, typer.Option(help="What to export.")] = Exported.INFERENCE,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From then on: 2026-01-31, 2026-01-31T12:00, or 2h or 7d ago.")
    ] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Up to then, not included.")] = "",
    endpoint: Annotated[str, typer.Option(metavar="ENDPOINT", help="Only this endpoint's.")] = "",
    json: AsJson = False,
) -> None:
    """Write the log, shipped or not, into a file.

    It works while `noria up` runs and while it doesn't, and takes little memory however much there is.
    """
    from noria import bootstrap
    from noria.cli import exports

    settings, _ = opened(project)
    if endpoint:
        known(settings, endpoint)
    exports.writer_of(to)  # before any work is done
    where, log = _where(table, endpoint, since, until), bootstrap.log(settings)
    rows = f"FROM {table}{where}"
    with log.stream(f"SELECT count(*) AS n {rows}", f"SELECT * {rows}") as (counted, pieces):
        _warn(log)
        total = sum(piece["n"][0].as_py() for piece in counted if piece.num_rows)
        written = exports.write(to, _with_bar(pieces, total))
    if json:
        print_json({"file": str(to.resolve()), "rows": written})
    else:
        out(f"{written} {'row is' if written == 1 else 'rows are'} in {to}.")


def _where(table: Exported, endpoint: str, since: str, until: str) -> str:
    """The condition of an export; one on the day lets whole folders be skipped."""
    time_column, day = TIMES[table]
    parts = [f"endpoint = '{endpoint}'"] if endpoint else []
    for said, sign in ((since, ">="), (until, "<")):
        if said:
            moment = moment_of(said).astimezone(UTC)
            parts.append(f"{time_column} {sign} TIMESTAMP '{moment:%Y-%m-%dT%H:%M:%S.%fZ}'")
            parts.append(f"{day} {sign.rstrip('=')}= DATE '{moment:%Y-%m-%d}'")
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _with_bar(pieces: Iterable["pa.Table"], total: int) -> Iterator["pa.Table"]:
    """The pieces, with a bar on the terminal that moves along."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rows", total=total)
        for piece in pieces:
            yield piece
            progress.advance(task, piece.num_rows)


def _line(row: Mapping[str, Any], json: bool) -> None:
    """A request as a line."""
    import json as codec

    if json:
        out(codec.dumps(row, ensure_ascii=False, default=str))
    else:
        out("  ".join(shown(value) for value in row.values()))


def _warn(log: "Log") -> None:
    for problem in log.problems:
        err(problem)


def _rows(table: "pa.Table") -> list[Mapping[str, Any]]:
    """The rows of a table; two columns of one name can't be told apart.

    Raises:
        InvalidRequest: There are such columns.
    """
    if len(set(table.column_names)) < len(table.column_names):
        raise InvalidRequest("Two columns of the answer have the same name.", "Name them apart with AS.")
    rows: list[Mapping[str, Any]] = table.to_pylist()
    return rows


def _print(total: int, rows: list[Mapping[str, Any]], columns: list[str], json: bool) -> None:
    """Print rows, and say if there are more."""
    if json:
        print_json(rows)
    else:
        print_table(columns, [[row[column] for column in columns] for row in rows], "There are no such rows.")
    if total > len(rows):
        err(f"{len(rows)} of {total} rows; --limit {total} shows all.")
