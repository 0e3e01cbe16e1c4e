"""The console in a real Chromium: it is alive, quiet, self-contained and fits a phone."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette

from fakes.chromium import CHROMIUM
from fakes.lineage import EmptyLog
from fakes.state import FakeState
from fakes.story import ALERT, NOW, PROJECT, StoppedClock, before, drift_rows, route, tell
from noria.api.console import routes
from noria.domain.status import Heartbeat
from noria.governance.lineage import Lineage

PAGES = ("/", "/endpoints/triage", "/runs", "/runs/run-3", "/verdicts/triage/3", "/verdicts/triage/2", "/audit")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the console was NOT checked: no chromium is installed"),
]


@dataclass
class Site:
    """A console that listens on loopback, and the state behind it."""

    url: str
    state: FakeState


@dataclass
class Visit:
    """An open page and everything that it should not have done."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def go(self, url: str) -> Page:
        """Open an address and wait until the page keeps itself up to date."""
        self.page.goto(url)
        self.page.wait_for_selector('#live[data-live="on"]')
        return self.page


@pytest.fixture
def site() -> Iterator[Site]:
    clock = StoppedClock()
    state = FakeState(clock)
    tell(state)
    app = Starlette(
        routes=list(routes(state, lambda _: drift_rows(), lambda: PROJECT, clock, Lineage(state, EmptyLog()).trace))
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Site(f"http://127.0.0.1:{port}", state)
    server.should_exit = True
    thread.join()


@pytest.fixture
def visit(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A fresh visit; a test may ask for a width, a colour scheme or no JavaScript by indirect parameters."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **getattr(request, "param", {})})
    visit = Visit(context.new_page())
    visit.page.on("console", lambda said: visit.complaints.append(f"{said.type}: {said.text}"))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("dialog", lambda dialog: (visit.complaints.append("a dialog opened"), dialog.dismiss()))
    visit.page.on(
        "request", lambda asked: None if asked.url.startswith(site.url) else visit.complaints.append(asked.url)
    )
    yield visit
    context.close()


@pytest.mark.parametrize("visit", [{}, {"color_scheme": "dark"}], indirect=True, ids=["light", "dark"])
def test_no_page_complains_or_asks_another_host(site: Site, visit: Visit) -> None:
    for path in PAGES:
        page = visit.go(site.url + path)
        assert page.locator("h1").count() == 1
    assert visit.complaints == []


def test_the_wheel_shows_the_seven_stations_and_turns_while_the_worker_lives(site: Site, visit: Visit) -> None:
    page = visit.go(site.url)
    names = page.locator(".wheel .name").all_text_contents()
    assert names == ["register", "serve", "record", "monitor", "retrain", "gate", "roll out"]
    turning = "getComputedStyle(document.querySelector('.paddles')).animationName"
    assert page.evaluate(turning) == "turn"

    with site.state.note() as change:
        change.put(Heartbeat(at=before(minutes=5), pid=1))
    page.wait_for_selector("svg.still")
    assert page.evaluate(turning) == "none"


def test_the_page_changes_by_itself_when_the_state_does(site: Site, visit: Visit) -> None:
    page = visit.go(site.url)
    page.evaluate("window.sameDocument = true")
    bar = page.locator("#endpoints .weight .canary").first
    bar.evaluate("bar => { window.bar = bar }")
    assert bar.get_attribute("width") == "50%"
    page.get_by_role("link", name="Runs").focus()

    with site.state.change("noria", "alert.resolved", ALERT.id) as change:
        change.put(ALERT.resolve(NOW, "triage/3 was promoted"))
        change.put(route(weight=10))

    page.wait_for_selector("text=Nothing fires.")
    assert page.title() == "The loop · customer-care"
    assert bar.get_attribute("width") == "10%"
    assert page.evaluate("window.sameDocument && window.bar.isConnected"), "the page was patched, not replaced"
    assert page.evaluate("document.activeElement.textContent") == "Runs", "the focus stayed where it was"
    assert visit.complaints == []


def test_new_audit_events_appear_and_what_a_reader_opened_stays_open(site: Site, visit: Visit) -> None:
    page = visit.go(f"{site.url}/audit")
    page.locator("summary").first.click()
    opened = page.locator("details[open] pre").inner_text()

    with site.state.change("ada", "policy.changed", "triage", reason="tighter"):
        pass
    page.wait_for_selector("text=policy.changed")
    assert page.locator(".trail li").count() == 7
    assert page.locator("details[open] pre").all_inner_texts() == [opened]


def test_what_callers_wrote_is_text_and_never_runs(site: Site, visit: Visit) -> None:
    page = visit.go(site.url)
    page.wait_for_timeout(1200)  # one refresh more, which goes another way than the first rendering
    assert page.title() != "pwned"
    assert page.locator("q", has_text="<script>document.title='pwned'</script>").count() == 1
    assert page.locator("main img, main script").count() == 0
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [{"viewport": {"width": 390, "height": 844}}], indirect=True, ids=["phone"])
def test_every_page_fits_a_phone(site: Site, visit: Visit) -> None:
    for path in PAGES:
        page = visit.go(site.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        assert page.evaluate(cut) == 0, f"a table on {path} is wider than the phone"


def test_ages_are_told_by_the_servers_clock(site: Site, visit: Visit) -> None:
    page = visit.go(f"{site.url}/runs/run-3")
    page.wait_for_selector("time:has-text('3 min ago')")
    assert page.locator("time").first.get_attribute("title") == "2026-11-23 13:59:52 UTC"


@pytest.mark.parametrize("visit", [{"java_script_enabled": False}], indirect=True, ids=["no script"])
def test_without_javascript_the_page_is_whole_and_reloads_itself(site: Site, visit: Visit) -> None:
    visit.page.goto(f"{site.url}/endpoints/triage")
    assert visit.page.locator(".plot:visible").count() == 4
    assert "2026-11-23 13:59:22" in visit.page.locator("main").inner_text()
    assert visit.page.locator("noscript meta[http-equiv=refresh]").count() == 1


def test_a_lost_connection_is_said_and_heals(site: Site, visit: Visit) -> None:
    page = visit.go(site.url)
    page.route("**/*", lambda call: call.abort())
    page.wait_for_selector('#live[data-live="lost"]')
    page.unroute("**/*")
    page.wait_for_selector('#live[data-live="on"]')


def test_everything_can_be_reached_by_keyboard_and_shows_its_focus(site: Site, visit: Visit) -> None:
    page = visit.go(site.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["width"] > 20
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
