import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest

from noria.domain.errors import StorageCorrupted
from noria.evaluation.baseline import Baseline, Reference, lengths
from noria.evaluation.cells import NumericBins
from noria.evaluation.faults import FaultGrid

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

TEXTS = [f"my order {i % 7} is {'late' if i % 3 else 'lost'} again" for i in range(200)]
PREDICTIONS = ["negative" if i % 3 else "neutral" for i in range(100)]


@pytest.fixture(scope="module")
def baseline():
    return Baseline.fit(TEXTS[:100], TEXTS[100:], PREDICTIONS, [True] * 80 + [False] * 20)


def test_a_baseline_counts_the_held_out_half(baseline):
    assert baseline.rows == 100
    assert baseline.text.counts.sum() == baseline.length.counts.sum() == baseline.prediction.counts.sum() == 100
    assert baseline.prediction.cells.known == ("negative", "neutral")


def test_the_floor_lies_surely_below_the_measured_accuracy(baseline):
    assert 0.65 < baseline.floor < 0.75


def test_a_baseline_survives_storage(baseline):
    again = Baseline.from_bytes(baseline.to_bytes())
    assert again.text.cells.assign(TEXTS).tolist() == baseline.text.cells.assign(TEXTS).tolist()
    assert again.length.cells.count(lengths(TEXTS)).tolist() == baseline.length.cells.count(lengths(TEXTS)).tolist()
    assert again.prediction.cells.names == baseline.prediction.cells.names
    assert again.text.counts.tolist() == baseline.text.counts.tolist()
    assert (again.floor, again.rows) == (baseline.floor, baseline.rows)


def test_free_text_answers_have_no_prediction_monitor_and_no_floor():
    again = Baseline.from_bytes(Baseline.fit(TEXTS[:50], TEXTS[50:]).to_bytes())
    assert again.prediction is None
    assert again.floor is None


def test_arrays_will_do_as_well_as_lists():
    fitted = Baseline.fit(TEXTS, TEXTS, np.array(PREDICTIONS), np.array([True, False]))
    assert fitted.floor is not None


def test_no_texts_make_a_baseline_too():
    empty = Baseline.from_bytes(Baseline.fit([], [], [], []).to_bytes())
    assert (empty.rows, empty.floor) == (0, None)


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: b"junk", lambda raw: raw[: len(raw) // 2]])
def test_a_damaged_file_is_named(baseline, damage):
    with pytest.raises(StorageCorrupted, match="baseline"):
        Baseline.from_bytes(damage(baseline.to_bytes()))


# --- any column ---


def many() -> Baseline:
    """What traffic shows besides, from a record on."""
    rng = np.random.default_rng(0)
    spent, faults = rng.lognormal(0, 1, 400), rng.random(400) < 0.02
    return Baseline(
        references={
            "cost_usd": Reference(NumericBins.fit(spent), NumericBins.fit(spent).count(spent), since=NOON),
            "error": Reference(FaultGrid(), FaultGrid().count(faults), since=NOON),
            "input_length": Reference(NumericBins.fit([1, 2, 3]), np.array([1, 1, 1, 0])),
        },
        floors={"error": 0.05, "quality": 0.1},
        rows=400,
    )


def test_what_only_traffic_shows_is_added_and_what_is_known_stays(baseline):
    both = baseline.completed(many())
    assert both.complete
    assert not baseline.complete
    assert set(both.references) == {"input", "input_length", "prediction", "cost_usd", "error"}
    assert both.length is baseline.length
    assert both.floors == {"quality": baseline.floor, "error": 0.05}
    assert both.rows == baseline.rows


def test_every_kind_of_cells_survives_storage_with_its_identity_and_its_beginning(baseline):
    both = baseline.completed(many())
    again = Baseline.from_bytes(both.to_bytes())
    assert (again.floors, again.rows, again.complete) == (both.floors, both.rows, True)
    assert {name: r.digest for name, r in again.references.items()} == {n: r.digest for n, r in both.references.items()}
    assert {name: r.since for name, r in again.references.items()} == {n: r.since for n, r in both.references.items()}
    assert again.references["error"].cells.count([0, 1]).tolist() == FaultGrid().count([0, 1]).tolist()
    assert len({r.digest for r in both.references.values()}) == len(both.references)


def test_a_file_of_the_first_format_is_read_as_it_was_meant(baseline):
    arrays = {}
    for name, reference in (("text", baseline.text), ("length", baseline.length), ("prediction", baseline.prediction)):
        arrays |= {f"{name}.{key}": array for key, array in reference.cells.to_arrays().items()}
        arrays[f"{name}.counts"] = reference.counts
    facts = json.dumps({"format": 1, "floor": 0.7, "rows": 100}).encode()
    file = io.BytesIO()
    np.savez_compressed(file, facts=np.frombuffer(facts, np.uint8), **arrays)
    old = Baseline.from_bytes(file.getvalue())
    assert {name: r.digest for name, r in old.references.items()} == {
        n: r.digest for n, r in baseline.references.items()
    }
    assert (old.floor, old.rows, old.complete) == (0.7, 100, False)


def test_a_file_of_a_later_format_is_refused():
    file = io.BytesIO()
    np.savez_compressed(file, facts=np.frombuffer(b'{"format": 3}', np.uint8))
    with pytest.raises(StorageCorrupted, match="format is 3"):
        Baseline.from_bytes(file.getvalue())


def test_faults_are_counted_as_how_good_they_are_and_never_as_worse():
    grid = FaultGrid()
    assert np.flatnonzero(grid.count([0, 1, None])).tolist() == [0, 200]
    good = grid.values[grid.assign([0.0, 0.013, 0.5, 1.0])]
    assert (good >= 1 - np.array([0.0, 0.013, 0.5, 1.0])).all()
    assert np.abs(good - (1 - np.array([0.0, 0.013, 0.5, 1.0]))).max() <= 1 / 200
    assert grid.names[0] == "1"
