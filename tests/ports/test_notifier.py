"""What every notifier keeps to, and what the real ones do beside it; each tells a real server on loopback."""

import hashlib
import hmac
import io
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fakes.notifier import FakeNotifier
from fakes.receiver import Mailbox, Receiver
from fakes.story import ALERT, NOW, PROJECT, StoppedClock
from noria.adapters.notifiers import (
    AlertmanagerNotifier,
    ConsoleNotifier,
    LogNotifier,
    ServiceNotifier,
    WebhookNotifier,
    recipients,
)
from noria.adapters.notifiers.apprise_process import scrubbed
from noria.adapters.notifiers.azure_monitor import AzureMonitorNotifier
from noria.adapters.notifiers.words import text
from noria.adapters.upstreams.addresses import forbidden
from noria.domain.alert import Alert, Example, Severity, SliceMoved
from noria.domain.delivery import Notice
from noria.domain.errors import InvalidProject, MissingExtra, NotDelivered
from noria.monitoring import pictures
from noria.ports import Notifier
from noria.settings import Alertmanager, Notify, Service, Settings, Webhook

RESOLVED = ALERT.resolve(NOW, "triage/3 was promoted")
HOSTILE = replace(ALERT, summary="quiet\x1b[2J\x1b]0;pwned\x07\nWARNING forged line")
OTHER = replace(ALERT, id="triage:length:1", monitor="length", severity=Severity.CRITICAL)
KEY = "00000000-0000-0000-0000-000000000001"


def notice(*alerts: Alert, id: str = "d1", **more: Any) -> Notice:
    return Notice(id=id, alerts=alerts or (ALERT,), **more)


@dataclass
class Place:
    """A notifier, and what was received where it tells."""

    notifier: Notifier
    received: Callable[[], list[str]]
    refuse: Callable[[], None]
    """From now on the receiver takes nothing."""


