"""A training function of the project's own: `training.parameters.function: "module:function"`.

It is called with what it takes of `train` (a pandas data frame with the columns text, label, group, origin), `job` (a
`ports.TrainingJob`), `parameters` (those of the project file but `function`) and `progress` (`say(done, of, message)`),
while an MLflow run is under way and autologging is on. It returns one of

- a scikit-learn estimator that predicts labels from a list of texts: it is logged in the skops format, or pickled if it
  holds types that skops doesn't know (then only this project's own word lets it be loaded);
- a `domain.prompt.Prompt`: it is served over its base;
- the URI of a model that it logged itself with MLflow, with a signature.

What it learns must not depend on the held-out rows, which it isn't shown. Everything else (answers on those rows,
numbers, baseline, registration, gates) is Noria's. After a kill the function is called again, with the same
`job.folder` to go on from; a run that finished is never done again.
"""

import importlib
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from noria.adapters.prompts.asking import Prompted, open_base
from noria.adapters.prompts.base import AT
from noria.adapters.registry.packages import SAFE_TYPES
from noria.adapters.trainers.progress import Progress
from noria.adapters.trainers.prompts import EXAMPLE, log_prompt
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
from noria.domain.errors import InvalidData, InvalidProject
from noria.domain.prompt import Prompt
from noria.ports import TrainingJob, TrainingResult

FUNCTION = "function"
_CONTRACT = "See noria.adapters.trainers.python for what it is called with and what it may return."


class PythonTrainer:
    """`ports.Trainer` for a function of the project's own."""

    def train(self, job: TrainingJob) -> TrainingResult:
        """See `ports.Trainer`.

        Raises:
            InvalidProject: The function can't be found, or takes something that nobody gives.
            InvalidData: It returned nothing that can be served.
        """
        function = find(job.parameters)
        done = finished(job)
        if done is not None:
            return done
        train, held = read_rows(job.train), read_rows(job.holdout)
        if job.task != "chat":
            labels_of(train)
        begun = time.perf_counter()
        with tracked(job) as mlflow:
            mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
            try:
                made = function(**_given(function, job, train))
            finally:
                mlflow.sklearn.autolog(disable=True, silent=True)
            seconds = time.perf_counter() - begun
            uri, said = _logged(mlflow, job, made, held)
            write_answers(job, said)
            metrics = numbers_of(job.task, held, said)
            metrics |= {"train_seconds": seconds, "train_rows": float(len(train["text"]))}
            baseline = make_baseline(train, held, said.answers, job.seed, chat=job.task == "chat")
            parameters = {"trainer": "python", **{k: str(v)[:500] for k, v in job.parameters.items()}}
            logged = log_work(mlflow, job, parameters=parameters, metrics=metrics, baseline=baseline)
            return result_of(mlflow, job, uri, logged)


def find(parameters: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that the project file names; modules beside the project file are found, too.

    Raises:
        InvalidProject: There is none.
    """
    name = str(parameters.get(FUNCTION, ""))
    module, colon, function = name.partition(":")
    if not module or not colon or not function:
        raise InvalidProject(
            "The trainer python needs a function.", 'Write training.parameters.function: "module:function".'
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InvalidProject(
            f"The training function {name} can't be imported: {error}.",
            "Put its module beside noria.yaml, or install it.",
        ) from error
    if not callable(found):
        raise InvalidProject(f"{name} is no function.", _CONTRACT)
    return found  # type: ignore[no-any-return]


def _given(function: Callable[..., Any], job: TrainingJob, train: Columns) -> dict[str, Any]:
    """What of our arguments a function takes."""
    ours: dict[str, Callable[[], Any]] = {
        "train": lambda: pd.DataFrame({k: train[k] for k in ("text", "label", "group", "origin") if k in train}),
        "job": lambda: job,
        "parameters": lambda: {k: v for k, v in job.parameters.items() if k != FUNCTION},
        "progress": lambda: Progress(job.progress),
    }
    wanted = inspect.signature(function).parameters.values()
    if unknown := [p.name for p in wanted if p.name not in ours and p.default is p.empty and p.kind < p.VAR_POSITIONAL]:
        raise InvalidProject(f"The training function wants {unknown[0]}, which nobody gives it.", _CONTRACT)
    return {p.name: ours[p.name]() for p in wanted if p.name in ours}


def _logged(mlflow: Any, job: TrainingJob, made: Any, held: Columns) -> tuple[str, Said]:
    """The URI of the logged model, and what it says to the held-out rows."""
    if isinstance(made, Prompt):
        return _log_prompt(mlflow, job, made, held)
    if isinstance(made, str):
        model = mlflow.pyfunc.load_model(made)
        return made, _said(job, list(model.predict(list(held["text"]))), held)
    if hasattr(made, "predict") and job.task != "chat":
        return _log_estimator(mlflow, made), _answers(made, held)
    raise InvalidData(f"The training function returned {type(made).__name__}, which can't be served.", _CONTRACT)


def _log_prompt(mlflow: Any, job: TrainingJob, made: Prompt, held: Columns) -> tuple[str, Said]:
    prompted = Prompted(made, open_base(made.base, at=job.base.get(AT)))
    try:
        if job.task == "chat":
            chats = [[{"role": "user", "content": text}] for text in held["text"]]
            said = Said.chat(prompted.complete(chats), held["label"])
        else:
            said = Said.of(prompted.classify(held["text"]), certain=prompted.base.knows_probabilities)
    finally:
        prompted.close()
    return log_prompt(mlflow, made, {}), said


def _said(job: TrainingJob, answers: list[Any], held: Columns) -> Said:
    if len(answers) != len(held["text"]):
        raise InvalidData(f"The model gave {len(answers)} answers for {len(held['text'])} rows.", _CONTRACT)
    words = [str(answer) for answer in answers]
    if job.task == "chat":
        return Said.chat(words, held["label"])
    return Said(words, [1.0] * len(words), certain=False)


def _answers(model: Any, held: Columns) -> Said:
    """What an estimator says, with its probabilities if it has some."""
    if not hasattr(model, "predict_proba"):
        return Said([str(label) for label in model.predict(held["text"])], [1.0] * len(held["text"]), certain=False)
    likely = np.asarray(model.predict_proba(held["text"]))
    names = [str(label) for label in model.classes_]
    return Said.of([dict(zip(names, row, strict=True)) for row in likely.tolist()])


def _log_estimator(mlflow: Any, model: Any) -> str:
    """Log an estimator in the safest format that can hold it."""
    import skops.io

    example = np.array([EXAMPLE], dtype=object)
    try:
        known = set(skops.io.get_untrusted_types(data=skops.io.dumps(model))) <= SAFE_TYPES
    except Exception:  # skops's own, for what it can't write
        known = False
    info = mlflow.sklearn.log_model(
        model,
        name="model",
        serialization_format="skops" if known else "cloudpickle",
        **({"skops_trusted_types": sorted(SAFE_TYPES)} if known else {}),
        signature=mlflow.models.infer_signature(example, np.asarray(model.predict([EXAMPLE]), dtype=object)),
        input_example=example,
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "numpy", "skops")],
    )
    return str(info.model_uri)
