"""What every record store does, and what the real one does besides."""

import threading
from datetime import UTC, datetime, timedelta, timezone

import deltalake
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.records import MemoryRecords
from noria.adapters.tables import delta
from noria.adapters.tables.delta import DeltaStore
from noria.domain.errors import Conflict, InvalidRequest, LogUnavailable, StorageCorrupted
from noria.evaluation.statements import newest
from noria.ports import Where
from noria.tables import FEEDBACK, INFERENCE, PROFILE_METRICS, SCHEMAS

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["delta", "memory"])
def store(request, tmp_path):
    return DeltaStore(tmp_path / "tables") if request.param == "delta" else MemoryRecords()


@pytest.fixture
def real(tmp_path) -> DeltaStore:
    return DeltaStore(tmp_path / "tables")


def requests(*hours: float, endpoint: str = "triage") -> pa.Table:
    """Rows of the inference table at so many hours after noon."""
    times = [NOON + timedelta(hours=hour) for hour in hours]
    rows = [
        {"databricks_request_id": f"{hour}", "endpoint": endpoint, "request_time": time, "request_date": time.date()}
        | {"metadata": [("group", "united")], "logging_error_codes": ["X"]}
        for hour, time in zip(hours, times, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=INFERENCE)


def ids(table: pa.Table) -> list[str]:
    return sorted(table["databricks_request_id"].to_pylist())


@pytest.mark.parametrize("table", SCHEMAS)
def test_an_absent_table_is_an_empty_one(store, table):
    assert store.scan(table).schema.equals(SCHEMAS[table])
    assert store.scan(table).num_rows == 0
    assert store.snapshot(table) == -1
    assert store.last_version(table, "a") == 0


def test_a_version_is_written_once(store):
    assert store.append("inference", requests(0), "a", 10) is True
    assert store.append("inference", requests(0), "a", 10) is False
    assert store.append("inference", requests(0), "a", 9) is False
    assert store.append("inference", requests(1), "a", 11) is True
    assert ids(store.scan("inference")) == ["0", "1"]


def test_applications_and_tables_count_their_versions_apart(store):
    store.append("inference", requests(0), "a", 10)
    store.append("inference", requests(1), "b", 3)
    versions = [store.last_version("inference", app) for app in ("a", "b", "c")]
    assert versions == [10, 3, 0]
    assert store.last_version("feedback", "a") == 0


def test_rows_come_back_as_they_went_in(store):
    rows = requests(0, 1.5)
    store.append("inference", rows, "a", 1)
    assert store.scan("inference").sort_by("request_time").equals(rows)


def test_a_scan_filters_by_endpoint_and_by_time_with_the_end_left_out(store):
    store.append("inference", requests(0, 12, 13, 36), "a", 1)
    store.append("inference", requests(1, 14, endpoint="assistant"), "b", 1)
    later = NOON + timedelta(hours=12)
    assert ids(store.scan("inference", endpoint="assistant")) == ["1", "14"]
    assert ids(store.scan("inference", since=later)) == ["12", "13", "14", "36"]
    assert ids(store.scan("inference", until=later)) == ["0", "1"]
    assert ids(store.scan("inference", endpoint="triage", since=later, until=NOON + timedelta(hours=36))) == [
        "12",
        "13",
    ]


def test_a_scan_reads_the_columns_that_are_asked_for(store):
    store.append("inference", requests(0), "a", 1)
    assert store.scan("inference", columns=["endpoint", "sequence"]).column_names == ["endpoint", "sequence"]


def test_a_time_zone_is_understood(store):
    store.append("inference", requests(0, 1), "a", 1)
    east = (NOON + timedelta(hours=1)).astimezone(timezone(timedelta(hours=14)))
    assert ids(store.scan("inference", since=east)) == ["1"]
    assert ids(store.scan("inference", until=east)) == ["0"]


def test_windows_are_found_by_their_start(store):
    window = {"start": NOON, "end": NOON + timedelta(hours=1)}
    store.append("profile_metrics", pa.Table.from_pylist([{"window": window}], schema=PROFILE_METRICS), "a", 1)
    assert store.scan("profile_metrics", since=NOON).num_rows == 1
    assert store.scan("profile_metrics", until=NOON).num_rows == 0


def test_a_snapshot_stays_as_it_was(store):
    store.append("inference", requests(0), "a", 1)
    before = store.snapshot("inference")
    store.append("inference", requests(1), "a", 2)
    assert ids(store.scan("inference", snapshot=before)) == ["0"]
    assert store.snapshot("inference") > before


def test_an_unknown_snapshot_or_table_is_refused(store):
    store.append("inference", requests(0), "a", 1)
    with pytest.raises(InvalidRequest):
        store.scan("inference", snapshot=99)
    with pytest.raises(InvalidRequest):
        store.snapshot("secrets")


def test_sql_sees_every_table_under_its_name(store):
    store.append("inference", requests(0, 1), "a", 1)
    sql = "SELECT i.endpoint, count(*) AS n, count(f.label) AS labels FROM inference i LEFT JOIN feedback f"
    sql += " ON f.request_id = i.databricks_request_id WHERE i.request_time > '2025-01-01T12:30:00Z' GROUP BY 1"
    result = store.query(sql)
    assert result.to_pylist() == [{"endpoint": "triage", "n": 1, "labels": 0}]
    assert result.schema.field("endpoint").type == pa.string()


def test_sql_gives_nested_columns_in_ordinary_types(store):
    store.append("inference", requests(0), "a", 1)
    result = store.query("SELECT * FROM inference")
    assert result.schema.types == INFERENCE.types
    assert result.to_pylist()[0]["metadata"] == [("group", "united")]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE inference",
        "SELECT 1; DROP TABLE inference",
        "COPY inference TO '/tmp/stolen'",
        "WITH a AS (SELECT * FROM inference) INSERT INTO inference SELECT * FROM a",
        "SELECT 1 /* ' */; DELETE FROM inference -- '",
        "",
    ],
)
def test_sql_that_changes_anything_is_refused(store, sql):
    with pytest.raises(InvalidRequest, match="Only one query that reads"):
        store.query(sql)


