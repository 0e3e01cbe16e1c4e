"""Whatever people and disks do wrong: nobody gets a 5xx for his own mistake, a traceback, or less than he was told."""

import ctypes
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.models import version
from fakes.running import TEXTS, Load, Running, noria, noria_json
from noria.adapters.hosts.local import LocalHost
from noria.domain.errors import MissingExtra
from noria.domain.model import Flavor

pytestmark = pytest.mark.slow

JSON = {"content-type": "application/json"}
PREDICT, INVOCATIONS, FEEDBACK, CHAT = "/predict", "/invocations", "/feedback", "/v1/chat/completions"
REQUEST_ID = b"0123456789abcdef0123456789abcdef"
WRONG = [
    ("POST", PREDICT, b"", JSON, 400, "empty"),
    ("POST", PREDICT, b'{"input": "a"', JSON, 400, "not JSON"),
    ("POST", PREDICT, b'["a"]', JSON, 400, "not an object"),
    ("POST", PREDICT, b"{}", JSON, 400, "input"),
    ("POST", PREDICT, b'{"text": "a"}', JSON, 400, "input"),
    ("POST", PREDICT, b'{"input": {"a": 1}}', JSON, 400, "text"),
    ("POST", PREDICT, b'{"input": null}', JSON, 400, "input"),
    ("POST", PREDICT, b'{"input": NaN}', JSON, 400, "not JSON"),
    ("POST", PREDICT, b'{"input": 1e999}', JSON, 400, "number"),
    ("POST", PREDICT, b'{"input": "\xff\xfe"}', JSON, 400, "UTF-8"),
    ("POST", PREDICT, b"[" * 100_000, JSON, 400, "nested"),
    ("POST", PREDICT, b'{"input": "a", "metadata": [1]}', JSON, 400, "metadata"),
    ("POST", PREDICT, b'{"input": "a"}', {**JSON, "x-noria-metadata": "nope"}, 400, "x-noria-metadata"),
    ("POST", PREDICT, b"input=a", {"content-type": "application/x-www-form-urlencoded"}, 415, "Content type"),
    ("POST", PREDICT, b'{"input": "a"}', {"content-type": "application/json; charset=utf-16"}, 415, "utf-16"),
    ("POST", PREDICT, b'{"input": "a"}', {**JSON, "content-encoding": "gzip"}, 415, "ompress"),
    ("POST", PREDICT, b'{"input": "' + b"a" * 10_000_001 + b'"}', JSON, 413, "10000000 bytes"),
    ("POST", "/predict/nobody", b'{"input": "a"}', JSON, 404, "nobody"),
    ("GET", PREDICT, None, JSON, 405, "POST"),
    ("POST", INVOCATIONS, b'{"rows": []}', JSON, 400, "dataframe_split"),
    ("POST", INVOCATIONS, b'{"inputs": ["a"], "instances": ["a"]}', JSON, 400, "one of"),
    ("POST", INVOCATIONS, b'{"inputs": [{"a": 1}]}', JSON, 400, ""),
    ("POST", INVOCATIONS, b'{"inputs": [[1, 2], [3]]}', JSON, 400, ""),
    ("POST", INVOCATIONS, b"a,b\n1\n", {"content-type": "text/csv"}, 400, "Row 2"),
    ("POST", CHAT, b'{"model": "triage", "messages": [{"role": "user", "content": "a"}]}', JSON, 400, "triage"),
    ("POST", CHAT, b'{"model": "nobody", "messages": [{"role": "user", "content": "a"}]}', JSON, 404, "nobody"),
    ("POST", CHAT, b'{"messages": []}', JSON, 400, "model"),
    ("POST", FEEDBACK, b"{}", JSON, 400, "request_id"),
    ("POST", FEEDBACK, b'{"request_id": "short", "label": "good"}', JSON, 400, "request_id"),
    ("POST", FEEDBACK, b'{"request_id": "' + REQUEST_ID + b'", "score": 7}', JSON, 400, "score"),
    ("POST", FEEDBACK, b'{"request_id": "' + REQUEST_ID + b'", "lable": "good"}', JSON, 400, "lable"),
    ("GET", "/nothing/here", None, JSON, 404, "/nothing/here"),
    ("DELETE", "/api/status", None, JSON, 405, "DELETE"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "names"),
    WRONG,
    ids=[f"{method} {path} {(body or b'')[:40]!r} {status}" for method, path, body, _, status, _ in WRONG],
)
def test_what_cannot_be_answered_is_refused_with_what_to_do(shop: Running, method, path, body, headers, status, names):
    got, said, answered = shop.request(method, path, body, headers)
    assert got == status, said
    assert answered["x-request-id"]
    if path == CHAT:
        sentence = said["error"]["message"]
    else:
        sentence = f"{said['message']} {said['remedy']}"
        assert said["remedy"]
    assert names in sentence
    assert sentence.rstrip("`\"'}) ").endswith((".", "?")) or sentence.endswith("."), sentence
    assert "Traceback" not in sentence
    assert shop.post(PREDICT, {"input": random.choice(TEXTS)})[0] == 200


