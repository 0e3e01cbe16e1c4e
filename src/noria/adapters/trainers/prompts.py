"""A prompt over a language model as a logged model of MLflow: its MLmodel, `prompt.json`, and the files beside it."""

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from noria.domain.prompt import FILE, Prompt

LOADER = "noria.adapters.prompts"
"""What `mlflow.pyfunc.load_model` calls to bring one to life."""
EXAMPLE = "It was better than I had thought it would be."
"""Shows the shape of the input: nobody's real message."""


def log_prompt(mlflow: Any, prompt: Prompt, files: Mapping[str, Path]) -> str:
    """Log a prompt with the files that it needs to the active run; returns the logged model's URI.

    Args:
        mlflow: The module, with a run under way (`tracking.tracked`).
        prompt: What is asked.
        files: Name in the model's folder → the file, such as `adapter.gguf`.
    """
    info = mlflow.models.Model.log(
        artifact_path=None,
        name="model",
        flavor=SimpleNamespace(save_model=_save, __name__="noria.adapters.trainers.prompts"),
        prompt=prompt,
        files=files,
        signature=_signature(mlflow, prompt),
        metadata={"noria.flavor": "prompt", **({} if prompt.labels else {"task": "llm/v1/chat"})},
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "noria")],
    )
    return str(info.model_uri)


def _signature(mlflow: Any, prompt: Prompt) -> Any:
    """Texts in, labels out; a chat says by its metadata what it takes."""
    if not prompt.labels:
        return None
    said = np.array([prompt.labels[0]], dtype=object)
    return mlflow.models.infer_signature(np.array([EXAMPLE], dtype=object), said)


def _save(
    path: str,
    mlflow_model: Any,
    *,
    prompt: Prompt,
    files: Mapping[str, Path],
    signature: Any = None,
    pip_requirements: Any = None,
    **_unused: Any,
) -> None:
    """Lay the model's folder out, as MLflow's flavors do in their `save_model`."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(prompt.to_json(), encoding="utf-8")
    for name, file in files.items():
        shutil.copyfile(file, folder / name)
    (folder / "requirements.txt").write_text("\n".join(pip_requirements or ()) + "\n", encoding="utf-8")
    mlflow_model.signature = signature  # its metadata Model.log has given it
    mlflow_model.add_flavor("python_function", loader_module=LOADER, data=".", env="requirements.txt")
    mlflow_model.save(str(folder / "MLmodel"))
