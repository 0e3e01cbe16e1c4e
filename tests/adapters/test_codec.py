"""Every noun survives the way to JSON and back."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from noria.adapters.codec import (
    EVENT_KINDS,
    decode,
    decode_event,
    encode,
    encode_event,
    error_from_json,
    error_to_json,
)
from noria.domain.audit import AuditEvent
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.errors import NoriaError, Refused, StorageCorrupted, UpstreamTimeout
from noria.domain.events import AlertRaised, WindowClosed
from noria.domain.inference import Intent
from noria.domain.monitor import MonitorKind, MonitorState
from noria.domain.rollout import Rollout, Stage, StageChange

AT = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)

STATE = MonitorState(
    id="triage:text:1",
    endpoint="triage",
    monitor="text",
    kind=MonitorKind.TEXT_DRIFT,
    model_version="1",
    since=AT,
    folded_until=AT,
    rows=3,
    counts=(1, 2),
    log_e=math.inf,
    numbers={"psi": 0.5},
)
ROUTE = Route(
    endpoint="triage",
    wire=Wire.MLFLOW,
    revision=2,
    targets=(Target(model="t", version="1", role=Role.CHAMPION, weight=100, url="unix:/x", verdict_id="v"),),
)
ROLLOUT = Rollout(
    id="v",
    endpoint="triage",
    model="t",
    version="2",
    verdict_id="v",
    stage=Stage.SHADOW,
    started_at=AT,
    changed_at=AT,
    cursor_us=1,
    feedback_cursor_us=2,
    log_threshold=3.7,
    history=(StageChange(AT, Stage.SHADOW, 0, "ü"),),
)
INTENT = Intent(
    request_id="0" * 32,
    endpoint="triage",
    model="t",
    version="1",
    role=Role.SHADOW,
    received_us=5,
    request=b"\x00\xff",
    metadata={"group": "delta"},
)


@pytest.mark.parametrize("noun", [STATE, ROUTE, ROLLOUT, INTENT], ids=lambda n: type(n).__name__)
def test_a_noun_comes_back_as_it_was(noun: object) -> None:
    assert decode(type(noun), encode(noun)) == noun


def test_an_audit_event_keeps_its_hash() -> None:
    event = AuditEvent(sequence=1, at=AT, actor="ada", action="a.b", subject="s", evidence={"n": 1.0, "k": [1, "é"]})
    assert decode(AuditEvent, encode(event.sealed())).digest() == event.digest()


def test_a_number_that_is_not_a_number_survives() -> None:
    state = decode(MonitorState, encode(replace(STATE, numbers={"gap": math.nan})))
    assert math.isnan(state.numbers["gap"])


def test_an_event_is_told_by_its_kind() -> None:
    for event in (WindowClosed(endpoint="t", start=AT, end=AT), AlertRaised(endpoint="t", alert_id="a", at=AT)):
        assert decode_event(*encode_event(event)) == event


def test_every_event_type_has_a_kind() -> None:
    assert len(EVENT_KINDS) == 18


@pytest.mark.parametrize("text", ["", "{", '{"id": 1}', "null"])
def test_text_that_is_no_noun_is_reported_as_corrupted(text: str) -> None:
    with pytest.raises(StorageCorrupted, match="MonitorState"):
        decode(MonitorState, text)


def test_an_unknown_kind_of_event_is_reported() -> None:
    with pytest.raises(StorageCorrupted, match="Martian"):
        decode_event("Martian", "{}")


def test_a_stored_target_without_a_verdict_is_refused() -> None:
    with pytest.raises(Refused):
        decode(Route, encode(ROUTE).replace('"verdict_id":"v"', '"verdict_id":""'))


def test_fields_added_since_take_their_default() -> None:
    text = encode(STATE).replace(',"numbers":{"psi":0.5}', "")
    assert decode(MonitorState, text).numbers == {}


def test_an_error_of_the_domain_keeps_its_type_problem_and_remedy() -> None:
    error = error_from_json(error_to_json(UpstreamTimeout("It took too long.", "Wait longer.")))
    assert (type(error), error.problem, error.remedy) == (UpstreamTimeout, "It took too long.", "Wait longer.")


def test_any_other_error_keeps_its_name_and_last_line() -> None:
    error = error_from_json(error_to_json(ValueError("many\nlines")))
    assert (type(error), error.problem) == (NoriaError, "ValueError: lines.")
