"""Each page says what the state holds, escapes what callers wrote, and is answered cheaply when nothing changed."""

import html
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fakes.lineage import EmptyLog
from fakes.state import FakeState
from fakes.story import PASSED, PROJECT, XSS, StoppedClock, drift_rows, route, tell
from noria.api.console import routes
from noria.domain.approval import Approval, ApprovalState
from noria.governance.lineage import Lineage

PAGES = ("/", "/endpoints/triage", "/endpoints/assistant", "/runs", "/runs/run-2", "/runs/run-3", "/verdicts/triage/2",
         "/verdicts/triage/3", "/audit")  # fmt: skip


class Site:
    """The console over a state that a test can change."""

    def __init__(self, told: bool = True, project=PROJECT, read_drift=None) -> None:
        self.clock = StoppedClock()
        self.state = FakeState(self.clock)
        if told:
            tell(self.state)
        read = read_drift or (lambda endpoint: drift_rows() if endpoint == "triage" else [])
        trace = Lineage(self.state, EmptyLog()).trace
        app = Starlette(routes=list(routes(self.state, read, lambda: project, self.clock, trace)))
        self.client = TestClient(app)

    def text(self, path: str) -> str:
        """The page's words, without its markup and with single blanks."""
        reply = self.client.get(path)
        assert reply.status_code == 200, reply.text
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", reply.text)).split())


@pytest.fixture
def site() -> Site:
    return Site()


def test_the_loop_shows_a_live_number_at_each_station(site: Site) -> None:
    page = site.text("/")
    for figure in ("newest triage/3", "2 versions up", "5,198 shipped", "1 of 4 alarm", "validate done",
                   "triage/3 passed", "canary 50 %"):  # fmt: skip
        assert figure in page


def test_a_lineage_shows_what_made_a_version_and_says_what_is_missing(site: Site) -> None:
    page = site.text("/trace/triage/3")
    assert "run run-3" in page
    assert "verdict triage/3" in page
    assert "no longer kept" in page
    assert site.client.get("/trace/nobody").status_code == 404


def test_the_loop_shows_the_alert_with_what_moved_and_examples(site: Site) -> None:
    page = site.text("/")
    assert "What callers write to triage has changed" in page
    assert "apple, iphone, store 0.4 % 18.7 %" in page
    assert "thanks apple" in page


def test_an_endpoint_shows_its_versions_its_evidence_and_the_line_of_the_alarm(site: Site) -> None:
    page = site.text("/endpoints/triage")
    assert "triage/1 champion 50 %" in page
    assert "triage/3 canary 50 %" in page
    assert "alarm at 80 : 1" in page
    assert "Accuracy on labelled records" in page
    assert "Jensen–Shannon distance" in page


def test_an_endpoint_without_windows_says_so(site: Site) -> None:
    page = site.text("/endpoints/assistant")
    assert "No window has closed since the champion came in." in page
    assert "The first window has not closed yet." in page


def test_a_drift_table_that_cannot_be_read_leaves_the_rest_of_the_page() -> None:
    def broken(_endpoint: str):
        raise OSError("disk on fire")

    page = Site(read_drift=broken).text("/endpoints/triage")
    assert "The drift table can't be read" in page
    assert "triage/1 champion" in page
    assert "disk on fire" not in page


def test_a_run_shows_its_steps_with_durations_and_its_verdict(site: Site) -> None:
    page = site.text("/runs/run-3")
    assert "train 11.3 s" in page
    assert "Verdict passed" in page
    assert "The snapshot holds 41 fresh labels" in site.text("/runs/run-2")


def test_a_passed_verdict_shows_every_gate_its_numbers_and_its_limits(site: Site) -> None:
    page = site.text("/verdicts/triage/3")
    assert "✓ quality passed" in page
    assert "limit: margin 0.030" in page
    assert "labelled production 271 38.4 % 65.3 % +26.9" in page


def test_a_verdict_shows_each_group_before_and_after(site: Site) -> None:
    page = site.text("/verdicts/triage/3")
    assert "apple 240 38.0 % 66.0 % +28.0" in page
    assert "united 588 80.0 % 79.0 % −1.0" in page


def test_a_refused_verdict_says_which_gate_refused_and_why(site: Site) -> None:
    page = site.text("/verdicts/triage/2")
    assert "triage/2 refused" in page
    assert "✗ groups refused Group united lost 0.31 of accuracy, 0.1 is allowed." in page
    assert "✓ quality passed" in page


def test_an_audit_that_holds_is_verified(site: Site) -> None:
    page = site.text("/audit")
    assert "Audit verified" in page
    assert "6 events" in page
    assert "rollout.canary triage/3" in page


@pytest.mark.parametrize("tamper", ["alter", "drop the last"])
def test_an_audit_that_was_tampered_with_is_broken(site: Site, monkeypatch: pytest.MonkeyPatch, tamper: str) -> None:
    events = list(site.state.audit_trail())
    forged = replace(events[2], actor="nobody")
    shown = [*events[:2], forged, *events[3:]] if tamper == "alter" else events[:-1]
    monkeypatch.setattr(site.state, "audit_trail", lambda **_: iter(shown))

    page = site.text("/audit")
    assert "Audit broken" in page
    assert "The account does not hold" in page
    assert ("event 3 was altered" in page) == (tamper == "alter")


