"""Pictures of alerts: drawn without a network, with what callers wrote only as text."""

from dataclasses import replace

import pytest

from fakes.story import ALERT, XSS
from fakes.traffic import BEGIN, HOUR
from noria.domain.alert import Seen
from noria.domain.monitor import Moved
from noria.monitoring import pictures

SLOW = replace(
    ALERT,
    moved=(),
    metric="execution_duration_ms.p95",
    limit=500.0,
    trail=tuple(Seen(BEGIN + n * HOUR, 100.0 * n) for n in range(9)),
)


@pytest.mark.parametrize("alert", [ALERT, SLOW], ids=["cells", "windows"])
def test_an_alert_is_drawn_as_svg_and_png(alert) -> None:
    spec = pictures.of_alert(alert)
    assert spec is not None
    assert pictures.svg(spec).startswith("<svg")
    assert pictures.png(spec, scale=1).startswith(b"\x89PNG")


def test_a_rules_picture_has_every_window_and_the_threshold() -> None:
    spec = pictures.of_alert(SLOW)
    assert spec is not None
    assert [v["value"] for v in spec["data"]["values"]] == [100.0 * n for n in range(9)]
    assert spec["layer"][0]["encoding"]["y"]["datum"] == 500.0


def test_what_callers_wrote_is_text_in_it() -> None:
    spec = pictures.moved([Moved(XSS, 0.1, 0.4), Moved("quiet\x1b[2J", 0.2, 0.1)], XSS)
    drawn = pictures.svg(spec)
    assert "<script>" not in drawn
    assert "\x1b" not in drawn


def test_an_alert_that_moved_nothing_has_no_picture() -> None:
    assert pictures.of_alert(replace(ALERT, moved=())) is None
    assert pictures.of_alert(replace(SLOW, trail=())) is None
