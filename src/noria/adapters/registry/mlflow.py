"""Models, versions and their evidence in MLflow: any tracking URI, SQLite beside the project by default.

`mlflow` itself takes seconds to import, so it comes in with the first call. Every version carries the tags below;
everything that explains a version (card, plots, baseline) is an artefact of the MLflow run that made it.
"""

import contextlib
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noria.adapters.registry.client import (
    connect,
    error_code,
    is_server,
    load_mlflow,
    metric_names,
    mlflow_error,
    unavailable,
)
from noria.adapters.registry.modelfiles import check, checksum, local_path, render
from noria.adapters.registry.packages import FLAVOR, stamps_of
from noria.domain.errors import NoriaError, UnknownModel
from noria.domain.model import Alias, Flavor, ModelVersion

TRUSTED = "noria.trusted"
"""`yes` if loading the files may run code that somebody answers for (`UntrustedArtifact` otherwise)."""
LICENCE = "noria.licence"
SOURCE = "noria.source"
CHECKSUM = "noria.checksum"
RUN = "noria.run_id"
"""Noria's run, on the MLflow run."""
OF = "noria.of"
"""On a run of ours: the version, which no run logged, that it explains."""
LICENCES = (LICENCE, "licence", "license")
"""Tags that name a licence: ours, and what others write."""

CHART = ".vl.json"
"""Attached Vega-Lite specifications end so; a PNG is put beside each."""
_GONE = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}


