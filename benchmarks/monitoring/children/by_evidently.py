"""Evidently's DataDriftPreset on two Parquet files, run in Evidently's own environment; prints one line of JSON."""

import json
import resource
import sys
import time
import warnings

warnings.simplefilter("ignore")

import pandas as pd  # noqa: E402 - Evidently warns while it is imported
from evidently import DataDefinition, Dataset, Report  # noqa: E402
from evidently.presets import DataDriftPreset  # noqa: E402


def main(reference: str, current: str, categorical: list, most: int | None = None) -> dict:
    """Compare the second file with the first; `most` cuts both short."""
    begun, busy = time.perf_counter(), time.process_time()
    before, now = pd.read_parquet(reference).iloc[:most], pd.read_parquet(current).iloc[:most]
    definition = DataDefinition(
        numerical_columns=[name for name in now if name not in categorical], categorical_columns=categorical
    )
    found = (
        Report([DataDriftPreset()])
        .run(*(Dataset.from_pandas(each, data_definition=definition) for each in (now, before)))
        .dict()
    )
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak, "metrics": len(found["metrics"])}


if __name__ == "__main__":
    reference, current, *categorical = sys.argv[1:]
    main(reference, reference, categorical, 1000)  # what is loaded late is loaded
    print(json.dumps(main(reference, current, categorical)))
