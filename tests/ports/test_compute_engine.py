"""What every compute engine promises, and what the local one adds: a process of its own that may die."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.compute import InlineCompute
from fakes.sparks import CONFIGURATION
from noria import bootstrap
from noria.adapters import spark as spark_module
from noria.adapters.compute import NICE, LocalCompute
from noria.adapters.spark import SparkCompute
from noria.domain.errors import InvalidData, MissingExtra, NoriaError
from noria.ports import ComputeEngine, JobSpec
from noria.settings import Compute

TESTS = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _jobs_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture(params=["inline", "local", pytest.param("spark", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Iterator[ComputeEngine]:
    if request.param == "spark":
        yield request.getfixturevalue("spark")  # one session for all tests
        return
    made = InlineCompute() if request.param == "inline" else LocalCompute()
    yield made
    made.close()


@pytest.fixture(params=[InlineCompute, LocalCompute, lambda: LocalCompute(processes=3), SparkCompute])
def closed(request: pytest.FixtureRequest) -> ComputeEngine:
    made: ComputeEngine = request.param()
    made.close()
    return made


@pytest.fixture
def pair() -> Iterator[LocalCompute]:
    made = LocalCompute(processes=2, threads=1)
    yield made
    made.close()


@pytest.fixture
def local() -> Iterator[LocalCompute]:
    made = LocalCompute(threads=1)
    yield made
    made.close()


def job(name: str, **arguments: object) -> JobSpec:
    return JobSpec(f"fakes.jobs:{name}", arguments)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_a_job_gets_its_arguments_and_gives_its_result(engine: ComputeEngine) -> None:
    assert engine.run(job("add", a=2, b=3)) == {"sum": 5}


def test_arguments_and_results_are_json(engine: ComputeEngine) -> None:
    assert engine.run(job("echo", pair=(1, "ü\n"), nothing=None)) == {"pair": [1, "ü\n"], "nothing": None}


def test_an_error_of_the_domain_keeps_its_type_problem_and_remedy(engine: ComputeEngine) -> None:
    with pytest.raises(InvalidData) as caught:
        engine.run(job("refuse"))
    assert (caught.value.problem, caught.value.remedy) == ("Column label is missing.", "Add it.")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("divide", "ZeroDivisionError: division by zero."),
        ("leave", "SystemExit: 3."),
        ("not_json", "TypeError: Object of type set is not JSON serializable."),
        ("no_such_job", "AttributeError: module 'fakes.jobs' has no attribute 'no_such_job'."),
    ],
)
def test_any_other_error_is_told_in_its_last_line(engine: ComputeEngine, name: str, problem: str) -> None:
    with pytest.raises(NoriaError) as caught:
        engine.run(job(name))
    assert caught.value.problem == problem
    assert engine.run(job("add", a=1, b=1)) == {"sum": 2}


def test_a_closed_engine_takes_no_job(closed: ComputeEngine) -> None:
    with pytest.raises(NoriaError, match="closed"):
        closed.run(job("add", a=1, b=1))
    with pytest.raises(NoriaError, match="closed"):
        next(closed.map(job("add", a=1), [{"b": 1}]))


# --- many parts ---


def test_a_job_is_run_once_for_each_part_and_each_result_is_given(engine: ComputeEngine) -> None:
    results = list(engine.map(job("add", a=100), [{"b": n} for n in range(10)]))
    assert sorted(result["sum"] for result in results) == list(range(100, 110))


def test_no_parts_give_no_results(engine: ComputeEngine) -> None:
    assert list(engine.map(job("add", a=1), [])) == []


def test_what_a_part_says_comes_before_what_the_job_says(engine: ComputeEngine) -> None:
    assert list(engine.map(job("echo", a=1, b=(1,)), [{"a": 2}])) == [{"a": 2, "b": [1]}]


def test_the_error_of_a_part_is_raised_as_it_was_there_and_ends_the_map(engine: ComputeEngine, tmp_path: Path) -> None:
    file = tmp_path / "begun"
    parts = [{"file": str(file), "fail": True} for _ in range(100)]
    results = engine.map(job("note"), parts)
    with pytest.raises(InvalidData) as caught:
        next(results)
    assert (caught.value.problem, caught.value.remedy) == ("Part is bad.", "Mend it.")
    assert list(results) == []
    assert len(file.read_text()) < 50
    assert engine.run(job("add", a=1, b=1)) == {"sum": 2}


def test_a_map_begins_when_its_first_result_is_asked_for(engine: ComputeEngine, tmp_path: Path) -> None:
    file = tmp_path / "begun"
    engine.map(job("note"), [{"file": str(file)}])
    assert not file.exists()


def test_a_map_that_is_closed_begins_no_further_part(engine: ComputeEngine, tmp_path: Path) -> None:
    file = tmp_path / "begun"
    results = engine.map(job("note"), [{"file": str(file)} for _ in range(100)])
    next(results)
    results.close()
    for _ in range(20):
        assert engine.run(job("add", a=1, b=1)) == {"sum": 2}
    assert len(file.read_text()) < 20


def test_results_wait_to_be_asked_for(engine: ComputeEngine, tmp_path: Path) -> None:
    """Otherwise memory would grow with the parts while their results are added up."""
    file = tmp_path / "begun"
    results = engine.map(job("note"), [{"file": str(file)} for _ in range(100)])
    for _ in range(3):
        next(results)
    assert len(file.read_text()) < 50
    assert len(list(results)) == 97
    assert len(file.read_text()) == 100


def test_another_job_runs_between_the_parts_of_a_map(engine: ComputeEngine) -> None:
    results = engine.map(job("add", a=1), [{"b": n} for n in range(50)])
    next(results)
    assert engine.run(job("add", a=1, b=1)) == {"sum": 2}
    assert len(list(results)) == 49


# --- the local one ---


def test_one_warm_process_runs_all_jobs_and_gives_way_to_others(local: LocalCompute) -> None:
    first, second = local.run(job("pid")), local.run(job("pid"))
    assert first == second
    assert first["pid"] != os.getpid()
    assert first["nice"] == os.nice(0) + NICE


def test_a_job_has_as_many_threads_as_it_was_given(local: LocalCompute) -> None:
    assert local.run(job("environment", variable="OMP_NUM_THREADS")) == {"value": "1"}


def test_jobs_from_many_threads_take_turns(local: LocalCompute) -> None:
    sums: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: sums.append(local.run(job("add", a=n, b=0))["sum"])) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(sums) == list(range(8))


@pytest.mark.chaos
@pytest.mark.parametrize(("how", "word"), [(signal.SIGKILL, "memory"), (signal.SIGABRT, "signal 6")])
def test_a_job_whose_process_dies_is_an_error_and_the_next_one_runs(local: LocalCompute, how: int, word: str) -> None:
    with pytest.raises(NoriaError, match=word):
        local.run(job("die", how=int(how)))
    assert local.run(job("add", a=1, b=1)) == {"sum": 2}


@pytest.mark.chaos
def test_a_process_that_was_killed_while_idle_is_replaced(local: LocalCompute) -> None:
    before = local.run(job("pid"))["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: not _alive(before))
    assert local.run(job("add", a=1, b=1)) == {"sum": 2}


def test_closing_stops_the_job_under_way(local: LocalCompute, tmp_path: Path) -> None:
    file = tmp_path / "begun"
    failure: list[NoriaError] = []

    def work() -> None:
        with pytest.raises(NoriaError, match="closed") as caught:
            local.run(job("wait", file=str(file), seconds=60))
        failure.append(caught.value)

    thread = threading.Thread(target=work)
    thread.start()
    until(file.exists)
    local.close()
    thread.join(10)
    assert len(failure) == 1


@pytest.mark.chaos
def test_a_job_does_not_outlive_the_worker_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, str(file)])
    until(lambda: file.exists() and file.read_text() != "")
    job_pid = int(file.read_text())
    worker.kill()
    worker.wait(10)
    until(lambda: not _alive(job_pid))


_WORKER = """
import sys
from noria.adapters.compute import LocalCompute
from noria.ports import JobSpec
LocalCompute().run(JobSpec("fakes.jobs:wait", {"file": sys.argv[1], "seconds": 60}))
"""


@pytest.mark.chaos
def test_closing_a_map_stops_the_parts_under_way(local: LocalCompute, tmp_path: Path) -> None:
    working, file = local.run(job("pid"))["pid"], tmp_path / "begun"
    parts = [{"file": os.devnull, "seconds": 0}, {"file": str(file), "seconds": 60}]
    results = local.map(job("wait"), parts)
    next(results)
    until(file.exists)
    results.close()
    until(lambda: not _alive(working))
    assert local.run(job("add", a=1, b=1)) == {"sum": 2}


@pytest.mark.chaos
def test_a_map_that_is_interrupted_does_not_wait_for_the_job_of_another(local: LocalCompute, tmp_path: Path) -> None:
    file = tmp_path / "begun"
    other = threading.Thread(target=lambda: _outcome(local, job("wait", file=str(file), seconds=60)))
    other.start()
    until(file.exists)
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(local.map(job("add", a=1), [{"b": n} for n in range(9)]))
    assert other.is_alive()
    local.close()
    other.join(10)


def test_several_processes_work_side_by_side(pair: LocalCompute, tmp_path: Path) -> None:
    """Each part waits for the other to have begun."""
    folder = str(tmp_path)
    parts = [{"name": "a", "other": "b"}, {"name": "b", "other": "a"}]
    pids = {result["pid"] for result in pair.map(job("meet", folder=folder), parts)}
    assert len(pids) == 2
    assert len(list(pair.map(job("pid"), [{}] * 20))) == 20


# --- Spark ---


@pytest.mark.slow
def test_spark_works_on_its_cores_side_by_side_in_processes_of_its_own(spark: SparkCompute, tmp_path: Path) -> None:
    parts = [{"name": "a", "other": "b"}, {"name": "b", "other": "a"}]
    pids = {result["pid"] for result in spark.map(job("meet", folder=str(tmp_path)), parts)}
    assert len(pids | {os.getpid()}) == 3


@pytest.mark.slow
@pytest.mark.chaos
def test_a_task_whose_process_dies_is_an_error_and_the_next_one_runs(spark: SparkCompute) -> None:
    with pytest.raises(NoriaError, match="most likely because memory ran out"):
        spark.run(job("die"))
    assert spark.run(job("add", a=1, b=1)) == {"sum": 2}


@pytest.mark.slow
@pytest.mark.chaos
def test_closing_a_map_stops_its_tasks(spark: SparkCompute, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    results = spark.map(job("wait"), [{"file": str(tmp_path / "b"), "seconds": 0}, {"file": str(file), "seconds": 60}])
    next(results)
    until(lambda: file.exists() and file.read_text() != "")
    results.close()
    until(lambda: not _alive(int(file.read_text())))
    assert spark.run(job("add", a=1, b=1)) == {"sum": 2}


@pytest.mark.slow
@pytest.mark.chaos
def test_a_session_whose_jvm_died_is_replaced(spark: SparkCompute) -> None:
    from pyspark import SparkContext

    spark.run(job("pid"))
    SparkContext._gateway.proc.kill()
    SparkContext._gateway.proc.wait(10)
    assert spark.run(job("add", a=1, b=1)) == {"sum": 2}


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.usefixtures("spark")
def test_nothing_of_spark_outlives_the_worker_that_is_killed(tmp_path: Path) -> None:
    task, jvm = tmp_path / "task", tmp_path / "jvm"
    worker = subprocess.Popen([sys.executable, "-c", _SPARK_WORKER, str(task), str(jvm), json.dumps(CONFIGURATION)])
    until(lambda: task.exists() and task.read_text() != "")
    worker.kill()
    worker.wait(10)
    until(lambda: not _alive(int(task.read_text())) and not _alive(int(jvm.read_text())))


@pytest.mark.parametrize(("home", "said"), [(None, "there is none"), ("/nowhere", "/nowhere has none")])
def test_a_missing_java_is_said_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, home: str | None, said: str
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("JAVA_HOME", home) if home else monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingExtra, match=f"{said}.*default-jre-headless"):
        SparkCompute().run(job("add", a=1, b=1))


def test_a_missing_pyspark_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'noria\[spark\]'"):
        SparkCompute().run(job("add", a=1, b=1))


def test_the_project_file_says_which_engine_counts(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    settings = bootstrap.settings(project)
    local = bootstrap.counting(settings)
    assert isinstance(local, LocalCompute)
    local.close()
    spark = Compute.model_validate({"engine": "spark", "spark": {"master": "local[3]"}})
    asked = settings.model_copy(update={"project": settings.project.model_copy(update={"compute": spark})})
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingExtra, match="Java 17"):
        bootstrap.counting(asked)


_SPARK_WORKER = """
import json, sys, threading
from pathlib import Path
from pyspark import SparkContext
from noria.adapters.spark import SparkCompute
from noria.ports import JobSpec
engine = SparkCompute("local[1]", json.loads(sys.argv[3]))
engine.run(JobSpec("fakes.jobs:pid"))
Path(sys.argv[2]).write_text(str(SparkContext._gateway.proc.pid))
engine.run(JobSpec("fakes.jobs:wait", {"file": sys.argv[1], "seconds": 60}))
"""


def _outcome(engine: ComputeEngine, spec: JobSpec) -> None:
    with contextlib.suppress(NoriaError):
        engine.run(spec)


def _alive(pid: int) -> bool:
    """Whether any thread of a process runs: only after the last has ended can its parent see that it is dead."""
    try:
        ended = "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return not ended or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except FileNotFoundError:
        return False


@pytest.mark.chaos
def test_a_job_that_is_interrupted_is_stopped_and_its_result_is_nobody_elses(local: LocalCompute) -> None:
    before = local.run(job("pid"))["pid"]
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        local.run(job("wait", file=os.devnull, seconds=60))
    until(lambda: not _alive(before))
    assert local.run(job("add", a=1, b=1)) == {"sum": 2}


@pytest.mark.chaos
def test_a_part_whose_process_dies_is_an_error_and_the_next_map_runs(local: LocalCompute) -> None:
    with pytest.raises(NoriaError, match="memory"):
        list(local.map(job("die"), [{}, {}]))
    assert list(local.map(job("add", a=1), [{"b": 1}])) == [{"sum": 2}]
