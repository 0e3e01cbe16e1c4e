"""Models of the Hugging Face Hub: only safetensors, GGUF and what describes them is fetched, never code or pickles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noria.domain.errors import InvalidData, MissingExtra, UnknownModel
from noria.domain.model import Origin

PREFIX = "hf:"
_DESCRIBING = ("*.json", "*.txt", "*.model")
_WRITE = "Write hf:OWNER/REPO, hf:OWNER/REPO@REVISION or hf:OWNER/REPO/FILE.gguf."


def fetch(reference: str, into: Path) -> Origin:
    """Fetch what `hf:owner/repo[/file.gguf][@revision]` names.

    Args:
        reference: Repository, revision and file.
        into: Folder to put the files in.

    Returns:
        Where the files are, the exact commit that they are from, and the licence that the repository names.

    Raises:
        MissingExtra: huggingface_hub isn't installed.
        UnknownModel: The Hub has no such repository, revision or file, or doesn't answer.
        InvalidData: The repository holds nothing that can be served without running its code.
    """
    repository, wanted, revision = parse(reference)
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError as error:
        raise MissingExtra("hf: needs huggingface_hub.", "Run pip install 'noria[hub]'.") from error
    try:
        about = HfApi().model_info(repository, revision=revision or None)
        names = [file.rfilename for file in about.siblings or ()]
        patterns = _choose(repository, names, wanted)
        folder = Path(snapshot_download(repository, revision=about.sha, allow_patterns=patterns, local_dir=into))
    except (InvalidData, UnknownModel):
        raise
    except Exception as error:  # the Hub's own errors and those of the network beneath
        said = str(error).strip().splitlines()
        why = said[0][:300] if said else type(error).__name__
        raise UnknownModel(
            f"The Hugging Face Hub didn't give {repository}: {why}",
            "Correct the name, set HF_TOKEN if it is private, and see that huggingface.co can be reached.",
        ) from error
    gguf = [name for name in patterns if name.endswith(".gguf")]
    source = f"https://huggingface.co/{repository}/tree/{about.sha}"
    return Origin(folder / gguf[0] if gguf else folder, source, _licence(about))


def parse(reference: str) -> tuple[str, str, str]:
    """Repository, file and revision of a reference; file and revision may be empty.

    Raises:
        InvalidData: It is none.
    """
    name, _, revision = reference.removeprefix(PREFIX).partition("@")
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    parts = (*name.split("/"), *revision.split("/"))
    if not owner or not repository or ".." in parts or (file and not file.endswith(".gguf")):
        raise InvalidData(f"{reference} names no repository of the Hugging Face Hub.", _WRITE)
    return f"{owner}/{repository}", file, revision


def _choose(repository: str, names: Sequence[str], wanted: str) -> list[str]:
    """What to fetch of a repository's files: names or patterns."""
    if wanted:
        if wanted not in names:
            raise UnknownModel(f"{repository} has no file {wanted}.", _files(names))
        return [wanted]
    if any(name.endswith(".safetensors") for name in names):
        return ["*.safetensors", *_DESCRIBING]
    gguf = [name for name in names if name.endswith(".gguf")]
    if len(gguf) == 1:
        return gguf
    if gguf:
        raise InvalidData(f"{repository} holds {len(gguf)} GGUF files, so say which.", _files(gguf))
    raise InvalidData(
        f"{repository} holds neither safetensors nor GGUF files.", "Other formats can run code when they are loaded."
    )


def _files(names: Sequence[str]) -> str:
    gguf = [name for name in names if name.endswith(".gguf")]
    return f"Write hf:OWNER/REPO/FILE with one of {', '.join(gguf[:20])}." if gguf else _WRITE


def _licence(about: Any) -> str:
    """The licence that the repository's card names; empty if it names none."""
    card = about.card_data
    named = card.get("license") if card is not None else None
    return str(named) if isinstance(named, str) else ""
