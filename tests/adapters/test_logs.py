"""The processes' own logs: lines of JSON, that say which request they are about."""

import json
import logging
import subprocess
import sys

import pytest

from fakes.plane import TRIAGE, Plane
from noria.adapters.logs import JsonLines

SCRIPT = """
import logging
from noria.adapters.logs import log_json
log_json()
log = logging.getLogger("noria.test")
log.info("one %s", "é")
log.warning("two", extra={"request_id": "r", "trace_id": ""})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("three")
"""


def lines(**environment: str) -> list[dict]:
    """What a process that logs writes to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env={"PATH": "", **environment}
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_each_event_is_one_line_of_json():
    one, two, three = lines()
    assert (one["level"], one["logger"], one["message"]) == ("info", "noria.test", "one é")
    assert "request_id" not in one
    assert (two["request_id"], "trace_id" in two) == ("r", False)
    assert "ZeroDivisionError" in three["exception"]


@pytest.mark.parametrize(
    ("level", "messages"), [("warning", ["two", "three"]), ("nonsense", ["one é", "two", "three"])]
)
def test_the_environment_says_what_is_worth_a_line(level, messages):
    assert [line["message"] for line in lines(NORIA_LOG_LEVEL=level)] == messages


async def test_a_fault_of_ours_names_the_request_and_nothing_that_was_in_it(caplog):
    def broken(_):
        raise RuntimeError("what nobody foresaw")

    plane = Plane({TRIAGE.champion.url: broken})
    answer = await plane.predict(b'{"input": "a secret"}')
    assert answer.status == 500
    (event,) = [json.loads(JsonLines().format(record)) for record in caplog.records if record.levelno == logging.ERROR]
    assert (event["request_id"], event["trace_id"]) == (plane.intents[0].request_id, plane.intents[0].trace_id)
    assert "a secret" not in json.dumps(event)