class MlflowRegistry:
    """`ports.ModelRegistry` on MLflow.

    Args:
        tracking_uri: Tracking and registry in one.
        artifacts_dir: Folder for artefacts where MLflow is a database that we open ourselves; a server keeps its own.
            Downloads from a server are kept there too.
        experiment: Name of the experiment that uploads and training runs are logged to.
    """

    def __init__(self, tracking_uri: str, artifacts_dir: Path, experiment: str) -> None:
        self.tracking_uri = tracking_uri
        self._artifacts = artifacts_dir
        self._experiment = experiment
        self._lock = threading.Lock()
        self._aliasing = threading.Lock()  # MLflow looks, then inserts: two threads would both insert
        self._connected: Any = None

    def prepare(self) -> str:
        """Make the database and the experiment if they aren't there; returns the experiment's id."""
        with self._asking() as client:
            found = client.get_experiment_by_name(self._experiment)
            if found is not None:
                return str(found.experiment_id)
            location = None if is_server(self.tracking_uri) else self._artifacts.resolve().as_uri()
            try:
                return str(client.create_experiment(self._experiment, artifact_location=location))
            except mlflow_error() as error:
                if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                    raise
                return str(client.get_experiment_by_name(self._experiment).experiment_id)

    def version(self, name: str, version_or_alias: str) -> ModelVersion:
        """See `ports.ModelRegistry`."""
        with self._asking(UnknownModel(f"{name} has no version or alias {version_or_alias}.", _LIST)) as client:
            if version_or_alias.isdigit():
                return self._read(client, client.get_model_version(name, version_or_alias))
            return self._read(client, client.get_model_version_by_alias(name, version_or_alias))

    def versions(self, name: str) -> list[ModelVersion]:
        """See `ports.ModelRegistry`."""
        with self._asking() as client:
            found = client.search_model_versions(f"name = '{name}'", max_results=1000)
            newest = sorted(found, key=lambda v: int(v.version), reverse=True)
            return [self._read(client, version) for version in newest]

    def aliases(self, name: str) -> Mapping[str, str]:
        """See `ports.ModelRegistry`."""
        try:
            with self._asking(UnknownModel(name)) as client:
                return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
        except UnknownModel:
            return {}

    def set_alias(self, name: str, alias: Alias, version: str | None) -> None:
        """See `ports.ModelRegistry`."""
        gone = UnknownModel(f"{name} has no version {version or 'at all'}.", _LIST)
        with self._aliasing, self._asking(gone) as client:
            if version is None:
                client.delete_registered_model_alias(name, alias.value)
            else:
                client.get_model_version(name, version)  # MLflow would point an alias at a version that isn't there
                client.set_registered_model_alias(name, alias.value, version)

    def register(self, logged_model_uri: str, name: str, tags: Mapping[str, str]) -> ModelVersion:
        """See `ports.ModelRegistry`; the flavor, a prompt's wire and the checksum are tagged here."""
        missing = UnknownModel(f"MLflow has no logged model {logged_model_uri}.", "Give what log_model returned.")
        with self._asking(missing) as client:
            logged = client.get_logged_model(logged_model_uri.removeprefix("models:/"))
            for known in self.versions(name):
                if known.tags.get("noria.logged_model") == logged_model_uri:
                    return known
            files = self._fetch(logged.artifact_location)
            stamps = {**stamps_of(files), CHECKSUM: checksum(files), "noria.logged_model": logged_model_uri}
            # a database would look a models:/ URI up under MLflow's process-wide tracking URI, which isn't ours
            source = logged_model_uri if is_server(self.tracking_uri) else logged.artifact_location
            return self._create(
                client, name, source, logged.source_run_id, {**tags, **stamps}, model_id=logged.model_id
            )

    def register_file(
        self, name: str, path: Path, *, flavor: Flavor, source: str, licence: str, tags: Mapping[str, str]
    ) -> ModelVersion:
        """See `ports.ModelRegistry`.

        Raises:
            InvalidData: The file isn't there, or isn't what its flavor says.
        """
        check(path, flavor)
        digest = checksum(path)
        for known in self.versions(name):
            if known.checksum == digest:
                return known
        stamps = {FLAVOR: flavor.value, SOURCE: source, LICENCE: licence, CHECKSUM: digest}
        with self._asking() as client:
            run = self._upload(client, name, path, {**tags, **stamps})
            return self._create(client, name, f"{run.info.artifact_uri}/model", run.info.run_id, {**tags, **stamps})

    def download(self, version: ModelVersion, artifact: str = "") -> Path:
        """See `ports.ModelRegistry`; nothing is copied where the artefacts lie on this machine.

        The path of a version that is one file (GGUF, a command, a model elsewhere) is that file; any other's is the
        folder of the MLflow model.
        """
        missing = UnknownModel(f"{version.ref} has no artefact {artifact or 'at all'}.", "Train or add it again.")
        with self._asking(missing) as client:
            if artifact:
                run = self._run_of(client, version)
                if run is None:
                    raise missing
                where = f"{run.info.artifact_uri}/{artifact}"
            else:
                where = client.get_model_version_download_uri(version.name, version.version)
            path = self._fetch(where)
        if not path.exists():
            raise missing
        if version.flavor not in (Flavor.PYFUNC, Flavor.PROMPT) and not artifact and path.is_dir():
            return next(path.glob("*.gguf" if version.flavor is Flavor.GGUF else "*.json"))
        return path

    def attach(self, version: ModelVersion, files: Mapping[str, bytes], folder: str) -> None:
        """See `ports.ModelRegistry`; a chart (`*.vl.json`) is attached as a PNG too."""
        with self._asking() as client, tempfile.TemporaryDirectory() as scratch:
            for name, content in files.items():
                (Path(scratch) / name).write_bytes(content)
                if name.endswith(CHART):
                    (Path(scratch) / f"{name.removesuffix(CHART)}.png").write_bytes(render(content))
            client.log_artifacts(self._run_of(client, version, make=True).info.run_id, scratch, folder)

    def log_metrics(self, version: ModelVersion, metrics: Mapping[str, float]) -> None:
        """See `ports.ModelRegistry`."""
        with self._asking() as client:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            run = self._run_of(client, version, make=True)
            client.log_batch(run.info.run_id, [Metric(k, v, now, 0) for k, v in metric_names(metrics).items()])

    def abandon(self, run_id: str) -> None:
        """See `ports.ModelRegistry`."""
        with self._asking() as client:
            found = client.search_runs([self.prepare()], f"tags.`{RUN}` = '{run_id}'")
            for begun in found:
                if begun.info.status == "RUNNING":
                    client.set_terminated(begun.info.run_id, "KILLED")

    def _run_of(self, client: Any, version: ModelVersion, *, make: bool = False) -> Any:
        """The run that explains a version: the one that logged it, or one of ours for a version that no run logged."""
        if version.run_id:
            return client.get_run(version.run_id)
        experiment = self.prepare()
        found = client.search_runs([experiment], f"tags.`{OF}` = '{version.ref}'", max_results=1)
        if found or not make:
            return found[0] if found else None
        run = client.create_run(experiment, tags={"mlflow.runName": version.ref, OF: version.ref})
        client.set_terminated(run.info.run_id)
        return run

    @contextlib.contextmanager
    def _asking(self, missing: NoriaError | None = None) -> Iterator[Any]:
        """The client; MLflow's errors become ours, its "no such thing" the one given."""
        try:
            with self._lock:
                if self._connected is None:
                    self._connected = connect(self.tracking_uri)
            yield self._connected
        except NoriaError:
            raise
        except Exception as error:
            if missing is not None and error_code(error) in _GONE:
                raise missing from error
            if isinstance(error, mlflow_error()) or type(error).__module__.startswith(("sqlalchemy", "requests")):
                raise unavailable(self.tracking_uri, error) from error
            raise

    def _read(self, client: Any, found: Any) -> ModelVersion:
        """A version as MLflow keeps it; one that somebody else registered has no tags of ours."""
        tags = dict(found.tags)
        return ModelVersion(
            name=found.name,
            version=str(found.version),
            flavor=Flavor(named) if (named := tags.get(FLAVOR)) in list(Flavor) else Flavor.PYFUNC,
            uri=f"models:/{found.name}/{found.version}",
            run_id=found.run_id or "",
            checksum=tags.get(CHECKSUM, ""),
            source=tags.get(SOURCE, found.source or ""),
            licence=next((tags[tag] for tag in LICENCES if tag in tags), ""),
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            metrics=dict(client.get_run(found.run_id).data.metrics) if found.run_id else {},
            tags=tags,
        )

    def _create(
        self, client: Any, name: str, source: str, run_id: str | None, tags: Mapping[str, str], **more: Any
    ) -> ModelVersion:
        try:
            client.create_registered_model(name)
        except mlflow_error() as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        return self._read(client, client.create_model_version(name, source, run_id, dict(tags), **more))

    def _upload(self, client: Any, name: str, path: Path, tags: Mapping[str, str]) -> Any:
        """The run that holds the file; one that was cut off is gone on with."""
        experiment = self.prepare()
        begun = client.search_runs([experiment], f"tags.`{CHECKSUM}` = '{tags[CHECKSUM]}'", max_results=1)
        named = {"mlflow.runName": f"{name} {path.name}", **tags}
        run = begun[0] if begun else client.create_run(experiment, tags=named)
        if path.is_dir():
            client.log_artifacts(run.info.run_id, str(path), "model")
        else:
            client.log_artifact(run.info.run_id, str(path), "model")
        client.set_terminated(run.info.run_id)
        return run

    def _fetch(self, where: str) -> Path:
        """The local path of an artefact: itself where it lies on this machine, else a download."""
        local = local_path(where)
        if local is not None:
            return local
        target = self._artifacts / "downloads" / hashlib.sha256(where.encode()).hexdigest()[:16]
        target.mkdir(parents=True, exist_ok=True)
        download = load_mlflow("artifacts").artifacts.download_artifacts
        return Path(download(artifact_uri=where, dst_path=str(target), tracking_uri=self.tracking_uri))


_LIST = "List what there is with noria model list."
