"""A project that is really up tells receivers that are broken, down and slow, and is killed while it does."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.receiver import Receiver
from fakes.running import TEXTS, Running, new_project, noria, noria_json

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

WEBHOOK = "webhook 1 (127.0.0.1)"
MORE = """    alerts:
      busy: {{metric: table.count, above: 0, severity: critical}}
notify:
  group_wait: 1s
  webhooks: [{{url: "http://127.0.0.1:{port}/hook"}}]
"""


class Killer(Receiver):
    """Takes a notice and has somebody killed before it answers, as often as it is told to."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__()
        self.kills, self.kill = 1, kill

    def took(self) -> None:
        if self.kills:
            self.kills -= 1
            self.kill()


@pytest.fixture
def port() -> int:
    """A port on which nothing listens yet."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def deliveries(root: Path) -> dict[str, dict]:
    """Notifier → what is known of its delivery of the rule's alert."""
    return {each["notifier"]: each for each in noria_json(root, "alerts", "show", "triage:busy")["deliveries"]}


def busy(shop: Running) -> bool:
    """Have the rule fire."""
    for text in TEXTS[:5]:
        assert shop.request("POST", "/predict", {"input": text})[0] == 200
    shop.wait_until(lambda: any(a["monitor"] == "busy" for a in shop.status()["alerts"]))
    return True


def problem(shop: Running) -> str:
    """Why the webhook fails, as the worker's heartbeat has it."""
    return str(shop.status()["worker"]["notifiers"].get(WEBHOOK, {}).get("problem", ""))


def test_an_alert_reaches_a_receiver_that_was_broken_and_down_and_meanwhile_all_see_that_it_is(tmp_path, port) -> None:
    root = new_project(tmp_path / "shop", MORE.format(port=port))
    shop = Running(root).start()
    broken, well = Receiver(statuses=[500]), Receiver()
    try:
        with broken.listening(port):
            assert busy(shop)
            shop.wait_until(lambda: "answered 500" in problem(shop), 90)
        shop.wait_until(lambda: "refused" in problem(shop), 90)
        with well.listening(port):
            shown = deliveries(root)
            assert shown["log"]["delivered_at"]
            metrics = text_of(shop.get("/metrics")[1])
            assert f'noria_notifications_failed_total{{to="{WEBHOOK}"}}' in metrics
            assert 'noria_alerts{acknowledged="false",endpoint="triage",monitor="busy",severity="critical"' in metrics
            shop.wait_until(lambda: well.got, 120)
            shop.wait_until(lambda: deliveries(root)[WEBHOOK]["delivered_at"])
        assert shown[WEBHOOK]["attempts"] >= 2
        told = json.loads(well.got[0][1])
        assert told["delivery"] == json.loads(broken.got[0][1])["delivery"]
        assert (told["type"], told["alert"]["monitor"]) == ("alert.firing", "busy")
        assert told["alert"]["records"]
        assert told["next"] == {"triage:busy": "nothing by itself: its rule starts no run"}

        # somebody looks after it; a silence is in the account
        noria(root, "alerts", "ack", "triage:busy", "--reason", "I know", "--by", "ada")
        noria(root, "alerts", "silence", "--monitor", "busy", "--for", "1h", "--reason", "known", "--by", "ada")
        (alert,) = [a for a in shop.status()["alerts"] if a["monitor"] == "busy"]
        assert alert["acknowledged"]["by"] == "ada"
        assert alert["silenced"]
        noria(root, "audit", "verify")
    finally:
        shop.stop()


def test_a_worker_that_is_killed_between_sending_and_noting_sends_the_same_notice_again(tmp_path, port) -> None:
    root = new_project(tmp_path / "shop", MORE.format(port=port))
    shop = Running(root).start()
    receiver = Killer(lambda: os.kill(shop.status()["worker"]["pid"], signal.SIGKILL))
    try:
        with receiver.listening(port):
            assert busy(shop)
            shop.wait_until(lambda: len(receiver.got) > 1, 120)
            shop.wait_until(lambda: deliveries(root)[WEBHOOK]["delivered_at"])
        assert len({json.loads(body)["delivery"] for _, body in receiver.got}) == 1
        assert len({headers["x-noria-delivery"] for headers, _ in receiver.got}) == 1
    finally:
        shop.stop()


def text_of(reply: object) -> str:
    return reply if isinstance(reply, str) else bytes(reply).decode()  # type: ignore[call-overload]


def test_a_slow_receiver_holds_up_no_other_and_no_log(tmp_path, port) -> None:
    slow = Receiver(hang=threading.Event())
    more = MORE.format(port=port).rstrip().removesuffix("]") + ", {url: URL}]\n"
    prompt = Receiver()
    with slow.listening(port), prompt.listening() as url:
        root = new_project(tmp_path / "shop", more.replace("URL", json.dumps(url)))
        shop = Running(root).start()
        try:
            assert shop.request("POST", "/predict", {"input": TEXTS[0]})[0] == 200
            shop.wait_until(lambda: prompt.got)
            shop.wait_until(lambda: slow.got)
            assert shop.request("POST", "/predict", {"input": TEXTS[1]})[0] == 200
            shop.wait_until(lambda: shop.status()["worker"]["unshipped"] == 0)
        finally:
            slow.hang.set()
            shop.stop()
