"""`noria model add ENDPOINT hf:…` with the real huggingface_hub, against a double of the Hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.hub import SHA, hub
from noria.adapters.registry.hub import parse
from noria.domain.errors import InvalidData

CONFIG = json.dumps({"architectures": ["BertForSequenceClassification"]}).encode()
REPOSITORIES = {
    "org/classifier": {
        "config.json": CONFIG,
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"a pickle",
        "modeling_evil.py": b"import os",
        "tokenizer.json": b"{}",
        "README.md": b"# Card",
    },
    "org/one": {"small.gguf": b"GGUF one", "README.md": b"x"},
    "org/many": {"q4.gguf": b"GGUF q4", "q8.gguf": b"GGUF q8"},
    "org/pickles": {"config.json": CONFIG, "pytorch_model.bin": b"a pickle"},
}


def add(project: Path, endpoint: str, what: str, url: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line with that Hub."""
    environment = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-m", "noria.cli", "--project", str(project), "model", "add", endpoint, what]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


def files_of(project: Path) -> set[str]:
    return {p.name for p in (project / ".noria" / "mlartifacts").rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_repositorys_safetensors_become_a_version_and_its_code_is_never_fetched(
    project: Path, tmp_path: Path
) -> None:
    with hub(REPOSITORIES) as (url, fetched):
        done = add(project, "triage", "hf:org/classifier@main", url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "triage/1 is registered" in done.stdout
    assert sorted(fetched) == ["config.json", "model.safetensors", "tokenizer.json"]
    listed = subprocess.run(
        [sys.executable, "-m", "noria.cli", "--project", str(project), "model", "list", "--json"],
        capture_output=True,
        check=True,
    )
    (version,) = json.loads(listed.stdout)
    assert (version["licence"], version["source"]) == (
        "apache-2.0",
        f"https://huggingface.co/org/classifier/tree/{SHA}",
    )
    assert {"MLmodel", "model.safetensors", "README.md"} <= files_of(project)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("hf:org/many", "Write hf:OWNER/REPO/FILE with one of q4.gguf, q8.gguf."),
        ("hf:org/many/q2.gguf", "org/many has no file q2.gguf."),
        ("hf:org/pickles", "neither safetensors nor GGUF"),
        ("hf:org/nothing", "The Hugging Face Hub didn't give org/nothing"),
        ("hf:org/one", "hf:org/one chats, but triage predicts."),
        ("hf:org/many/q4.gguf", "chats, but triage predicts."),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_reason(project: Path, tmp_path: Path, what: str, said: str) -> None:
    with hub(REPOSITORIES) as (url, _):
        done = add(project, "triage", what, url, tmp_path)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("hf:org/repo", ("org/repo", "", "")),
        ("hf:org/repo@v1", ("org/repo", "", "v1")),
        ("hf:org/repo/sub/q4.gguf@refs/pr/1", ("org/repo", "sub/q4.gguf", "refs/pr/1")),
    ],
)
def test_a_reference_names_repository_file_and_revision(reference: str, found: tuple[str, str, str]) -> None:
    assert parse(reference) == found


@pytest.mark.parametrize(
    "reference", ["hf:", "hf:repo", "hf:org/repo/model.py", "hf:org/../x.gguf", "hf:org/repo@../x"]
)
def test_what_names_no_repository_is_refused(reference: str) -> None:
    with pytest.raises(InvalidData, match="names no repository"):
        parse(reference)
