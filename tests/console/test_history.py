"""The drift table is read when there is something new in it, and its failure is a sentence."""

from noria.api.console.history import KEEP_S, History


class Table:
    """Counts how often it is read; fails on demand."""

    def __init__(self) -> None:
        self.reads, self.broken, self.now = 0, False, 0.0
        self.history = History(self.read, monotonic=lambda: self.now)

    def read(self, endpoint: str) -> list[dict]:
        self.reads += 1
        if self.broken:
            raise OSError("gone")
        return [{"endpoint": endpoint, "read": self.reads}]

    def rows(self, rows: int = 1):
        return self.history.rows("triage", [{"id": "triage:text:1", "folded_until": "12:00", "rows": rows}])


def test_the_drift_table_is_read_again_only_when_a_monitor_moved_or_time_went_by() -> None:
    table = Table()
    assert table.rows() == table.rows()
    assert table.reads == 1
    table.rows(rows=2)
    assert table.reads == 2
    table.now += KEEP_S
    table.rows(rows=2)
    assert table.reads == 3


def test_a_table_that_cannot_be_read_leaves_the_rows_that_were_read_before() -> None:
    table = Table()
    before, _ = table.rows()
    table.broken = True
    rows, problem = table.rows(rows=2)
    assert rows == before
    assert "can't be read" in problem
