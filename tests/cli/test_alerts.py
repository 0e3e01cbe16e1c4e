"""`noria alerts` on a real project on disk."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.test_commands import Shop
from fakes.story import ALERT, XSS, tell
from noria import bootstrap
from noria.domain.alert import Alert, Example, Seen, Silence, SliceMoved
from noria.domain.delivery import Delivery
from noria.domain.errors import Conflict, InvalidRequest, UnknownAlert, UnknownSilence

NOW = datetime.now(UTC)
RULE = replace(
    ALERT,
    id="triage:slow",
    monitor="slow",
    rule="slow",
    metric="execution_duration_ms.p95",
    limit=500.0,
    value=812.0,
    log_e=0.0,
    moved=(),
    trail=tuple(Seen(NOW - timedelta(hours=n), 900.0 - 100 * n) for n in range(4, 0, -1)),
    slices=(SliceMoved("requester", "ada", "p95", 950.0, 12),),
    records=(Example("0" * 32, "why is this \x1b[31mslow", 990.0),),
    trigger=False,
)


@pytest.fixture
def shop(project: Path) -> Iterator[Shop]:
    state = bootstrap.state(bootstrap.settings(project))
    tell(state)
    bootstrap.apply(state, bootstrap.settings(project), (project / "noria.yaml").read_text(), "ada", "start")
    with state.note() as note:
        note.put(RULE)
    yield Shop(project, state)
    state.close()


def test_the_list_says_how_grave_how_it_stands_and_who_looks_after_it(shop: Shop) -> None:
    shop.run("alerts", "ack", "triage:slow", "--reason", "on it", "--by", "ada")
    shop.run("alerts", "silence", "--monitor", "text", "--for", "2h", "--reason", "known", "--by", "bob")
    lines = shop.run("alerts", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["state", "firing,", "firing,"]
    assert "ada looks after it" in lines[1]
    assert "silenced by s-" in lines[2]
    found = {a["id"]: a for a in shop.json("alerts", "list")}
    assert found["triage:slow"]["acknowledged"]["by"] == "ada"
    assert found[ALERT.id]["silenced"].startswith("s-")
    assert found["triage:slow"]["how_sure"] == "a plain threshold: it may be chance"
    assert shop.json("alerts", "list", "--endpoint", "assistant") == []


def test_one_alert_is_shown_with_what_shows_it_and_what_happens_next(shop: Shop) -> None:
    shown = shop.run("alerts", "show", "triage:text").stdout
    for said in ("has changed", "evidence 12,333 to 1", "apple, iphone, store", "18.7%", "next"):
        assert said in shown
    rule = shop.run("alerts", "show", "triage:slow").stdout
    for said in ("it may be chance", "requester = ada", "950", "0" * 32, "nothing by itself: its rule starts no run"):
        assert said in rule
    assert "\x1b" not in shown + rule
    assert XSS not in rule


def test_who_was_told_is_shown_and_why_not(shop: Shop) -> None:
    delivery = Delivery(
        id="triage:slow → webhook", endpoint="triage", alert_id="triage:slow", notifier="webhook", state=RULE.state,
        at=RULE.raised_at, due_at=NOW, attempts=3, last_error="It answered 500.",
    )  # fmt: skip
    with shop.state.note() as note:
        note.put(delivery)
        note.put(replace(delivery, id="triage:slow → log", notifier="log", delivered_at=NOW, last_error=""))
    shown = shop.run("alerts", "show", "triage:slow").stdout
    assert "It answered 500." in shown
    assert "delivered" in shown
    told = shop.json("alerts", "show", "triage:slow")["deliveries"]
    assert [(d["notifier"], d["attempts"]) for d in told] == [("webhook", 3), ("log", 3)]


@pytest.mark.parametrize(("name", "begins"), [("slow.svg", b"<svg"), ("slow.png", b"\x89PNG")])
@pytest.mark.parametrize("alert", ["triage:slow", "triage:text"])
def test_a_picture_of_what_moved_is_drawn(shop: Shop, tmp_path: Path, name: str, begins: bytes, alert: str) -> None:
    file = tmp_path / name
    assert shop.run("alerts", "show", alert, "--picture", str(file)).exit_code == 0
    assert file.read_bytes().startswith(begins)


def test_what_can_not_be_drawn_is_said(shop: Shop, tmp_path: Path) -> None:
    with shop.state.note() as note:
        note.put(replace(ALERT, id="triage:registry", monitor="registry", moved=()))
    problem = shop.refuses(InvalidRequest, "alerts", "show", "triage:registry", "--picture", str(tmp_path / "a.png"))
    assert "no picture" in problem
    assert "neither" in shop.refuses(InvalidRequest, "alerts", "show", "triage:slow", "--picture", "a.gif")


def test_an_alert_is_named_by_its_beginning_if_that_is_enough(shop: Shop) -> None:
    assert shop.json("alerts", "show", "triage:s")["id"] == "triage:slow"
    shop.refuses(UnknownAlert, "alerts", "show", "triage:")
    shop.refuses(UnknownAlert, "alerts", "show", "nowhere")


def test_looking_after_an_alert_and_silencing_are_audited_with_who_and_why(shop: Shop) -> None:
    shop.run("alerts", "ack", ALERT.id, "--reason", "we know", "--by", "ada")
    made = shop.run("alerts", "silence", "--endpoint", "tri*", "--for", "2h", "--reason", "work", "--by", "ada").stdout
    name = made.split()[1]
    shop.run("alerts", "unsilence", name, "--reason", "done", "--by", "bob")
    said = [(e.actor, e.action, e.subject, e.reason) for e in shop.state.audit_trail()][-3:]
    assert said == [
        ("ada", "alert.acknowledged", ALERT.id, "we know"),
        ("ada", "alerts.silenced", name, "work"),
        ("bob", "alerts.unsilenced", name, "done"),
    ]
    silence = shop.state.get(Silence, name)
    assert (silence.endpoint, silence.lifted_by) == ("tri*", "bob")
    assert silence.until - silence.begun_at > timedelta(minutes=119)


def test_silences_in_force_are_listed(shop: Shop) -> None:
    assert shop.run("alerts", "silences").stdout == "Nothing is silenced.\n"
    shop.run("alerts", "silence", "--severity", "info", "--for", "30m", "--reason", "noise", "--by", "ada")
    (silence,) = shop.json("alerts", "silences")
    assert (silence["severity"], silence["by"], silence["reason"]) == ("info", "ada", "noise")
    assert "noise" in shop.run("alerts", "silences").stdout


def test_what_can_not_be_meant_is_refused(shop: Shop) -> None:
    why = ("--reason", "r")
    assert "every alert" in shop.refuses(InvalidRequest, "alerts", "silence", "--for", "1h", *why)
    assert "no duration" in shop.refuses(InvalidRequest, "alerts", "silence", "--monitor", "x", "--for", "soon", *why)
    shop.refuses(UnknownSilence, "alerts", "unsilence", "s-1", *why)
    shop.refuses(UnknownAlert, "alerts", "ack", "triage:nothing", *why)
    with shop.state.note() as note:
        note.put(shop.state.get(Alert, ALERT.id).resolve(NOW, "over"))
    shop.refuses(Conflict, "alerts", "ack", ALERT.id, *why)
    name = shop.run("alerts", "silence", "--monitor", "x", "--for", "1h", *why).stdout.split()[1]
    shop.run("alerts", "unsilence", name, *why)
    shop.refuses(Conflict, "alerts", "unsilence", name, *why)
