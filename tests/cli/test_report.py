"""`noria report` and `noria monitor` on a real project on disk."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.test_commands import Shop
from fakes.reported import HOUR, Reported
from fakes.story import XSS
from noria import bootstrap
from noria.domain.errors import InvalidRequest, UnknownEndpoint

HOURS = 30


@pytest.fixture
def shop(project: Path) -> Iterator[Shop]:
    settings = bootstrap.settings(project)
    state = bootstrap.state(settings)
    begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOURS * HOUR
    Reported(HOURS, 20, state=state, records=bootstrap.records(settings), begin=begin, names=["triage"])
    bootstrap.apply(state, settings, (project / "noria.yaml").read_text(), "ada", "start")
    yield Shop(project, state)
    state.close()


def test_a_report_is_a_page_a_picture_and_json(shop: Shop, tmp_path: Path) -> None:
    html, png = tmp_path / "r.html", tmp_path / "r.png"
    done = shop.run("report", "--html", str(html), "--png", str(png), "--since", "3d")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"The report is in {html} and {png}.\n"
    assert html.read_text().startswith("<!doctype html>")
    assert XSS not in html.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.glob("*r.*")) == ["r.html", "r.png"]
    found = shop.json("report", "--since", "3d", "--endpoint", "triage")
    assert [e["name"] for e in found["endpoints"]] == ["triage"]
    assert found["endpoints"][0]["windows"] == HOURS


def test_without_a_file_a_report_says_how_things_are(shop: Shop) -> None:
    lines = shop.run("report", "--since", "3d").stdout.splitlines()
    assert lines[0].startswith("triage: What callers write to triage has changed")
    assert lines[1].startswith("triage: requests")
    assert "are counted in closed windows" in lines[2]


def test_a_report_refuses_what_it_cannot_do(shop: Shop, tmp_path: Path) -> None:
    assert "ends before it begins" in shop.refuses(InvalidRequest, "report", "--since", "1h", "--until", "2h")
    assert "is no time" in shop.refuses(InvalidRequest, "report", "--since", "soon")
    assert "no endpoint" in shop.refuses(UnknownEndpoint, "report", "--endpoint", "nobody")
    missing = tmp_path / "no" / "r.html"
    assert "can't be written" in shop.refuses(InvalidRequest, "report", "--html", str(missing))


def test_monitors_are_listed_nearest_to_an_alarm_first(shop: Shop) -> None:
    lines = shop.run("monitor", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["triage:prediction", "triage:text"]
    assert "ALARM" in lines[1]
    found = shop.json("monitor", "list", "--endpoint", "triage")
    assert {m["monitor"] for m in found} == {"text", "length", "prediction", "quality"}
    assert "counts" not in found[0]


def test_a_monitor_is_shown_in_numbers(shop: Shop) -> None:
    text = shop.run("monitor", "show", "text").stdout
    assert "triage:text" in text
    assert "PSI" in text
    assert "requester = shop" in text
    assert shop.json("monitor", "show", "triage:text")["effects"]["js_distance"] > 0


def test_a_monitor_is_explained_in_words(shop: Shop) -> None:
    text = shop.run("monitor", "explain", "triage:text").stdout
    assert "It watches what callers write" in text
    assert "It alarms" in text
    assert "apple, iphone, store" in text
    assert "A classifier that tries to tell" in text
    assert "iphone" in text
    assert "\x1b" not in text
    found = shop.json("monitor", "explain", "text")
    assert found["apart"]["found"]["auc"] > 0.8
    since = datetime.fromisoformat(found["apart"]["since"])
    assert since > datetime.now(UTC) - timedelta(hours=16)


def test_a_monitor_that_is_not_there_is_named_with_those_that_are(shop: Shop) -> None:
    done = shop.run("monitor", "explain", "nothing")
    assert isinstance(done.exception, InvalidRequest)
    assert "triage:text" in (done.exception.remedy or "")
