"""Meters that the API processes of a project share: a file of fixed-size slots, mapped into each of them.

A slot has two copies of its meter and a byte that says which one counts; a change writes the other copy and then that
byte, so a process that is killed in the midst of it leaves the meter as it was. A record lock (fcntl) keeps two changes
of a meter apart, and the kernel takes it from a process that dies. The file outlives processes and restarts; after a
power cut the last half minute may be missing, the log is what counts then.
"""

import fcntl
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from noria.domain.limits import Meter

log = logging.getLogger(__name__)

_MAGIC = b"noria meters 1\0\0"
_SLOT = 128
"""Bytes of a slot; the file begins with one that holds the magic."""
_FIRST_SLOTS = 512
_COPIES = 24, 72
"""Where in a slot the two copies stand; before them the name's hash (16 bytes) and the byte that says which counts."""
_WHICH = 16
_METER = struct.Struct("<qddqd")
_FREE = bytes(16)
PATIENCE_S = 0.02
"""How long a process waits for another's change, in seconds: changes take microseconds, so that one was stopped in the
midst of it. Then it goes on: a count that may be off by one is better than an answer that isn't given."""


class SharedMeters:
    """Meters in a file. One for each process; not for several threads.

    Where the file can't be made or grown (a full disk, a folder that may not be written) the process counts alone and
    says so: limits are loose then, but everybody is answered.

    Args:
        path: The file; it is made when the first meter is needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._memory: mmap.mmap | None = None
        self._slots: dict[str, int] = {}
        self._said = False

    def change(self, names: Sequence[str], rule: Callable[[Sequence[Meter]], Sequence[Meter]]) -> None:
        slots = [self._slots.get(name) or self._allot(name) for name in names]
        held = [slot for slot in sorted(slots) if self._lock(slot)]
        try:
            memory = self._mapped(max(slots, default=0) + _SLOT)
            before = [_read(memory, slot) for slot in slots]
            for slot, old, new in zip(slots, before, rule(before), strict=True):
                if new != old:
                    _write(memory, slot, new)
        finally:
            for slot in held:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _SLOT, slot)

    def read(self, name: str) -> Meter:
        if self._memory is None and not self._path.exists():
            return Meter()
        memory, slot = self._opened(), self._find(_digest(name))
        return _read(memory, slot) if slot and memory[slot : slot + len(_FREE)] != _FREE else Meter()

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._slots.clear()

    def _lock(self, slot: int) -> bool:
        """Take a slot's lock; False if there is none, or if somebody held on to it for too long."""
        if self._file < 0:
            return False
        deadline = 0.0
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SLOT, slot)
                return True
            except OSError as error:
                now = time.monotonic()
                deadline = deadline or now + PATIENCE_S
                if now > deadline or not isinstance(error, BlockingIOError | PermissionError):
                    self._say(f"a meter's lock can't be had ({error.strerror}); going on without it")
                    return False
                time.sleep(0)  # let the other one finish

    def _allot(self, name: str) -> int:
        """The slot of a name, a new one if it has none yet."""
        digest = _digest(name)
        self._opened()
        with self._head_locked():
            slot = self._find(digest) or self._grown()
            memory = self._mapped(slot + _SLOT)
            memory[slot : slot + len(digest)] = digest
        self._slots[name] = slot
        return slot

    def _find(self, digest: bytes) -> int:
        """The slot with that hash of a name, else the first free one; 0 if there is neither."""
        memory = self._mapped(os.fstat(self._file).st_size if self._file >= 0 else 0)
        for slot in range(_SLOT, len(memory), _SLOT):
            if memory[slot : slot + len(digest)] in (digest, _FREE):
                return slot
        return 0

    def _grown(self) -> int:
        """The first slot of the second half, after the file was made twice as long."""
        memory = self._mapped(0)
        first = len(memory)
        try:
            if self._file >= 0:
                os.posix_fallocate(self._file, 0, 2 * first)
        except OSError as error:
            self._go_alone(error)
        if self._file < 0:
            self._memory = mmap.mmap(-1, 2 * first)
            self._memory[:first] = memory[:]
            memory.close()
        return first

    def _opened(self) -> mmap.mmap:
        """The file's memory; the file is made if there is none.

        Its blocks are allotted at once: a page for which no disk has room would kill whoever writes to it.
        """
        if self._memory is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                while not self._prepared():
                    pass
            except OSError as error:
                self._go_alone(error)
        return self._mapped(0)

    def _prepared(self) -> bool:
        """Open the file and see that it begins as it should; False if another file has come to its place."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._head_locked():
            head, here = os.pread(self._file, len(_MAGIC), 0), os.fstat(self._file).st_ino
            if self._path.exists() and self._path.stat().st_ino == here:
                if head == _MAGIC:
                    return True
                if not head.strip(b"\0"):
                    os.posix_fallocate(self._file, 0, (_FIRST_SLOTS + 1) * _SLOT)
                    os.pwrite(self._file, _MAGIC, 0)
                    return True
                log.error("%s is no file of meters: it is put aside, and what was used is counted anew", self._path)
                self._path.replace(self._path.with_suffix(".damaged"))
        os.close(self._file)
        self._file = -1
        return False

    @contextmanager
    def _head_locked(self) -> Iterator[None]:
        """Hold the lock on the file's head, which keeps two processes from giving one slot to two names."""
        if self._file < 0:
            yield
            return
        fcntl.lockf(self._file, fcntl.LOCK_EX, _SLOT, 0)
        try:
            yield
        finally:
            if self._file >= 0:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _SLOT, 0)

    def _go_alone(self, error: OSError) -> None:
        """Count in this process's own memory from now on, with what is known."""
        self._say(f"{self._path} can't be used ({error.strerror}); this process counts limits by itself")
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._memory is None:
            self._memory = mmap.mmap(-1, (_FIRST_SLOTS + 1) * _SLOT)

    def _mapped(self, size: int) -> mmap.mmap:
        """The memory, at least so long: another process may have made the file longer."""
        memory = self._memory
        if memory is None or len(memory) < size:
            if memory is not None:
                memory.close()
            memory = self._memory = mmap.mmap(self._file, 0)
        return memory

    def _say(self, problem: str) -> None:
        if not self._said:
            log.warning("%s", problem)
        self._said = True


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=len(_FREE)).digest()


def _read(memory: mmap.mmap, slot: int) -> Meter:
    return Meter(*_METER.unpack_from(memory, slot + _COPIES[memory[slot + _WHICH] & 1]))


def _write(memory: mmap.mmap, slot: int, meter: Meter) -> None:
    other = 1 - (memory[slot + _WHICH] & 1)
    _METER.pack_into(memory, slot + _COPIES[other], *meter)
    memory[slot + _WHICH] = other
