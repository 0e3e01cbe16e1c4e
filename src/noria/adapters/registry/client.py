"""The way to MLflow: imported late and quietly, and asked by one URI at a time."""

import contextlib
import importlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from noria.domain.errors import RegistryUnavailable


def load_mlflow(*parts: str) -> Any:
    """The `mlflow` module, with parts such as `sklearn` and `pyfunc` that are slow to import.

    No chatter, no telemetry to its makers, no warnings about itself.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7 would wait for minutes before it says why
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with _its_own_warnings_ignored():
        mlflow = importlib.import_module("mlflow")
        for part in parts:
            importlib.import_module(f"mlflow.{part}")
    return mlflow


def connect(tracking_uri: str) -> Any:
    """An MlflowClient that talks to this URI only."""
    if (file := _sqlite_file(tracking_uri)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    mlflow = load_mlflow()
    with _its_own_warnings_ignored():
        return mlflow.MlflowClient(tracking_uri, tracking_uri)


@contextlib.contextmanager
def _its_own_warnings_ignored() -> Iterator[None]:
    """While MLflow is imported and opens its store: it warns of its own type hints and of its use of SQLAlchemy 2.1."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
        warnings.filterwarnings("ignore", ".*``noload`` loader strategy", DeprecationWarning)
        yield


def metric_names(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers under names that MLflow takes: a class may be called anything."""
    return {re.sub(r"[^\w\-. :/]", "_", name): float(value) for name, value in numbers.items()}


def is_server(tracking_uri: str) -> bool:
    """Whether MLflow runs somewhere else and decides itself where artefacts go."""
    return tracking_uri.startswith(("http://", "https://", "databricks", "uc:"))


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def mlflow_error() -> type[Exception]:
    """The type of MLflow's own errors."""
    from mlflow.exceptions import MlflowException

    kind: type[Exception] = MlflowException
    return kind


def error_code(error: Exception) -> str:
    """MLflow's name for what is wrong, such as `RESOURCE_DOES_NOT_EXIST`; empty for any other error."""
    return str(getattr(error, "error_code", ""))


def unavailable(uri: str, error: Exception) -> RegistryUnavailable:
    """What MLflow at that URI said, as an error of ours that holds no password."""
    said = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    problem = f"MLflow at {uri} can't be used: {said}"
    return RegistryUnavailable(
        re.sub(r"//[^/@\s]*@", "//", problem),  # no user name, no password
        "Start it, or set mlflow.tracking_uri in noria.yaml (or MLFLOW_TRACKING_URI) to one that answers.",
    )
