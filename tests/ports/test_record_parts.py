"""What every record store's parts promise, and what reading the real ones adds."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.records import MemoryRecords
from noria.adapters.tables import parts as reading
from noria.adapters.tables.delta import DeltaStore
from noria.adapters.tables.parts import read_part
from noria.domain.errors import Conflict, InvalidRequest, StorageCorrupted
from noria.ports import Part
from noria.tables import INFERENCE, PROFILE_METRICS, SCHEMAS

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
EVER = (NOON - timedelta(days=9), NOON + timedelta(days=9))


@pytest.fixture(params=["delta", "memory"])
def store(request, tmp_path):
    return DeltaStore(tmp_path / "the tables") if request.param == "delta" else MemoryRecords()


@pytest.fixture
def real(tmp_path) -> DeltaStore:
    return DeltaStore(tmp_path / "the tables")


def requests(*hours: float, endpoint: str = "triage", body: str = "{}") -> pa.Table:
    """Rows of the inference table at so many hours after noon."""
    times = [NOON + timedelta(hours=hour) for hour in hours]
    rows = [
        {"databricks_request_id": f"{hour}", "endpoint": endpoint, "request_time": time, "request_date": time.date()}
        | {"metadata": [("group", "united")], "logging_error_codes": ["X"], "request": body}
        for hour, time in zip(hours, times, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=INFERENCE)


def read(parts: list[Part], columns: list[str] | None = None, **options) -> pa.Table:
    found = [rows for part in parts for rows in read_part(part, columns, **options)]
    return pa.concat_tables(found) if found else INFERENCE.empty_table()


def ids(table: pa.Table) -> list[str]:
    return sorted(table["databricks_request_id"].to_pylist())


@pytest.mark.parametrize("table", SCHEMAS)
def test_an_absent_table_has_no_parts(store, table):
    assert list(store.parts(table, "triage", *EVER, 1 << 20)) == []


def test_parts_hold_the_rows_of_a_scan_as_they_went_in(store):
    rows = requests(0, 1.5, 30)
    store.append("inference", rows, "a", 1)
    parts = store.parts("inference", "triage", *EVER, 1 << 20)
    assert read(parts).sort_by("request_time").equals(rows)


def test_a_part_is_json_and_comes_back_from_it(store):
    store.append("inference", requests(0), "a", 1)
    (part,) = store.parts("inference", "triage", *EVER, 1 << 20)
    assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part
    assert part.size == sum(file.size for file in part.files) > 0


def test_parts_read_one_endpoint_and_a_span_of_time_with_the_end_left_out(store):
    store.append("inference", requests(0, 12, 13, 36), "a", 1)
    store.append("inference", requests(12, 14, endpoint="assistant"), "b", 1)
    since = NOON + timedelta(hours=12)
    parts = store.parts("inference", "triage", since, NOON + timedelta(hours=36), 1 << 20)
    assert ids(read(parts)) == ["12", "13"]


def test_a_part_reads_the_columns_that_are_asked_for(store):
    store.append("inference", requests(0), "a", 1)
    parts = store.parts("inference", "triage", *EVER, 1 << 20)
    assert read(parts, ["sequence", "request_date"]).to_pylist() == [{"sequence": None, "request_date": NOON.date()}]


def test_windows_are_found_by_their_start(store):
    windows = [{"start": NOON + timedelta(hours=n), "end": NOON + timedelta(hours=n + 1)} for n in range(3)]
    rows = [{"window": window, "endpoint": "triage"} for window in windows]
    store.append("profile_metrics", pa.Table.from_pylist(rows, schema=PROFILE_METRICS), "a", 1)
    parts = store.parts("profile_metrics", "triage", NOON, NOON + timedelta(hours=2), 1 << 20)
    assert [row["window"] for part in parts for rows in read_part(part) for row in rows.to_pylist()] == windows[:2]


def test_parts_stay_as_they_were_cut(store):
    store.append("inference", requests(0), "a", 1)
    parts = store.parts("inference", "triage", *EVER, 1 << 20)
    store.append("inference", requests(1), "a", 2)
    assert ids(read(parts)) == ["0"]


def test_an_unknown_table_is_refused(store):
    with pytest.raises(InvalidRequest):
        store.parts("secrets", "triage", *EVER, 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(-60, 60), min_size=1, max_size=5), max_size=6),
    st.integers(-70, 70),
    st.integers(0, 60),
    st.integers(0, 40_000),
)
def test_parts_and_a_scan_hold_the_same_rows(tmp_path_factory, batches, since, hours, most_bytes):
    store = DeltaStore(tmp_path_factory.mktemp("tables"))
    for number, batch in enumerate(batches):
        store.append("inference", requests(*batch, endpoint="ab"[number % 2]), "a", number + 1)
    span = NOON + timedelta(hours=since), NOON + timedelta(hours=since + hours)
    parts = store.parts("inference", "a", *span, most_bytes)
    assert ids(read(parts)) == ids(store.scan("inference", endpoint="a", since=span[0], until=span[1]))
    paths = [file.path for part in parts for file in part.files]
    assert len(paths) == len(set(paths))
    assert all(part.size <= most_bytes or len(part.files) == 1 for part in parts)


def test_files_that_hold_none_of_the_rows_are_left_out(real):
    for day in range(4):
        real.append("inference", requests(24 * day), "a", day + 1)
        real.append("inference", requests(24 * day, endpoint="assistant"), "b", day + 1)
    parts = real.parts("inference", "triage", NOON, NOON + timedelta(days=2), 1)
    assert [[file.partition for file in part.files] for part in parts] == [
        [{"request_date": "2025-01-01"}],
        [{"request_date": "2025-01-02"}],
    ]


def test_small_files_share_a_part_up_to_its_bytes(real):
    for version in range(1, 7):
        real.append("inference", requests(version), "a", version)
    size = real.parts("inference", "triage", *EVER, 1)[0].size
    parts = real.parts("inference", "triage", *EVER, 2 * size + 50)
    assert [len(part.files) for part in parts] == [2, 2, 2]


def test_row_groups_that_hold_none_of_the_rows_are_not_read(tmp_path, real, monkeypatch):
    real.append("inference", requests(*range(8)), "a", 1)
    (part,) = real.parts("inference", "triage", NOON + timedelta(hours=5), NOON + timedelta(hours=7), 1)
    path = Path(part.root) / part.files[0].path
    table = pq.ParquetFile(path).read()
    pq.write_table(table, path, row_group_size=2)
    decoded, completed = [], reading._completed
    monkeypatch.setattr(reading, "_completed", lambda batch, *rest: decoded.append(1) or completed(batch, *rest))
    assert ids(read([part])) == ["5", "6"]
    assert len(decoded) == 2


def test_long_rows_come_some_at_a_time(real):
    real.append("inference", requests(*range(1000), body="x" * 20_000), "a", 1)
    parts = real.parts("inference", "triage", NOON, NOON + timedelta(days=99), 1 << 30)
    sizes = [rows.nbytes for part in parts for rows in read_part(part, ["request"], batch_bytes=2 << 20)]
    assert sum(sizes) > 20_000_000
    assert max(sizes) < 3 << 20


def test_a_file_that_is_gone_is_said_plainly(real):
    real.append("inference", requests(0), "a", 1)
    parts = real.parts("inference", "triage", *EVER, 1)
    shutil.rmtree(Path(parts[0].root) / "request_date=2025-01-01")
    with pytest.raises(Conflict, match="is gone"):
        read(parts)


def test_a_file_that_is_no_parquet_is_said_plainly(real):
    real.append("inference", requests(0), "a", 1)
    parts = real.parts("inference", "triage", *EVER, 1)
    (Path(parts[0].root) / parts[0].files[0].path).write_bytes(b"PAR1 and nothing else")
    with pytest.raises(StorageCorrupted, match="can't be read"):
        read(parts)


def test_a_table_can_be_read_by_its_url(tmp_path):
    folder = tmp_path / "the tables"
    store = DeltaStore(f"file://{quote(str(folder))}")
    rows = requests(0, 30)
    store.append("inference", rows, "a", 1)
    parts = store.parts("inference", "triage", *EVER, 1)
    assert read(parts).sort_by("request_time").equals(rows)
    shutil.rmtree(folder / "inference" / "request_date=2025-01-01")
    with pytest.raises(Conflict, match="is gone"):
        read(parts)


def test_columns_that_an_old_file_lacks_are_null(real, monkeypatch):
    before = pa.schema([field for field in INFERENCE if field.name not in ("tries", "cost_usd")])
    with monkeypatch.context() as past:
        past.setitem(SCHEMAS, "inference", before)
        real.append("inference", requests(0).select(before.names), "a", 1)
    parts = real.parts("inference", "triage", *EVER, 1)
    assert read(parts).schema.equals(INFERENCE)
    assert read(parts, ["tries"]).to_pylist() == [{"tries": None}]


@pytest.mark.parametrize("feature", ["deletionVectors", "columnMapping"])
def test_a_table_whose_files_are_not_its_rows_is_refused(real, tmp_path, feature):
    real.append("inference", requests(0), "a", 1)
    table = deltalake.DeltaTable(str(tmp_path / "the tables" / "inference"))
    log = tmp_path / "the tables" / "inference" / "_delta_log" / f"{table.version() + 1:020d}.json"
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [feature], "writerFeatures": [feature]}
    log.write_text(json.dumps({"protocol": protocol}) + "\n")
    with pytest.raises(InvalidRequest, match=feature):
        real.parts("inference", "triage", *EVER, 1)
