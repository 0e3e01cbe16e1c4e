"""What a version's traffic is compared with: cells and counts of its reference, and the accuracy it promised.

Made once, by the trainer or from the first records, and kept as one small file beside the model.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from noria.domain.errors import StorageCorrupted
from noria.evaluation.cells import Categories, Cells, Ints, NumericBins
from noria.evaluation.quality import wilson
from noria.evaluation.topics import TextCells

C = TypeVar("C", bound=Cells)

FILE = "baseline.npz"
"""What the file is called beside a model."""
FLOOR_CONFIDENCE = 0.99
"""The floor lies below the true accuracy with half of what is left to certainty: 99.5 per cent."""
_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Reference(Generic[C]):
    """Cells and how many rows of the reference fall into each."""

    cells: C
    counts: Ints


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Baseline:
    """The reference of one model version.

    Attributes:
        text: What is asked.
        length: How long it is, in characters.
        prediction: What the model answers; None where answers are free text.
        floor: Lower confidence bound of the accuracy on held-out rows, 0 to 1; None if it was not measured.
        rows: Texts counted.
    """

    text: Reference[TextCells]
    length: Reference[NumericBins]
    prediction: Reference[Categories] | None
    floor: float | None
    rows: int

    @classmethod
    def fit(
        cls,
        fit_texts: Sequence[str],
        count_texts: Sequence[str],
        predictions: Sequence[str] | None = None,
        correct: Sequence[bool] | None = None,
        seed: int = 0,
    ) -> Self:
        """Learn cells from one part of a reference and count the other: counting what was learnt from flatters.

        The more texts are counted, the smaller the changes that can be found: 1,000 find a fifth of the traffic on a
        new topic, 4,000 a tenth.

        Args:
            fit_texts: Texts to learn topics and bins from.
            count_texts: Other texts of the same kind, held out.
            predictions: What the model says to held-out texts; None where answers are free text.
            correct: Whether it is right, on labelled held-out rows; None if nobody knows.
            seed: For the topics.
        """
        text, length = TextCells.fit(fit_texts, seed), NumericBins.fit(lengths(fit_texts))
        said = None if predictions is None else list(predictions)
        right = [] if correct is None else list(correct)
        classes = None if said is None else Categories.fit(said)
        return cls(
            text=Reference(text, text.count(count_texts)),
            length=Reference(length, length.count(lengths(count_texts))),
            prediction=None if classes is None or said is None else Reference(classes, classes.count(said)),
            floor=wilson(sum(right), len(right), FLOOR_CONFIDENCE).low if right else None,
            rows=len(count_texts),
        )

    def to_bytes(self) -> bytes:
        """The baseline as a compressed file of arrays (`.npz`)."""
        arrays: dict[str, NDArray[Any]] = {}
        for name in ("text", "length", "prediction"):
            reference = getattr(self, name)
            if reference is not None:
                arrays |= {f"{name}.{key}": array for key, array in reference.cells.to_arrays().items()}
                arrays[f"{name}.counts"] = reference.counts
        facts = json.dumps({"format": _FORMAT, "floor": self.floor, "rows": self.rows})
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, facts=np.frombuffer(facts.encode(), np.uint8), **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The baseline that `to_bytes` wrote; objects are never unpickled.

        Raises:
            StorageCorrupted: It isn't one.
        """
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as file:
                arrays = dict(file.items())
            facts = json.loads(arrays["facts"].tobytes())
            return cls(
                text=Reference(TextCells.from_arrays(_part(arrays, "text")), arrays["text.counts"]),
                length=Reference(NumericBins.from_arrays(_part(arrays, "length")), arrays["length.counts"]),
                prediction=Reference(Categories.from_arrays(_part(arrays, "prediction")), arrays["prediction.counts"])
                if "prediction.counts" in arrays
                else None,
                floor=facts["floor"],
                rows=facts["rows"],
            )
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise StorageCorrupted(
                f"A monitor baseline can't be read: {error}.", "Train the version again, or remove the file."
            ) from error


def lengths(texts: Sequence[str]) -> list[int]:
    """Characters of each text."""
    return [len(text) for text in texts]


def _part(arrays: dict[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
