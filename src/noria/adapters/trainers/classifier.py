"""Text to label: word and character n-grams weighted by TF-IDF, and a logistic regression.

Why this and not a sentence encoder is measured in docs/decisions/0004-classifier-features.md. The model is saved
with skops and holds scikit-learn's own types only, so loading it runs no code and needs neither Noria nor a pickle.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from noria.adapters.trainers.progress import Progress
from noria.adapters.trainers.records import (
    Columns,
    Said,
    labels_of,
    log_work,
    make_baseline,
    numbers_of,
    read_rows,
    result_of,
    write_answers,
)
from noria.adapters.trainers.tracking import finished, tracked
from noria.domain.errors import InvalidProject
from noria.evaluation.quality import calibration_error
from noria.ports import TrainingJob, TrainingResult

TOKENS = r"(?u)[@#]?\w+|[!?:;)(]+"
"""Words with their @ or #, and runs of the marks that carry feeling."""
EXAMPLE = ("Thank you, that was quick and friendly.", "I have been waiting for two hours.")
"""Logged as the input example: nobody's real message."""
FOLDS = 3
"""Parts that the rows are cut into for calibration: each is judged by a model that has not seen it."""
_WORDS = {"class_weight": ("none", "balanced"), "calibration": ("temperature", "none")}
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
        calibration: How probabilities are made truer on rows held back: `none`, for a logistic regression
            states them well already, or `temperature` (docs/decisions/0004-classifier-features.md).
    """

    c: float = 2.0
    production_weight: float = 2.0
    class_weight: str = "none"
    max_features: int = 60_000
    calibration: str = "none"

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
            if name in _WORDS:
                sound = value in _WORDS[name]
            else:
                sound = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
            if not sound:
                raise InvalidProject(
                    f"{value!r} can't be the classifier's {name}.",
                    f"Write {' or '.join(_WORDS[name])}." if name in _WORDS else "Write a number above 0.",
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
        train, held = read_rows(job.train), read_rows(job.holdout)
        started, progress = time.perf_counter(), Progress(job.progress)
        progress.say(0, 2, f"learning from {len(train['text'])} rows")
        model = fit(train["text"], train["label"], train["origin"], options)
        metrics = {"train_seconds": time.perf_counter() - started}
        progress.say(1, 2, f"answering {len(held['text'])} held-out rows")
        answers = Answers.of(model, held["text"])
        if (raw := uncalibrated(model)) is not None:
            metrics["temperature"] = float(model[-1].temperature_)
            before = Answers.of(raw, held["text"])
            hits = [said == label for said, label in zip(before.labels, held["label"], strict=True)]
            metrics["calibration_error_before"] = calibration_error(hits, before.scores)
        made = _log(job, options, model, train, held, Said(answers.labels, answers.scores), metrics)
        progress.say(2, 2, "logged to MLflow")
        return made


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
    labels_of({"label": labels})
    many = len(texts) >= _MANY
    vectorizers = make_union(
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
    )
    weights = np.where(np.asarray(origins, dtype=object) == "production", options.production_weight, 1.0)
    features, names = vectorizers.fit_transform(list(texts)), np.asarray(labels, dtype=object)
    balance = "balanced" if options.class_weight == "balanced" else None
    head = LogisticRegression(C=options.c, max_iter=1000, class_weight=balance).fit(features, names, weights)
    if options.calibration == "temperature" and min(Counter(labels).values()) >= FOLDS:
        _soften(head, temperature(head, features, names, weights))
    for _, vectorizer in vectorizers.transformer_list:  # skops makes a file of each NumPy integer: ten thousand of them
        vectorizer.vocabulary_ = {term: int(place) for term, place in vectorizer.vocabulary_.items()}
    return make_pipeline(vectorizers, head)


def temperature(head: LogisticRegression, features: Any, labels: Any, weights: Any) -> float:
    """By how much a classifier is too sure of itself: what its logits have to be divided by for rows that it hasn't
    learnt from to be as likely as can be. Source: Guo et al. 2017; the rows are held back fold by fold."""
    logits, places = [], []
    for rest, back in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels):
        part = clone(head).fit(features[rest], labels[rest], weights[rest])
        said = part.decision_function(features[back])
        logits.append(np.column_stack([np.zeros(len(said)), said]) if said.ndim == 1 else said)
        places.append(back)
    order = np.concatenate(places)
    said, truth = np.concatenate(logits), np.searchsorted(head.classes_, labels[order])

    def surprise(log_t: float) -> float:
        scaled = said / np.exp(log_t)
        likely = scaled[np.arange(len(truth)), truth] - logsumexp(scaled, axis=1)
        return float(-np.average(likely, weights=weights[order]))

    return float(np.exp(minimize_scalar(surprise, bounds=(-1.5, 1.5), method="bounded").x))


def _soften(head: LogisticRegression, by: float) -> None:
    """Divide a logistic regression's logits: it stays one, says the same labels, and needs no type of its own."""
    head.coef_, head.intercept_, head.temperature_ = head.coef_ / by, head.intercept_ / by, by


def uncalibrated(model: Pipeline) -> Pipeline | None:
    """The same model before its probabilities were made true; None if they weren't."""
    by = getattr(model[-1], "temperature_", None)
    if by is None:
        return None
    head = deepcopy(model[-1])
    head.coef_, head.intercept_ = head.coef_ * by, head.intercept_ * by
    return make_pipeline(model[0], head)


def _log(
    job: TrainingJob,
    options: Options,
    model: Pipeline,
    train: Columns,
    held: Columns,
    answers: Said,
    metrics: Mapping[str, float],
) -> TrainingResult:
    """Put everything about the version into one MLflow run."""
    numbers = {**numbers_of(job.task, held, answers), **metrics, "train_rows": float(len(train["text"]))}
    write_answers(job, answers)
    baseline = make_baseline(train, held, answers.answers, job.seed)
    with tracked(job) as mlflow:
        parameters = asdict(options) | {"trainer": "classifier"}
        logged = log_work(mlflow, job, parameters=parameters, metrics=numbers, baseline=baseline)
        return result_of(mlflow, job, _log_model(mlflow, model), logged)


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
