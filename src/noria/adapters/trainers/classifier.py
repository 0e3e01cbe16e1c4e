"""Text to label: word and character n-grams weighted by TF-IDF, and a logistic regression.

Why this and not a sentence encoder is measured in docs/decisions/0004-classifier-features.md. The model is saved
with skops and holds scikit-learn's own types only, so loading it runs no code and needs neither Noria nor a pickle.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from noria.adapters.registry.client import metric_names
from noria.adapters.registry.modelfiles import checksum
from noria.adapters.trainers.tracking import (
    LOGGED_MODEL,
    PREDICTIONS,
    finished,
    predictions_path,
    tracked,
)
from noria.domain.errors import InvalidData, InvalidProject
from noria.evaluation.baseline import FILE, Baseline
from noria.evaluation.quality import measure
from noria.ports import TrainingJob, TrainingResult

TOKENS = r"(?u)[@#]?\w+|[!?:;)(]+"
"""Words with their @ or #, and runs of the marks that carry feeling."""
EXAMPLE = ("Thank you, that was quick and friendly.", "I have been waiting for two hours.")
"""Logged as the input example: nobody's real message."""
RECENT_ROWS = 300
"""Held-out production rows that make a baseline of their own; with fewer all held-out rows do."""
_MANY = 1000
"""Rows from which on n-grams that are seen only once or twice are left out."""


@dataclass(frozen=True, slots=True)
class Options:
    """`training.parameters` of the project file.

    Attributes:
        c: Inverse strength of the regularisation.
        production_weight: How many rows of the project's own data one labelled production record counts for.
        class_weight: `none`, or `balanced` to give rare classes more say (and the probabilities less truth).
        max_features: Most character n-grams to keep.
    """

    c: float = 2.0
    production_weight: float = 2.0
    class_weight: str = "none"
    max_features: int = 60_000

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Self:
        """Options from the project file.

        Raises:
            InvalidProject: There is no such parameter, or its value makes no sense.
        """
        known = {f.name: f.default for f in fields(cls)}
        for name, value in parameters.items():
            if name not in known:
                raise InvalidProject(
                    f"The classifier has no parameter {name}.", f"Write one of {', '.join(known)} in parameters."
                )
            if name == "class_weight":
                sound = value in ("none", "balanced")
            else:
                sound = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
            if not sound:
                raise InvalidProject(
                    f"{value!r} can't be the classifier's {name}.",
                    "Write none or balanced." if name == "class_weight" else "Write a number above 0.",
                )
        return cls(**parameters)


