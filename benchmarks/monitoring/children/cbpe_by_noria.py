"""Noria's CBPE on the same two Parquet files; prints one line of JSON."""

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from noria.evaluation.calibration import calibration_if_needed
from noria.evaluation.cbpe import estimate_windows


def main(reference: str, current: str, chunks: int) -> dict[str, Any]:
    """Estimate five measures for each chunk of the second file."""
    begun, busy = time.perf_counter(), time.process_time()
    before, now = pq.read_table(reference), pq.read_table(current, columns=["stated", "predicted"])
    calibration = calibration_if_needed(before["stated"].to_numpy(), before["right"].to_numpy())
    stated = now["stated"].to_numpy()
    chances = stated if calibration is None else calibration.apply(stated)
    windows = np.arange(len(stated)) * chunks // len(stated)
    found = estimate_windows(chances, now["predicted"].to_numpy(), windows, stated)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    values = {name: [each.measures()[name].value for each in found] for name in found[0].measures()}
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak, "values": values}


if __name__ == "__main__":
    reference, current, chunks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    main(reference, reference, 2)
    print(json.dumps(main(reference, current, chunks)))