def test_words_inside_quotes_change_nothing(store):
    assert store.query("SELECT 'drop; delete' AS \"insert\"").to_pylist() == [{"insert": "drop; delete"}]


@pytest.mark.parametrize("sql", ["SELECT nothing FROM inference", "SELECT FROM WHERE", "SELECT * FROM secrets"])
def test_sql_that_is_wrong_says_what(store, sql):
    with pytest.raises(InvalidRequest, match="can't be run"):
        store.query(sql)


def test_an_endpoints_old_rows_are_deleted_and_no_others(store):
    store.append("inference", requests(-48, -1, -0.001, 0, 0.001, 48), "a", 1)
    store.append("inference", requests(-49, 2, endpoint="assistant"), "b", 1)
    before = store.snapshot("inference")
    assert store.expire("inference", "triage", NOON) == 3
    assert ids(store.scan("inference", endpoint="triage")) == ["0", "0.001", "48"]
    assert ids(store.scan("inference", endpoint="assistant")) == ["-49", "2"]
    assert store.expire("inference", "triage", NOON) == 0
    assert store.expire("inference", "o'neil", NOON) == 0
    assert store.expire("feedback", "triage", NOON) == 0
    assert len(ids(store.scan("inference", snapshot=before))) == 8
    assert store.append("inference", requests(-48), "a", 1) is False


# --- replacing ---


def profiles(*hours: float, endpoint: str = "triage", granularity: str = "1 hour", count: int = 1) -> pa.Table:
    """Rows of the profile table for windows that begin so many hours after noon."""
    starts = [NOON + timedelta(hours=hour) for hour in hours]
    rows = [
        {"window": {"start": start, "end": start + timedelta(hours=1)}, "endpoint": endpoint, "count": count}
        | {"granularity": granularity, "monitor_version": 1}
        for start in starts
    ]
    return pa.Table.from_pylist(rows, schema=PROFILE_METRICS)


