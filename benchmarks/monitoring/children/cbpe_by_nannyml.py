"""NannyML's CBPE on two Parquet files, run in NannyML's own environment; prints one line of JSON."""

import json
import resource
import sys
import time
import warnings

warnings.simplefilter("ignore")

import nannyml  # noqa: E402 - it warns while it is imported
import pandas as pd  # noqa: E402

METRICS = ["accuracy", "precision", "recall", "f1", "roc_auc"]


def main(reference: str, current: str, chunks: int) -> dict:
    """Estimate five measures for each chunk of the second file."""
    begun, busy = time.perf_counter(), time.process_time()
    before, now = pd.read_parquet(reference), pd.read_parquet(current, columns=["stated", "predicted"])
    model = nannyml.CBPE(
        problem_type="classification_binary",
        y_pred_proba="stated",
        y_pred="predicted",
        y_true="right",
        metrics=METRICS,
        chunk_number=chunks,
    )
    found = model.fit(before).estimate(now).filter(period="analysis").to_df()
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    values = {name: found[(name, "value")].astype(float).tolist() for name in METRICS}
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak, "values": values}


if __name__ == "__main__":
    reference, current, chunks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    main(reference, reference, 2)
    print(json.dumps(main(reference, current, chunks)))
