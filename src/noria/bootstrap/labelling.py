"""What the queue of records without a label reads of the log."""

from collections.abc import Sequence
from typing import Any

from noria.bootstrap.parts import log
from noria.settings import Settings


def unlabelled(settings: Settings, endpoint: str, among: int) -> tuple[Sequence[dict[str, Any]], set[str]]:
    """The newest records of an endpoint with their shadow copies, and the ids of those that have a label.

    Args:
        settings: The project in service.
        endpoint: One of its endpoints; its name holds no quotation marks.
        among: How many records to look at.
    """
    seen = log(settings)
    columns = "databricks_request_id AS id, request_time AS time, request, response, shadow_of"
    of = f"WHERE endpoint = '{endpoint}'"
    rows = seen.query(f"SELECT {columns} FROM inference {of} ORDER BY request_time DESC LIMIT {int(among)}")  # noqa: S608
    given = seen.query(f"SELECT DISTINCT request_id FROM feedback {of} AND label IS NOT NULL AND label <> ''")  # noqa: S608
    return rows.to_pylist(), set(given["request_id"].to_pylist())