def span(since: float, until: float, endpoint: str = "triage", **equal) -> Where:
    return Where(
        endpoint=endpoint, since=NOON + timedelta(hours=since), until=NOON + timedelta(hours=until), equal=equal
    )


def counted(store, table: str = "profile_metrics") -> list[tuple]:
    rows = store.scan(table).to_pylist()
    hours = [(row["window"]["start"] - NOON) / timedelta(hours=1) for row in rows]
    return sorted((row["endpoint"], hour, row["count"]) for row, hour in zip(rows, hours, strict=True))


def test_rows_take_the_place_of_those_that_are_meant_and_of_no_others(store):
    store.append("profile_metrics", profiles(0, 1, 2), "a", 1)
    store.append("profile_metrics", profiles(1, granularity="1 day"), "a", 2)
    store.append("profile_metrics", profiles(1, endpoint="o'neil"), "a", 3)
    assert store.replace("profile_metrics", profiles(1, 1.5, count=7), span(1, 2, granularity="1 hour"), "m", 1)
    triage = [("triage", 0, 1), ("triage", 1, 1), ("triage", 1, 7), ("triage", 1.5, 7), ("triage", 2, 1)]
    assert counted(store) == [("o'neil", 1, 1), *triage]
    assert store.replace("profile_metrics", profiles(1, endpoint="o'neil", count=9), span(1, 2, "o'neil"), "m", 2)
    assert counted(store) == [("o'neil", 1, 9), *triage]


def test_rows_replace_nothing_where_nothing_is_and_nothing_replaces_rows(store):
    assert store.replace("profile_metrics", profiles(3), span(3, 4), "m", 1) is True
    assert store.replace("profile_metrics", profiles(), span(5, 6), "m", 2) is True
    assert counted(store) == [("triage", 3, 1)]
    assert store.replace("profile_metrics", profiles(), span(3, 4), "m", 3) is True
    assert counted(store) == []


def test_a_version_replaces_once(store):
    assert store.replace("profile_metrics", profiles(0, count=1), span(0, 1), "m", 5) is True
    assert store.replace("profile_metrics", profiles(0, count=2), span(0, 1), "m", 5) is False
    assert store.replace("profile_metrics", profiles(0, count=2), span(0, 1), "m", 4) is False
    assert counted(store) == [("triage", 0, 1)]
    assert store.last_version("profile_metrics", "m") == 5
    assert store.replace("profile_metrics", profiles(0, count=3), span(0, 1), "another", 1) is True
    assert counted(store) == [("triage", 0, 3)]


def test_rows_outside_what_they_replace_are_refused(store):
    for rows in (profiles(2), profiles(1, endpoint="assistant"), profiles(1, granularity="1 day")):
        with pytest.raises(InvalidRequest, match="outside"):
            store.replace("profile_metrics", rows, span(1, 2, granularity="1 hour"), "m", 1)
    assert counted(store) == []


def test_rows_of_a_table_in_folders_are_replaced_too(store):
    store.append("inference", requests(-0.5, 0, 11.5, 12, 36), "a", 1)
    assert store.replace("inference", requests(1), span(0, 12), "m", 1) is True
    assert ids(store.scan("inference")) == ["-0.5", "1", "12", "36"]


def test_a_snapshot_holds_what_was_replaced_later(store):
    store.append("profile_metrics", profiles(0), "a", 1)
    before = store.snapshot("profile_metrics")
    store.replace("profile_metrics", profiles(0, count=2), span(0, 1), "m", 1)
    assert store.scan("profile_metrics", snapshot=before)["count"].to_pylist() == [1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 9)), max_size=8))
@settings(max_examples=20, deadline=None)
def test_replacing_leaves_what_was_written_last(written):
    store, last = MemoryRecords(), {}
    for version, (begin, hours, count) in enumerate(written, 1):
        rows = profiles(*range(begin, begin + hours), count=count)
        store.replace("profile_metrics", rows, span(begin, begin + hours), "m", version)
        last |= dict.fromkeys(range(begin, begin + hours), count)
    assert counted(store) == sorted(("triage", hour, count) for hour, count in last.items())


