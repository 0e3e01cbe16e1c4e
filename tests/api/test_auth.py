"""Nobody gets in without a key once there is one: every address, every header, every way in which a key ends."""

import base64
import io
import json
import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import openai
import pytest

from fakes.site import running, until
from fakes.state import FakeState
from fakes.story import PROJECT
from fakes.upstream import labels, talker
from noria.adapters.clock import SystemClock
from noria.api.addresses import ADDRESSES
from noria.api.auth import OPEN, Door, needed
from noria.api.messages import Request
from noria.api.problems import ForbiddenOrigin
from noria.domain.errors import StateUnavailable, Unauthenticated
from noria.domain.key import KeyRole, Right
from noria.governance import keys
from noria.serving.router import Router

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels, talker("hi")) as made:
        yield made


async def key(site, name="shop", **more) -> str:
    """A new key's token, once the app knows it."""
    made, token = keys.create(site.state, SystemClock(), name, "ada", **more)
    await until(lambda: made.hash in (site.router.snapshot.keys or {}))
    return token


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def basic(token: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"anybody:{token}".encode()).decode()}


async def test_without_any_key_this_machine_may_ask_and_is_called_local(site):
    assert (await site.post("/predict", {"input": "a"}))[0] == 200
    assert site.intents[0].requester == "local"


async def test_the_first_key_closes_every_door_but_the_probes(site):
    await key(site)
    for path in OPEN:
        assert (await site.get(path))[0] == 200, path
    for path in ("/", "/metrics", "/api/status", "/v1/models", "/audit", "/console/page.css", "/nope"):
        assert (await site.get(path))[0] == 401, path
    for path in (*(a.path.replace("{endpoint}", "triage") for a in ADDRESSES), "/feedback"):
        assert (await site.post(path, {"input": "a"}))[0] == 401, path
    assert site.intents == []


async def test_revoking_the_last_key_opens_nothing(site):
    token = await key(site)
    keys.revoke(site.state, SystemClock(), "shop", "ada", "done")
    await until(lambda: next(iter(site.router.snapshot.keys.values())).revoked_at)
    status, said, _ = await site.post("/predict", {"input": "a"}, headers=bearer(token))
    assert (status, said["error_code"]) == (401, "unauthenticated")
    assert said["message"] == "The API key shop was revoked."
    assert (await site.post("/predict", {"input": "a"}))[0] == 401


@pytest.mark.parametrize("header", ["authorization", "api-key", "x-api-key"])
async def test_a_key_is_read_from_every_header_that_clients_send(site, header):
    token = await key(site)
    said = {header: f"bearer  {token}" if header == "authorization" else token}
    assert (await site.post("/predict", {"input": "a"}, headers=said))[0] == 200
    assert site.intents[0].requester == "shop"


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Bearer x", "Bearer sk-noria-" + "0" * 64, "Token a", "Basic !", "Bearer \xff"]
)
async def test_what_is_no_key_of_ours_opens_nothing(site, value):
    await key(site)
    status, said, headers = await site.post("/predict", {"input": "a"}, headers={"authorization": value})
    assert (status, said["error_code"]) == (401, "unauthenticated")
    assert headers["www-authenticate"] == 'Bearer realm="noria"'
    assert "sk-noria-" in said["remedy"]


async def test_a_key_ends_by_the_clock_even_if_the_state_is_gone(site, monkeypatch):
    token = await key(site, expires_in=timedelta(days=1))

    def gone():
        raise StateUnavailable("The state is gone.", "")

    monkeypatch.setattr(site.state, "revision", gone)
    assert (await site.post("/predict", {"input": "a"}, headers=bearer(token)))[0] == 200
    now = SystemClock().now
    monkeypatch.setattr(SystemClock, "now", lambda _: now() + timedelta(days=1))
    status, said, _ = await site.post("/predict", {"input": "a"}, headers=bearer(token))
    assert status == 401
    assert said["message"].startswith("The API key shop expired at ")


async def test_a_key_for_one_endpoint_asks_no_other_and_the_refusal_is_recorded(site):
    headers = bearer(await key(site, endpoints=["assistant"]))
    status, said, _ = await site.post("/predict/triage", {"input": "a"}, headers=headers)
    assert (status, said["error_code"]) == (403, "forbidden")
    assert said["message"] == "The API key shop is not for 'triage'."
    assert site.endings == [("rejected", 403)]
    assert site.intents[0].requester == "shop"
    assert (await site.post("/predict/assistant", {"input": "a"}, headers=headers))[0] == 200


