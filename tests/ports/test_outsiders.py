"""The tables as those read them who don't know Noria: DuckDB and plain Spark, over the files that the log lists."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pytest

from noria.adapters.spark import SparkCompute
from noria.adapters.tables.delta import DeltaStore
from noria.tables import SCHEMAS, TIME_COLUMN

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = 60
CONTRACT = {
    "inference": {
        "databricks_request_id": "string",
        "request_date": "date",
        "client_request_id": "string",
        "request_time": "timestamp",
        "status_code": "int",
        "sampling_fraction": "double",
        "execution_duration_ms": "bigint",
        "request": "string",
        "response": "string",
        "logging_error_codes": "array<string>",
        "served_entity_id": "string",
        "requester": "string",
    },
    "profile_metrics": {
        "window": "struct<start:timestamp,end:timestamp>",
        "granularity": "string",
        "monitor_version": "int",
        "count": "bigint",
        "quantiles": "array<double>",
        "frequent_items": "array<struct<item:string,count:bigint>>",
        "non_null_columns": "array<string>",
    },
    "drift_metrics": {
        "window_cmp": "struct<start:timestamp,end:timestamp>",
        "ks_test": "struct<statistic:double,pvalue:double>",
        "chi_squared_test": "struct<statistic:double,pvalue:double>",
        "non_null_columns_delta": "struct<added:bigint,missing:bigint>",
        "js_distance": "double",
    },
}
"""Databricks' columns, with the types that its own tables have, as Spark writes them."""
_PLAIN = {
    pa.string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.bool_(): "boolean",
}
_DUCK = {
    "string": "VARCHAR",
    "binary": "BLOB",
    "date": "DATE",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every table with rows of many days in which every column is filled."""
    folder = tmp_path_factory.mktemp("outsiders") / "tables"
    store = DeltaStore(folder)
    for table, schema in SCHEMAS.items():
        for version in (1, 2):
            rows = [_row(schema, 2 * n + version) for n in range(ROWS // 2)]
            store.append(table, pa.Table.from_pylist(rows, schema=schema), "test", version)
    return folder


def _row(schema: pa.Schema, number: int) -> dict[str, Any]:
    moment = NOON + timedelta(hours=number)
    return {field.name: _value(field.type, number, moment) for field in schema}


def _value(kind: pa.DataType, number: int, moment: datetime) -> Any:
    if pa.types.is_struct(kind):
        return {field.name: _value(field.type, number, moment) for field in kind}
    if pa.types.is_map(kind):
        return [("group", _value(kind.item_type, number, moment))]
    if pa.types.is_list(kind):
        return [_value(kind.value_type, number, moment)]
    values = {pa.string(): f"é{number % 3}", pa.binary(): b"\x00\xff", pa.date32(): moment.date(), pa.bool_(): True}
    return moment if pa.types.is_timestamp(kind) else values.get(kind, number)


def files(root: Path, table: str) -> list[str]:
    return deltalake.DeltaTable(str(root / table)).file_uris()


def sparks(kind: pa.DataType) -> str:
    """A column's type as Spark writes it."""
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'{f.name}:{sparks(f.type)}' for f in kind)}>"
    if pa.types.is_map(kind):
        return f"map<{sparks(kind.key_type)},{sparks(kind.item_type)}>"
    if pa.types.is_list(kind):
        return f"array<{sparks(kind.value_type)}>"
    return "timestamp" if pa.types.is_timestamp(kind) else _PLAIN[kind]


def ducks(kind: pa.DataType) -> str:
    """The same as DuckDB writes it."""
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{f.name} {ducks(f.type)}' for f in kind)})"
    if pa.types.is_map(kind):
        return f"MAP({ducks(kind.key_type)}, {ducks(kind.item_type)})"
    if pa.types.is_list(kind):
        return f"{ducks(kind.value_type)}[]"
    return _DUCK[sparks(kind)]


@pytest.fixture
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        made.execute("SET TimeZone = 'UTC'")
        yield made


def test_the_columns_have_the_types_of_databricks_own_tables() -> None:
    found = {table: {name: sparks(SCHEMAS[table].field(name).type) for name in CONTRACT[table]} for table in CONTRACT}
    assert found == CONTRACT
    assert SCHEMAS["inference"].names[: len(CONTRACT["inference"])] == list(CONTRACT["inference"])


@pytest.mark.parametrize("table", SCHEMAS)
def test_duckdb_reads_the_files_of_a_table_with_its_types_and_rows(
    root: Path, duck: duckdb.DuckDBPyConnection, table: str
) -> None:
    source = duck.read_parquet(files(root, table), hive_partitioning=True)
    found = {name: str(kind).replace('"', "") for name, kind in zip(source.columns, source.types, strict=True)}
    assert found == {field.name: ducks(field.type) for field in SCHEMAS[table]}
    time = TIME_COLUMN[table].split(".")
    column = ".".join(f'"{part}"' for part in time)
    query = f"SELECT count(*), count(DISTINCT {column}), epoch_us(min({column})), epoch_us(max({column})) FROM source"
    first, last = NOON + timedelta(hours=1), NOON + timedelta(hours=ROWS)
    expected = (ROWS, ROWS, int(first.timestamp() * 1e6), int(last.timestamp() * 1e6))
    assert duck.sql(query).fetchall() == [expected]


def test_duckdb_asks_a_table_through_arrow_and_skips_days(root: Path, duck: duckdb.DuckDBPyConnection) -> None:
    inference = deltalake.DeltaTable(str(root / "inference")).to_pyarrow_dataset()
    asked = duck.sql(
        "SELECT metadata['group'] AS team, count(*) AS n, sum(execution_duration_ms) AS ms FROM inference "
        "WHERE request_date = DATE '2026-03-02' GROUP BY ALL ORDER BY ALL"
    )
    assert inference.count_rows() == ROWS
    hours = range(12, 36)
    expected = [(f"é{k}", sum(h % 3 == k for h in hours), sum(h for h in hours if h % 3 == k)) for k in range(3)]
    assert asked.fetchall() == expected


@pytest.mark.slow
def test_plain_spark_reads_every_table_with_its_types_and_rows(root: Path, spark: SparkCompute) -> None:
    from pyspark.sql import SparkSession

    session = SparkSession(spark.session())
    for table, schema in SCHEMAS.items():
        frame = session.read.option("basePath", str(root / table)).parquet(*files(root, table))
        assert dict(frame.dtypes) == {field.name: sparks(field.type) for field in schema}, table
        later = f"count_if({TIME_COLUMN[table]} >= timestamp '2026-03-02 12:00:00+00:00')"
        assert [tuple(row) for row in frame.selectExpr("count(*)", later).collect()] == [(ROWS, ROWS - 23)], table
    teams = session.read.parquet(*files(root, "inference")).where("metadata['group'] = 'é1'").count()
    assert teams == ROWS // 3