# --- views ---


def said(feedback_id: str, hour: float, label: str | None, **more) -> dict:
    time = NOON + timedelta(hours=hour)
    row = {"feedback_id": feedback_id, "request_id": "r", "feedback_time": time, "label": label, "sequence": 1}
    return row | more


def test_sql_shows_what_was_said_once_and_the_newest_of_it(store):
    rows = [
        said("f1", 1, "good"),
        said("f1", 2, "good"),
        said("f2", 3, "good"),
        said("f2", 4, "bad", comment="on second thoughts"),
        said("f2", 5, "bad", comment="on second thoughts"),
        said("f3", 6, None, score=0.5),
        said("f1", 7, "good", request_id="another"),
    ]
    store.append("feedback", pa.Table.from_pylist(rows, FEEDBACK), "a", 1)
    found = store.query("SELECT * FROM feedback ORDER BY feedback_time")
    assert found.schema.names == FEEDBACK.names
    assert [(row["feedback_id"], row["feedback_time"].hour) for row in found.to_pylist()] == [
        ("f1", 13),
        ("f2", 16),
        ("f3", 18),
        ("f1", 19),
    ]
    assert store.scan("feedback").num_rows == len(rows)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", None]), st.sampled_from([None, 0.5]))))
@settings(max_examples=15, deadline=None)
def test_sql_and_monitors_see_the_same_statements(told):
    rows = [said(name, hour, label, score=score) for hour, (name, label, score) in enumerate(told)]
    store = MemoryRecords()
    store.append("feedback", pa.Table.from_pylist(rows, FEEDBACK), "a", 1)
    found = store.query("SELECT * FROM feedback ORDER BY feedback_time").to_pylist()
    assert [row["feedback_time"] for row in found] == [row["feedback_time"] for row in newest(rows)]


def test_a_view_stays_as_it_was_and_takes_rows_along_that_are_not_there_yet(store):
    store.append("inference", requests(0), "a", 1)
    view = store.view()
    assert view.last_version("inference", "a") == 1
    store.append("inference", requests(1), "a", 2)
    assert view.last_version("inference", "a") == 1
    assert ids(view.scan("inference")) == ["0"]
    count = "SELECT count(*) AS n, max(metadata['group']) AS who FROM inference"
    assert view.query(count).to_pylist() == [{"n": 1, "who": "united"}]
    also = {"inference": iter([requests(2, 3), requests(4)])}
    assert view.query(count, also).to_pylist() == [{"n": 4, "who": "united"}]
    assert ids(view.query("SELECT * FROM inference", {"inference": [requests(2)]})) == ["0", "2"]


def test_a_view_of_nothing_shows_what_is_not_there_yet(store):
    view = store.view()
    assert view.last_version("inference", "a") == 0
    assert view.query("SELECT * FROM inference").schema.types == INFERENCE.types
    assert ids(view.query("SELECT * FROM inference", {"inference": [requests(2)]})) == ["2"]


def test_a_stream_gives_the_same_piece_by_piece(store):
    store.append("inference", requests(*range(600)), "a", 1)
    pieces = list(store.view().stream("SELECT * FROM inference"))
    assert len(pieces) > 2
    assert ids(pa.concat_tables(pieces)) == ids(store.scan("inference"))
    assert next(store.view().stream("SELECT endpoint FROM inference WHERE false")).column_names == ["endpoint"]
    with pytest.raises(InvalidRequest):
        list(store.view().stream("DROP TABLE inference"))


# --- the real one ---


def test_of_two_writers_with_the_same_batch_one_writes(real):
    real.append("inference", requests(0), "other", 1)
    begin, results = threading.Barrier(4), []

    def write():
        begin.wait()
        results.append(real.append("inference", requests(1), "a", 7))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]
    assert ids(real.scan("inference")) == ["0", "1"]


