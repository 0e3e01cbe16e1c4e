"""A report in a real Chromium: it fetches nothing, runs nothing, and fits light, dark, a phone and a printer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from fakes.chromium import CHROMIUM
from fakes.reported import PROJECT, Reported
from noria.monitoring.reports import Reporter
from noria.monitoring.reports.page import page as drawn

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the report was NOT looked at: no chromium is installed"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = Reported(30, 20)
    found = Reporter(told.state, told.records, PROJECT, told.clock).report(told.begin, told.until, PROJECT.endpoints)
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(drawn(found), encoding="utf-8")
    return file


@pytest.fixture
def opened(browser: Browser, file: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The report; what it asked for or complained of fails the test."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **getattr(request, "param", {})})
    page, wrong = context.new_page(), list[str]()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    context.close()
    assert wrong == []


def test_what_callers_wrote_runs_nothing(opened: Page) -> None:
    assert opened.title() == "customer-care: how its models did"
    assert opened.locator("q", has_text="<script>document.title='pwned'</script>").first.is_visible()


@pytest.mark.parametrize("opened", [{}, {"color_scheme": "dark"}], ids=["light", "dark"], indirect=True)
def test_pictures_are_drawn_in_the_colours_of_the_theme(opened: Page) -> None:
    colour = "e => getComputedStyle(e).stroke"
    line = opened.locator(".plot.full path[aria-roledescription='line mark'], .plot.full .mark-line path").first
    assert line.evaluate(colour) not in ("none", "rgb(0, 0, 0)", "")
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 19, 18)" if dark else "rgb(245, 247, 246)")


@pytest.mark.parametrize("opened", [{"viewport": {"width": 360, "height": 780}}], ids=["phone"], indirect=True)
def test_it_fits_a_phone(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    assert opened.locator(".plot.narrow").first.is_visible()
    assert not opened.locator(".plot.full").first.is_visible()


def test_what_a_monitor_says_opens_without_a_script(opened: Page) -> None:
    closed = opened.locator("details:not([open])").first
    closed.locator("summary").click()
    assert opened.locator("details[open] .inside").first.is_visible()


def test_it_prints(opened: Page) -> None:
    assert len(opened.pdf()) > 20_000
