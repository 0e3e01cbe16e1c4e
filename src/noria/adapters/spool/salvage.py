"""Makes a readable copy of a damaged spool file: as much of it as a disk error, or a careless hand, has left.

SQLite stops at the first frame of a write-ahead log that doesn't match its checksum and forgets all that follow, and
reads nothing of a file whose first page is broken. The copy has every sound frame of the log folded in, and a sound
first page. What is still wrong in it shows when it is read; every entry has its own checksum.
"""

import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from noria.adapters.spool.file import PAGE, SpoolFile

_MAGIC: Final = b"SQLite format 3\0" + struct.pack(">H", PAGE)
_LOG_HEAD: Final = 32
_FRAME_HEAD: Final = 24
_LITTLE, _BIG = 0x377F0682, 0x377F0683
_SIZE_AT, _COUNTER_AT, _VALID_FOR_AT, _FREE_AT, _VERSIONS_AT = 28, 24, 92, 32, 18

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A page as a transaction left it. `pages` is the size of the database if it is the transaction's last, else 0."""

    page: int
    pages: int
    content: bytes


def salvaged(path: Path) -> Path:
    """The readable copy of a spool file that nobody writes to any more; made beside it if it isn't there.

    Raises:
        OSError: There is no room for it.
    """
    copy, draft, log = path.with_suffix(".salvaged"), path.with_suffix(".draft"), path.with_name(f"{path.name}-wal")
    while not copy.exists():
        life = _life(log)
        shutil.copyfile(path, draft)
        with draft.open("r+b") as file:
            for frame in _committed(log):
                file.seek((frame.page - 1) * PAGE)
                file.write(frame.content)
            _mend_head(file)
        if _life(log) == life:  # else the worker folded the log in meanwhile and began it anew
            draft.rename(copy)
    return copy


def _life(log: Path) -> bytes:
    """What tells a write-ahead log from the one before it in the same file."""
    try:
        with log.open("rb") as file:
            return file.read(_LOG_HEAD)
    except FileNotFoundError:
        return b""


def _committed(log: Path) -> Iterator[_Frame]:
    """The sound frames of all transactions that were committed, in order."""
    pending: list[_Frame] = []
    if log.exists():
        with log.open("rb") as file:
            for frame in _sound(file):
                pending.append(frame)
                if frame.pages:
                    yield from pending
                    pending.clear()


def _sound(file: BinaryIO) -> Iterator[_Frame]:
    """Frames of the log's present life whose checksum fits; a frame's sums go on from those of the frame before."""
    head = file.read(_LOG_HEAD)
    if len(head) < _LOG_HEAD:
        return
    magic, _, page_size, _, salt, other_salt, *sums = struct.unpack(">8I", head)
    if magic not in (_LITTLE, _BIG) or page_size != PAGE:
        return
    order = "<" if magic == _LITTLE else ">"
    before: Sums | None = (sums[0], sums[1])
    while len(raw := file.read(_FRAME_HEAD + PAGE)) == _FRAME_HEAD + PAGE:
        page, pages, salt_here, other_here, one, two = struct.unpack_from(">6I", raw)
        if (salt_here, other_here) != (salt, other_salt) or page == 0:
            before = None  # a frame of an earlier life, or one whose head is broken
            continue
        content = raw[_FRAME_HEAD:]
        if before is None or _summed(raw[:8] + content, before, order) == (one, two):
            yield _Frame(page, pages, content)
        before = (one, two)


def _summed(data: bytes, before: Sums, order: str) -> Sums:
    """SQLite's running checksum."""
    one, two = before
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def _mend_head(file: BinaryIO) -> None:
    """Give a file whose first page is broken a new one, and have every file read without a write-ahead log."""
    pages = file.seek(0, 2) // PAGE
    file.seek(0)
    head = bytearray(file.read(PAGE))
    if not head.startswith(_MAGIC) or head[100] not in (2, 5, 10, 13):
        head = bytearray(_fresh_page())
    head[_VERSIONS_AT : _VERSIONS_AT + 2] = b"\1\1"
    struct.pack_into(">I", head, _SIZE_AT, pages)
    struct.pack_into(">2I", head, _FREE_AT, 0, 0)
    head[_VALID_FOR_AT : _VALID_FOR_AT + 4] = head[_COUNTER_AT : _COUNTER_AT + 4]
    file.seek(0)
    file.write(head)


def _fresh_page() -> bytes:
    """The first page of a new spool file: it says where the tables begin, which is the same in all of them."""
    with tempfile.TemporaryDirectory(prefix="noria-") as folder:
        path = Path(folder) / "fresh.db"
        SpoolFile(path).close()
        return path.read_bytes()[:PAGE]
