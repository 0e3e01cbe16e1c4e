"""Runs over HTTP: seen, asked for and stopped, each in somebody's name."""

import json
from datetime import UTC, datetime

import pytest

from fakes.site import running, until
from fakes.upstream import labels
from noria.adapters.clock import SystemClock
from noria.domain.events import RetrainRequested
from noria.domain.run import Run, RunState, Trigger, TriggerKind
from noria.governance import keys

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
WHY = {"reason": "the labels were wrong"}


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, labels) as made:
        trigger = Trigger(kind=TriggerKind.ALERT, cause="alert:1", actor="noria", reason="the texts changed")
        with made.state.note() as note:
            note.put(Run(id="triage-1", endpoint="triage", trigger=trigger, state=RunState.RUNNING, started_at=AT))
        yield made


async def test_runs_are_listed_and_shown(site):
    status, body, _ = await site.get("/api/runs")
    assert (status, [run["id"] for run in json.loads(body)["runs"]]) == (200, ["triage-1"])
    status, body, _ = await site.get("/api/runs/triage-1")
    assert (status, json.loads(body)["trigger"]["reason"]) == (200, "the texts changed")
    assert (await site.get("/api/runs/none"))[0] == 404


async def test_a_run_is_asked_for_by_whoever_may_change_things(site):
    status, body, _ = await site.post("/api/retrain/triage", WHY)
    assert (status, body["asked"][:14]) == (202, "retrain:triage")
    [event] = [e for e in site.state.pending_events() if isinstance(e, RetrainRequested)]
    assert (event.actor, event.reason) == ("local", WHY["reason"])
    assert [e.action for e in site.state.audit_trail()][-1] == "retrain.requested"


async def test_a_key_that_only_asks_endpoints_may_neither_retrain_nor_cancel(site):
    admin, admins = keys.create(site.state, SystemClock(), "ops", "ada", roles=("admin",))
    _, clients = keys.create(site.state, SystemClock(), "shop", "ada")
    await until(lambda: admin.hash in (site.router.snapshot.keys or {}))
    for path in ("/api/retrain/triage", "/api/cancel/triage-1"):
        assert (await site.post(path, WHY))[0] == 401
        assert (await site.post(path, WHY, headers={"authorization": f"Bearer {clients}"}))[0] == 403
    status, body, _ = await site.post("/api/cancel/triage-1", WHY, headers={"authorization": f"Bearer {admins}"})
    assert (status, body["state"], body["error"]) == (200, "cancelled", f"cancelled by ops: {WHY['reason']}")
    [event] = [e for e in site.state.audit_trail() if e.action == "run.cancelled"]
    assert event.actor == "ops"


@pytest.mark.parametrize("body", [None, [], {"reason": " "}, {"reason": 7}, {"why": "x"}])
async def test_a_change_without_a_reason_is_refused(site, body):
    status, said, _ = await site.post("/api/retrain/triage", body)
    assert (status, said["error_code"]) == (400, "invalid_request")


async def test_what_cannot_be_done_is_said(site):
    assert (await site.post("/api/retrain/none", WHY))[0] == 404
    assert (await site.post("/api/retrain/assistant", WHY))[0] == 409
    assert (await site.post("/api/cancel/none", WHY))[0] == 404
    await site.post("/api/cancel/triage-1", WHY)
    status, said, _ = await site.post("/api/cancel/triage-1", WHY)
    assert (status, "is over" in said["message"]) == (409, True)
    assert (await site.get("/api/retrain/triage"))[0] == 405
