"""Asking base language models in the way that a prompt version says: filling it in, llama.cpp and upstreams, MLflow."""

from typing import Any


def _load_pyfunc(path: str) -> Any:
    """What `mlflow.pyfunc.load_model` calls: the version in that folder, brought to life in the caller's process."""
    from pathlib import Path

    from noria.adapters.prompts.pyfunc import PromptModel

    return PromptModel(Path(path))
