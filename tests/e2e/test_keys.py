"""Keys, limits and budgets on a project that is really up: two API processes, a price list, kill -9."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from fakes.azure import azure
from fakes.running import Running, chat_project, new_project, noria, noria_json

HELLO = [{"role": "user", "content": "hello"}]
PRICED = """
project: shop
server: {{port: 0}}
upstreams:
  azure: {{kind: azure, url: "{url}", key: SHOP_AZURE_KEY, private: true}}
endpoints:
  assistant:
    task: chat
    policy: policies/assistant.yaml
    deployment: {{upstream: azure, model: gpt-4o-mini}}
    limits: {{usd_per_day: 5}}
"""


@pytest.fixture
def up() -> Iterator[list[Running]]:
    """Projects that are stopped at the end."""
    begun: list[Running] = []
    yield begun
    for each in begun:
        each.stop()


def ask_until_refused(client: openai.OpenAI) -> None:
    """Chat until it isn't answered, 50 times at most."""
    for _ in range(50):
        client.chat.completions.create(model="assistant", messages=HELLO)


@pytest.mark.slow
@pytest.mark.chaos
def test_a_limit_holds_over_two_processes_of_which_one_is_killed_again_and_again(
    tmp_path: Path, up: list[Running]
) -> None:
    shop = Running(new_project(tmp_path / "shop", "server: {processes: 2}"))
    up.append(shop.start())
    limit = 30
    token = noria(shop.root, "key", "create", "busy", "--requests-per-minute", str(limit)).stdout.strip()
    headers = {"authorization": f"Bearer {token}"}
    shop.wait_until(lambda: all(shop.request("GET", "/v1/models")[0] == 401 for _ in range(40)))  # both know of the key
    began, answers, told, stop = time.monotonic(), list[int](), dict[str, int](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            status, _, said = shop.request("POST", "/predict", {"input": "hello"}, headers)
            answers.append(status)
            if status:
                told[said["x-request-id"]] = status

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for process in ("api-0", "api-1", "api-0"):
        shop.wait_until(lambda: answers.count(429) > 20)
        answers_before, pid = len(answers), shop.processes()[process]
        os.kill(pid, signal.SIGKILL)
        shop.wait_until(lambda pid=pid, process=process: shop.processes().get(process) not in (None, 0, pid))
        shop.wait_until(lambda before=answers_before: len(answers) > before + 40)
    stop.set()
    for asker in askers:
        asker.join()
    passed, minutes = answers.count(200), (time.monotonic() - began) / 60
    assert limit <= passed <= limit * (1 + minutes)
    assert set(answers) <= {200, 429, 0}  # 0: the connection of a process that was killed
    shop.key = noria(shop.root, "key", "create", "viewer", "--role", "viewer").stdout.strip()
    shop.wait_until(lambda: shop.get("/api/status")[0] == 200)
    assert shop.shipped()
    rows = shop.rows("SELECT databricks_request_id AS id, status_code, requester FROM inference")
    recorded = {row["id"]: row["status_code"] for row in rows}
    assert len(recorded) == len(rows)
    assert {one: recorded.get(one) for one in told} == told
    assert {row["requester"] for row in rows} == {"busy"}


@pytest.mark.slow
def test_a_providers_list_price_is_counted_until_the_days_money_is_spent(
    tmp_path: Path, up: list[Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_AZURE_KEY", "azure-key")
    root = tmp_path / "shop"
    with azure() as double:
        shop = chat_project(root, PRICED.format(url=double.url))
        up.append(shop.start())
        token = noria(root, "key", "create", "intern", "--usd-per-day", "0.00005").stdout.strip()
        shop.wait_until(lambda: shop.request("GET", "/v1/models")[0] == 401)
        shop.wait_until(lambda: "prices.found" in noria(root, "audit", "show").stdout)
        with openai.OpenAI(base_url=f"{shop.url}/v1", api_key=token, max_retries=0) as client:
            with pytest.raises(openai.RateLimitError, match=r"has a budget of .* a day") as caught:
                ask_until_refused(client)
            assert caught.value.code == "insufficient_quota"
        asked = len(double.asked)
        shop.key = noria(root, "key", "create", "viewer", "--role", "viewer").stdout.strip()
        shop.wait_until(lambda: shop.get("/api/status")[0] == 200)
        assert shop.shipped()
        rows = shop.rows("SELECT input_tokens, output_tokens, cost_usd, status_code FROM inference")
        paid = [row for row in rows if row["status_code"] == 200]
        assert len(paid) >= 2
        for row in paid:
            cost = row["cost_usd"]
            assert cost == pytest.approx((0.15 * row["input_tokens"] + 0.6 * row["output_tokens"]) / 1e6, rel=0.5)
        spent = sum(row["cost_usd"] for row in paid)
        assert noria_json(root, "key", "list")[0]["usd_today"] == pytest.approx(spent)
        [endpoint] = noria_json(root, "status")["endpoints"]
        assert endpoint["budget"] == {"usd_per_day": 5.0, "usd_today": pytest.approx(spent)}
        assert [row["cost_usd"] for row in rows if row["status_code"] == 429] == [0.0]
        assert len(double.asked) == asked