@contextmanager
def place(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    """A notifier of that kind with its receiver."""
    receiver, mailbox = Receiver(), Mailbox()
    taken = b'{"itemsReceived": 1, "itemsAccepted": 1, "errors": []}' if kind == "azure_monitor" else b""
    receiver.reply = taken

    def refuse() -> None:
        receiver.statuses[:] = [400 if kind == "azure_monitor" else 500]
        receiver.reply = b'{"errors": []}'
        mailbox.answer = "554 no"

    def bodies() -> list[str]:
        return [body.decode() for _, body in receiver.got] + [text for _, text in mailbox.mails]

    with ExitStack() as stack:
        url = stack.enter_context(receiver.listening())
        port = url.split(":")[2].split("/")[0]
        made: dict[str, Callable[[], Notifier]] = {
            "webhook": lambda: WebhookNotifier(url),
            "alertmanager": lambda: AlertmanagerNotifier(f"http://127.0.0.1:{port}", now=StoppedClock().now),
            "json": lambda: ServiceNotifier("URL", lambda _: f"json://127.0.0.1:{port}/hook"),
            "mattermost": lambda: ServiceNotifier("URL", lambda _: f"mmost://127.0.0.1:{port}/t0kent0kent0ken"),
            "mail": lambda: ServiceNotifier("URL", lambda _: mail(stack.enter_context(mailbox.open()))),
            "azure_monitor": lambda: azure(f"http://127.0.0.1:{port}", monkeypatch, tmp_path),
        }
        yield Place(made[kind](), bodies, refuse)


def mail(port: int) -> str:
    return f"mailto://127.0.0.1:{port}/?from=noria@example.org&to=ops@example.org&mode=insecure"


def azure(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AzureMonitorNotifier:
    told = f"InstrumentationKey={KEY};IngestionEndpoint={url}"
    monkeypatch.setenv("APPLICATIONINSIGHTS_CONNECTION_STRING", told)
    return AzureMonitorNotifier(Settings(root=tmp_path, project=PROJECT))


ELSEWHERE = ("webhook", "alertmanager", "json", "mattermost", "mail", "azure_monitor")


@pytest.fixture(params=["fake", "log", "console", *ELSEWHERE])
def notifier(request: pytest.FixtureRequest, monkeypatch, tmp_path: Path) -> Iterator[Notifier]:
    """Each notifier in turn."""
    made = {"fake": FakeNotifier(), "log": LogNotifier(), "console": ConsoleNotifier(Console(file=io.StringIO()))}
    if request.param in made:
        yield made[request.param]
        return
    with place(request.param, monkeypatch, tmp_path) as found:
        yield found.notifier


class TestEveryNotifier:
    def test_it_has_a_name_and_the_method_of_the_port(self, notifier: Notifier) -> None:
        assert isinstance(notifier, Notifier)
        assert notifier.name

    @pytest.mark.parametrize("alert", [ALERT, RESOLVED, HOSTILE], ids=["firing", "resolved", "hostile"])
    def test_it_delivers_a_notice_more_than_once_without_complaint(self, notifier: Notifier, alert) -> None:
        notifier.notify(notice(alert))
        notifier.notify(notice(alert))

    def test_it_delivers_several_alerts_at_once(self, notifier: Notifier) -> None:
        notifier.notify(notice(ALERT, OTHER))


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_is_wrong_with_which_endpoint_arrives(kind: str, monkeypatch, tmp_path: Path) -> None:
    with place(kind, monkeypatch, tmp_path) as found:
        found.notifier.notify(notice(ALERT, OTHER))
        (received,) = found.received()
    assert "What callers write to triage has changed" in received.replace("=\n", "").replace("=20", " ")
    assert "d1" in received or kind == "alertmanager"


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_receiver_that_refuses_is_a_failure_that_says_what_to_do(kind: str, monkeypatch, tmp_path: Path) -> None:
    with place(kind, monkeypatch, tmp_path) as found:
        found.refuse()
        with pytest.raises(NotDelivered) as failed:
            found.notifier.notify(notice())
    assert failed.value.remedy
    assert "t0ken" not in str(failed.value)


def test_the_fake_fails_as_often_as_a_test_wants() -> None:
    notifier = FakeNotifier(failures=1)
    with pytest.raises(NotDelivered):
        notifier.notify(notice())
    notifier.notify(notice())
    assert notifier.told == [ALERT]


def test_the_log_says_what_fires_and_what_is_over(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "noria.alerts"):
        LogNotifier().notify(notice())
        LogNotifier().notify(notice(RESOLVED))

    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert caplog.messages[0].startswith("firing triage:text:1: What callers write to triage has changed")
    assert caplog.messages[1].startswith("resolved triage:text:1: triage/3 was promoted (was: ")


def test_nobody_can_forge_a_log_line_through_an_alert(caplog: pytest.LogCaptureFixture) -> None:
    LogNotifier().notify(notice(HOSTILE))
    assert "\n" not in caplog.messages[0]
    assert "\x1b" not in caplog.messages[0]


def printed(alert) -> str:
    out = io.StringIO()
    ConsoleNotifier(Console(file=out, width=110)).notify(notice(alert))
    return out.getvalue()


def test_the_console_shows_what_moved_with_examples() -> None:
    shown = printed(ALERT)
    assert "ALERT" in shown
    assert "18.7%" in shown
    assert "thanks apple" in shown
    assert "what moved" not in printed(RESOLVED)


def test_the_terminal_obeys_nothing_that_callers_wrote() -> None:
    hostile = replace(ALERT.moved[0], name="[red]apple[/red]", examples=("\x1b]0;pwned\x07 [bold]hi[/bold]",))
    shown = printed(replace(ALERT, moved=(hostile,)))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[red]apple[/red]" in shown
    assert "[bold]hi[/bold]" in shown


def test_a_webhook_gets_the_alert_as_json() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        WebhookNotifier(url).notify(notice())

    headers, body = receiver.got[0]
    told = json.loads(body)
    assert (headers["path"], headers["content-type"]) == ("/hooks/t0ken?room=ops", "application/json")
    assert (told["type"], told["text"]) == ("alert.firing", ALERT.summary)
    assert told["alert"]["moved"][0]["examples"][0].endswith("thanks apple")
    assert "x-noria-signature" not in headers


def test_a_secret_signs_the_body() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        WebhookNotifier(url, secret="s3cret").notify(notice())

    headers, body = receiver.got[0]
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["x-noria-signature"] == f"sha256={expected}"


def test_a_repeat_carries_the_same_delivery_and_the_resolution_another() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        for told in (notice(), notice(), notice(RESOLVED, id="d2")):
            WebhookNotifier(url).notify(told)

    first, again, resolved = (headers["x-noria-delivery"] for headers, _ in receiver.got)
    assert first == again != resolved
    assert json.loads(receiver.got[2][1])["type"] == "alert.resolved"


@pytest.mark.parametrize("status", [302, 404, 503])
def test_an_answer_that_is_not_2xx_is_a_failure_and_no_redirect_is_followed(status: int) -> None:
    receiver = Receiver(statuses=[status])
    with receiver.listening() as url, pytest.raises(NotDelivered, match=f"answered {status}"):
        WebhookNotifier(url).notify(notice())
    assert len(receiver.got) == 1


@pytest.mark.parametrize("fault", [{"hang": threading.Event()}, {"drip": True}], ids=["silent", "byte by byte"])
def test_a_receiver_that_never_ends_is_given_up(fault: dict) -> None:
    with Receiver(**fault).listening() as url, pytest.raises(NotDelivered, match="took too long"):
        WebhookNotifier(url, timeout_s=0.3).notify(notice())


def test_a_receiver_that_is_down_is_a_failure_that_does_not_show_the_token() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/t0ken"
        with pytest.raises(NotDelivered) as failed:
            WebhookNotifier(url).notify(notice())
    assert "refused" in str(failed.value)
    assert "t0ken" not in str(failed.value)


def test_a_name_with_one_dead_address_is_reached_at_its_other_one() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        port = int(url.split(":")[2].split("/")[0])
        answers = [(0, 0, 0, "", ("::1", port, 0, 0)), (0, 0, 0, "", ("127.0.0.1", port))]
        WebhookNotifier(url, resolve=lambda *_, **__: answers).notify(notice())
    assert len(receiver.got) == 1


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1%eth0", "0.0.0.0", "168.63.129.16", "fd00:ec2::254"])
def test_a_name_that_hides_a_metadata_address_is_refused(address: str) -> None:
    hidden = WebhookNotifier("http://hooks.example.org/x", resolve=lambda *_, **__: [(0, 0, 0, "", (address, 80))])
    with pytest.raises(NotDelivered, match="link-local"):
        hidden.notify(notice())


@pytest.mark.parametrize(
    ("address", "refused"),
    [("::ffff:169.254.169.254", True), ("64:ff9b::a9fe:a9fe", True), ("224.0.0.1", True), ("::", True),
     ("127.0.0.1", False), ("::1", False), ("10.1.2.3", False), ("192.168.0.9", False), ("fd12::1", False),
     ("93.184.216.34", False), ("2606:2800::1", False)],
)  # fmt: skip
def test_only_addresses_that_no_webhook_has_are_forbidden(address: str, refused: bool) -> None:
    assert forbidden(ipaddress.ip_address(address)) is refused


@pytest.mark.parametrize("url", ["ftp://example.org/x", "file:///etc/passwd", "https://", "hooks.example.org"])
def test_an_address_that_is_not_http_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidProject, match="http"):
        WebhookNotifier(url)


def test_several_alerts_go_to_a_webhook_in_one_post() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        WebhookNotifier(url).notify(notice(ALERT, OTHER, next={ALERT.id: "run r1 waits for labels"}))
    told = json.loads(receiver.got[0][1])
    assert [alert["id"] for alert in told["alerts"]] == [ALERT.id, OTHER.id]
    assert told["next"] == {ALERT.id: "run r1 waits for labels"}


def test_alertmanager_gets_alerts_as_its_api_has_them_and_hears_when_they_end() -> None:
    receiver, clock = Receiver(), StoppedClock()
    with receiver.listening() as url:
        told = AlertmanagerNotifier(url.partition("/hooks")[0], project="care", now=clock.now)
        told.notify(notice(next={ALERT.id: "a run is under way"}))
        told.notify(notice(RESOLVED))
    (headers, firing), (_, over) = receiver.got
    assert headers["path"] == "/api/v2/alerts"
    (alert,) = json.loads(firing)
    assert alert["labels"] == {
        "alertname": "NoriaText", "endpoint": "triage", "monitor": "text", "noria_alert": "triage:text:1",
        "severity": "warning", "project": "care",
    }  # fmt: skip
    assert alert["annotations"]["how_sure"] == "evidence 12,333 to 1"
    assert alert["annotations"]["next"] == "a run is under way"
    assert alert["startsAt"] == ALERT.raised_at.isoformat()
    assert alert["endsAt"] == (NOW + timedelta(minutes=4)).isoformat()
    (ended,) = json.loads(over)
    assert ended["labels"] == alert["labels"]
    assert ended["endsAt"] == NOW.isoformat()


def test_azure_monitor_gets_an_event_that_a_rule_can_be_made_on(monkeypatch, tmp_path: Path) -> None:
    with place("azure_monitor", monkeypatch, tmp_path) as found:
        found.notifier.notify(notice(OTHER))
        (envelope,) = json.loads(found.received()[0])
    assert envelope["iKey"] == KEY
    assert envelope["data"]["baseType"] == "EventData"
    event = envelope["data"]["baseData"]
    assert event["name"] == "noria.alert"
    assert event["properties"]["noria.alert.id"] == OTHER.id
    assert event["properties"]["noria.alert.severity"] == "critical"
    assert event["properties"]["noria.delivery"] == "d1"


def test_azure_monitor_without_a_connection_string_says_where_to_get_one(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("APPLICATIONINSIGHTS_CONNECTION_STRING", raising=False)
    with pytest.raises(InvalidProject, match="overview page"):
        AzureMonitorNotifier(Settings(root=tmp_path, project=PROJECT)).notify(notice())


def test_a_mail_holds_what_moved_and_a_picture_of_it() -> None:
    mailbox = Mailbox()
    spec = pictures.of_alert(ALERT)
    assert spec is not None
    with mailbox.open() as port:
        ServiceNotifier("MAIL", lambda _: mail(port)).notify(notice(pictures={ALERT.id: spec}))
    ((to, text),) = mailbox.mails
    assert to == ["ops@example.org"]
    assert "image/png" in text
    assert "what-moved-1.png" in text


def test_what_a_caller_wrote_calls_nobody_in_a_chat() -> None:
    loud = replace(ALERT.moved[0], name="@here", examples=("hey @everyone <!channel> \x1b[2J",))
    slices = (SliceMoved("requester", "@channel", "avg", 3.0),)
    told = text(notice(replace(ALERT, moved=(loud,), slices=slices, records=(Example("r1", "@all"),))))
    assert not any(call in told for call in ("@everyone", "<!channel", "@here", "@channel", "@all", "\x1b"))
    assert "everyone" in told


def test_a_picture_that_can_not_be_drawn_keeps_nobody_from_being_told() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        told = notice(pictures={ALERT.id: {"mark": "no such mark", "data": {"url": "http://169.254.169.254/"}}})
        ServiceNotifier("URL", lambda _: url.replace("http://", "json://")).notify(told)
    assert json.loads(receiver.got[0][1])["attachments"] == []


def test_a_service_whose_variable_is_not_set_is_a_failure_that_names_it() -> None:
    with pytest.raises(NotDelivered, match="SLACK_URL isn't set"):
        ServiceNotifier("SLACK_URL", lambda _: "").notify(notice())


def test_a_service_that_apprise_does_not_know_is_a_failure_without_the_secret() -> None:
    with pytest.raises(NotDelivered, match="no URL that apprise knows") as failed:
        ServiceNotifier("SLACK_URL", lambda _: "nonsense-t0ken").notify(notice())
    assert "t0ken" not in str(failed.value)


def test_without_apprise_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setattr("noria.adapters.notifiers.services.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"noria\[notify\]"):
        ServiceNotifier("SLACK_URL", lambda _: "json://127.0.0.1").notify(notice())


@pytest.mark.parametrize("address", ["169.254.169.254", "[fe80::1]", "0.0.0.0"])
def test_a_service_at_an_address_that_none_can_have_is_refused(address: str) -> None:
    with pytest.raises(NotDelivered, match="link-local"):
        ServiceNotifier("URL", lambda _: f"json://{address}/latest/meta-data").notify(notice())


def test_a_services_redirect_is_not_followed() -> None:
    aim = Receiver()
    with aim.listening() as there:
        source = Receiver(statuses=[307], location=there)
        with source.listening() as here, pytest.raises(NotDelivered):
            ServiceNotifier("URL", lambda _: here.replace("http://", "json://")).notify(notice())
    assert (len(source.got), len(aim.got)) == (1, 0)


def test_a_service_that_hangs_is_given_up_and_its_process_ended() -> None:
    with Receiver(hang=threading.Event()).listening() as url, pytest.raises(NotDelivered, match="took longer than 2 s"):
        ServiceNotifier("URL", lambda _: url.replace("http://", "json://"), timeout_s=2).notify(notice())


@pytest.mark.parametrize(
    "said",
    ["failed at slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7: 403", "token TIiajkdnlazkcOXrIdevi7 is no good"],
)
def test_what_a_service_says_is_shown_without_its_secrets(said: str) -> None:
    assert "TIiajk" not in scrubbed(said, "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7")


def test_the_project_file_says_who_is_told_of_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORIA_WEBHOOK_SECRET", "s3cret")
    asked = Notify(
        log=True,
        console=True,
        webhooks=(
            Webhook(url="http://a.example/1", severity="critical", endpoints=("tri*",)),
            Webhook(url="http://a.example/2"),
        ),
        services=(Service(url_env="SLACK_URL", repeat="4h"),),
        alertmanagers=(Alertmanager(url="http://127.0.0.1:9093"),),
        azure_monitor=True,
    )
    found = recipients(Settings(root=tmp_path, project=PROJECT.model_copy(update={"notify": asked})), StoppedClock())
    assert [r.name for r in found] == [
        "log", "console", "webhook 1 (a.example)", "webhook 2 (a.example)", "apprise SLACK_URL",
        "alertmanager 1 (127.0.0.1)", "azure_monitor",
    ]  # fmt: skip
    assert all(isinstance(r.notifier, Notifier) for r in found)
    first, second = found[2:4]
    assert [first.wants(a) for a in (ALERT, OTHER, replace(OTHER, endpoint="assistant"))] == [False, True, False]
    assert first.wants(replace(OTHER, endpoint=""))  # what is wrong with the whole is told to everybody
    assert second.wants(ALERT)
    assert found[4].repeat == timedelta(hours=4)
    assert "SLACK_URL" in Settings(root=tmp_path, project=PROJECT.model_copy(update={"notify": asked})).secrets


def test_a_quiet_project_tells_nobody(tmp_path: Path) -> None:
    quiet = PROJECT.model_copy(update={"notify": Notify(log=False)})
    assert recipients(Settings(root=tmp_path, project=quiet), StoppedClock()) == []
