"""The records that are measured on: twelve columns as monitors see them, numbers, classes and measures of texts.

Fixed seeds. The later half of the records is slower and longer, so that there is something to find.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

REFERENCE = 50_000
"""Records that the baseline is made of."""
ROWS_A_GROUP = 100_000
CATEGORICAL = ("prediction", "input_language", "feature.team")
_LABELS = ("billing", "refund", "delivery", "baggage", "praise", "complaint", "account", "other")
_LANGUAGES = ("en", "es", "zh", "ar", "hi", "fr", "de", "pt", "ja", "sw")


def batch(rows: int, seed: int, shift: float = 0.0) -> pa.Table:
    """Records; `shift` moves some columns by so many of their deviations."""
    rng = np.random.default_rng(seed)
    tokens = rng.gamma(2, 60 * (1 + shift / 4), rows)
    answer = rng.gamma(3, 80, rows)
    waits = rng.random(rows) < 0.2
    return pa.table(
        {
            "execution_duration_ms": rng.lognormal(6 + 0.3 * shift, 0.5, rows),
            "ttft_ms": pa.array(rng.lognormal(4, 0.4, rows), mask=waits),
            "input_tokens": np.ceil(tokens),
            "output_tokens": np.ceil(answer),
            "cost_usd": (tokens * 0.15 + answer * 0.6) / 1e6,
            "error": (rng.random(rows) < 0.01).astype(float),
            "input_length": np.ceil(tokens * rng.normal(4, 0.3, rows)),
            "input_readability": rng.normal(60, 15, rows),
            "output_repetition": rng.beta(2, 20, rows),
            "prediction": pa.array(np.array(_LABELS)[rng.zipf(1.6, rows) % len(_LABELS)]),
            "input_language": pa.array(np.array(_LANGUAGES)[rng.zipf(2, rows) % len(_LANGUAGES)]),
            "feature.team": pa.array(np.char.add("team-", (rng.zipf(1.4, rows) % 300).astype(str))),
        }
    )


def write(path: Path, rows: int, seed: int, shift: float = 0.0) -> Path:
    """A Parquet file of records, in groups as a table's are."""
    made = 0
    with pq.ParquetWriter(path, batch(1, seed).schema) as file:
        while made < rows:
            size = min(ROWS_A_GROUP, rows - made)
            file.write_table(batch(size, seed + made, shift if made >= rows / 2 else 0.0))
            made += size
    return path


def write_classified(path: Path, rows: int, seed: int) -> Path:
    """Answers of a two-class model that is somewhat too sure of itself, with what was right."""
    rng = np.random.default_rng(seed)
    chance = rng.beta(0.8, 1.4, rows)
    stated = np.clip(chance**1.3 / (chance**1.3 + (1 - chance) ** 1.3), 0, 1)
    pq.write_table(
        pa.table(
            {
                "stated": stated,
                "predicted": (stated >= 0.5).astype(np.int64),
                "right": (rng.random(rows) < chance).astype(np.int64),
            }
        ),
        path,
    )
    return path