def test_a_broken_project_file_is_named_with_line_key_and_what_to_write(project: Path) -> None:
    file = project / "noria.yaml"
    file.write_text(file.read_text().replace("      window: 5m", "      windw: 5m"))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "windw" in text)
    done = noria(project, "up", "--port", "0", check=False)
    assert done.returncode == 1
    assert f"noria.yaml:{line}: endpoints.triage.monitors.windw: there is no such key; did you mean window?" in (
        done.stderr
    )
    assert "Traceback" not in done.stderr
    file.write_text("project: shop\nendpoints: [\n")
    done = noria(project, "up", "--port", "0", check=False)
    assert done.returncode == 1
    assert "noria.yaml:" in done.stderr
    assert "isn't YAML" in done.stderr
    assert "Traceback" not in done.stderr


def _bound_by_permissions() -> None:
    """Root may write everywhere; without this capability permission bits bind it like anybody."""
    drop_from_bounding_set, dac_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


@pytest.mark.parametrize("command", ["init", "up", "status"])
def test_a_folder_that_may_not_be_written_is_said_with_what_to_do(project: Path, tmp_path: Path, command: str) -> None:
    folder = tmp_path / "empty" if command == "init" else project
    folder.mkdir(exist_ok=True)
    for path in (project / ".noria", folder):
        if path.exists():
            path.chmod(0o555)
    words = ["init", str(folder)] if command == "init" else ["--project", str(folder), command]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "noria.cli", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            preexec_fn=_bound_by_permissions,
        )
    finally:
        for path in (folder, project / ".noria"):
            path.chmod(0o755)
    assert done.returncode == 1
    assert str(folder) in done.stderr
    assert "writ" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "xllamacpp":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_a_missing_extra_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    host = LocalHost(tmp_path / "run", lambda _: model, tmp_path / "lock")
    with pytest.raises(MissingExtra) as caught:
        host.start(version(flavor=Flavor.GGUF))
    assert "noria[llama]" in caught.value.remedy
    assert host.running() == {}


@pytest.fixture
def paused(shop: Running) -> Iterator[int]:
    """The worker stands still, so that the log stays in the spool."""
    shop.shipped()
    pid = shop.processes()["worker"]
    os.kill(pid, signal.SIGSTOP)
    yield pid
    os.kill(pid, signal.SIGCONT)


def test_a_log_that_is_damaged_on_disk_loses_nothing_that_could_be_read_and_raises_an_alert(
    shop: Running, paused: int
) -> None:
    with Load(shop) as load:
        load.wait_for(200)
    before = set(load.answered)
    spool = shop.root / ".noria" / "spool"
    log = spool / "api-0.db-wal"
    size = log.stat().st_size
    with log.open("r+b") as file:
        file.seek(size // 3)
        file.write(random.Random(1).randbytes(size // 3))
    statuses = {shop.post(PREDICT, {"input": text})[0] for text in TEXTS[:20]}
    assert statuses <= {200, 503}
    os.kill(paused, signal.SIGCONT)
    shop.wait_until(lambda: shop.post(PREDICT, {"input": random.choice(TEXTS)})[0] == 200)
    with Load(shop) as after:
        after.wait_for(50)
    shop.shipped()

    ids = [row["id"] for row in shop.rows("SELECT databricks_request_id AS id FROM inference")]
    assert len(ids) == len(set(ids))
    assert set(after.answered) <= set(ids)
    lost = before - set(ids)
    letters = shop.rows("SELECT reason, count(*) AS n FROM dead_letter GROUP BY reason")
    print(
        f"\n{len(before)} requests answered before a third of the log was overwritten: {len(lost)} can't be read back; "
        f"dead letters {letters}; quarantine {[p.name for p in spool.glob('quarantine/**/*.db')]}; then {statuses}"
    )
    assert lost
    assert len(lost) < len(before)
    assert letters
    told = noria_json(shop.root, "alerts", "list", "--all")
    assert "spool" in {alert["monitor"] for alert in told}
    assert noria_json(shop.root, "audit", "verify")["verified"] is True
