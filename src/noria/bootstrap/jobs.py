"""Jobs that compute engines run, by name: what they are given and what they return is JSON.

A job may run on another machine than the worker, many times at once and more than once for the same part: it reads
what its arguments name and changes nothing.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def window_states(part: Mapping[str, Any], plan: Mapping[str, Any], baseline: str = "") -> dict[str, Any]:
    """What a part of the inference table comes to.

    Args:
        part: Of the table, `ports.Part` as JSON.
        plan: What is wanted of it, `monitoring.computing.Plan` as JSON.
        baseline: The baseline file whose cells values are counted in, in base64; by default the plan names it.

    Returns:
        `rows`: how many of its rows were meant; `states`: what `computing.from_json` reads.

    Raises:
        Conflict: A file is gone: the table was tidied since it was cut into parts.
        StorageCorrupted: A file, or the baseline, can't be read.
    """
    from noria.adapters.scorers import scorers
    from noria.adapters.tables.parts import read_part
    from noria.evaluation.baseline import Baseline
    from noria.monitoring.computing import COLUMNS, Plan, compute, to_json
    from noria.ports import Part

    rows = 0

    def counted() -> Iterator["pa.Table"]:
        nonlocal rows
        for batch in read_part(Part.from_json(part), COLUMNS):
            rows += batch.num_rows
            yield batch

    reference = Baseline.from_bytes(b64decode(baseline)) if baseline else None
    wanted = Plan.from_json(plan)
    states = compute(counted(), wanted, reference, scorers(wanted.columns or ()))
    return {"rows": rows, "states": to_json(states)}
