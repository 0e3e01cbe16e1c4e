"""The trace that a request belongs to: read as W3C Trace Context says, and handed on."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.plane import TRIAGE, Plane, route, target
from fakes.upstream import labels
from noria.domain.endpoint import Role
from noria.serving.tracing import Trace, continue_trace, traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = "0123456789abcdef"
ids = st.integers(1, 2**128 - 1).map(lambda n: f"{n:032x}")
spans = st.integers(1, 2**64 - 1).map(lambda n: f"{n:016x}")


def begins(trace: Trace) -> bool:
    """Whether a trace is new and well-formed."""
    lengths = (len(trace.trace_id), len(trace.span_id), trace.parent_span_id, trace.state)
    return lengths == (32, 16, "", "") and set(trace.trace_id + trace.span_id) <= set(HEX)


def test_a_callers_trace_goes_on_with_a_span_of_our_own():
    trace = continue_trace(f"00-{TRACE}-{SPAN}-01", "vendor=1,other=2", bits=lambda _: 255)
    assert trace == Trace(TRACE, f"{255:016x}", SPAN, True, "vendor=1,other=2")


@given(ids, spans, st.booleans())
def test_what_is_sent_on_is_read_back_as_it_was(trace_id, span_id, sampled):
    trace = continue_trace(traceparent(trace_id, span_id, sampled))
    assert (trace.trace_id, trace.parent_span_id, trace.sampled) == (trace_id, span_id, sampled)
    assert trace.span_id != span_id


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"0-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
    ],
)
def test_a_header_that_is_no_traceparent_begins_a_new_trace_and_drops_the_tracestate(header):
    trace = continue_trace(header, "vendor=1")
    assert begins(trace)
    assert trace.trace_id != TRACE


@given(st.text(max_size=80), st.text(max_size=20))
def test_whatever_callers_send_gives_a_trace(header, state):
    trace = continue_trace(header, state)
    assert begins(trace) or trace.parent_span_id


@given(st.sampled_from(["01", "42", "fe"]), st.sampled_from(["", "-", "-what-ever", "-00"]))
def test_a_later_version_is_read_as_far_as_it_is_known(version, more):
    trace = continue_trace(f"{version}-{TRACE}-{SPAN}-03{more}")
    assert (trace.trace_id, trace.parent_span_id, trace.sampled) == (TRACE, SPAN, True)


def test_who_began_a_trace_decides_whether_it_is_kept():
    assert not continue_trace(f"00-{TRACE}-{SPAN}-00", sample=1.0).sampled
    assert continue_trace(f"00-{TRACE}-{SPAN}-01", sample=0.0).sampled


def test_of_the_traces_that_begin_here_a_share_is_kept_and_the_id_alone_says_which():
    chance = random.Random(7)
    traces = [continue_trace("", sample=0.25, bits=chance.getrandbits) for _ in range(4000)]
    assert sum(t.sampled for t in traces) == pytest.approx(1000, abs=120)
    assert all(t.sampled == (int(t.trace_id[16:], 16) < 0.25 * 2**64) for t in traces)
    assert all(continue_trace("", sample=1.0).sampled for _ in range(100))
    assert not any(continue_trace("", sample=0.0).sampled for _ in range(100))


def test_no_id_is_all_zeros_even_if_chance_says_so():
    trace = continue_trace("", bits=lambda _: 0)
    assert int(trace.trace_id, 16)
    assert int(trace.span_id, 16)


@pytest.mark.parametrize("state", ["x" * 513, "a=ü", "a=1\x00", "a=\r\nevil: 1"])
def test_a_tracestate_that_no_header_can_carry_is_left_out(state):
    trace = continue_trace(f"00-{TRACE}-{SPAN}-01", state)
    assert (trace.parent_span_id, trace.state) == (SPAN, "")


# --- through the gateway ---


async def test_a_request_and_its_record_and_the_model_server_share_one_trace():
    plane = Plane({TRIAGE.champion.url: labels})
    await plane.predict(trace=continue_trace(f"00-{TRACE}-{SPAN}-00", "vendor=1"))
    (intent,) = plane.intents
    assert (intent.trace_id, intent.parent_span_id, intent.sampled) == (TRACE, SPAN, False)
    headers = plane.upstream.asked[0][1].headers
    assert headers["traceparent"] == f"00-{TRACE}-{intent.span_id}-00"
    assert headers["tracestate"] == "vendor=1"


async def test_without_a_callers_trace_each_request_begins_its_own():
    plane = Plane({TRIAGE.champion.url: labels})
    await plane.predict()
    await plane.predict()
    one, other = plane.intents
    assert one.trace_id != other.trace_id
    assert one.parent_span_id == ""
    assert "tracestate" not in plane.upstream.asked[0][1].headers


async def test_a_shadows_copy_is_a_span_of_its_own_below_the_one_it_copies():
    shadow = target("2", Role.SHADOW, 0)
    plane = Plane({TRIAGE.champion.url: labels, shadow.url: labels}, (route(target(), shadow),))
    await plane.predict()
    await plane.gateway.close(5)
    asked, copied = plane.intents
    assert (copied.trace_id, copied.parent_span_id) == (asked.trace_id, asked.span_id)
    assert copied.span_id not in ("", asked.span_id)


async def test_a_refused_request_is_on_record_with_its_trace():
    plane = Plane({TRIAGE.champion.url: labels})
    await plane.predict(b"{nope", trace=continue_trace(f"00-{TRACE}-{SPAN}-01"))
    assert plane.intents[0].trace_id == TRACE
