"""What the log keeps, what it never keeps, and who else is told of it."""

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from noria.settings.basics import Strict


class Redaction(StrEnum):
    """What is taken out of text before it touches the disk."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    CREDENTIAL = "credential"
    NATIONAL_ID = "national_id"
    NAME = "name"
    LOCATION = "location"
    ORGANISATION = "organisation"


READ: Final = frozenset({Redaction.NAME, Redaction.LOCATION, Redaction.ORGANISATION})
"""What only a language model finds; it reads in a process of its own, and only where an endpoint asks for it."""
SPELLED: Final = tuple(kind for kind in Redaction if kind not in READ)
"""What is found by how it is written."""


class RedactElse(StrEnum):
    """What becomes of a request in which names could not be looked for."""

    REFUSE = "refuse"
    """It is answered with 503."""
    WITHHOLD = "withhold"
    """It is answered, and its body is kept out of the log."""


_REGIONS: Final = frozenset(
    re.findall(
        r"\w+",
        "AC AD AE AF AG AI AL AM AO AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BW BY"
        " BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ"
        " FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GT GU GW GY HK HN HR HT HU ID IE IL IM IN IO IQ IR"
        " IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH"
        " MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK"
        " PL PM PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TA"
        " TC TD TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW",
    )
)


def _region(code: str) -> str:
    if code not in _REGIONS:
        raise PydanticCustomError("region", "write a country's two letters, such as US, GB or DE")
    return code


Region = Annotated[str, AfterValidator(_region)]
"""A country whose national phone numbers are known."""


class Log(Strict):
    """The log of requests and answers."""

    max_payload_bytes: int = Field(
        10_000_000,
        ge=1024,
        description="Longest body that is kept whole; of a longer one the beginning is kept, and a code says so.",
    )


class Telemetry(Strict):
    """Traces and metrics for others, made by the worker from the log."""

    otlp: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="OTLP/HTTP collector, for example http://127.0.0.1:4318; default is OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    sample: float = Field(
        1.0, ge=0, le=1, description="Share of the traces begun here that are exported; faults always are."
    )
    payloads: bool = Field(False, description="Send along what was asked and answered, redacted as in the log.")
    mlflow_sample: float = Field(
        0.0, ge=0, le=1, description="Share of the traces that MLflow gets, with bodies; 20 a second at most."
    )