def test_a_writer_that_slips_in_between_look_and_write_makes_no_double(real, monkeypatch):
    real.append("inference", requests(0), "a", 1)
    write, slipped = deltalake.write_deltalake, []

    def slow(handle, rows, **options):
        if not slipped:
            slipped.append(True)
            assert real.append("inference", requests(1), "a", 2)
        write(handle, rows, **options)

    monkeypatch.setattr(delta, "write_deltalake", slow)
    assert real.append("inference", requests(1), "a", 2) is False
    assert ids(real.scan("inference")) == ["0", "1"]


@pytest.mark.parametrize("slips_in", ["a row elsewhere", "a row in it", "another replacement", "the same one"])
def test_what_others_write_while_rows_are_replaced_stays(real, monkeypatch, slips_in):
    real.append("profile_metrics", profiles(0, 1, 2), "a", 1)
    write, slipped = deltalake.write_deltalake, []

    def slow(handle, rows, **options):
        if not slipped:
            slipped.append(True)
            if slips_in == "another replacement":
                assert real.replace("profile_metrics", profiles(2, count=5), span(2, 3), "m", 3)
            elif slips_in == "the same one":
                assert real.replace("profile_metrics", profiles(1, count=7), span(1, 2), "m", 4)
            else:
                assert real.append("profile_metrics", profiles(1.5 if "in it" in slips_in else 3), "b", 1)
        write(handle, rows, **options)

    monkeypatch.setattr(delta, "write_deltalake", slow)
    done = real.replace("profile_metrics", profiles(1, count=7), span(1, 2), "m", 4)
    assert done is (slips_in != "the same one")
    last = 5 if slips_in == "another replacement" else 1
    also = [("triage", 3, 1)] if slips_in == "a row elsewhere" else []
    assert counted(real) == [("triage", 0, 1), ("triage", 1, 7), ("triage", 2, last), *also]


def test_many_replace_and_append_side_by_side(real):
    begin, done = threading.Barrier(4), []

    def replace(app, hour):
        begin.wait()
        for version in range(1, 6):
            rows = profiles(hour, count=version)
            while True:
                try:
                    done.append(real.replace("profile_metrics", rows, span(hour, hour + 1), app, version))
                    break
                except Conflict:
                    continue

    def append():
        begin.wait()
        for version in range(1, 11):
            while True:
                try:
                    done.append(real.append("profile_metrics", profiles(100 + version), "appends", version))
                    break
                except Conflict:
                    continue

    threads = [threading.Thread(target=replace, args=(f"m{hour}", hour)) for hour in range(3)]
    threads.append(threading.Thread(target=append))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True] * 25
    assert counted(real) == [*(("triage", hour, 5) for hour in range(3)), *(("triage", 101 + n, 1) for n in range(10))]


def test_a_window_that_is_replaced_leaves_the_files_of_others_alone(real, tmp_path):
    for hour in range(6):
        real.replace("profile_metrics", profiles(hour), span(hour, hour + 1), "m", hour + 1)
    table = str(tmp_path / "tables" / "profile_metrics")
    before = set(deltalake.DeltaTable(table).file_uris())
    real.replace("profile_metrics", profiles(3, count=2), span(3, 4), "m", 7)
    assert len(before & set(deltalake.DeltaTable(table).file_uris())) == 5


def test_a_writer_that_never_gets_through_says_so(real, monkeypatch):
    def busy(*_, **__):
        raise deltalake.exceptions.CommitFailedError("somebody was faster")

    monkeypatch.setattr(delta, "write_deltalake", busy)
    with pytest.raises(Conflict):
        real.append("inference", requests(0), "a", 1)


def test_different_writers_do_not_disturb_one_another(real):
    begin = threading.Barrier(3)

    def write(app):
        begin.wait()
        for version in range(1, 6):
            real.append("inference", requests(version), app, version)

    threads = [threading.Thread(target=write, args=(app,)) for app in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids(real.scan("inference"))) == 15


