"""What every notifier keeps to, and what the real ones do beside it; webhooks go to a real server on loopback."""

import hashlib
import hmac
import io
import ipaddress
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from fakes.notifier import FakeNotifier
from fakes.story import ALERT, NOW, PROJECT
from noria.adapters.notify import ConsoleNotifier, LogNotifier, WebhookNotifier, notifiers
from noria.adapters.upstreams.addresses import forbidden
from noria.domain.errors import InvalidProject, NotDelivered
from noria.ports import Notifier
from noria.settings import Notify, Settings, Webhook

RESOLVED = ALERT.resolve(NOW, "triage/3 was promoted")
HOSTILE = replace(ALERT, summary="quiet\x1b[2J\x1b]0;pwned\x07\nWARNING forged line")


@dataclass
class Receiver:
    """A webhook's receiver: answers with the statuses in turn, the last one for ever."""

    statuses: list[int] = field(default_factory=lambda: [200])
    hang: threading.Event | None = None
    drip: bool = False
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Serve on a free port of loopback and say where."""
        server = HTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hooks/t0ken?room=ops"
        finally:
            if self.hang:
                self.hang.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers = {k.lower(): v for k, v in self.headers.items()} | {"path": self.path}
                receiver.got.append((headers, self.rfile.read(int(self.headers["content-length"]))))
                if receiver.drip:
                    self._drip()
                elif receiver.hang:
                    receiver.hang.wait(20)
                else:
                    status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
                    self.send_response(status)
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                    self.end_headers()

            def _drip(self) -> None:
                try:
                    for _ in range(1000):
                        self.wfile.write(b"H")
                        time.sleep(0.02)
                except OSError:
                    return

            def log_message(self, *args: object) -> None:
                return

        return Handler


@pytest.fixture(params=["fake", "log", "console", "webhook"])
def notifier(request: pytest.FixtureRequest) -> Iterator[Notifier]:
    """Each notifier in turn."""
    if request.param == "webhook":
        with Receiver().listening() as url:
            yield WebhookNotifier(url)
    else:
        made = {"fake": FakeNotifier(), "log": LogNotifier(), "console": ConsoleNotifier(Console(file=io.StringIO()))}
        yield made[request.param]


class TestEveryNotifier:
    def test_it_has_a_name_and_the_method_of_the_port(self, notifier: Notifier) -> None:
        assert isinstance(notifier, Notifier)
        assert notifier.name

    @pytest.mark.parametrize("alert", [ALERT, RESOLVED, HOSTILE], ids=["firing", "resolved", "hostile"])
    def test_it_delivers_an_alert_more_than_once_without_complaint(self, notifier: Notifier, alert) -> None:
        notifier.notify(alert)
        notifier.notify(alert)


@pytest.mark.parametrize("kind", ["fake", "webhook"])
def test_a_failure_is_raised_and_the_next_try_delivers(kind: str) -> None:
    with Receiver(statuses=[500, 200]).listening() as url:
        notifier = FakeNotifier(failures=1) if kind == "fake" else WebhookNotifier(url)
        with pytest.raises(NotDelivered) as failed:
            notifier.notify(ALERT)
        assert failed.value.remedy
        notifier.notify(ALERT)


def test_the_log_says_what_fires_and_what_is_over(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "noria.alerts"):
        LogNotifier().notify(ALERT)
        LogNotifier().notify(RESOLVED)

    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert caplog.messages[0].startswith("firing triage:text:1: What callers write to triage has changed")
    assert caplog.messages[1].startswith("resolved triage:text:1: triage/3 was promoted (was: ")


def test_nobody_can_forge_a_log_line_through_an_alert(caplog: pytest.LogCaptureFixture) -> None:
    LogNotifier().notify(HOSTILE)
    assert "\n" not in caplog.messages[0]
    assert "\x1b" not in caplog.messages[0]


def printed(alert) -> str:
    out = io.StringIO()
    ConsoleNotifier(Console(file=out, width=110)).notify(alert)
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
        WebhookNotifier(url).notify(ALERT)

    headers, body = receiver.got[0]
    told = json.loads(body)
    assert (headers["path"], headers["content-type"]) == ("/hooks/t0ken?room=ops", "application/json")
    assert (told["type"], told["text"]) == ("alert.firing", ALERT.summary)
    assert told["alert"]["moved"][0]["examples"][0].endswith("thanks apple")
    assert "x-noria-signature" not in headers


def test_a_secret_signs_the_body() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        WebhookNotifier(url, secret="s3cret").notify(ALERT)

    headers, body = receiver.got[0]
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["x-noria-signature"] == f"sha256={expected}"


def test_a_repeat_carries_the_same_delivery_and_the_resolution_another() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        for alert in (ALERT, ALERT, RESOLVED):
            WebhookNotifier(url).notify(alert)

    first, again, resolved = (headers["x-noria-delivery"] for headers, _ in receiver.got)
    assert first == again != resolved
    assert json.loads(receiver.got[2][1])["type"] == "alert.resolved"


@pytest.mark.parametrize("status", [302, 404, 503])
def test_an_answer_that_is_not_2xx_is_a_failure_and_no_redirect_is_followed(status: int) -> None:
    receiver = Receiver(statuses=[status])
    with receiver.listening() as url, pytest.raises(NotDelivered, match=f"answered {status}"):
        WebhookNotifier(url).notify(ALERT)
    assert len(receiver.got) == 1


@pytest.mark.parametrize("fault", [{"hang": threading.Event()}, {"drip": True}], ids=["silent", "byte by byte"])
def test_a_receiver_that_never_ends_is_given_up(fault: dict) -> None:
    with Receiver(**fault).listening() as url, pytest.raises(NotDelivered, match="took too long"):
        WebhookNotifier(url, timeout_s=0.3).notify(ALERT)


def test_a_receiver_that_is_down_is_a_failure_that_does_not_show_the_token() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/t0ken"
        with pytest.raises(NotDelivered) as failed:
            WebhookNotifier(url).notify(ALERT)
    assert "refused" in str(failed.value)
    assert "t0ken" not in str(failed.value)


def test_a_name_with_one_dead_address_is_reached_at_its_other_one() -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        port = int(url.split(":")[2].split("/")[0])
        answers = [(0, 0, 0, "", ("::1", port, 0, 0)), (0, 0, 0, "", ("127.0.0.1", port))]
        WebhookNotifier(url, resolve=lambda *_, **__: answers).notify(ALERT)
    assert len(receiver.got) == 1


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1%eth0", "0.0.0.0", "168.63.129.16", "fd00:ec2::254"])
def test_a_name_that_hides_a_metadata_address_is_refused(address: str) -> None:
    hidden = WebhookNotifier("http://hooks.example.org/x", resolve=lambda *_, **__: [(0, 0, 0, "", (address, 80))])
    with pytest.raises(NotDelivered, match="link-local"):
        hidden.notify(ALERT)


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


def test_the_project_file_says_who_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORIA_WEBHOOK_SECRET", "s3cret")
    webhooks = (Webhook(url="http://a.example/1"), Webhook(url="http://a.example/2"))
    project = PROJECT.model_copy(update={"notify": Notify(log=True, console=True, webhooks=webhooks)})

    found = notifiers(Settings(root=tmp_path, project=project))
    assert [n.name for n in found] == ["log", "console", "webhook 1 (a.example)", "webhook 2 (a.example)"]
    assert all(isinstance(n, Notifier) for n in found)


def test_a_quiet_project_tells_nobody(tmp_path: Path) -> None:
    quiet = PROJECT.model_copy(update={"notify": Notify(log=False)})
    assert notifiers(Settings(root=tmp_path, project=quiet)) == []
