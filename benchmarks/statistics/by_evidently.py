"""Run by Evidently's own Python: its defaults at each look of unchanged streams, until one says that it drifted.

`by_evidently.py IN OUT SECONDS`: IN is JSON `{kind, rows, reference, streams}`, `rows` being those of a look and
`streams` lists of rows; OUT gets the look at which each stream alarmed, or null, and how many looks it had.
"""

import json
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import pandas as pd  # noqa: E402
from evidently import DataDefinition, Dataset, Report  # noqa: E402
from evidently.metrics import ValueDrift  # noqa: E402

COLUMNS = {"numeric": "numerical_columns", "categorical": "categorical_columns", "text": "text_columns"}


def main(asked: dict, seconds: float) -> list:
    """For each stream `[look of the alarm or null, looks]`."""
    definition = DataDefinition(**{COLUMNS[asked["kind"]]: ["x"]})

    def dataset(rows):
        return Dataset.from_pandas(pd.DataFrame({"x": rows}), data_definition=definition)

    reference, rows, found = dataset(asked["reference"]), asked["rows"], []
    until = time.monotonic() + seconds
    for stream in asked["streams"]:
        looks = len(stream) // rows
        alarm = None
        for look in range(looks):
            if time.monotonic() > until:
                return found or [[None, look]]
            now = dataset(stream[look * rows : (look + 1) * rows])
            told = Report([ValueDrift(column="x")], include_tests=True).run(now, reference).dict()
            if told["tests"][0]["status"].name == "FAIL":
                alarm = look + 1
                break
        found.append([alarm, looks])
    return found


if __name__ == "__main__":
    result = main(json.loads(Path(sys.argv[1]).read_text()), float(sys.argv[3]))
    Path(sys.argv[2]).write_text(json.dumps(result))