def test_small_files_are_put_together_and_nothing_changes_for_readers(real):
    for version in range(1, 21):
        real.append("inference", requests(version % 3), "a", version)
    before = ids(real.scan("inference"))
    old = real.snapshot("inference")
    done = real.optimize("inference")
    assert done == {"files": 20, "compacted": 20, "deleted": 0}
    assert ids(real.scan("inference")) == before
    assert ids(real.scan("inference", snapshot=old)) == before
    assert real.append("inference", requests(9), "a", 20) is False
    assert real.optimize("inference")["compacted"] == 0


def test_files_that_no_snapshot_needs_are_deleted_after_their_time(real):
    for version in range(1, 21):
        real.append("inference", requests(0), "a", version)
    assert real.optimize("inference", retention=timedelta(0))["deleted"] == 20
    assert len(ids(real.scan("inference"))) == 20


def test_a_table_that_is_written_often_does_not_fall_into_small_files(real, tmp_path, monkeypatch):
    monkeypatch.setattr(delta, "_TIDY_EVERY", 20)
    for version in range(1, 51):
        real.append("inference", requests(version % 3), "a", version)
        assert len(deltalake.DeltaTable(str(tmp_path / "tables" / "inference")).file_uris()) <= 20
    assert len(ids(real.scan("inference"))) == 50


def test_tidying_that_fails_does_not_fail_the_append(real, monkeypatch):
    monkeypatch.setattr(delta, "_TIDY_EVERY", 1)

    def busy(*_):
        raise deltalake.exceptions.DeltaError("no room")

    monkeypatch.setattr(delta, "_crowded", busy)
    assert real.append("inference", requests(0), "a", 1) is True


def test_an_absent_table_needs_no_care(real):
    assert real.optimize("feedback") == {"files": 0, "compacted": 0, "deleted": 0}


def test_days_are_folders(real, tmp_path):
    real.append("inference", requests(0, 24), "a", 1)
    folders = {path.name for path in (tmp_path / "tables" / "inference").iterdir()}
    assert folders == {"_delta_log", "request_date=2025-01-01", "request_date=2025-01-02"}


def test_a_table_without_its_log_is_said_plainly(real, tmp_path):
    real.append("inference", requests(0), "a", 1)
    real.append("inference", requests(1), "a", 2)
    (tmp_path / "tables" / "inference" / "_delta_log" / f"{0:020d}.json").write_text("garbage")
    with pytest.raises(StorageCorrupted, match="inference can't be opened"):
        real.scan("inference")


def test_a_place_that_cannot_be_written_is_said_plainly(tmp_path):
    (tmp_path / "tables").write_text("not a folder")
    with pytest.raises((LogUnavailable, StorageCorrupted)):
        DeltaStore(tmp_path / "tables").append("inference", requests(0), "a", 1)


def test_readers_go_on_while_a_table_is_tidied_and_old_rows_are_deleted(real):
    """One reads the newest all the while, one holds on to a snapshot, one to a view."""
    for version in range(1, 21):
        real.append("inference", requests(version % 3, -30), "a", version)
    pinned, view, over = real.snapshot("inference"), real.view(), threading.Event()
    assert view.query("SELECT count(*) AS n FROM inference").to_pylist() == [{"n": 40}]
    seen: list[tuple[int, int, int]] = []
    failed: list[Exception] = []

    def read():
        while not over.is_set():
            try:
                old, held = real.scan("inference", snapshot=pinned), view.scan("inference")
                newest = real.query("SELECT count(*) AS n FROM inference").to_pylist()[0]["n"]
                seen.append((old.num_rows, held.num_rows, newest))
            except Exception as error:
                failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(21, 61):
        real.append("inference", requests(1), "a", version)
        if version % 10 == 0:
            real.optimize("inference")
            real.expire("inference", "triage", NOON)
    over.set()
    for reader in readers:
        reader.join()
    assert failed == []
    assert {(old, held) for old, held, _ in seen} == {(40, 40)}
    assert all(20 <= newest <= 80 for _, _, newest in seen)
    assert real.scan("inference").num_rows == 60


