"""A real Spark on this machine, started quickly: its JVM compiles little, and its tasks find the jobs of the tests."""

from pathlib import Path

from noria.adapters.spark import SparkCompute, check_installed
from noria.domain.errors import MissingExtra

CONFIGURATION = {
    "spark.executorEnv.PYTHONPATH": str(Path(__file__).parent.parent),
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


def begun() -> SparkCompute:
    """An engine of two cores."""
    return SparkCompute("local[2]", CONFIGURATION)


def missing() -> str:
    """Why there is no Spark here; empty if there is."""
    try:
        check_installed()
    except MissingExtra as error:
        return f"Spark was NOT run: {error.problem}"
    return ""
