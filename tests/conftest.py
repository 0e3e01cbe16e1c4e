"""What all tests share: a quiet environment, a project to work in, and an honest count of what was skipped."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.chromium import CHROMIUM, FLAGS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from noria.adapters.spark import SparkCompute


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--few-kills`, for a run of all tests; without it the loop is killed everywhere."""
    parser.addoption("--few-kills", action="store_true", help="kill the loop's worker only at some places")


def pytest_configure() -> None:
    """Nothing of the caller's environment decides a test; what tests start inherits the same."""
    for name in list(os.environ):
        if name.startswith(("NORIA_", "MLFLOW_", "OPENAI_", "OTEL_", "APPLICATIONINSIGHTS_")) and not name.startswith(
            "NORIA_TEST_"
        ):
            del os.environ[name]
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["TZ"] = "UTC"
    time.tzset()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what was skipped, by reason: a test that did not run has shown nothing."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    terminalreporter.write_line(f"skipped: {sum(reasons.values())}")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"  {count:4} {reason}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a project as `noria init` writes it, without the language model."""
    from noria.cli.start import write_project

    folder = tmp_path / "shop"
    write_project(folder, with_llm=False)
    return folder


@pytest.fixture(scope="session")
def spark() -> "Iterator[SparkCompute]":
    """The one session of Spark that all tests share."""
    from fakes import sparks

    if why := sparks.missing():
        pytest.skip(why)
    made = sparks.begun()
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The machine's own Chromium, headless; only for tests that are skipped where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()