def test_no_body_gets_into_the_transaction_log(real, tmp_path):
    rows = requests(*range(20))
    for version, name in enumerate(("request", "response")):
        bodies = pa.array([f"secret {name} {n}" for n in range(20)], pa.string())
        written = rows.set_column(rows.schema.get_field_index(name), name, bodies)
        real.append("inference", written, "a", version + 1)
    said = pa.Table.from_pylist([{"comment": "secret", "feedback_time": NOON, "feedback_id": "f"}], schema=FEEDBACK)
    real.append("feedback", said, "a", 1)
    for version in range(3, 20):
        real.append("inference", requests(0), "a", version)
    real.optimize("inference")
    real.expire("inference", "triage", NOON + timedelta(hours=5))
    logs = [file for file in (tmp_path / "tables").rglob("_delta_log/*") if file.is_file()]
    assert len(logs) > 20
    assert not any(b"secret" in file.read_bytes() for file in logs)


# --- tables of an older version of Noria ---

NEW = ["tries", "cache_hit", "cost_usd", "trace_id", "span_id", "parent_span_id"]


@pytest.fixture
def old(real, monkeypatch) -> DeltaStore:
    """A store whose inference table was made, and written once, before the table had its newest columns."""
    before = pa.schema([field for field in INFERENCE if field.name not in NEW])
    with monkeypatch.context() as past:
        past.setitem(SCHEMAS, "inference", before)
        assert real.append("inference", requests(0).select(before.names), "a", 1)
    return real


def test_an_old_table_is_read_with_nulls_for_the_columns_it_lacks(old):
    table = old.scan("inference")
    assert table.schema.equals(INFERENCE)
    assert ids(table) == ["0"]
    assert [table[name].null_count for name in NEW] == [1] * len(NEW)
    assert old.scan("inference", columns=["cost_usd", "endpoint"]).to_pylist() == [
        {"cost_usd": None, "endpoint": "triage"}
    ]


def test_sql_sees_the_columns_that_an_old_table_lacks(old):
    sql = "SELECT endpoint, tries, metadata FROM inference WHERE trace_id IS NULL AND request_time < '2026-01-01'"
    assert old.query(sql).to_pylist() == [{"endpoint": "triage", "tries": None, "metadata": [("group", "united")]}]
    assert old.query("SELECT * FROM inference").schema.types == INFERENCE.types


def test_an_old_table_gains_its_columns_with_the_next_append_and_each_version_is_still_written_once(old):
    before = old.snapshot("inference")
    assert old.append("inference", requests(0), "a", 1) is False
    rows = requests(1)
    rows = rows.set_column(rows.schema.get_field_index("tries"), "tries", pa.array([2], pa.int32()))
    assert old.append("inference", rows, "a", 2) is True
    assert old.append("inference", rows, "a", 2) is False
    table = old.scan("inference").sort_by("request_time")
    assert table.schema.equals(INFERENCE)
    assert table["tries"].to_pylist() == [None, 2]
    assert old.query("SELECT tries FROM inference ORDER BY request_time").to_pylist() == [{"tries": None}, {"tries": 2}]
    assert old.scan("inference", snapshot=before)["tries"].to_pylist() == [None]
    assert [old.last_version("inference", "a"), old.snapshot("inference")] == [2, before + 1]


def test_of_two_writers_that_both_find_an_old_table_each_writes_once(old):
    begin, results = threading.Barrier(3), []

    def write(app):
        begin.wait()
        results.append(old.append("inference", requests(1), app, 2))

    threads = [threading.Thread(target=write, args=(app,)) for app in "abb"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True, True]
    assert ids(old.scan("inference")) == ["0", "1", "1"]


def test_an_old_table_is_put_together_like_any_other(old):
    for version in range(2, 22):
        old.append("inference", requests(0), "a", version)
    assert old.optimize("inference", retention=timedelta(0))["compacted"] == 21
    assert old.scan("inference")["tries"].null_count == 21
