"""A model registry in memory: files are bytes in a folder, runs are dictionaries."""

import hashlib
from dataclasses import replace
from pathlib import Path

from noria.domain.errors import InvalidData, UnknownModel
from noria.domain.model import Flavor, ModelVersion


class FakeRegistry:
    """Implements ports.ModelRegistry; `log_model` stands for what a trainer does."""

    def __init__(self, folder: Path, clock):
        self._folder = folder
        self._clock = clock
        self._versions = {}  # name → [ModelVersion], oldest first
        self._aliases = {}
        self._logged = {}  # logged model uri → run id
        self.abandoned = []  # runs that training was given up for
        self.metrics = {}  # run id → numbers

    def log_model(self, run_id, files, artifacts=None):
        """A finished run with a model and other artefacts (`folder/name` → bytes); returns the logged model's URI."""
        for name, content in files.items():
            self._write(run_id, f"model/{name}", content)
        for name, content in (artifacts or {}).items():
            self._write(run_id, f"artifacts/{name}", content)
        self._logged[f"models:/m-{run_id}"] = run_id
        return f"models:/m-{run_id}"

    def version(self, name, version_or_alias):
        number = self._aliases.get(name, {}).get(version_or_alias, version_or_alias)
        for version in self._versions.get(name, []):
            if version.version == number:
                return replace(version, metrics=dict(self.metrics.get(version.run_id, {})))
        raise UnknownModel(f"{name} has no version or alias {version_or_alias}.", "List what there is.")

    def versions(self, name):
        return [self.version(name, v.version) for v in reversed(self._versions.get(name, []))]

    def aliases(self, name):
        return dict(self._aliases.get(name, {}))

    def set_alias(self, name, alias, version):
        if version is not None:
            self.version(name, version)
            self._aliases.setdefault(name, {})[alias.value] = version
        elif name not in self._versions:
            raise UnknownModel(f"{name} has no version at all.", "List what there is.")
        else:
            self._aliases.get(name, {}).pop(alias.value, None)

    def register(self, logged_model_uri, name, tags):
        run_id = self._logged.get(logged_model_uri)
        if run_id is None:
            raise UnknownModel(f"There is no logged model {logged_model_uri}.", "Give what log_model returned.")
        for known in self.versions(name):
            if known.run_id == run_id:
                return known
        content = b"".join(p.read_bytes() for p in sorted((self._folder / run_id / "model").rglob("*")) if p.is_file())
        return self._add(name, Flavor.PYFUNC, run_id, content, tags.get("noria.source", ""), "", tags)

    def register_file(self, name, path, *, flavor, source, licence, tags):
        if not path.exists():
            raise InvalidData(f"The model file {path} isn't there.", "Give the path of a file.")
        files = {p.relative_to(path.parent if path.is_file() else path).as_posix(): p for p in _files(path)}
        content = b"".join(p.read_bytes() for p in files.values())
        if flavor is Flavor.GGUF and not content.startswith(b"GGUF"):
            raise InvalidData(f"{path.name} is not a GGUF file.", "Give a llama.cpp model file.")
        for known in self.versions(name):
            if known.checksum == hashlib.sha256(content).hexdigest():
                return known
        run_id = f"upload-{len(self._versions.get(name, [])) + 1}-{name}"
        for file, where in files.items():
            self._write(run_id, f"model/{file}", where.read_bytes())
        return self._add(name, flavor, run_id, content, source, licence, tags)

    def download(self, version, artifact=""):
        path = self._folder / version.run_id / (f"artifacts/{artifact}" if artifact else "model")
        if not path.exists():
            raise UnknownModel(f"{version.ref} has no artefact {artifact or 'at all'}.", "Train or add it again.")
        if version.flavor is Flavor.PYFUNC or artifact:
            return path
        return next(path.glob("*.gguf" if version.flavor is Flavor.GGUF else "*.json"))

    def attach(self, version, files, folder):
        for name, content in files.items():
            self._write(version.run_id, f"artifacts/{folder}/{name}", content)

    def log_metrics(self, version, metrics):
        self.metrics.setdefault(version.run_id, {}).update(metrics)

    def abandon(self, run_id):
        self.abandoned.append(run_id)

    def _write(self, run_id, name, content):
        path = self._folder / run_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _add(self, name, flavor, run_id, content, source, licence, tags):
        known = self._versions.setdefault(name, [])
        number = str(len(known) + 1)
        known.append(
            ModelVersion(
                name=name,
                version=number,
                flavor=flavor,
                uri=f"models:/{name}/{number}",
                run_id=run_id,
                checksum=hashlib.sha256(content).hexdigest(),
                source=source,
                licence=licence or tags.get("noria.licence", ""),
                created_at=self._clock.now(),
                tags=dict(tags),
            )
        )
        return self.version(name, number)


def _files(path):
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
