"""Puts a damaged spool file aside and a fresh one in its place, so that a crash in between is finished later."""

from collections.abc import Sequence
from pathlib import Path

from noria.adapters.spool.file import QUARANTINE, SpoolFile, damage_flag, sync_folder
from noria.adapters.spool.groups import Packed


def exchange(path: Path, items: Sequence[Packed]) -> SpoolFile:
    """Put a damaged file into quarantine and begin a fresh one that holds `items` already.

    Raises:
        OSError: There is no room for it.
        sqlite3.Error: The fresh file can't be written.
    """
    fresh = _fresh(path)
    for leftover in path.parent.glob(f"{fresh.name}*"):
        leftover.unlink()
    file = SpoolFile(fresh)
    if items:
        file.append(items)
    file.close()
    if path.exists():
        _put_aside(path)
    fresh.rename(path)
    sync_folder(path.parent)
    fresh.with_suffix(".mark").unlink()
    file = SpoolFile(path)
    file.mark()
    return file


def finish_exchange(path: Path) -> None:
    """Finish an exchange of a damaged file for a fresh one that a crash has cut short."""
    fresh = _fresh(path)
    if path.exists() and _aside(path, "-wal").exists():
        _put_aside(path)
    if not path.exists() and fresh.exists():
        fresh.rename(path)
        sync_folder(path.parent)


def _fresh(path: Path) -> Path:
    """Where the successor of a damaged file is made ready."""
    return path.with_name(f"{path.name}.new")


def _aside(path: Path, suffix: str = "") -> Path:
    """Where a damaged file goes. The inode in the name lets a cut-short move find its own half."""
    return path.parent / QUARANTINE / f"{path.stem}-{path.stat().st_ino}.db{suffix}"


def _put_aside(path: Path) -> None:
    """Move a spool file with its write-ahead log, the log first: without it, the file would pass for a whole one."""
    target = _aside(path)
    target.parent.mkdir(exist_ok=True)
    moves = [(path.with_name(f"{path.name}{end}"), target.with_name(f"{target.name}{end}")) for end in ("-wal", "-shm")]
    moves += [(path.with_suffix(end), target.with_suffix(end)) for end in (".mark", ".salvaged")]
    for source, destination in [*moves, (path, target)]:
        if source.exists():
            source.replace(destination)
    damage_flag(path).unlink(missing_ok=True)
    sync_folder(target.parent)
    sync_folder(path.parent)