async def test_a_key_for_one_endpoint_learns_of_no_other(site):
    triage = bearer(await key(site, "a", endpoints=["triage"]))
    assert json.loads((await site.get("/v1/models", headers=triage))[1])["data"] == []
    assert (await site.get("/v1/models/assistant", headers=triage))[0] == 404
    for name in ("assistant", "nope"):
        status, said, _ = await site.post(f"/predict/{name}", {"input": "a"}, headers=triage)
        assert (status, "assistant" in said["remedy"]) == (403, False)
    assert [e[1] for e in site.endings] == [403]  # what doesn't exist has no record


async def test_feedback_is_taken_for_a_keys_own_endpoints_only(site):
    headers = bearer(await key(site, endpoints=["assistant"]))
    said = {"request_id": "0" * 32, "score": 1}
    assert (await site.post("/feedback", {**said, "endpoint": "triage"}, headers=headers))[0] == 403
    assert (await site.post("/feedback", {**said, "endpoint": "assistant"}, headers=headers))[0] == 200
    assert [entry.endpoint for entry in site.feedback] == ["assistant"]


async def test_a_browser_reads_pages_with_a_viewers_key_as_password(site):
    viewer, client = await key(site, "v", roles=[KeyRole.VIEWER]), await key(site, "c")
    status, _, headers = await site.get("/")
    assert (status, headers["www-authenticate"].startswith("Basic realm=")) == (401, True)
    assert (await site.get("/", headers=basic(viewer)))[0] == 200
    assert (await site.get("/metrics", headers=bearer(viewer)))[0] == 200
    status, body, _ = await site.get("/", headers=basic(client))
    assert (status, json.loads(body)["error_code"]) == (403, "forbidden")
    assert (await site.post("/predict", {"input": "a"}, headers=bearer(viewer)))[0] == 403


async def test_what_a_browser_sends_by_itself_never_asks_for_inference(site):
    headers = basic(await key(site, roles=[KeyRole.ADMIN]))
    for path in ("/predict", "/feedback"):
        assert (await site.post(path, {"input": "a"}, headers=headers))[0] == 401


async def test_with_keys_any_name_leads_here_but_none_past_the_key(site):
    token = await key(site)
    foreign = {"host": "noria.example", "origin": "https://app.example"}
    assert (await site.post("/predict", {"input": "a"}, headers=foreign))[0] == 401
    assert (await site.post("/predict", {"input": "a"}, headers={**foreign, **bearer(token)}))[0] == 200


async def test_an_address_that_nobody_listed_needs_an_admin(site):
    client, admin = await key(site, "c"), await key(site, "a", roles=[KeyRole.ADMIN])
    assert (await site.get("/nope", headers=bearer(client)))[0] == 403
    assert (await site.get("/nope", headers=bearer(admin)))[0] == 404
    assert (await site.post("/v1/responses", {}, headers=bearer(client)))[0] == 404


async def test_every_address_of_the_app_is_protected_as_the_table_says(site):
    """A route that somebody adds and forgets in the table needs an admin, and this test says so."""
    wanted = {
        "/livez": None, "/readyz": None, "/ping": None, "/health": None, "/version": None,
        **{path: Right.INFER for base in ("/v1/models", "/openai/v1/models", "/openai/models", "/openai/deployments")
           for path in (base, base + "/", base + "/{id}")},
        **{path: Right.INFER for base in ("/api/2.0/endpoints", "/api/2.0/serving-endpoints")
           for path in (base, base + "/", base + "/{name}")},
        "/openapi.json": Right.INFER,
        "/metrics": Right.VIEW, "/api/status": Right.VIEW, "/": Right.VIEW, "/endpoints/{name}": Right.VIEW,
        "/runs": Right.VIEW, "/runs/{id:path}": Right.VIEW, "/verdicts/{id:path}": Right.VIEW, "/audit": Right.VIEW,
        "/api/runs": Right.VIEW, "/api/runs/{id}": Right.VIEW, "/api/cancel/{id}": Right.MANAGE,
        "/api/retrain/{endpoint}": Right.MANAGE,
            "/console/{file}": Right.VIEW, "/api/trace/{id:path}": Right.VIEW, "/trace/{id:path}": Right.VIEW,
    }  # fmt: skip
    found = {path: needed(path.replace("{name}", "triage").replace("{id}", "x")) for path in site.app.addresses}
    assert found == wanted
    assert all(needed(a.path.replace("{endpoint}", "x")) is Right.INFER for a in ADDRESSES)
    assert needed("/feedback") is Right.FEEDBACK
    assert needed("/endpoints/invocations") is Right.VIEW  # the page of an endpoint of that name


@pytest.mark.parametrize("path", ["//predict", "/predict/../metrics", "/V1/models", "/metrics/", "/livez/", "/api"])
def test_no_trick_with_a_path_makes_an_address_open(path):
    assert needed(path) is not None


