"""What callers send and what model servers get, and back."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.upstream import chat, completion
from noria.domain.endpoint import Wire
from noria.domain.errors import InvalidRequest, UnsupportedMedia, UpstreamFailed
from noria.serving import bodies, replies, streams, wires
from noria.serving.wires import Form

JSON = "application/json"


def understand(form, value, wire=Wire.MLFLOW, content_type=JSON):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return wires.understand(form, body, content_type, wire, "triage")


# --- /predict ---


def test_a_single_input_becomes_a_batch_of_one_and_its_prediction_comes_back_bare():
    call = understand(Form.PREDICT, {"input": "great"})
    assert (call.path, json.loads(call.body)) == ("/invocations", {"inputs": ["great"]})
    assert call.read(b'{"predictions": ["positive"]}').body == b'"positive"'


def test_a_list_of_inputs_gives_a_list_of_predictions():
    call = understand(Form.PREDICT, {"input": ["a", "b"]})
    assert json.loads(call.body) == {"inputs": ["a", "b"]}
    assert json.loads(call.read(b'{"predictions": ["x", "y"], "probabilities": []}').body) == ["x", "y"]


def test_metadata_is_kept_for_the_record_and_not_sent_to_the_model():
    call = understand(Form.PREDICT, {"input": "a", "metadata": {"user": "u1", "vip": True, "n": 3, "none": None}})
    assert json.loads(call.body) == {"inputs": ["a"]}
    assert call.metadata == {"user": "u1", "vip": "true", "n": "3"}


def test_predict_reaches_a_chat_model_as_the_users_message():
    call = understand(Form.PREDICT, {"input": "hello"}, Wire.OPENAI)
    assert call.path == "/v1/chat/completions"
    assert json.loads(call.body) == {"messages": [{"role": "user", "content": "hello"}]}
    reply = call.read(json.dumps(completion("hi", 4)).encode())
    assert (reply.body, reply.input_tokens, reply.output_tokens) == (b'"hi"', 7, 4)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({}, "`input` is missing"),
        ({"inputs": ["a"]}, "`inputs` is not a field"),
        ({"input": []}, "`input` is empty"),
        ({"input": None}, "`input` is empty"),
        ({"input": "a", "metadata": ["u1"]}, "`metadata` is not an object"),
        ({"input": "a", "metadata": {"user": {"id": 1}}}, "`metadata.user` is an object"),
        ([1, 2], "The body is a list, not an object"),
        (None, "The body is null, not an object"),
        (b"", "The body is empty"),
        (b"{nope", "The body is not JSON"),
        (b'{"input": NaN}', "The body is not JSON"),
        (b'{"input": 1e999}', "a number that JSON can't carry"),
        (b'{"input": "\xff"}', "The body is not UTF-8"),
        (b'{"input": "\\ud800"}', "The body is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_cannot_be_understood_is_refused_with_its_place_and_what_to_send(value, names):
    with pytest.raises(InvalidRequest) as caught:
        understand(Form.PREDICT, value)
    assert names in caught.value.problem
    assert "Send" in caught.value.remedy


def test_a_chat_model_is_sent_no_list():
    with pytest.raises(InvalidRequest, match="`input` is not a string"):
        understand(Form.PREDICT, {"input": ["a"]}, Wire.OPENAI)


@given(st.binary(max_size=200))
def test_no_body_whatever_makes_anything_but_an_invalid_request(body):
    for form in Form:
        for wire in Wire:
            with suppress(InvalidRequest):
                understand(form, body, wire)


# --- /invocations ---


@pytest.mark.parametrize(
    "value",
    [
        {"inputs": ["a"]},
        {"instances": [{"text": "a"}], "params": {"k": 1}},
        {"dataframe_records": [{"text": "a"}]},
        {"dataframe_split": {"columns": ["text"], "data": [["a"]]}},
    ],
)
def test_mlflows_formats_go_through_untouched(value):
    body = json.dumps(value, indent=2).encode()
    call = understand(Form.INVOCATIONS, body)
    assert (call.path, call.body, call.record) == ("/invocations", body, body)
    assert call.read(b'{"predictions": [1]}').body == b'{"predictions": [1]}'


def test_metadata_beside_mlflows_formats_is_taken_out():
    call = understand(Form.INVOCATIONS, {"inputs": ["a"], "metadata": {"group": "north"}})
    assert json.loads(call.body) == {"inputs": ["a"]}
    assert call.metadata == {"group": "north"}
    assert json.loads(call.record)["metadata"] == {"group": "north"}
    assert json.loads(understand(Form.INVOCATIONS, {"inputs": ["a"], "metadata": {}}).body) == {"inputs": ["a"]}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"inputs": ["a"], "instances": ["a"]}, "found 2 of them"),
        ({}, "found 0 of them"),
        ({"input": ["a"]}, "`input` is not one of them"),
        ({"inputs": []}, "`inputs` is empty"),
        ({"inputs": "a"}, "`inputs` is empty or not"),
        ({"dataframe_split": [1]}, "`dataframe_split` is empty or not"),
        ({"inputs": ["a"], "params": [1]}, "`params` is not an object"),
    ],
)
def test_a_body_that_is_not_one_of_mlflows_formats_is_refused(value, names):
    with pytest.raises(InvalidRequest) as caught:
        understand(Form.INVOCATIONS, value)
    assert names in caught.value.problem


def test_csv_goes_through_as_it_is_and_is_recorded_as_a_table():
    body = b'text,group\n"fine, thanks",north\nbad,south\n'
    call = understand(Form.INVOCATIONS, body, content_type="text/csv; charset=utf-8")
    assert (call.body, call.content_type, call.notes) == (body, "text/csv", ("converted_from_csv",))
    table = {"columns": ["text", "group"], "data": [["fine, thanks", "north"], ["bad", "south"]]}
    assert json.loads(call.record) == {"dataframe_split": table}


@pytest.mark.parametrize("body", [b"text\n", b"", b"a,b\n1\n", b"text\n\xff\n"])
def test_csv_without_rows_or_with_ragged_ones_is_refused(body):
    with pytest.raises(InvalidRequest):
        understand(Form.INVOCATIONS, body, content_type="text/csv")


def test_csv_is_for_classifiers_invocations_only():
    with pytest.raises(UnsupportedMedia):
        understand(Form.PREDICT, b"text\na\n", content_type="text/csv")
    with pytest.raises(UnsupportedMedia):
        understand(Form.INVOCATIONS, b"text\na\n", Wire.OPENAI, "text/csv")


@pytest.mark.parametrize("content_type", ["application/xml", "text/plain", "application/json; charset=latin-1"])
def test_other_media_and_character_sets_are_refused(content_type):
    with pytest.raises(UnsupportedMedia):
        bodies.check_media(content_type)


@pytest.mark.parametrize("content_type", ["", "application/json", 'Application/JSON; charset="UTF-8"', "text/csv"])
def test_json_and_csv_in_utf8_are_taken(content_type):
    bodies.check_media(content_type)


def test_a_chat_body_may_come_over_invocations_and_needs_no_model():
    call = understand(Form.INVOCATIONS, {"messages": [{"role": "user", "content": "a"}]}, Wire.OPENAI)
    assert call.path == "/v1/chat/completions"
    assert json.loads(call.body)["model"] == "triage"
    assert understand(Form.INVOCATIONS, {"prompt": "a"}, Wire.OPENAI).path == "/v1/completions"
    assert understand(Form.INVOCATIONS, {"input": "a"}, Wire.OPENAI).path == "/v1/embeddings"
    with pytest.raises(InvalidRequest, match="none of messages, prompt, input"):
        understand(Form.INVOCATIONS, {"inputs": ["a"]}, Wire.OPENAI)


# --- OpenAI ---

HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}


def test_openais_bodies_go_through_untouched():
    body = json.dumps({**HELLO, "temperature": 0, "metadata": {"user": "u1"}, "user": "u2"}, indent=1).encode()
    call = understand(Form.CHAT, body, Wire.OPENAI)
    assert (call.body, call.stream, call.user, call.metadata) == (body, False, "u2", {"user": "u1"})


def test_a_stream_is_asked_for_its_usage_even_where_the_caller_was_not_interested():
    call = understand(Form.CHAT, {**HELLO, "stream": True}, Wire.OPENAI)
    assert json.loads(call.body) == {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    assert (call.stream, call.shows_usage) == (True, False)
    assert json.loads(call.whole_body) == HELLO


def test_a_stream_that_is_asked_for_its_usage_already_goes_through_untouched():
    body = json.dumps({**HELLO, "stream": True, "stream_options": {"include_usage": True}}, indent=1).encode()
    call = understand(Form.CHAT, body, Wire.OPENAI)
    assert (call.body, call.shows_usage) == (body, True)


@pytest.mark.parametrize(
    "value",
    [
        {"model": "m"},
        {"model": "m", "messages": []},
        {"model": "m", "messages": "hello"},
        {"model": "m", "messages": [{"content": "hello"}]},
        {**HELLO, "stream": "yes"},
        {**HELLO, "stream": True, "stream_options": [1]},
        {**HELLO, "metadata": [1]},
    ],
)
def test_a_chat_without_messages_is_refused(value):
    with pytest.raises(InvalidRequest):
        understand(Form.CHAT, value, Wire.OPENAI)


def test_the_model_names_the_endpoint():
    assert wires.endpoint_named(json.dumps(HELLO).encode()) == "assistant"
    for body in (b"{}", b'{"model": 1}', b'{"model": ""}', b"[]", b"nope"):
        with pytest.raises(InvalidRequest):
            wires.endpoint_named(body)


def test_a_classifier_cannot_be_chatted_with():
    with pytest.raises(InvalidRequest, match=r"POST .* to /predict/triage"):
        understand(Form.CHAT, HELLO)


# --- what comes back ---


@pytest.mark.parametrize(
    "body",
    [b"", b"nope", b"[]", b'{"predictions": "x"}', b'{"predictions": []}', b'{"predictions": [1, 2]}', b'{"error": 1}'],
)
def test_an_answer_that_holds_no_prediction_is_a_failure(body):
    with pytest.raises(UpstreamFailed):
        understand(Form.PREDICT, {"input": "a"}).read(body)


@pytest.mark.parametrize("body", [b"<html>", b'{"choices": 1}', b"{}", b"\xff"])
def test_an_answer_that_holds_no_choices_is_a_failure(body):
    with pytest.raises(UpstreamFailed):
        understand(Form.CHAT, HELLO, Wire.OPENAI).read(body)


def test_error_bodies_of_both_wires_give_their_sentence():
    assert replies.error_message(b'{"error": {"message": "too long"}}') == "too long."
    assert replies.error_message(b'{"error_code": "BAD", "message": "no column text"}') == "no column text."
    assert replies.error_message(b"<html>secret</html>") == "it gives no reason."


# --- streams ---


def assembled(chunks):
    assembly = streams.Assembly()
    for chunk in chunks:
        assembly.add(chunk)
    return assembly


def test_chunks_add_up_to_the_completion_that_they_spell():
    assembly = assembled(chat("Hel", "lo"))
    whole = json.loads(assembly.body())
    assert whole["object"] == "chat.completion"
    assert whole["choices"] == [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
    ]
    assert whole["usage"]["completion_tokens"] == 2
    assert assembly.complete


def test_tool_calls_are_put_together_from_their_pieces():
    def piece(*calls):
        return {"choices": [{"index": 0, "delta": {"tool_calls": list(calls)}}]}

    assembly = assembled(
        [
            piece({"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}),
            piece({"index": 0, "function": {"arguments": '{"a"'}}),
            piece({"index": 1, "id": "c2", "type": "function", "function": {"name": "go", "arguments": "{}"}}),
            piece({"index": 0, "function": {"arguments": ": 1}"}}),
        ]
    )
    calls = json.loads(assembly.body())["choices"][0]["message"]["tool_calls"]
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("c1", "look", '{"a": 1}'),
        ("c2", "go", "{}"),
    ]
    assert not assembly.complete


def test_choices_log_probabilities_and_plain_completions_add_up_too():
    assembly = assembled(
        [
            {"object": "text_completion", "choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]},
            {"choices": [{"index": 0, "text": "A", "logprobs": {"tokens": ["A"]}, "finish_reason": None}]},
            {"choices": [{"index": 0, "text": "!", "logprobs": {"tokens": ["!"]}, "finish_reason": "length"}]},
        ]
    )
    first, second = json.loads(assembly.body())["choices"]
    assert (first["text"], first["logprobs"], first["finish_reason"]) == ("aA!", {"tokens": ["A", "!"]}, "length")
    assert second["text"] == "b"


@given(st.lists(st.integers(1, 40), max_size=30), st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_events_are_whole_however_the_bytes_are_cut(cuts, end):
    stream = b"".join(b"data: %d" % n + end for n in range(20)) + b": comment" + end
    splitter, events, at = streams.Splitter(), [], 0
    for cut in [*cuts, len(stream)]:
        events += splitter.feed(stream[at : at + cut])
        at += cut
    assert b"".join(events) == stream
    assert [streams.payload(e) for e in events] == [*(b"%d" % n for n in range(20)), None]


def test_an_event_without_an_end_is_given_up():
    splitter = streams.Splitter()
    with pytest.raises(UpstreamFailed):
        splitter.feed(b"x" * (streams.LONGEST_EVENT + 1))


@pytest.mark.parametrize("data", [b"nope", b"1", b'{"error": {"message": "out of memory"}}', b"\xff"])
def test_an_event_that_is_no_chunk_is_a_failure(data):
    with pytest.raises(UpstreamFailed):
        streams.chunk(data)
