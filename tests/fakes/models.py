"""Small real models on disk, as MLflow lays them out."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import skops.io
import yaml
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from noria.domain.model import Flavor, ModelVersion

WORDS = {"positive": "good great nice", "negative": "bad awful poor", "neutral": "table chair lamp"}
TEXT = [{"type": "string", "required": True}]
"""A signature of one unnamed column of texts."""


def classifier() -> Pipeline:
    """A sentiment classifier that knows nine words."""
    texts = [f"{word} {n}" for n in range(6) for words in WORDS.values() for word in words.split()]
    labels = [label for _ in range(6) for label, words in WORDS.items() for _ in words.split()]
    return make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LogisticRegression(), cv=3)).fit(texts, labels)


def save(folder: Path, estimator: Any, *, inputs: list[dict[str, Any]] | None = None, example: Any = None) -> Path:
    """Lay an estimator out as MLflow does, in the skops format."""
    folder.mkdir(parents=True)
    skops.io.dump(estimator, folder / "model.skops")
    flavor = {"pickled_model": "model.skops", "serialization_format": "skops", "code": None}
    description: dict[str, Any] = {
        "flavors": {"sklearn": flavor, "python_function": {"loader_module": "mlflow.sklearn"}}
    }
    if inputs is not None:
        description["signature"] = {"inputs": json.dumps(inputs), "outputs": None, "params": None}
    if example is not None:
        (folder / "serving_input_example.json").write_text(json.dumps({"inputs": example}))
        description["saved_input_example_info"] = {"serving_input_path": "serving_input_example.json"}
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    return folder


def version(number: str = "1", *, flavor: Flavor = Flavor.PYFUNC, name: str = "triage", **tags: str) -> ModelVersion:
    """A registered version."""
    return ModelVersion(
        name=name,
        version=number,
        flavor=flavor,
        uri=f"models:/{name}/{number}",
        run_id="r",
        checksum="",
        source="made for a test",
        licence="Apache-2.0",
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        tags=tags,
    )
