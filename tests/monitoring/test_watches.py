"""What the state keeps of the project file's monitors means the same when it is read back."""

import json

import pytest

from fakes.traffic import BEGIN
from noria.domain.monitor import Watch
from noria.monitoring.watches import said, settings_of
from noria.settings import Monitors


@pytest.mark.parametrize(
    "monitors",
    [
        {},
        {"window": "2s", "granularities": ["1m", "1h"], "watch": ["text", "error"], "slices": ["metadata.team"]},
        {"baseline": {"since": "2026-01-01T00:00:00Z", "until": "2026-02-01"}, "floors": {"error": 0.1}},
        {"baseline": "first", "alpha": 0.01, "baseline_records": 60, "slice_values": 3},
    ],
)
def test_what_is_kept_of_monitors_is_what_was_said(monitors):
    wanted = Monitors.model_validate(monitors)
    kept = json.loads(json.dumps(said(wanted)))
    assert kept.keys() == monitors.keys()
    watch = Watch(
        id="a:1", endpoint="a", number=1, model="m", version="1", monitor_version=1, monitors=kept, since=BEGIN,
        counted_until=BEGIN,
    )  # fmt: skip
    assert settings_of(watch) == wanted
