"""Redaction: nothing personal survives, nothing else is touched."""

import json
import string
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from noria.serving.log import national_ids, redaction
from noria.serving.log.effort import POINTS, Effort
from noria.serving.log.redaction import Redactor, Redactors
from noria.settings import SPELLED, Endpoint, Redaction

REDACTOR = Redactor(SPELLED)
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"

emails = st.from_regex(r"[a-z][a-z0-9.+_-]{0,20}@[a-z0-9-]{1,15}(\.[a-z]{2,6}){1,2}", fullmatch=True)
prose = st.text(st.sampled_from(string.ascii_letters + " ,.!?'\n"), max_size=60)
anything = st.text(max_size=80)
awkward = st.text(st.sampled_from('@.+-() 0123456789ab:/=_sk\\"[]'), max_size=60)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | anything | emails,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(anything | emails, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("mail jo.doe+x@mail.example.com now", "mail [email] now"),
        ("ünï@bücher.de, o'neil@x.ie!", "[email], [email]!"),
        ("call +49 30 901820 or (415) 555-2671.", "call [phone] or [phone]."),
        ("0049 30 901820 / 415.555.2671 / +1-415-555-2671 ext", "[phone] / [phone] / [phone] ext"),
        ("card 4111 1111 1111 1111, 378282246310005", "card [card], [card]"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN [iban] please"),
        ("gb82west12345698765432", "[iban]"),
        ("key sk-proj-abcdefghijklmnop1234", "key [credential]"),
        ("Authorization: Bearer abcdefghijklmnop.qrst", "Authorization: Bearer [credential]"),
        ("AKIAIOSFODNN7EXAMPLE and ghp_" + "a1" * 18, "[credential] and [credential]"),
        ("https://bob:s3cret@host.example/x", "https://[credential]@host.example/x"),
        ("password: hunter22, fine", "password: [credential], fine"),
        ("sk-noria-" + "aB3x" * 8 + " is mine", "[credential] is mine"),
        ("sk-ant-api03-" + "aB3x_" * 8, "[credential]"),
        ("key " + "a1B2" * 13 + "JQQJ99" + "C3d4" * 6 + "e5", "key [credential]"),
        ("secret abc8Q~" + "d.E~" * 8 + " here", "secret [credential] here"),
        ("AccountKey=" + "aB3/" * 21 + "ab==;EndpointSuffix", "AccountKey=[credential];EndpointSuffix"),
        ("?sv=2024&sig=" + "aB3%2F" * 8 + "&se=1", "?sv=2024&sig=[credential]&se=1"),
        ("aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "aws_secret_access_key = [credential]"),
        (
            "https://hooks.slack.com/services/T0000AAAA/B0000BBBB/" + "x1" * 12,
            "https://hooks.slack.com/services/[credential]",
        ),
        ("dapi" + "0a1b" * 8 + "-2 and xoxb-123456789012-abcdef", "[credential] and [credential]"),
        (f"here: {KEY} end", "here: [credential] end"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "[credential]"),
    ],
)
def test_personal_data_and_secrets_leave_a_marker(text, clean):
    assert REDACTOR.text(text)[0] == clean


@pytest.mark.parametrize(
    "text",
    [
        "@VirginAmerica flight 1234567 on 2024-01-15 10:30:00, seat 12A",
        "order 12345678901234 for 1,234,567.89 at 3.14159265358",
        "IP 192.168.100.200 at 1700000000 and 1700000000123",
        "id 550e8400-e29b-41d4-a716-446655440000, version 13.0.1234.5678",
        "card 4111 1111 1111 1112 has a wrong check digit",
        "DE88 3704 0044 0532 0130 00 has one too",
        "the password is not here; a task-oriented, risk-averse asker",
        "see http://example.com/a@b and C:\\path",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text):
    assert REDACTOR.text(text) == (text, ())


def test_the_codes_say_what_went():
    assert REDACTOR.text("jo@x.org, 4111111111111111")[1] == ("REDACTED_CARD", "REDACTED_EMAIL")


def test_only_the_chosen_kinds_go():
    only = Redactor([Redaction.EMAIL])
    assert only.text("jo@x.org, 4111111111111111")[0] == "[email], 4111111111111111"
    assert Redactor(()).json(b'"jo@x.org"') == b'"jo@x.org"'


def test_national_numbers_are_known_in_the_regions_that_were_chosen():
    text = "ruf 030 901820 an"
    assert REDACTOR.text(text)[0] == text
    assert Redactor(SPELLED, regions=("DE", "US")).text(text)[0] == "ruf [phone] an"


def test_every_region_of_the_project_file_is_one_that_is_known():
    import phonenumbers

    described = {"task": "classification", "policy": "policy.yaml", "training": {"data": "data.csv"}}
    for region in phonenumbers.SUPPORTED_REGIONS:
        Endpoint(**{**described, "redact_regions": [region]})
    with pytest.raises(ValueError, match="two letters"):
        Endpoint(**{**described, "redact_regions": ["UK"]})


def test_each_endpoint_has_the_redactor_that_the_project_in_service_gives_it():
    def project(*kinds):
        endpoints = {
            name: SimpleNamespace(redact=kinds, redact_regions=("US",), redact_else="refuse")
            for name in ("triage", "assistant")
        }
        return SimpleNamespace(endpoints=endpoints)

    in_service = [project(Redaction.EMAIL)]
    redactors = Redactors(lambda: in_service[-1])
    assert redactors["triage"].text("jo@x.org")[0] == "[email]"
    assert redactors["triage"] is redactors["assistant"]
    in_service.append(project())
    assert redactors["triage"].text("jo@x.org")[0] == "jo@x.org"
    assert "unknown" not in redactors
    assert list(redactors) == ["triage", "assistant"]
    assert len(redactors) == 2


@given(prose, emails, prose)
def test_no_email_survives(before, email, after):
    clean, codes = REDACTOR.text(f"{before} {email} {after}")
    assert email not in clean
    assert "@" not in clean
    assert codes


@given(anything | awkward)
@example("1@1.1@1.1")
@settings(max_examples=300)
def test_redacting_twice_changes_nothing(text):
    once = REDACTOR.text(text)[0]
    assert REDACTOR.text(once) == (once, ())


@given(prose)
def test_prose_is_left_alone(text):
    assert REDACTOR.text(text) == (text, ())


@given(jsons)
def test_json_stays_json_with_the_same_shape(value):
    def shape(node):
        if isinstance(node, dict):
            return [shape(v) for v in node.values()]
        return [shape(v) for v in node] if isinstance(node, list) else type(node)

    for body in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        try:
            before = body.encode()
        except UnicodeEncodeError:  # a lone surrogate can't be sent
            continue
        after = json.loads(REDACTOR.json(before), object_pairs_hook=lambda pairs: dict(enumerate(v for _, v in pairs)))
        assert shape(after) == shape(value)


@given(emails, st.booleans())
def test_no_email_survives_in_json_however_it_is_written(email, in_key):
    value = {email: 1} if in_key else {"messages": [{"content": f"write to {email}\nor ü"}]}
    escaped = json.dumps(value).replace("@", "\\u0040")
    for body in (json.dumps(value), json.dumps(value, ensure_ascii=False), escaped):
        clean = REDACTOR.json(body.encode())
        assert email not in str(json.loads(clean))
        assert "@" not in str(json.loads(clean))


def test_what_is_no_json_is_redacted_anywhere():
    clean, codes = REDACTOR.body(b'{"pay": [4111111111111111], "at": Infinity}')
    assert (clean, codes) == (b'{"pay": [[card]], "at": Infinity}', ("REDACTED_CARD",))


def test_what_is_not_touched_stays_byte_for_byte():
    body = b'{ "n": 1.50e3, "big": 123456789012345678901234567890, "a": "\\u00e9", "a": "jo@x.org" }'
    assert REDACTOR.json(body) == body.replace(b"jo@x.org", b"[email]")


@given(st.lists(anything | awkward | emails, min_size=1, max_size=4))
def test_the_quick_look_at_a_body_misses_nothing(texts):
    """A body is looked at as a whole before its strings are: what they hold must be found either way."""
    body = json.dumps({"n": 1735689600123, "texts": texts}, ensure_ascii=False)
    try:
        found = REDACTOR.body(body.encode())
    except UnicodeEncodeError:  # a lone surrogate can't be sent
        return
    assert json.loads(found[0])["texts"] == [REDACTOR.text(text, '"texts": ["')[0] for text in texts]


def test_a_number_that_is_no_string_is_left_alone():
    assert REDACTOR.json(b'{"id": 4111111111111111}') == b'{"id": 4111111111111111}'


@pytest.mark.parametrize("body", [b'{"a": "jo@x.org', b"mail jo@x.org\xff\xfe", b'text: "jo@x.org" it said'])
def test_what_is_not_json_is_redacted_as_text(body):
    assert REDACTOR.json(body) == body.replace(b"jo@x.org", b"[email]")


def test_what_is_beyond_the_checks_that_a_body_is_worth_counts_as_found():
    numbers = ", ".join(f"111222333{digit}" for digit in range(6))  # no valid number
    some = Redactor([Redaction.PHONE])
    assert some.text(numbers, effort=Effort(points=3 * 1))[0].count("[phone]") == 3
    assert some.text(numbers, effort=Effort(looks=3))[0].count("[phone]") == 6  # and they are looked at again
    assert some.text(numbers) == (numbers, ())


def test_a_number_that_comes_again_is_checked_once(monkeypatch):
    checked = counted(monkeypatch)
    REDACTOR.body(json.dumps(["(111) 222-3334 "] * 200).encode())
    assert len(checked) == 1


HOSTILE = {
    "1/1/1": lambda n: f"{n % 10}/" * 9,
    "groups": lambda n: f"{n:04d} 22 33 44 55 66 ",
    "dotted": lambda n: f"{n:04d}. 21. 43. 651. 1 ",
    "abroad": lambda n: f"+9991{n:06d}; ",
    "fake iban": lambda n: f"DE{n % 90 + 10} 0000 0000 {n:06d} AB; ",
    "fake ssn": lambda n: f"666-{n % 90 + 10}-{n:04d} ssn; ",
    "bare and named": lambda n: f"{100000000 + n} ssn bsn nif; ",
}


@pytest.mark.parametrize("form", ["text", "one string", "many strings", "very many strings"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_body_costs_more_checks_than_it_is_worth(kind, form, monkeypatch):
    checked, text = counted(monkeypatch), [HOSTILE[kind](n) for n in range(6000)]
    if form == "very many strings":
        body = json.dumps(text)
    else:
        size = 20 if form == "many strings" else len(text)
        strings = ["".join(text[first : first + size]) for first in range(0, len(text), size)]
        body = strings[0] if form == "text" else json.dumps(strings)
    REDACTOR.body(body.encode())
    assert len(checked) <= POINTS * 5 // 4  # and a first look at the body as a whole


def counted(monkeypatch):
    """Every check that costs about a tenth of a millisecond, as they are made."""
    checked = []

    def counting(check):
        return lambda *arguments: checked.append(arguments) or check(*arguments)

    monkeypatch.setattr(redaction, "_phone_in", counting(redaction._phone_in))
    monkeypatch.setattr(national_ids, "valid", counting(national_ids.valid))
    return checked


def test_very_many_strings_are_redacted_as_few_are():
    few = {
        "ssn": "536904399",
        "to": ["jo@x.org", "+49 30 901820", "-----BEGIN PRIVATE KEY-----", 'it"s\n\\', "ü"],
        "n": 1,
    }
    (one,), many = json.loads(REDACTOR.json(json.dumps([few]).encode())), json.dumps([few] * 1000, ensure_ascii=False)
    assert json.loads(REDACTOR.json(many.encode())) == [one] * 1000
    escaped = many.replace("@", "\\u0040")
    assert json.loads(REDACTOR.json(escaped.encode()))[7]["to"][:2] == ["[email]", "[phone]"]
    plain = json.dumps(["nothing here"] * 3000).encode()
    assert REDACTOR.body(plain) == (plain, ())


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "1 ", "AB12", "a@", "a.", "://a", "-----BEGIN PRIVATE KEY-----", "+1", "1-", "AB 12 34 56 ", "A0A0-"],
)
def test_long_hostile_text_takes_linear_time(piece):
    REDACTOR.text("x@" + piece * (200_000 // len(piece)) + "@")
