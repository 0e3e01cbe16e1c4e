"""What all meters do, and what those in a file do besides: processes that share them, kills, damage, full disks."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fakes.meters import MemoryMeters
from noria.adapters import meters as module
from noria.adapters.meters import SharedMeters
from noria.domain.limits import Meter

FULL = Meter(at_us=1_800_000_000_000_000, requests=1.5, tokens=1e9, day=20_000, usd=0.1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "meters"


@pytest.fixture(params=["shared", "memory"])
def meters(request, path):
    made = SharedMeters(path) if request.param == "shared" else MemoryMeters()
    yield made
    made.close()


def put(meters, name: str, value: Meter) -> None:
    meters.change([name], lambda _: [value])


def more(meters, name: str) -> None:
    meters.change([name], lambda found: [found[0]._replace(requests=found[0].requests + 1)])


# --- all meters ---


def test_what_nobody_used_yet_stands_at_nothing(meters):
    assert meters.read("a") == Meter()
    seen = []
    meters.change(["a", "b"], lambda found: seen.extend(found) or found)
    assert seen == [Meter(), Meter()]
    assert meters.read("a") == Meter()


def test_what_a_rule_says_is_what_is_read(meters):
    put(meters, "a", FULL)
    meters.change(["b", "a"], lambda found: [found[1], found[0]])
    assert (meters.read("a"), meters.read("b")) == (Meter(), FULL)


def test_a_rule_that_raises_changes_nothing_and_holds_nobody_up(meters):
    put(meters, "a", FULL)

    def refuse(_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        meters.change(["a"], refuse)
    assert meters.read("a") == FULL
    more(meters, "a")
    assert meters.read("a").requests == 2.5


def test_there_is_room_for_thousands_of_names_and_they_never_mix(meters):
    for number in range(1500):
        put(meters, f"key:{number}", Meter(requests=float(number)))
    assert [meters.read(f"key:{number}").requests for number in range(1500)] == list(map(float, range(1500)))


# --- the file ---


def test_meters_outlive_the_process_that_counted(path):
    first = SharedMeters(path)
    put(first, "a", FULL)
    first.close()
    assert SharedMeters(path).read("a") == FULL


def test_looking_makes_no_file_and_no_slots(path):
    meters = SharedMeters(path)
    assert meters.read("a") == Meter()
    assert not path.exists()
    put(meters, "a", FULL)
    for number in range(1000):
        assert meters.read(f"b{number}") == Meter()
    assert path.stat().st_size < 100_000


def test_two_that_are_open_at_once_see_each_other_even_when_the_file_grows(path):
    one, other = SharedMeters(path), SharedMeters(path)
    put(one, "a", Meter(requests=1.0))
    more(other, "a")
    for number in range(1200):
        put(one, f"b{number}", FULL)
    more(other, "b1199")
    more(one, "a")
    assert (other.read("a").requests, one.read("b1199").requests) == (3.0, 2.5)


COUNT = """
import sys
from pathlib import Path
from noria.adapters.meters import SharedMeters
meters, many = SharedMeters(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
def rule(found):
    return [m._replace(requests=m.requests + 1, tokens=m.tokens + 3) for m in found]
done = 0
while done != many:
    meters.change(["a", "b"] if done % 2 else ["b", "a"], rule)
    done += 1
"""


def counter(path: Path, many: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COUNT, str(path), str(many)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_count_together_lose_nothing(path):
    processes = [counter(path, 3000) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    meters = SharedMeters(path)
    assert meters.read("a") == meters.read("b") == Meter(requests=12000.0, tokens=36000.0)


@pytest.mark.chaos
def test_a_process_that_is_killed_in_the_midst_leaves_whole_meters_and_no_lock(path):
    meters = SharedMeters(path)
    for round_ in range(10):
        process = counter(path, -1)
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        before = meters.read("a").requests
        while meters.read("a").requests < before + 200 * (round_ + 1):
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        a, b = meters.read("a"), meters.read("b")
        assert a.tokens == 3 * a.requests
        assert b.tokens == 3 * b.requests
        assert abs(a.requests - b.requests) <= round_ + 1
        more(meters, "a")
        assert meters.read("a").requests == a.requests + 1
        put(meters, "a", a)


def test_a_process_that_stopped_in_the_midst_of_a_change_holds_nobody_up_for_long(path, caplog):
    stuck = """
    import os, signal, sys
    from pathlib import Path
    from noria.adapters.meters import SharedMeters
    def rule(found):
        print("inside", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        return found
    SharedMeters(Path(sys.argv[1])).change(["a"], rule)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(stuck), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "inside\n"
    meters = SharedMeters(path)
    more(meters, "a")
    assert meters.read("a").requests == 1.0
    assert "going on without it" in caplog.text
    process.kill()
    process.communicate()


def test_a_file_that_is_something_else_is_put_aside(path, caplog):
    path.parent.mkdir()
    path.write_bytes(b"something else entirely" * 100)
    meters = SharedMeters(path)
    put(meters, "a", FULL)
    assert meters.read("a") == FULL
    assert path.with_suffix(".damaged").read_bytes().startswith(b"something else")
    assert "is no file of meters" in caplog.text


@pytest.mark.parametrize("left", [b"", bytes(4096)])
def test_a_file_that_its_maker_did_not_finish_is_finished(path, left):
    path.parent.mkdir()
    path.write_bytes(left)
    put(SharedMeters(path), "a", FULL)
    assert SharedMeters(path).read("a") == FULL


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_a_process_counts_alone_and_says_so(path, monkeypatch, caplog):
    monkeypatch.setattr(os, "posix_fallocate", full)
    meters = SharedMeters(path)
    for number in range(1200):
        put(meters, f"a{number}", FULL)
        more(meters, f"a{number}")
    assert meters.read("a0").requests == meters.read("a1199").requests == 2.5
    assert caplog.text.count("counts limits by itself") == 1
    meters.close()


def test_a_file_that_can_not_grow_any_more_is_gone_on_with_alone(path, monkeypatch):
    meters = SharedMeters(path)
    put(meters, "a", FULL)
    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(module._FIRST_SLOTS):
        put(meters, f"b{number}", FULL)
    assert meters.read("a") == meters.read(f"b{module._FIRST_SLOTS - 1}") == FULL
