"""Evidently's DataDriftPreset on two Parquet files, run in Evidently's own environment; prints one line of JSON."""

import json
import resource
import sys
import time

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

reference, current, *categorical = sys.argv[1:]
begun = time.perf_counter()
before, now = pd.read_parquet(reference), pd.read_parquet(current)
definition = DataDefinition(
    numerical_columns=[name for name in now if name not in categorical], categorical_columns=categorical
)
report = Report([DataDriftPreset()])
result = report.run(
    Dataset.from_pandas(now, data_definition=definition), Dataset.from_pandas(before, data_definition=definition)
).dict()
seconds = time.perf_counter() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mb": peak, "metrics": len(result["metrics"])}))
