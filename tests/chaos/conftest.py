"""The tables that `pytest tests/chaos -m serving` and `-m loop` end with."""

from collections.abc import Callable
from dataclasses import asdict

import pytest

from fakes.dataplane import Account

_COLUMNS = ("fault", "requests", "records", "missing", "duplicated")
_KILLS = ("kill point", "runs", "ended right", "work repeated")
_ITEMS = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture
def account(record_property: Callable[[str, object], None]) -> Callable[[Account], None]:
    """Puts a fault's account into the table, and demands that nothing is missing or there twice."""

    def enter(figures: Account) -> None:
        for name, figure in asdict(figures).items():
            record_property(name, figure)
        assert figures.missing == figures.duplicated == 0

    return enter


@pytest.fixture
def few_kills(request: pytest.FixtureRequest) -> bool:
    """Whether only some of the places are meant."""
    return bool(request.config.getoption("--few-kills"))


@pytest.fixture
def kills(record_property: Callable[[str, object], None]) -> Callable[[str, int, int, str], None]:
    """Puts a place at which workers died into the table: runs, those that ended right, repeated work."""

    def enter(point: str, runs: int, right: int, repeated: str) -> None:
        record_property("kill", (point, runs, right, repeated))

    return enter


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which faults should run, and have their reports say which they are."""
    faults = [(item, _fault(item)) for item in session.items if item.get_closest_marker("serving")]
    for item, fault in faults:
        item.user_properties.append(("fault", fault))
    session.config.stash[_ITEMS] = [(item.nodeid, fault) for item, fault in faults]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables; a fault that didn't run shows as such."""
    _print_kills(terminalreporter)
    stats, config = terminalreporter.stats, terminalreporter.config
    reports = {
        report.nodeid: (outcome, report)
        for outcome in ("passed", "skipped", "failed", "error")
        for report in stats.get(outcome, [])
        if hasattr(report, "user_properties")
    }
    said = [(node, dict(report.user_properties).get("fault")) for node, (_, report) in reports.items()]
    faults = config.stash.get(_ITEMS, []) or sorted((node, fault) for node, fault in said if fault)
    if not faults or config.option.collectonly:
        return
    lines = [(fault, *_cells(*reports.get(node, ("did not run", None)))) for node, fault in faults]
    figures = [cells[:4] for _, *cells in lines if isinstance(cells[0], int)]
    lines.append((f"all {len(lines)}", *(sum(column) for column in zip(*figures, strict=True))))
    width = max(len(line[0]) for line in lines)
    terminalreporter.section("faults")
    for fault, *cells in [_COLUMNS, *lines]:
        terminalreporter.write_line(f"{fault:<{width}}  " + "  ".join(f"{cell!s:>10}" for cell in cells).rstrip())


def _print_kills(reporter: pytest.TerminalReporter) -> None:
    reports = [report for outcome in ("passed", "failed") for report in reporter.stats.get(outcome, [])]
    lines = [values for report in reports for name, values in report.user_properties if name == "kill"]
    if not lines:
        return
    lines.append((f"all {len(lines)}", sum(line[1] for line in lines), sum(line[2] for line in lines), ""))
    width = max(len(line[0]) for line in lines)
    reporter.section("deaths of the loop's worker")
    for point, *cells in [_KILLS, *lines]:
        reporter.write_line(f"{point:<{width}}  " + "  ".join(f"{cell!s:>14}" for cell in cells).rstrip())


def _cells(outcome: str, report: pytest.TestReport | None) -> list[object]:
    """Figures of one fault, or why there are none."""
    figures = dict(report.user_properties) if report is not None else {}
    cells = [figures.get(name, "-") for name in _COLUMNS[1:]]
    if outcome == "passed":
        return cells
    reason = report.longrepr[2].removeprefix("Skipped: ") if report is not None and outcome == "skipped" else ""
    return [*cells, f"{outcome}{': ' if reason else ''}{reason}"]


def _fault(item: pytest.Item) -> str:
    """A fault's name: what its marker says, or else the test's own name; and the case."""
    said = item.get_closest_marker("serving").args
    name, _, case = item.name.partition("[")
    return (said[0] if said else name.removeprefix("test_").replace("_", " ")) + (
        f": {case.removesuffix(']')}" if case else ""
    )
