"""Read the log: `noria records tail`, `noria records query`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.cli.shared import AsJson, Root, err, known, opened, print_json, print_table
from noria.domain.errors import InvalidRequest

if TYPE_CHECKING:
    import pyarrow as pa

records = typer.Typer(no_args_is_help=True, help="Read the log of requests, answers and feedback.")
TAIL = (
    "SELECT request_time, endpoint, model_version, route, outcome, status_code, execution_duration_ms AS ms,"
    " request, response FROM inference{where} ORDER BY request_time DESC LIMIT {limit}"
)
SHOWN = 100
"""Rows that a table on the terminal shows unless more are asked for; JSON holds them all."""


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    records.command()(tail)
    records.command()(query)
    app.add_typer(records, name="records")


def tail(
    project: Root,
    endpoint: Annotated[str, typer.Option(metavar="ENDPOINT", help="Only this endpoint's.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Requests to show.")] = 20,
    json: AsJson = False,
) -> None:
    """Show the newest requests and outcomes.

    The newest stands last.
    """
    from noria import bootstrap

    settings, _ = opened(project)
    if endpoint:
        known(settings, endpoint)  # so that only a name of the project gets into the SQL
    where = f" WHERE endpoint = '{endpoint}'" if endpoint else ""
    found = bootstrap.records(settings).query(TAIL.format(where=where, limit=limit))
    _print(found.num_rows, list(reversed(found.to_pylist())), found.column_names, json)


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="SELECT … FROM inference …")],
    project: Root,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help="Rows to show; default is 100, and all with --json."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Run a read-only SQL query over the tables.

    They are inference, feedback, profile_metrics, drift_metrics and dead_letter.
    """
    from noria import bootstrap

    found = bootstrap.records(opened(project)[0]).query(sql)
    _print(
        found.num_rows, _rows(found.slice(0, limit or (found.num_rows if json else SHOWN))), found.column_names, json
    )


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
