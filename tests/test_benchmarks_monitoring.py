"""The benchmark takes the way of production: what it runs is run here on few records."""

import pyarrow.parquet as pq
import pytest
from benchmarks.monitoring import data
from benchmarks.monitoring.children import by_noria, cbpe_by_noria, history_by_noria


def test_twelve_columns_are_profiled_and_tested(tmp_path):
    reference = data.write(tmp_path / "reference.parquet", 3000, 1)
    found = by_noria.main(str(reference), str(data.write(tmp_path / "same.parquet", 4000, 2)), data.CATEGORICAL)
    assert found["records"] == 4000
    assert found["rows"] == {"monitor_states": 13, "profile_metrics": 26, "drift_metrics": 12}
    assert found["alarms"] == []
    moved = tmp_path / "moved.parquet"
    pq.write_table(data.batch(4000, 3, shift=1.0), moved)
    assert "execution_duration_ms" in by_noria.main(str(reference), str(moved), data.CATEGORICAL)["alarms"]


def test_performance_is_estimated_for_each_chunk(tmp_path):
    reference, current = (data.write_classified(tmp_path / f"{rows}.parquet", rows, rows) for rows in (20_000, 30_000))
    values = cbpe_by_noria.main(str(reference), str(current), 3)["values"]
    assert values["accuracy"] == pytest.approx([0.766] * 3, abs=0.02)


@pytest.mark.slow
def test_windows_cost_something_and_leave_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(history_by_noria, "ROUNDS", 1)
    found = history_by_noria.main(tmp_path, 12, 60, 4)
    assert [before for before, _ in found["curve"]] == [0, 8]
    assert len(found["short"]) == len(found["long"]) == 1
    assert all(rows > 0 for rows in found["rows"].values())
