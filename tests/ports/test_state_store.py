"""What every StateStore promises, told of the SQL one (SQLite; PostgreSQL where one is named) and of its fake."""

import os
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from fakes.state import FakeState
from noria.adapters.state import schema, writing
from noria.adapters.state.sql import SqlState, migrate
from noria.adapters.state.sqlite import SqliteState, file_of, is_current
from noria.domain.audit import AuditEvent, AuditHead, broken_at
from noria.domain.endpoint import Role, Route, Target, Wire
from noria.domain.errors import Conflict, StateUnavailable, StorageCorrupted
from noria.domain.events import GatePassed, RunStarted
from noria.domain.gate import GateResult, Verdict
from noria.domain.rollout import Arm, Rollout, Stage
from noria.domain.status import AppliedProject

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
POSTGRES = os.environ.get("NORIA_TEST_POSTGRES_URL", "")


class Ticking:
    """A clock that moves on by a second with each look."""

    def __init__(self):
        self.at = NOW

    def now(self):
        self.at += timedelta(seconds=1)
        return self.at

    def now_us(self):
        return int(self.now().timestamp() * 1e6)


def _empty_postgres():
    engine = create_engine(POSTGRES)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS nouns, events, audit, meta, alembic_version"))
    engine.dispose()
    return POSTGRES


KINDS = ["sqlite", "light", "fake", *(["postgres"] if POSTGRES else [])]


@pytest.fixture(params=KINDS)
def state(request, tmp_path):
    if request.param == "fake":
        yield FakeState(Ticking())
        return
    url = _empty_postgres() if request.param == "postgres" else f"sqlite:///{tmp_path}/state.db"
    migrate(url)
    store = SqliteState(file_of(url), Ticking()) if request.param == "light" else SqlState(url, Ticking())
    yield store
    store.close()


def verdict(id="v1", endpoint="triage"):
    result = GateResult(gate="quality", passed=True, summary="As good.", numbers={"accuracy": 0.8})
    return Verdict(
        id=id,
        endpoint=endpoint,
        model="triage",
        version="1",
        champion="",
        decided_at=NOW,
        policy_hash="p",
        results=(result,),
    )


def route(revision=1):
    target = Target(model="triage", version="1", role=Role.CHAMPION, weight=100, url="unix:/x", verdict_id="v1")
    return Route(endpoint="triage", wire=Wire.MLFLOW, revision=revision, targets=(target,))


def test_a_noun_is_read_back_as_it_was_put(state):
    rollout = Rollout(
        id="v1",
        endpoint="triage",
        model="triage",
        version="1",
        verdict_id="v1",
        stage=Stage.CANARY,
        started_at=NOW,
        changed_at=NOW,
        cursor_us=1,
        feedback_cursor_us=2,
        log_threshold=3.7,
        champion=Arm(10, 1, 5, 2),
        log_e={"errors": float("-inf")},
    ).enter(Stage.CANARY, NOW, "enough", step=1, weight=50)
    with state.note() as change:
        change.put(rollout)
        change.put(verdict())
    assert state.get(Rollout, "v1") == rollout
    assert state.get(Verdict, "v1") == verdict()
    assert state.get(Verdict, "v2") is None


def test_a_route_is_found_under_its_endpoints_name(state):
    with state.change("ana", "version.promoted", "triage/1") as change:
        change.put(route())
        assert change.get(Route, "triage") == route()
    with state.note() as change:
        change.put(route(revision=2))
    assert state.get(Route, "triage").revision == 2
    assert len(state.find(Route)) == 1


def test_nouns_are_found_by_endpoint_the_latest_changed_first(state):
    for name, endpoint in [("v1", "a"), ("v2", "b"), ("v3", "a"), ("v1", "a")]:
        with state.note() as change:
            change.put(verdict(name, endpoint))
    assert [v.id for v in state.find(Verdict)] == ["v1", "v3", "v2"]
    assert [v.id for v in state.find(Verdict, endpoint="a")] == ["v1", "v3"]
    assert [v.id for v in state.find(Verdict, limit=1)] == ["v1"]
    assert state.find(Rollout) == []


