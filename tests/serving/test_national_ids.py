"""National identity numbers: found where they are written as such; what is a number of anything else is left alone."""

import random

import pytest

from noria.serving.log.national_ids import KNOWN, valid
from noria.serving.log.redaction import Redactor
from noria.settings import SPELLED, Redaction

ONLY = Redactor([Redaction.NATIONAL_ID])
ALL = Redactor(SPELLED)
ALONE = [
    ("US", "536-90-4399"),
    ("US", "912-90-3456"),
    ("GB", "AB123456C"),
    ("GB", "AB 12 34 56 C"),
    ("DE", "36 574 261 809"),
    ("FR", "2 95 10 99 126 111 93"),
    ("FR", "253072A07300443"),
    ("ES", "54362315K"),
    ("ES", "54362315-K"),
    ("ES", "X-2482300W"),
    ("IT", "RCCMNL83S18D969H"),
    ("IT", "rccmnl83s18d969h"),
    ("BE", "85.07.30-033.28"),
    ("CH", "756.9217.0769.85"),
    ("SE", "880320-0016"),
    ("NO", "15108695088"),
    ("FI", "131052-308T"),
    ("CZ", "710319/2745"),
    ("CN", "360426199101010071"),
    ("KR", "971013-9019902"),
    ("TH", "1-2345-45678-78-1"),
    ("MY", "770305-02-1234"),
    ("MX", "BOXW310820HNERXN09"),
    ("BR", "390.533.447-05"),
    ("AR", "20-05536168-2"),
    ("CL", "12.531.909-2"),
]
NEAR = [
    ("US", "536904399", "my social security number is {}"),
    ("US", "536 90 4399", "{} (SSN)"),
    ("US", "912903456", "ITIN: {}"),
    ("GB", "943 476 5870", "NHS no. {}"),
    ("FR", "3023217600053", "numéro fiscal {}"),
    ("FR", "295109912611193", "numéro de sécurité sociale {}"),
    ("DE", "36574261809", "Steuernummer (IdNr.) {}"),
    ("NL", "111222333", "mijn BSN: {}"),
    ("AT", "1237 010180", "SVNR {}"),
    ("IE", "6433435F", "PPSN {}"),
    ("PT", "501964843", "o meu NIF é {}"),
    ("DK", "211062-5629", "CPR {}"),
    ("IS", "120174-3399", "kennitala {}"),
    ("PL", "44051401359", "PESEL {}"),
    ("RO", "1630615123457", "CNP {}"),
    ("BG", "8032056031", "ЕГН {}"),
    ("EE", "36805280109", "isikukood {}"),
    ("LT", "33309240064", "asmens kodas {}"),
    ("HR", "33392005961", "OIB: {}"),
    ("GR", "01013099997", "AMKA {}"),
    ("TR", "17291716060", "T.C. kimlik no {}"),
    ("IL", "039337423", "teudat zehut {}"),
    ("ZA", "7503305044089", "ID number {}"),
    ("IN", "2341 2341 2346", "Aadhaar {}"),
    ("IN", "ACUPA7085R", "PAN {}"),
    ("JP", "6214 9832 0257", "My Number {}"),
    ("ID", "3171011708450001", "NIK {}"),
    ("AU", "123 456 782", "TFN {}"),
    ("NZ", "49-098-576", "IRD number {}"),
    ("CA", "123-456-782", "SIN {}"),
    ("BR", "39053344705", "CPF {}"),
    ("UA", "1759013776", "РНОКПП {}"),
    ("RU", "123456789047", "ИНН {}"),
]


@pytest.mark.parametrize(("country", "number"), ALONE)
def test_a_number_that_is_unmistakable_goes_without_a_word_near_it(country, number):
    assert ONLY.text(f"it is {number}, thanks") == ("it is [national_id], thanks", ("REDACTED_NATIONAL_ID",))
    assert number not in ALL.text(f"it is {number}.")[0]


@pytest.mark.parametrize(("country", "number", "said"), NEAR)
def test_a_row_of_digits_goes_if_a_word_near_it_says_what_it_is(country, number, said):
    assert ONLY.text(said.format(number))[0] == said.format("[national_id]")
    assert ONLY.text(f"order {number} is late")[0] == f"order {number} is late"


def test_every_kind_that_is_known_is_tested():
    tested = {country for country, *_ in ALONE} | {country for country, *_ in NEAR}
    assert {kind.country for kind in KNOWN} == tested
    assert all(kind.words for kind in KNOWN if kind.near)


@pytest.mark.parametrize(
    "text",
    [
        "SSN 000-12-3456 can't be one, nor 666-12-3456",
        "DNI 54362315A has the wrong letter",
        "flight BA123456C1, part AB123456E, order X-2482300A",
        "on 2024-05-17 at 10:45:00.123456, 1735689600123 ms, v1.2.3-4567, +49 30 901820",
        "550e8400-e29b-41d4-a716-446655440000 chatcmpl-0193f6c0e7b87a3b9d2e1c4f5a6b7c8d",
        "http://example.com/orders/36574261809x and mail 54362315K@example.com",
        "Prices: 1200, 33.50, 100-200-300; room 1204, 3 x 40 cm, 10.000.000 rows",
    ],
)
def test_what_only_looks_like_one_is_left_alone(text):
    assert ONLY.text(text) == (text, ())


def test_the_name_of_a_field_is_a_word_near_its_value():
    body = b'{"input": {"ssn": "536904399", "order": "536904399"}}'
    assert ONLY.body(body) == (b'{"input": {"ssn": "[national_id]", "order": "536904399"}}', ("REDACTED_NATIONAL_ID",))


def test_numbers_beside_one_another_all_go():
    assert ONLY.text("room 12 36 574 261 809 and 536-90-4399, 85.07.30-033.28")[0] == (
        "room 12 [national_id] and [national_id], [national_id]"
    )


@pytest.mark.parametrize("digits", range(6, 20))
def test_few_rows_of_random_digits_are_taken_for_one(digits):
    """At most one in a thousand, for there are unmistakable numbers that are bare digits, too."""
    choice = random.Random(digits)
    rows = [str(choice.randrange(10 ** (digits - 1), 10**digits)) for _ in range(2000)]
    assert sum(ONLY.text(f"order {row} is late")[1] != () for row in rows) <= 2


def test_a_national_insurance_number_has_a_prefix_that_was_given_out():
    (kind,) = (kind for kind in KNOWN if kind.check == "nino")
    assert valid(kind, "AB 12 34 56 C")
    assert not any(valid(kind, number) for number in ("BG123456C", "DA123456C", "AO123456C"))
