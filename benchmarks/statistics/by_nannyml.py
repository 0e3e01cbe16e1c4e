"""Run by NannyML's own Python: its defaults on unchanged streams, in chunks of a look's rows; as `by_evidently.py`."""

import json
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import nannyml  # noqa: E402
import pandas as pd  # noqa: E402


def frame(kind: str, rows: list) -> pd.DataFrame:
    """A stream as NannyML reads it; a score is whether a prediction of 1 was right."""
    if kind == "score":
        return pd.DataFrame({"y": [int(x) for x in rows], "p": 1, "s": 0.8})
    return pd.DataFrame({"x": rows})


def calculator(kind: str, rows: int):
    """Its calculator with all defaults but the chunks."""
    if kind == "score":
        return nannyml.PerformanceCalculator(
            metrics=["accuracy"],
            y_true="y",
            y_pred="p",
            y_pred_proba="s",
            problem_type="classification_binary",
            chunk_size=rows,
        )
    treat = {"treat_as_categorical": ["x"]} if kind == "categorical" else {}
    return nannyml.UnivariateDriftCalculator(column_names=["x"], chunk_size=rows, **treat)


def main(asked: dict, seconds: float) -> list:
    """For each stream `[look of the alarm or null, looks]`."""
    kind, rows, found = asked["kind"], asked["rows"], []
    fitted = calculator(kind, rows).fit(frame(kind, asked["reference"]))
    until = time.monotonic() + seconds
    for stream in asked["streams"]:
        if time.monotonic() > until:
            break
        table = fitted.calculate(frame(kind, stream)).filter(period="analysis").to_df()
        alerts = table[[name for name in table.columns if name[-1] == "alert"]].to_numpy().any(axis=1)
        found.append([int(alerts.argmax()) + 1 if alerts.any() else None, len(alerts)])
    return found


if __name__ == "__main__":
    result = main(json.loads(Path(sys.argv[1]).read_text()), float(sys.argv[3]))
    Path(sys.argv[2]).write_text(json.dumps(result))
