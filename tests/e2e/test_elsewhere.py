"""Models that Noria doesn't hold itself, on a project that is really up: at an upstream, and behind a command."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from fakes.azure import azure
from fakes.models import WORDS, classifier
from fakes.running import Running, chat_project, noria
from noria.adapters.processes import birth
from noria.adapters.registry.packages import SAFE_TYPES

SERVER = Path(__file__).parents[1] / "fakes" / "serve_chat.py"
DEPLOYMENT = """
project: shop
server: {{port: 0}}
upstreams:
  azure: {{kind: azure, url: "{url}", key: SHOP_AZURE_KEY, private: {private}}}
endpoints:
  assistant:
    task: chat
    policy: policies/assistant.yaml
    deployment: {{upstream: azure, model: gpt-4o-mini}}
"""
COMMAND = """
project: shop
server: {{port: 0}}
endpoints:
  assistant:
    task: chat
    policy: policies/assistant.yaml
    command:
      run: ["{python}", "{server}", "{{port}}"]
      health: /health/ready
      environment: {{TONE: "{tone}"}}
      licence: MIT
      source: a script of the tests
"""


@pytest.fixture
def up(tmp_path: Path) -> Iterator[list[Running]]:
    """Projects that are stopped at the end."""
    begun: list[Running] = []
    yield begun
    for each in begun:
        each.stop()


def chat(running: Running, content: str, **more: Any) -> Any:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        return client.chat.completions.with_raw_response.create(
            model="assistant", messages=[{"role": "user", "content": content}], **more
        )


@pytest.mark.slow
def test_a_model_of_azures_answers_through_noria_and_is_on_record(
    tmp_path: Path, up: list[Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_AZURE_KEY", "azure-key")
    with azure() as double:
        shop = chat_project(tmp_path / "shop", DEPLOYMENT.format(url=double.url, private="true"))
        up.append(shop.start())
        raw = chat(shop, "where is my parcel?")
        assert raw.parse().choices[0].message.content == "You said: where is my parcel?"
        assert raw.headers["x-noria-version"] == "assistant/1"
        path, headers, body = double.last
        assert (path, headers["api-key"], body["model"]) == ("/openai/v1/chat/completions", "azure-key", "gpt-4o-mini")
        with openai.OpenAI(base_url=f"{shop.url}/v1", api_key="none") as client:
            stream = client.chat.completions.create(
                model="assistant", messages=[{"role": "user", "content": "stream it"}], stream=True
            )
            pieces = [c.choices[0].delta.content or "" for c in stream if c.choices]
        assert "".join(pieces).strip() == "You said: stream it"
        assert shop.shipped()
        rows = shop.rows("select model_name, model_version, status_code, response from inference")
        assert [(r["model_name"], r["model_version"], r["status_code"]) for r in rows] == [("assistant", "1", 200)] * 2
        assert "where is my parcel" in str(rows)
        card = noria(shop.root, "card", "show", "assistant", "--raw").stdout
        assert "azure:gpt-4o-mini" in card
        everything = b"".join(p.read_bytes() for p in (shop.root / ".noria").rglob("*") if p.is_file())
        assert b"azure-key" not in everything, "a key is never written anywhere"


@pytest.mark.slow
def test_a_key_that_is_not_set_is_why_it_is_not_ready_and_nothing_is_asked(
    tmp_path: Path, up: list[Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_AZURE_KEY", raising=False)
    with azure() as double:
        shop = chat_project(tmp_path / "shop", DEPLOYMENT.format(url=double.url, private="true"))
        up.append(shop)
        with pytest.raises(AssertionError, match="did not happen"):
            shop.start(timeout_s=4)
        status, said, _ = shop.get("/readyz")
        assert (status, "SHOP_AZURE_KEY isn't set" in str(said["problems"])) == (503, True)
        assert double.asked == []


@pytest.mark.slow
def test_a_command_answers_through_noria_and_another_one_replaces_it(tmp_path: Path, up: list[Running]) -> None:
    text = COMMAND.format(python=sys.executable, server=SERVER, tone="")
    shop = chat_project(tmp_path / "shop", text)
    up.append(shop.start())
    raw = chat(shop, "hello")
    assert raw.parse().choices[0].message.content == "You said: hello"
    assert raw.headers["x-noria-version"] == "assistant/1"
    kinder = COMMAND.format(python=sys.executable, server=SERVER, tone="Kindly. ")
    (shop.root / "noria.yaml").write_text(kinder + "    rollout: {shadow_requests: 0, steps: [50], step_requests: 1}\n")
    noria(shop.root, "apply", "--yes")

    def replaced() -> bool:
        return bool(chat(shop, "hello").headers["x-noria-version"] == "assistant/2")

    shop.wait_until(replaced, 90)
    shop.wait_until(lambda: shop.endpoint()["champion"]["version"] == "2", 90)
    kindly = "Kindly. You said: hello"  # an API process sees a new route within a moment
    shop.wait_until(lambda: chat(shop, "hello").parse().choices[0].message.content == kindly, 10)
    pid = shop.processes()["assistant/2"]
    shop.stop()
    assert birth(pid) is None


REGISTERED = """
project: shop
server: {{port: 0}}
endpoints:
  triage:
    task: classification
    policy: policies/assistant.yaml
    holdout: held.csv
    registered: {{version: "{version}"}}
    rollout: {{shadow_requests: 0, steps: [50], step_requests: 1}}
