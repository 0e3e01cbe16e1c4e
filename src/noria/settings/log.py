"""What the log keeps, what it never keeps, and who else is told of it."""

from enum import StrEnum

from pydantic import Field

from noria.settings.basics import Strict


class Redaction(StrEnum):
    """What is taken out of text before it touches the disk."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    CREDENTIAL = "credential"


class Log(Strict):
    """The log of requests and answers."""

    max_payload_bytes: int = Field(
        10_000_000, ge=1024, description="Longest request or answer that is kept whole; a code says if one was longer."
    )


class Telemetry(Strict):
    """Traces and metrics for others, made by the worker from the log."""

    otlp: str = Field("", description="OTLP/HTTP collector, for example http://127.0.0.1:4318; empty for none.")
    sample: float = Field(1.0, ge=0, le=1, description="Share of the traces that are exported.")
    mlflow_sample: float = Field(0.0, ge=0, le=1, description="Share of the traces that MLflow gets, too.")
