"""Log entries as tests need them: request `n` arrives `n` seconds after the start of 2025 and takes 5 ms."""

from noria.domain.endpoint import Role
from noria.domain.inference import Feedback, Intent, Outcome, OutcomeKind

START_US = 1_735_689_600_000_000
SECOND_US = 1_000_000


def intent(n: int, **changes) -> Intent:
    fields = {
        "request_id": f"{n:032x}",
        "endpoint": "triage",
        "model": "triage",
        "version": "1",
        "role": Role.CHAMPION,
        "received_us": START_US + n * SECOND_US,
        "request": b'{"input":"hello"}',
        "metadata": {"group": "united"},
    }
    return Intent(**(fields | changes))


def outcome(n: int, **changes) -> Outcome:
    fields = {
        "request_id": f"{n:032x}",
        "kind": OutcomeKind.ANSWERED,
        "status": 200,
        "finished_us": START_US + n * SECOND_US + 5000,
        "duration_us": 5000,
        "response": b'{"label":"positive"}',
    }
    return Outcome(**(fields | changes))


def feedback(n: int, **changes) -> Feedback:
    fields = {
        "feedback_id": f"f{n}",
        "request_id": f"{n:032x}",
        "endpoint": "triage",
        "received_us": START_US + n * SECOND_US,
        "label": "positive",
    }
    return Feedback(**(fields | changes))
