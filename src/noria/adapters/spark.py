"""Heavy work on Spark: a task a part, on this machine or on a cluster; implements ports.ComputeEngine.

What travels is text: the name of a function with its JSON arguments goes out, its JSON result comes back, as with the
warm child of `adapters.compute`, whose `run_job` the tasks call. So every machine of a cluster needs Noria installed,
with the same minor version of Python, and nothing of the driver's memory is pickled.

Spark's own scheduler decides where a part runs. Each part is a Spark job of one task, so that results come back as they
are made, and only as many wait as are under way.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from noria.adapters.codec import error_from_json
from noria.adapters.compute import LEAN, THREAD_LIMITS, run_job
from noria.adapters.spreading import spread
from noria.domain.errors import Cancelled, MissingExtra, NoriaError
from noria.ports import JobSpec

if TYPE_CHECKING:
    from pyspark import SparkContext

AHEAD: Final = 2
"""Parts under way for each core, so that none waits for the driver."""
MOST_AHEAD: Final = 512
"""Parts under way at most: each has a thread of the driver."""
_PYTHON_ERROR: Final = re.compile(r"[A-Z]\w*(Error|Exception): ")
_KILLED: Final = "Python worker exited unexpectedly"
_LOG: Final = Path(__file__).with_name("spark-log4j2.properties")
_PYTHON: Final = "spark.pyspark.python"
_JAVA: Final = "spark.driver.extraJavaOptions"
_HERE: Final = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
"""On one machine nobody else needs to reach the driver."""


class SparkCompute:
    """`ports.ComputeEngine` on Spark. The session begins with the first job, and is this engine's own.

    Args:
        master: Where: `local[N]`, or `spark://HOST:PORT`.
        configuration: Spark's own settings, over ours.
    """

    def __init__(self, master: str = "local[*]", configuration: Mapping[str, str] | None = None) -> None:
        self._master = master
        self._configuration = dict(configuration or {})
        self._beginning = threading.Lock()
        self._spark: SparkContext | None = None
        self._closed = False

    def run(self, job: JobSpec, wanted: Callable[[], bool] | None = None) -> Mapping[str, Any]:
        """See `ports.ComputeEngine`; a job that nobody wants any more has its task cancelled."""
        if wanted is not None and not wanted():
            raise Cancelled(f"{job.function} was not begun: nobody wants it any more.")
        (result,) = self.map(job, [{}])
        return result

    def map(self, job: JobSpec, parts: Sequence[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        """See `ports.ComputeEngine`: as many parts at a time as Spark has cores, and some more that wait for them."""
        spark = self.session()
        group = f"noria-{uuid.uuid4().hex}"

        def work(part: Mapping[str, Any]) -> Mapping[str, Any]:
            return self._task(spark, group, job, part)

        def stop() -> None:
            if not self._closed:
                spark.cancelJobGroup(group)

        at_a_time = min(len(parts) or 1, AHEAD * spark.defaultParallelism, MOST_AHEAD)
        yield from spread(work, parts, at_a_time, stop)

    def close(self) -> None:
        """End the session, with the tasks that it is running."""
        self._closed = True
        with self._beginning:
            if self._spark is not None:
                self._spark.stop()
                self._spark = None

    def _task(self, spark: "SparkContext", group: str, job: JobSpec, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have one part done."""
        request = json.dumps({"function": job.function, "arguments": {**job.arguments, **part}})
        try:
            spark.setJobGroup(group, job.function, interruptOnCancel=True)
            (said,) = spark.parallelize([request], 1).mapPartitions(answers).collect()
        except Exception as error:  # Java's, Py4J's and PySpark's have no common type
            raise self._failure(job, error) from error
        reply = json.loads(said)
        if "error" in reply:
            raise error_from_json(reply["error"])
        value: Mapping[str, Any] = reply["value"]
        return value

    def _failure(self, job: JobSpec, error: Exception) -> NoriaError:
        """What is said of a part whose task did not come to its end."""
        if self._closed:
            return NoriaError(f"{job.function} was stopped: the compute engine was closed.", "Run it again.")
        if _KILLED in str(error):
            return NoriaError(
                f"The process that ran {job.function} was killed, most likely because memory ran out.",
                "Give it fewer rows or the executors more memory, then run it again.",
            )
        return NoriaError(
            f"The Spark task that ran {job.function} failed: {_reason(error)}.",
            "Every machine of the cluster needs Noria and the same Python as this one; Spark's log says more.",
        )

    def session(self) -> "SparkContext":
        """The session, begun if it isn't yet, and anew if its JVM died.

        Raises:
            MissingExtra: PySpark or Java isn't installed.
            NoriaError: Spark does not start, or the engine is closed.
        """
        with self._beginning:
            if self._closed:
                raise NoriaError("The compute engine is closed.", "Start a new one.")
            if self._spark is not None and not _alive(self._spark):
                _buried()
                self._spark = None
            if self._spark is None:
                self._spark = _begun(self._master, self._configuration)
            return self._spark