async def test_refusals_are_counted_and_said_once_and_never_with_the_key(site, caplog):
    token = await key(site)
    wrong = "sk-noria-" + "f" * 64
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            await site.post("/predict", {"input": "a"}, headers=bearer(wrong))
        await site.get("/metrics")
    assert [r.getMessage() for r in caplog.records if r.name == "noria.api.auth"] == [
        "refused for want of a valid API key: 1 requests, the last one: unknown"
    ]
    assert wrong not in caplog.text
    viewer = await key(site, "v", roles=[KeyRole.VIEWER])
    counted = (await site.get("/metrics", headers=bearer(viewer)))[1].decode()
    assert 'noria_unauthenticated_total{reason="unknown"} 20.0' in counted
    assert 'noria_unauthenticated_total{reason="missing"} 1.0' in counted
    assert token not in counted


async def test_until_the_keys_are_known_nobody_gets_in(site, monkeypatch):
    from noria.serving.router import UNREAD

    monkeypatch.setattr(site.router, "refresh", lambda: False)
    site.router.snapshot = replace(site.router.snapshot, revision=UNREAD)
    status, said, headers = await site.post("/predict", {"input": "a"})
    assert (status, said["error_code"], headers["retry-after"]) == (503, "not_ready", "1")
    assert (await site.get("/livez"))[0] == 200


async def test_the_official_client_understands_what_it_is_told(site):
    token = await key(site, endpoints=["triage"])
    async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="sk-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as wrong:
            await client.chat.completions.create(model="assistant", messages=HELLO)
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
    async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key=token, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as scope:
            await client.chat.completions.create(model="assistant", messages=HELLO)
    assert (wrong.value.code, scope.value.code) == ("invalid_api_key", "insufficient_permissions")
    token = await key(site, "chat", endpoints=["assistant"])
    async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key=token, max_retries=0) as client:
        answer = await client.chat.completions.create(model="assistant", messages=HELLO)
    assert answer.choices[0].message.content == "hi"
    assert site.intents[-1].requester == "chat"


async def test_azures_client_is_known_by_its_own_header(site):
    token = await key(site)
    azure = {"azure_endpoint": site.url, "api_version": "2024-10-21", "max_retries": 0}
    async with openai.AsyncAzureOpenAI(**azure, api_key=token) as client:
        answer = await client.chat.completions.create(model="assistant", messages=HELLO)
        assert answer.choices[0].message.content == "hi"
    async with openai.AsyncAzureOpenAI(**azure, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="assistant", messages=HELLO)
    assert caught.value.code == "invalid_api_key"
    assert [intent.requester for intent in site.intents] == ["shop"]


async def test_a_body_that_is_still_on_its_way_does_not_keep_its_sender_from_the_answer(site):
    await key(site)
    status, said, _ = await site.post("/predict", data=io.BytesIO(b"x" * 5_000_000))
    assert (status, said["error_code"]) == (401, "unauthenticated")


def asked(path: str, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": path, "headers": raw}, None, "id")


def door(state: FakeState, loopback: bool) -> Door:
    router = Router(state, PROJECT, lambda _: PROJECT, SystemClock())
    router.refresh()
    return Door(router, SystemClock(), loopback, lambda _: None)


def test_where_others_reach_us_nobody_gets_in_before_there_is_a_key():
    state = FakeState(SystemClock())
    for path in ("/", "/v1/models", "/metrics", "/predict"):
        assert isinstance(door(state, loopback=False).refusal(asked(path)), Unauthenticated)
        assert door(state, loopback=True).refusal(asked(path, host="localhost")) is None
    assert door(state, loopback=False).refusal(asked("/livez", host="noria.example")) is None
    assert isinstance(door(state, loopback=True).refusal(asked("/livez", host="noria.example")), ForbiddenOrigin)


@pytest.mark.parametrize(
    ("said", "opens"),
    [("any:{}", True), (":{}", True), ("{}", False), ("{}:", False), ("any:{}x", False), ("any: {}", False)],
)
def test_of_a_browsers_name_and_password_only_the_password_counts(said, opens):
    state = FakeState(SystemClock())
    _, token = keys.create(state, SystemClock(), "me", "ada", roles=[KeyRole.VIEWER])
    value = "Basic " + base64.b64encode(said.format(token).encode()).decode()
    assert (door(state, loopback=True).refusal(asked("/", authorization=value)) is None) == opens
    assert door(state, loopback=True).refusal(asked("/predict", authorization=value)) is not None


def test_the_table_of_the_guide_says_what_the_code_does():
    page = (Path(__file__).parents[2] / "docs/how-to/keys-limits-and-budgets.md").read_text()
    for path in OPEN:
        assert f"`{path}`" in page
    for role in KeyRole:
        assert f"`{role}`" in page