@pytest.mark.parametrize("path", PAGES)
def test_no_page_lets_what_callers_wrote_become_markup(site: Site, path: str) -> None:
    body = site.client.get(path).text
    assert XSS not in body
    assert "<script>" not in body
    assert 'onerror="' not in body


def test_what_callers_wrote_is_shown_as_text(site: Site) -> None:
    assert "&lt;script&gt;document.title=" in site.client.get("/").text


@pytest.mark.parametrize("path", [*PAGES, "/runs/none", "/console/console.css"])
def test_every_answer_forbids_inline_scripts_and_other_hosts(site: Site, path: str) -> None:
    headers = site.client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", PAGES)
def test_no_page_names_another_host_or_has_inline_styles_or_handlers(site: Site, path: str) -> None:
    body = site.client.get(path).text
    assert not re.findall(r"(?:src|href)=\"(?!/|#)", body)
    assert not re.findall(r"<[^>]+\s(?:style|on\w+)=", body)


@pytest.mark.parametrize("path", ["/endpoints/none", "/runs/none", "/verdicts/none/1", "/verdicts/<b>"])
def test_what_is_not_there_is_a_page_that_says_so(site: Site, path: str) -> None:
    reply = site.client.get(path)
    assert reply.status_code == 404
    assert "Not here" in reply.text
    assert "<b>" not in reply.text.split("<main")[1]


@pytest.mark.parametrize("path", PAGES)
def test_the_console_changes_nothing(site: Site, path: str) -> None:
    before = site.state.revision()
    assert site.client.post(path).status_code == 405
    site.client.get(path)
    assert site.state.revision() == before


def test_a_page_that_has_not_changed_is_not_sent_again(site: Site) -> None:
    first = site.client.get("/")
    site.clock.at = site.clock.at.replace(microsecond=1)
    again = site.client.get("/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["x-noria-now"] == first.headers["x-noria-now"]

    with site.state.note() as change:
        change.put(route(weight=10))
    assert site.client.get("/", headers={"if-none-match": first.headers["etag"]}).status_code == 200


def test_files_are_kept_by_browsers_under_an_address_that_changes_with_them(site: Site) -> None:
    address = re.search(r'href="(/console/console\.css\?\w+)"', site.client.get("/").text)
    assert address is not None
    reply = site.client.get(address[1])
    assert reply.headers["content-type"].startswith("text/css")
    assert "immutable" in reply.headers["cache-control"]
    assert site.client.get("/console/views.py").status_code == 404


@pytest.mark.parametrize("path", ["/", "/runs", "/audit"])
def test_an_empty_state_has_pages_too(path: str) -> None:
    for project in (None, PROJECT):
        assert Site(told=False, project=project).client.get(path).status_code == 200


def test_a_silent_worker_is_an_alarm() -> None:
    site = Site()
    site.clock.at = site.clock.at.replace(minute=30)
    page = site.text("/")
    assert "worker is silent" in page
    assert "Requests are still answered and recorded" in page


def test_the_console_starts_without_heavy_imports() -> None:
    heavy = {"pandas", "pyarrow", "altair", "vl_convert", "mlflow", "sklearn", "numpy", "deltalake"}
    code = "import sys, noria.api.console, noria.api.metrics; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & set(loaded)


def test_a_state_that_is_gone_is_said_in_words(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_args, **_more):
        raise ConnectionError("no database at secret-host")

    monkeypatch.setattr(site.state, "find", gone)
    reply = site.client.get("/")
    assert reply.status_code == 503
    assert "Requests are answered all the same." in reply.text
    assert "secret-host" not in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_viewers_who_ask_at_the_same_time_share_one_reading_of_the_state(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    find = site.state.find
    monkeypatch.setattr(site.state, "find", lambda *a, **k: reads.append(a) or find(*a, **k))

    site.client.get("/")
    once = len(reads)
    site.client.get("/")
    assert len(reads) == once
    with site.state.note() as change:
        change.put(route(weight=10))
    assert "canary 3: 10 %" in site.text("/")
    assert len(reads) == 2 * once


def test_a_verdict_that_waits_says_for_whom_and_later_who_approved_it(site: Site) -> None:
    waits = Approval(
        verdict_id=PASSED.id, endpoint="triage", state=ApprovalState.WAITING, asked_at=PASSED.decided_at,
        expires_at=PASSED.decided_at + timedelta(days=3), people=("ada", f"grace{XSS}"), requested_by=("bob",),
    )  # fmt: skip
    with site.state.note() as note:
        note.put(replace(PASSED, needs_approval=True))
        note.put(waits)
    path = f"/verdicts/{PASSED.id}"
    page = site.text(path)
    assert "waits for ada or grace" in page
    assert f"noria verdict approve {PASSED.id}" in page
    assert XSS not in site.client.get(path).text
    assert "triage/3 waiting" in site.text("/")
    assert "waits for approval by ada" in site.text("/")
    assert "waiting" in site.text("/endpoints/triage")
    with site.state.note() as note:
        note.put(waits.decided(ApprovalState.APPROVED, "ada", PASSED.decided_at, "the numbers hold"))
    page = site.text(path)
    assert "approved by ada" in page
    assert "the numbers hold" in page
    assert "waits for" not in page
    with site.state.note() as note:
        note.put(waits.decided(ApprovalState.REFUSED, "ada", PASSED.decided_at, "wrong tone"))
    assert "gets no traffic: refused by ada: wrong tone" in site.text(path)