def answers(requests: Iterable[str]) -> Iterator[str]:
    """What a task does: run the jobs that it was sent, and say what each returned or raised."""
    for request in requests:
        job = json.loads(request)
        yield json.dumps(run_job(job["function"], job["arguments"]))


def check_installed() -> None:
    """Say what is missing, if Spark can't run here.

    Raises:
        MissingExtra: PySpark or Java isn't installed.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise MissingExtra("Running jobs on Spark needs PySpark.", "Install it: pip install 'noria[spark]'.")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=f"{home}/bin" if home else None) is None:
        where = f"{home} has none" if home else "there is none"
        raise MissingExtra(
            f"Spark needs Java 17 or newer, and {where}.",
            "Install it (Debian: apt-get install default-jre-headless), or set JAVA_HOME.",
        )


def _begun(master: str, configuration: Mapping[str, str]) -> "SparkContext":
    """A session of our own.

    Raises:
        MissingExtra: PySpark or Java isn't installed.
        NoriaError: Spark does not start.
    """
    check_installed()
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException

    ours = {
        "spark.app.name": "noria",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        **{f"spark.executorEnv.{name}": "1" for name in THREAD_LIMITS},  # a task has one core
        **{f"spark.executorEnv.{name}": value for name, value in LEAN.items()},
        **(_HERE if master.startswith("local") else {}),
        **configuration,
    }
    ours[_JAVA] = f"-Dlog4j2.configurationFile={_LOG.as_uri()} {ours.get(_JAVA, '')}".strip()
    os.environ["PYSPARK_PYTHON"] = ours.get(_PYTHON) or os.environ.get("PYSPARK_PYTHON") or sys.executable
    try:
        return SparkContext(conf=SparkConf().setMaster(master).setAll(list(ours.items())))
    except Exception as error:  # Java's errors come in many types
        if not isinstance(error, PySparkException | ValueError | OSError) and "py4j" not in type(error).__module__:
            raise
        raise NoriaError(
            f"Spark does not start with the master {master}: {_reason(error)}.",
            "Check compute.spark in noria.yaml, and that java -version says 17 or newer.",
        ) from error


def _alive(spark: "SparkContext") -> bool:
    """Whether a session can take a job: neither was it stopped from elsewhere nor did its JVM die."""
    try:
        return not spark._jsc.sc().isStopped()
    except Exception:  # what Py4J raises of a connection that is refused
        return False


def _buried() -> None:
    """Let PySpark forget a JVM that may be dead: it keeps one for the process, and looks at it no more."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    SparkContext._active_spark_context = None
    SparkContext._gateway = SparkContext._jvm = None
    if gateway is not None:
        with contextlib.suppress(Exception):
            gateway.shutdown()
        gateway.proc.kill()
        gateway.proc.communicate()


def _reason(error: Exception) -> str:
    """The line of a Java stack that says most: what Python said there, or the first of Java's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    python = [line for line in lines if _PYTHON_ERROR.match(line)]
    java = [line.rpartition("Exception: ")[2] for line in lines if "Exception: " in line]
    said = (python[-1:] or java or lines or [type(error).__name__])[0]
    return said.rstrip(".")[:300]
