"""The recorder: redacted before anything is written, on disk before anybody goes on."""

import hashlib
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.entities import KnownNames
from fakes.entries import intent, outcome
from fakes.spool import MemorySpool
from fakes.story import StoppedClock
from noria.domain.errors import LogUnavailable, RedactionUnavailable
from noria.serving.log import recorder as module
from noria.serving.log.entities import without_entities
from noria.serving.log.recorder import Recorder, new_request_id
from noria.serving.log.redaction import Redactor
from noria.settings import SPELLED, Redaction

MAIL = b'{"input":"write to jo@example.com"}'
CLEAN = b'{"input":"write to [email]"}'


@pytest.fixture
def spool() -> MemorySpool:
    return MemorySpool()


@pytest.fixture
def recorder(spool) -> Recorder:
    redactors = {"triage": Redactor(SPELLED), "open": Redactor(())}
    return Recorder(spool, redactors, StoppedClock())


def written(spool: MemorySpool) -> list:
    return [entry for _, entry in spool.read(0, 100)]


async def test_a_request_and_its_answer_are_redacted_and_say_so(recorder, spool):
    await recorder.intent(intent(1, request=MAIL, metadata={"user": "jo@example.com"}, client_request_id="jo@x.org"))
    await recorder.outcome(outcome(1, response=MAIL, errors=("SLOW",)))
    begun, ended = written(spool)
    assert (begun.request, begun.metadata, begun.client_request_id) == (CLEAN, {"user": "[email]"}, "[email]")
    assert begun.errors == ("REDACTED_EMAIL",)
    assert (ended.response, ended.errors) == (CLEAN, ("SLOW", "REDACTED_EMAIL"))


async def test_what_needs_no_redaction_is_written_as_it_is(recorder, spool):
    await recorder.intent(intent(1))
    await recorder.outcome(outcome(1))
    assert written(spool) == [intent(1), outcome(1)]


async def test_half_a_character_does_not_keep_a_request_off_the_record(recorder, spool):
    await recorder.intent(intent(1, metadata={"\ud83d": "\ud83d!"}, client_request_id="\udc00"))
    assert (written(spool)[0].metadata, written(spool)[0].client_request_id) == ({"?": "?!"}, "?")


async def test_each_endpoint_is_redacted_as_its_project_file_says(recorder, spool):
    await recorder.intent(intent(1, endpoint="open", request=MAIL))
    await recorder.outcome(outcome(1, response=MAIL))
    assert [written(spool)[0].request, written(spool)[1].response] == [MAIL, MAIL]


async def test_an_endpoint_that_nobody_described_is_redacted_most_strictly(recorder, spool):
    await recorder.intent(intent(1, endpoint="new", request=MAIL))
    await recorder.outcome(outcome(2, response=MAIL))
    assert [written(spool)[0].request, written(spool)[1].response] == [CLEAN, CLEAN]


async def test_a_long_body_is_redacted_too(recorder, spool):
    body = b'{"input":"' + b"x" * module._THREAD_BYTES + b' jo@example.com"}'
    await recorder.intent(intent(1, request=body))
    assert written(spool)[0].request.endswith(b"x [email]" + b'"}')


async def test_feedback_is_redacted_and_gets_an_identity_and_a_time(recorder, spool):
    said = await recorder.feedback(request_id="r", endpoint="triage", label="positive", comment="call +49 30 901820")
    assert written(spool) == [said]
    assert (said.label, said.comment, said.source) == ("positive", "call [phone]", "human")
    assert said.received_us == StoppedClock().now_us()
    assert len(said.feedback_id) == 32


async def test_feedback_that_is_repeated_keeps_the_callers_identity(recorder, spool):
    for _ in range(2):
        await recorder.feedback(request_id="r", endpoint="triage", score=1.0, feedback_id="mine")
    assert [said.feedback_id for said in written(spool)] == ["mine", "mine"]


async def test_without_a_log_there_is_no_answer(recorder, spool):
    await recorder.intent(intent(1))
    spool.full = True
    with pytest.raises(LogUnavailable):
        await recorder.intent(intent(2))
    with pytest.raises(LogUnavailable):
        await recorder.outcome(outcome(1))
    with pytest.raises(LogUnavailable):
        await recorder.feedback(request_id="r", endpoint="triage", score=1.0)


def test_request_ids_are_version_7_uuids_that_sort_by_time():
    clock = StoppedClock()
    ids = []
    for _ in range(1000):
        clock.at = clock.at.replace(microsecond=(clock.at.microsecond + 1) % 1_000_000)
        ids.append(new_request_id(clock))
    assert ids == sorted(ids)
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}
    assert int(ids[-1][:12], 16) == clock.now_us() // 1000


def test_request_ids_of_one_moment_differ():
    assert len({new_request_id(StoppedClock()) for _ in range(1000)}) == 1000


# --- long bodies ---

MIB = 1 << 20


def limited(spool: MemorySpool, longest: int) -> Recorder:
    return Recorder(spool, {"triage": Redactor(SPELLED)}, StoppedClock(), lambda: longest)


async def test_what_databricks_would_not_have_kept_is_kept_whole_and_says_so(spool):
    long = b'{"input":"' + b"x" * MIB + b'"}'
    await limited(spool, 2 * MIB).intent(intent(1, request=long))
    await limited(spool, 2 * MIB).outcome(outcome(1, response=long))
    begun, ended = written(spool)
    assert (begun.request, begun.errors) == (long, ("MAX_REQUEST_SIZE_EXCEEDED",))
    assert (ended.response, ended.errors) == (long, ("MAX_RESPONSE_SIZE_EXCEEDED",))