"""


def log_theirs(root: Path, name: str, *, pickled: bool, tags: dict[str, str]) -> str:
    """What a team without Noria does: log a model to MLflow and register it. Returns the version."""
    from noria.adapters.registry.client import connect, load_mlflow

    uri = f"sqlite:///{root / '.noria' / 'mlflow.db'}"
    client, mlflow = connect(uri), load_mlflow("sklearn", "pyfunc")
    mlflow.set_tracking_uri(uri)
    try:
        if client.get_experiment_by_name("theirs") is None:
            client.create_experiment("theirs", artifact_location=(root / "theirs").as_uri())
        with mlflow.start_run(experiment_id=client.get_experiment_by_name("theirs").experiment_id):
            logged = mlflow.sklearn.log_model(
                classifier(),
                name="model",
                pip_requirements=[],
                serialization_format="cloudpickle" if pickled else "skops",
                skops_trusted_types=None if pickled else sorted(SAFE_TYPES),
            )
            known = {model.name for model in client.search_registered_models()}
            if name not in known:
                client.create_registered_model(name)
            location = client.get_logged_model(logged.model_id).artifact_location
            made = client.create_model_version(name, location, tags=tags, model_id=logged.model_id)
    finally:
        mlflow.set_tracking_uri(None)
    return str(made.version)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_version_that_others_registered_is_served_and_its_pickle_only_on_somebodys_word(
    tmp_path: Path, up: list[Running]
) -> None:
    shop = chat_project(tmp_path / "shop", REGISTERED.format(version="1"))
    (shop.root / ".noria").mkdir()
    rows = [(word, label) for label, words in WORDS.items() for word in words.split()]
    held = "".join(f"{word} {n},{label}\n" for n in range(25) for word, label in rows)
    (shop.root / "held.csv").write_text("text,label\n" + held)
    assert log_theirs(shop.root, "triage", pickled=False, tags={"license": "BSD-3-Clause"}) == "1"
    up.append(shop.start())
    status, said, headers = shop.post("/predict", {"input": "good nice"})
    assert (status, said, headers["x-noria-version"]) == (200, "positive", "triage/1")

    assert log_theirs(shop.root, "triage", pickled=True, tags={}) == "2"
    (shop.root / "noria.yaml").write_text(REGISTERED.format(version="2"))
    noria(shop.root, "apply", "--yes")
    shop.wait_until(lambda: any(v["version"] == "2" for v in shop.status()["verdicts"]), 60)
    verdict = next(v for v in shop.status()["verdicts"] if v["version"] == "2")
    reasons = " ".join(verdict["reasons"])
    assert verdict["passed"] is False
    assert "can run code" in reasons
    assert "noria.licence" in reasons
    assert shop.endpoint()["champion"]["version"] == "1"

    more = ("--licence", "MIT", "--source", "the other team")
    refused = noria(shop.root, "model", "add", "triage", str(_files(shop.root, "2")), *more, check=False)
    assert (refused.returncode, "can run code" in refused.stderr) == (1, True)
    answered = ("--trust", "--by", "Ada", "--reason", "trained by our own team")
    noria(shop.root, "model", "add", "triage", str(_files(shop.root, "2")), *more, *answered)

    def promoted() -> bool:
        shop.post("/predict", {"input": "awful"})
        return bool(shop.endpoint()["champion"]["version"] == "3")

    shop.wait_until(promoted, 90)
    shop.wait_until(lambda: shop.post("/predict", {"input": "good"})[2].get("x-noria-version") == "triage/3", 10)
    entries = noria(shop.root, "audit", "show").stdout
    assert "Ada" in entries


def _files(root: Path, version: str) -> Path:
    """Where a version's files are."""
    from noria.adapters.registry.client import connect

    client = connect(f"sqlite:///{root / '.noria' / 'mlflow.db'}")
    return Path(client.get_model_version_download_uri("triage", version).removeprefix("file://"))