def test_a_change_that_fails_leaves_nothing_behind(state):
    before = state.revision()

    def fail():
        with state.change("ana", "version.promoted", "triage/1") as change:
            change.put(verdict())
            change.emit(GatePassed(endpoint="triage", verdict_id="v1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert state.get(Verdict, "v1") is None
    assert state.pending_events() == []
    assert list(state.audit_trail()) == []
    assert state.revision() == before
    with state.change("ana", "version.promoted", "triage/1") as change:
        change.put(verdict())
    assert [e.sequence for e in state.audit_trail()] == [1]


def test_each_change_adds_its_sealed_event_to_the_audit_chain(state):
    evidence = {"log_e": 3.2, "rows": 17, "moved": ("a", "b"), "more": {"at": "now", "none": None}}
    for n in range(3):
        with state.change("ana", "version.promoted", f"triage/{n}", reason="beßer 🙂", evidence=evidence) as change:
            change.put(verdict(f"v{n}"))
    with state.note() as change:
        change.put(verdict("v9"))
    trail = list(state.audit_trail())
    assert broken_at(trail) is None
    assert [e.subject for e in trail] == ["triage/0", "triage/1", "triage/2"]
    assert trail[0].evidence == {"log_e": 3.2, "rows": 17, "moved": ["a", "b"], "more": {"at": "now", "none": None}}
    assert (trail[0].actor, trail[0].action, trail[0].reason) == ("ana", "version.promoted", "beßer 🙂")
    assert NOW < trail[0].at < trail[1].at
    assert state.get(AuditHead, "audit") == AuditHead(sequence=3, hash=trail[-1].hash)


def test_the_audit_trail_can_be_read_in_parts(state):
    for n in range(7):
        with state.change("ana", "a.b", str(n)):
            pass
    assert [e.sequence for e in state.audit_trail(after=2)] == [3, 4, 5, 6, 7]
    assert [e.sequence for e in state.audit_trail(after=2, limit=2)] == [3, 4]
    assert list(state.audit_trail(after=7)) == []
    assert list(state.audit_trail(limit=0)) == []


def test_the_revision_grows_with_every_put_and_every_new_event_and_with_nothing_else(state):
    seen = [state.revision()]
    with state.note() as change:
        change.put(verdict())
    seen.append(state.revision())
    with state.note() as change:
        change.emit(RunStarted(endpoint="triage", run_id="r"))
    seen.append(state.revision())
    assert seen == sorted(set(seen))
    with state.note() as change:
        change.emit(RunStarted(endpoint="triage", run_id="r"))
        change.get(Verdict, "v1")
    state.mark_handled("run:r")
    assert state.revision() == seen[-1]


def test_events_come_oldest_first_until_they_are_handled(state):
    told = [RunStarted(endpoint="triage", run_id=str(n)) for n in range(4)]
    for event in told:
        with state.note() as change:
            change.emit(event)
    assert state.pending_events() == told
    assert state.pending_events(limit=2) == told[:2]
    state.mark_handled(told[0].id)
    state.mark_handled(told[0].id)
    state.mark_handled("unknown")
    assert state.pending_events() == told[1:]


def test_an_event_that_is_known_is_not_told_again(state):
    event = GatePassed(endpoint="triage", verdict_id="v1")
    with state.note() as change:
        change.emit(event)
        change.emit(event)
    state.mark_handled(event.id)
    with state.change("ana", "a.b", "c") as change:
        change.emit(event)
    assert state.pending_events() == []


def test_a_change_inside_a_change_is_refused_at_once(state):
    with state.note() as outer:
        outer.put(verdict())
        with pytest.raises(RuntimeError, match="inside another"), state.note():
            pass
    assert state.get(Verdict, "v1") is not None


def test_threads_that_count_in_one_noun_lose_no_step(state):
    with state.note() as change:
        change.put(route(revision=0))

    def count():
        for _ in range(15):
            with state.change("ana", "a.b", "c") as change:
                change.put(route(change.get(Route, "triage").revision + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert state.get(Route, "triage").revision == 60
    trail = list(state.audit_trail())
    assert len(trail) == 60
    assert broken_at(trail) is None


# --- of the database ------------------------------------------------------------------------------------------------


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/home/state.db"


def test_the_migrated_schema_is_the_one_that_the_code_uses(url):
    migrate(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == schema.HEAD
    engine.dispose()
    assert ScriptDirectory(str(Path(schema.__file__).parent / "migrations")).get_current_head() == schema.HEAD


def test_migrating_twice_keeps_what_is_there(url):
    migrate(url)
    state = SqlState(url, Ticking())
    with state.note() as change:
        change.put(verdict())
    migrate(url)
    assert state.get(Verdict, "v1") == verdict()
    state.close()


def test_a_schema_from_a_newer_version_is_left_alone(url):
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StateUnavailable, match="another version") as told:
        migrate(url)
    assert "newest Noria" in told.value.remedy


def test_what_is_committed_survives_a_reopening(url):
    migrate(url)
    first = SqlState(url, Ticking())
    with first.change("ana", "a.b", "c") as change:
        change.put(route())
    first.close()
    second = SqlState(url, Ticking())
    assert second.get(Route, "triage") == route()
    assert [e.action for e in second.audit_trail()] == ["a.b"]
    second.close()


def test_a_state_without_tables_says_how_to_make_them(tmp_path):
    state = SqlState(f"sqlite:///{tmp_path}/state.db", Ticking())
    with pytest.raises(StateUnavailable, match="noria up"):
        state.revision()
    state.close()


def test_a_state_that_cannot_be_opened_says_so(tmp_path):
    state = SqlState(f"sqlite:///{tmp_path}/nowhere/state.db", Ticking())
    with pytest.raises(StateUnavailable, match="nowhere"):
        state.revision()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateUnavailable, match="can't be made"):
        migrate(f"sqlite:///{tmp_path}/file/state.db")


def test_a_file_that_is_no_database_is_named_with_what_to_do(tmp_path):
    (tmp_path / "state.db").write_bytes(b"not a database at all" * 100)
    url = f"sqlite:///{tmp_path}/state.db"
    with pytest.raises(StorageCorrupted, match=r"state\.db") as told:
        migrate(url)
    assert "backup" in told.value.remedy
    state = SqlState(url, Ticking())
    with pytest.raises(StorageCorrupted, match="backup"):
        state.revision()


def test_a_noun_that_was_damaged_is_told_and_not_guessed(url):
    migrate(url)
    state = SqlState(url, Ticking())
    with state.change("ana", "a.b", "c", evidence={"n": 1}) as change:
        change.put(route())
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE nouns SET body = '{' WHERE kind = 'Route'"))
        connection.execute(text("UPDATE audit SET evidence = '{'"))
    engine.dispose()
    with pytest.raises(StorageCorrupted, match="Route"):
        state.get(Route, "triage")
    with pytest.raises(StorageCorrupted, match="Audit event 1"):
        list(state.audit_trail())
    state.close()


def test_a_lock_that_another_process_keeps_is_told_as_a_conflict(url, monkeypatch):
    monkeypatch.setattr(writing, "BUSY_MS", 20)
    migrate(url)
    engine, state = create_engine(url), SqlState(url, Ticking())
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(Conflict, match="locked"), state.note():
            pass
        assert state.revision() == 0
    engine.dispose()
    state.close()


def test_the_account_can_be_read_with_any_sql_client(url):
    migrate(url)
    state = SqlState(url, Ticking())
    with state.change("ana", "version.promoted", "triage/1", reason="better"):
        pass
    engine = create_engine(url)
    with engine.connect() as connection:
        row = connection.execute(text("SELECT actor, action, subject, reason FROM audit")).one()
        assert tuple(row) == ("ana", "version.promoted", "triage/1", "better")
    engine.dispose()
    [event] = state.audit_trail()
    assert isinstance(event, AuditEvent)
    state.close()


def test_a_database_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setitem(schema.PATIENCE, "connect_timeout", 2)  # no less is possible
    with socket.create_server(("127.0.0.1", 0)) as silent:
        state = SqlState(f"postgresql+psycopg://noria@127.0.0.1:{silent.getsockname()[1]}/noria", Ticking())
        with pytest.raises(StateUnavailable, match="timeout"):
            state.revision()
        state.close()


def test_only_a_plain_file_is_read_without_sqlalchemy(tmp_path):
    assert file_of(f"sqlite:///{tmp_path}/state.db") == tmp_path / "state.db"
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "postgresql+psycopg://host/noria"):
        assert file_of(url) is None


def test_whether_the_schema_is_current_is_found_out_without_touching_anything(url, tmp_path):
    file = file_of(url)
    assert not is_current(file)
    assert not file.exists()
    (tmp_path / "other.db").write_text("not a database, but long enough to be looked at")
    assert not is_current(tmp_path / "other.db")
    migrate(url)
    assert is_current(file)


def test_reading_without_sqlalchemy_tells_what_is_wrong_and_recovers(url):
    file = file_of(url)
    state = SqliteState(file, Ticking())
    with pytest.raises(StateUnavailable, match="can't be used"):
        state.revision()
    assert not file.exists()
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(StateUnavailable, match="no tables"):
        state.revision()
    migrate(url)
    assert state.revision() == 0
    with state.change("ana", "version.promoted", "triage/1") as change:
        change.put(verdict())
    assert state.get(Verdict, "v1") == verdict()
    state.close()
    state = SqliteState(file, Ticking())
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageCorrupted, match="damaged"):
        state.find(Verdict)
    state.close()


WRITER = """
import sys
from datetime import UTC, datetime
from noria.adapters.state.sql import SqlState
from noria.domain.events import RunStarted
from noria.domain.status import AppliedProject

class Now:
    def now(self):
        return datetime.now(UTC)

state = SqlState(sys.argv[1], Now())
for n in range(10**6):
    with state.change("ana", "project.applied", str(n)) as change:
        change.put(AppliedProject(text=str(n), hash="", applied_at=state._clock.now(), actor="ana"))
        change.emit(RunStarted(endpoint="triage", run_id=str(n)))
    print(n, flush=True)
"""


@pytest.mark.chaos
def test_a_writer_that_is_killed_leaves_whole_changes_only(url):
    migrate(url)
    for kill_after in (1, 7, 20):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
        told = [int(next(writer.stdout)) for _ in range(kill_after)][-1]
        writer.kill()
        rest = writer.communicate()[0].split()
        state = SqlState(url, Ticking())
        trail = list(state.audit_trail())
        assert broken_at(trail) is None
        last = int(trail[-1].subject)
        assert last >= (int(rest[-1]) if rest else told)  # what was told to be committed is there
        assert state.get(AppliedProject, "project").text == str(last)
        assert RunStarted(endpoint="triage", run_id=str(last)) in state.pending_events(10**6)
        assert state.get(AuditHead, "audit") == AuditHead(sequence=len(trail), hash=trail[-1].hash)
        state.close()


def test_the_state_is_light_enough_for_the_api_process():
    heavy = "('sqlalchemy', 'alembic', 'pandas', 'pyarrow', 'mlflow')"
    code = f"import sys, noria.adapters.state.sqlite; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