@pytest.mark.parametrize("piece", ["x", '\\"', "ü", "\U0001f600", "\\u0000"])
async def test_of_a_body_beyond_the_limit_the_beginning_is_kept_with_its_size_and_checksum(spool, piece):
    body = ('{"input":"' + piece * (20_000 // len(piece.encode())) + '"}').encode()
    await limited(spool, 5000).intent(intent(1, request=body))
    await limited(spool, 5000).outcome(outcome(1, response=body))
    begun, ended = written(spool)
    assert begun.request == ended.response
    told = json.loads(begun.request)["truncated"]
    assert (told["bytes"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert body.decode().startswith(told["first"])
    assert 4000 < len(begun.request) <= 5000
    assert begun.errors == ("MAX_REQUEST_SIZE_EXCEEDED", "REQUEST_TRUNCATED")
    assert ended.errors == ("MAX_RESPONSE_SIZE_EXCEEDED", "RESPONSE_TRUNCATED")


async def test_a_long_body_is_redacted_before_it_is_cut(spool):
    body = b'{"input":"' + b"x" * 4800 + b" jo@example.com" * 40 + b'"}'
    await limited(spool, 5000).intent(intent(1, request=body))
    (begun,) = written(spool)
    first = json.loads(begun.request)["truncated"]["first"]
    assert "jo@" not in first
    assert first.endswith(("x", "[email]", " "))
    assert begun.errors == ("REDACTED_EMAIL", "MAX_REQUEST_SIZE_EXCEEDED", "REQUEST_TRUNCATED")


async def test_no_body_is_so_strange_that_its_beginning_cannot_be_kept(spool):
    await limited(spool, 1024).intent(intent(1, request=b"\xff" * 5000))
    assert json.loads(written(spool)[0].request)["truncated"]["bytes"] == 5000


# --- names ---

PEOPLE = b'{"messages":[{"role":"user","content":"I am Ada Lovelace (ada@example.com), at Contoso in Turin"}],"n":1}'
NOBODY = b'{"messages":[{"role":"user","content":"I am [name] ([email]), at Contoso in [location]"}],"n":1}'


def asking(spool: MemorySpool, names: KnownNames, *, refuses: bool = True) -> Recorder:
    kinds = [*SPELLED, Redaction.NAME, Redaction.LOCATION]
    return Recorder(spool, {"triage": Redactor(kinds, refuses=refuses)}, StoppedClock(), reader=names)


async def test_names_are_looked_for_only_where_an_endpoint_asks(spool, recorder):
    names = KnownNames()
    await asking(spool, names).intent(intent(1, request=PEOPLE))
    await asking(spool, names).outcome(outcome(2, response=b'"Bob"'))
    await recorder.intent(intent(3, request=PEOPLE))
    begun, _, other = written(spool)
    assert (begun.request, begun.errors) == (NOBODY, ("REDACTED_EMAIL", "REDACTED_LOCATION", "REDACTED_NAME"))
    assert b"Ada Lovelace" in other.request
    assert all(text != "user" and "messages" not in text for text in names.asked)


async def test_an_answer_is_read_for_names_as_its_request_was(spool):
    recorder = asking(spool, KnownNames())
    await recorder.intent(intent(1))
    await recorder.outcome(outcome(1, response=b'{"label":"Bob","score":0.5,"text":"no JSON escapes \\u00e9 Bob"}'))
    assert json.loads(written(spool)[1].response) == {
        "label": "[name]",
        "score": 0.5,
        "text": "no JSON escapes é [name]",
    }


async def test_a_request_that_cannot_be_read_for_names_is_refused(spool):
    names = KnownNames()
    names.gone = True
    recorder = asking(spool, names)
    with pytest.raises(RedactionUnavailable):
        await recorder.intent(intent(1, request=PEOPLE))
    with pytest.raises(RedactionUnavailable):
        await recorder.feedback(request_id="r", endpoint="triage", comment="Bob says so")
    assert written(spool) == []


async def test_or_it_is_kept_out_of_the_log_as_the_endpoint_says(spool):
    names = KnownNames()
    names.gone = True
    recorder = asking(spool, names, refuses=False)
    await recorder.intent(intent(1, request=PEOPLE))
    said = await recorder.feedback(request_id="r", endpoint="triage", comment="Bob says so")
    begun = written(spool)[0]
    assert json.loads(begun.request)["withheld"]["bytes"] == len(PEOPLE)
    assert begun.errors == ("REQUEST_WITHHELD",)
    assert said.comment == "[withheld]"


async def test_an_answer_that_cannot_be_read_for_names_is_given_and_kept_out_of_the_log(spool):
    names = KnownNames()
    recorder = asking(spool, names)
    await recorder.intent(intent(1, request=PEOPLE))
    names.gone = True
    await recorder.outcome(outcome(1, response=PEOPLE))
    ended = written(spool)[1]
    assert "Ada" not in ended.response.decode()
    assert ended.errors == ("RESPONSE_WITHHELD",)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=30),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
        max_leaves=9,
    )
)
async def test_reading_for_names_keeps_json_as_it_is(value):
    body = json.dumps([value, "Bob said"], ensure_ascii=False).encode(errors="replace")
    clean, codes = await without_entities(body, KnownNames(), frozenset({"name"}))
    assert json.loads(clean) == [*json.loads(body)[:-1], "[name] said"]
    assert codes == ("REDACTED_NAME",)