class ClassifierTrainer:
    """`ports.Trainer` for short texts; thousands of rows take seconds on one core."""

    def train(self, job: TrainingJob) -> TrainingResult:
        """See `ports.Trainer`.

        Raises:
            InvalidProject: A parameter isn't known.
            InvalidData: There are no rows, or they all have one label.
        """
        options = Options.read(job.parameters)
        done = finished(job)
        if done is not None:
            return done
        train, held = _read(job.train), _read(job.holdout)
        started = time.perf_counter()
        model = fit(train["text"], train["label"], train["origin"], options)
        seconds = time.perf_counter() - started
        answers = Answers.of(model, held["text"])
        return _log(job, options, model, train, held, answers, seconds)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model says to some texts, and how probable it thinks that is."""

    labels: list[str]
    scores: list[float]

    @classmethod
    def of(cls, model: Pipeline, texts: Sequence[str]) -> Self:
        """Ask the model."""
        probable = model.predict_proba(texts)
        labels = model.classes_[probable.argmax(axis=1)]
        return cls([str(label) for label in labels], [float(p) for p in probable.max(axis=1)])


def fit(texts: Sequence[str], labels: Sequence[str], origins: Sequence[str], options: Options) -> Pipeline:
    """Learn from labelled texts.

    Raises:
        InvalidData: There are fewer than two labels.
    """
    if len(set(labels)) < 2:
        raise InvalidData(
            f"A classifier can't learn from {len(set(labels))} different labels.",
            "Give it rows with at least two.",
        )
    many = len(texts) >= _MANY
    model = make_pipeline(
        make_union(
            TfidfVectorizer(
                token_pattern=TOKENS,
                ngram_range=(1, 2),
                sublinear_tf=True,
                strip_accents="unicode",
                min_df=2 if many else 1,
            ),
            TfidfVectorizer(
                analyzer="char_wb",
                ngram_range=(2, 4),
                sublinear_tf=True,
                strip_accents="unicode",
                min_df=5 if many else 1,
                max_features=int(options.max_features),
            ),
        ),
        LogisticRegression(
            C=options.c, max_iter=1000, class_weight="balanced" if options.class_weight == "balanced" else None
        ),
    )
    weights = np.where(np.asarray(origins, dtype=object) == "production", options.production_weight, 1.0)
    model.fit(list(texts), np.asarray(labels, dtype=object), logisticregression__sample_weight=weights)
    for _, vectorizer in model[0].transformer_list:  # skops makes a file of each NumPy integer: ten thousand of them
        vectorizer.vocabulary_ = {term: int(place) for term, place in vectorizer.vocabulary_.items()}
    return model


def make_baseline(
    train: Mapping[str, list[Any]], held: Mapping[str, list[Any]], said: list[str], seed: int
) -> Baseline:
    """What the monitors compare the version's traffic with.

    The newest half of the held-out production rows, if that makes enough of them: traffic will look like the traffic
    of late, not like the data that the project began with.
    """
    real = [i for i, origin in enumerate(held["origin"]) if origin == "production"]
    rows: Sequence[int] = range(len(said))
    if len(real) >= RECENT_ROWS:
        newest = sorted(real, key=lambda i: held["time"][i], reverse=True) if "time" in held else real
        rows = newest[: max(RECENT_ROWS, len(real) // 2)]
    return Baseline.fit(
        fit_texts=train["text"],
        count_texts=[held["text"][i] for i in rows],
        predictions=[said[i] for i in rows],
        correct=[said[i] == held["label"][i] for i in rows],
        seed=seed,
    )


def _log(
    job: TrainingJob,
    options: Options,
    model: Pipeline,
    train: Mapping[str, list[Any]],
    held: Mapping[str, list[Any]],
    answers: Answers,
    seconds: float,
) -> TrainingResult:
    """Put everything about the version into one MLflow run."""
    metrics = metric_names(_numbers(held, answers) | {"train_seconds": seconds, "train_rows": len(train["text"])})
    predictions = pq.read_table(job.holdout)
    for name, column in (("prediction", answers.labels), ("score", answers.scores)):
        predictions = predictions.append_column(name, pa.array(column))
    path = predictions_path(job)
    pq.write_table(predictions, path)
    baseline = make_baseline(train, held, answers.labels, job.seed)
    with tracked(job) as mlflow:
        mlflow.log_params(asdict(options) | {"trainer": "classifier", "seed": job.seed})
        for file, context in ((job.train, "train"), (job.holdout, "holdout")):
            frame = pq.read_table(file, columns=["text", "label", "group", "origin"]).to_pandas()
            source = mlflow.data.sources.LocalArtifactDatasetSource(file)
            digest = checksum(Path(file))[:36]  # as long as MLflow takes
            mlflow.log_input(mlflow.data.from_pandas(frame, source, "label", context, digest), context)
        mlflow.log_metrics(metrics)
        mlflow.log_artifact(str(path), PREDICTIONS)
        artifact = path.with_name(FILE)
        artifact.write_bytes(baseline.to_bytes())
        mlflow.log_artifact(str(artifact), "baseline")
        uri = _log_model(mlflow, model)
        run_id = mlflow.active_run().info.run_id
        mlflow.set_tag(LOGGED_MODEL, uri)
    return TrainingResult(logged_model_uri=uri, mlflow_run_id=run_id, metrics=metrics, predictions=str(path))


def _log_model(mlflow: Any, model: Pipeline) -> str:
    """Log the model: it takes an array of texts and gives an array of labels."""
    example = np.array(EXAMPLE, dtype=object)
    info = mlflow.sklearn.log_model(
        model,
        name="model",
        serialization_format="skops",
        signature=mlflow.models.infer_signature(example, np.asarray(model.predict(list(EXAMPLE)), dtype=object)),
        input_example=example,
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "scipy", "numpy", "skops")],
    )
    return str(info.model_uri)


def _numbers(held: Mapping[str, list[Any]], answers: Answers) -> dict[str, float]:
    """Quality on all held-out rows, and accuracy by origin."""
    numbers = measure(held["label"], answers.labels, answers.scores).numbers()
    right = np.asarray(held["label"], dtype=object) == np.asarray(answers.labels, dtype=object)
    origin = np.asarray(held["origin"], dtype=object)
    return numbers | {f"accuracy_{name}": float(right[origin == name].mean()) for name in sorted(set(held["origin"]))}


def _read(file: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(file).to_pydict()
    return columns
