"""Servers that nobody owns end; servers that somebody owns don't."""

import fcntl
import json
import os
import threading
from pathlib import Path

from noria.modelserver.guard import OrphanGuard, held


def test_a_lock_is_held_as_long_as_somebody_has_it(tmp_path: Path) -> None:
    lock = tmp_path / "worker.lock"
    assert not held(lock)
    with lock.open("w") as file:
        assert not held(lock)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert held(lock)
    assert not held(lock)


def test_looking_at_a_lock_leaves_it_free(tmp_path: Path) -> None:
    lock = tmp_path / "worker.lock"
    lock.touch()
    held(lock)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_server_ends_when_its_lock_stays_free(tmp_path: Path) -> None:
    orphaned = threading.Event()
    lock = tmp_path / "worker.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        OrphanGuard(lock, orphaned.set, after_s=0.2).start()
        assert not orphaned.wait(0.6)
    assert orphaned.wait(30)


def test_a_worker_that_comes_back_in_time_keeps_its_servers(tmp_path: Path) -> None:
    orphaned = threading.Event()
    lock = tmp_path / "worker.lock"
    lock.touch()
    OrphanGuard(lock, orphaned.set, after_s=1.5, every_s=0.05).start()
    assert not orphaned.wait(0.3)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not orphaned.wait(2)


def test_a_server_whose_place_another_has_taken_ends_although_there_is_a_worker(tmp_path: Path) -> None:
    orphaned = threading.Event()
    lock, note = tmp_path / "worker.lock", tmp_path / "triage-1.json"
    note.write_text(json.dumps({"pid": os.getpid()}))
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        OrphanGuard(lock, orphaned.set, note=note, after_s=60, every_s=0.05).start()
        assert not orphaned.wait(0.3)
        note.write_text(json.dumps({"pid": os.getppid()}))
        assert orphaned.wait(30)


def test_a_server_that_no_note_ever_names_ends_in_the_end(tmp_path: Path) -> None:
    orphaned = threading.Event()
    lock = tmp_path / "worker.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        OrphanGuard(lock, orphaned.set, note=tmp_path / "triage-1.json", after_s=0.3, every_s=0.05).start()
        assert orphaned.wait(30)
