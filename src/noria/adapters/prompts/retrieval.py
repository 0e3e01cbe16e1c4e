"""Labelled examples that are most like a text: words and character n-grams weighted by TF-IDF, cosine of the two.

Nothing is learnt but word counts, so the same examples in the same order always retrieve the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noria.adapters.prompts.filling import Example


class Examples:
    """Examples to retrieve from.

    Args:
        rows: Text and label each.
    """

    def __init__(self, rows: Sequence[Example]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union

        self._rows = list(rows)
        self._words = make_union(
            TfidfVectorizer(sublinear_tf=True, strip_accents="unicode"),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, strip_accents="unicode"),
        )
        self._matrix: Any = self._words.fit_transform([text for text, _ in rows]) if rows else None

    @classmethod
    def read(cls, file: Path) -> "Examples":
        """The examples of a Parquet file with the columns text and label."""
        import pyarrow.parquet as pq

        table = pq.read_table(file, columns=["text", "label"]).to_pydict()
        return cls(list(zip(table["text"], table["label"], strict=True)))

    def nearest(self, texts: Sequence[str], count: int) -> list[list[Example]]:
        """For each text the examples most like it, the likest last: a model heeds most what it read last."""
        if not count or self._matrix is None:
            return [[] for _ in texts]
        alike = np.asarray((self._words.transform(list(texts)) @ self._matrix.T).todense())
        order = np.argsort(-alike, axis=1, kind="stable")[:, :count]
        return [[self._rows[place] for place in reversed(places)] for places in order.tolist()]
