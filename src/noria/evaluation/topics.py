"""Cells for texts: what a text is about, crossed with how unlike the reference it is.

Words are hashed, weighted by how rare they are (tf-idf), projected on the directions in which the reference varies most
(truncated SVD) and sorted to the nearest of 32 centres (k-means). How unlike a text is adds two things up: how far it
lies from its centre and how much of its weight is words that the reference never used; three bands of it hold a third
of the reference each. Everything is fitted on one half of a reference and counted on the other. No model is downloaded;
scripts without spaces are read character by character, emoji and punctuation are words.

Measured on texts in the manner of customers' tweets (docs/explanation/statistics.md): 2% of unchanged streams alarm
within 1,000 looks. With 2,500 texts counted in the reference a new topic in 10% of the traffic is found after 260
messages (median) and in 5% after 1,300; with 25,000 counted, in 2% after 3,300. It sorts 20,000 messages of 15 words a
second on one core, 65,000 of five.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np

from noria.evaluation.arrays import listed
from noria.evaluation.cells import Arrays, Floats, Ints, pack, tally, unpack

TOPICS = 32
BANDS = ("typical", "unusual", "very unusual")
BUCKETS = 2**16
"""Hash buckets of words."""
DIRECTIONS = 48
LONGEST = 4000
"""Characters of a text that are looked at; the rest of a long one adds time, hardly a topic."""
MOST_TO_FIT = 20_000
"""Texts that are looked at when fitting."""
_CHUNK = 4000
_MARKS = r"\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0971-\u0dff"
"""Accents, and the vowels of Arabic and of India's scripts, which belong to the word that they stand in."""
WORDS = (
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
    rf"|[\w{_MARKS}]+|[^\w\s{_MARKS}]"
)
"""What counts as a word: a character of a script without spaces, letters and digits in a row, or any other sign."""
_ROWS_A_TOPIC = 15
_TERMS = 3
_FEW = 40


@dataclass(frozen=True, slots=True, eq=False)
class TextCells:
    """Topics × bands, and one more cell for texts without a word.

    Attributes:
        idf: Weight of each hash bucket, shape (BUCKETS,).
        kept: Buckets that the directions are made of: of words that occur more than once, shape (C,).
        directions: Shape (C, D).
        centres: Of the topics, unit length, shape (T, D).
        bands: Two edges of how unlike a text is.
        topics: The words that tell each topic from the others.
    """

    idf: Floats
    kept: Ints
    directions: Floats
    centres: Floats
    bands: Floats
    topics: tuple[str, ...]

    @classmethod
    def fit(cls, texts: Sequence[str], seed: int = 0) -> Self:
        """Learn topics from most of a part of the reference and the bands from the rest; any texts do, even none."""
        learnt, rest = _split(texts, seed)
        words = hashed(learnt)
        seen = np.bincount(words.indices, minlength=BUCKETS)
        idf = _single(np.log((1 + len(learnt)) / (1 + seen)) + 1)
        kept = np.flatnonzero(seen > 1) if (seen > 1).any() else np.flatnonzero(seen)
        weighted = _unit_rows(words.multiply(idf).tocsr())
        directions = _directions(weighted[:, kept], seed)
        centres = _centres(weighted[:, kept] @ directions, seed)
        cells = cls(idf, kept, directions, centres, np.ones(2), ("",) * len(centres))
        names = _names(learnt, weighted, cells._place(words)[0], len(centres))
        return replace(cells, bands=cells._edges(hashed(rest)), topics=names)

    @property
    def size(self) -> int:
        return len(self.topics) * len(BANDS) + 1

    @property
    def names(self) -> tuple[str, ...]:
        return (*(f"{topic} ({band})" for topic in self.topics for band in BANDS), "no words")

    @property
    def groupings(self) -> tuple[Ints, ...]:
        """By topic alone and by band alone."""
        topics, bands = np.arange(len(self.topics)), np.arange(len(BANDS))
        by_topic, by_band = np.repeat(topics, len(bands)), np.tile(bands, len(topics))
        return np.append(by_topic, len(topics)), np.append(by_band, len(bands))

    @property
    def ordered(self) -> int:
        return 0

    def assign(self, values: Any) -> Ints:
        found = [self._cells(hashed(part)) for part in _chunks(listed(values))]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def count(self, values: Any) -> Ints:
        return tally(self.assign(values), self.size)

    def to_arrays(self) -> Arrays:
        return {
            "idf": self.idf.astype(np.float32),
            "kept": self.kept.astype(np.int32),
            "directions": self.directions.astype(np.float32),
            "centres": self.centres,
            "bands": self.bands,
            "topics": pack(self.topics),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The cells that `to_arrays` described."""
        idf, kept, directions = arrays["idf"], arrays["kept"], arrays["directions"]
        return cls(
            idf.astype(np.float64),
            kept.astype(np.int64),
            directions.astype(np.float64),
            arrays["centres"],
            arrays["bands"],
            unpack(arrays["topics"]),
        )

    def _edges(self, words: Any) -> Floats:
        """Where the bands end, on texts that nothing was learnt from: familiar words are no news there."""
        unlike = self._place(words)[1][np.diff(words.indptr) > 0]
        if not unlike.size:
            return self.bands
        # Equal texts are common and must fall on one side of an edge whatever the rounding: put it beside them.
        return np.asarray(np.round(np.quantile(unlike, [1 / 3, 2 / 3], method="inverted_cdf"), 5) + 5e-6)

    def _cells(self, words: Any) -> Ints:
        topic, unlike = self._place(words)
        band = np.searchsorted(self.bands, unlike)
        silent = len(self.topics) * len(BANDS)
        return np.where(np.diff(words.indptr) > 0, topic * len(BANDS) + band, silent).astype(np.int64)

    def _place(self, words: Any) -> tuple[Ints, Floats]:
        """The nearest centre of each row of hashed words, and how unlike the reference it is (0 to 2)."""
        weighted = _unit_rows(words.multiply(self.idf).tocsr())
        new = (self.idf == self.idf.max()).astype(np.float64)
        nearness = weighted[:, self.kept] @ self.directions @ self.centres.T
        topic = nearness.argmax(axis=1)
        unlike = 1 - nearness.max(axis=1) + weighted.multiply(weighted) @ new
        return topic.astype(np.int64), np.round(np.asarray(unlike).ravel(), 5)


@cache
def _hasher() -> Any:
    """Loaded late: scikit-learn takes most of a second."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=BUCKETS, norm=None, alternate_sign=False, token_pattern=WORDS)


def hashed(texts: Sequence[str]) -> Any:
    """Sparse rows of damped word counts, 1 + ln(count)."""
    rows = _hasher().transform([_readable(text) for text in texts]) if len(texts) else _nothing()
    rows.data = 1 + np.log(rows.data)
    return rows


def _nothing() -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((0, BUCKETS))


def _readable(text: object) -> str:
    """The part of a text that is looked at, without halves of characters."""
    return str(text)[:LONGEST].encode("utf-8", "replace").decode() if text is not None else ""


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK))


def _split(texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Three quarters to learn topics from and one for the bands, in random order; few texts serve for both."""
    order = np.random.default_rng(seed).permutation(len(texts))[:MOST_TO_FIT]
    chosen = [texts[i] for i in order]
    cut = len(chosen) * 3 // 4
    return (chosen[:cut], chosen[cut:]) if len(chosen) >= _FEW else (chosen, chosen)


def _unit_rows(rows: Any) -> Any:
    from sklearn.preprocessing import normalize

    return normalize(rows) if rows.shape[0] else rows


def _directions(rows: Any, seed: int) -> Floats:
    """The directions in which the rows vary most, shape (columns, D)."""
    from sklearn.utils.extmath import randomized_svd

    number = min(DIRECTIONS, *rows.shape)
    if not number:
        return np.zeros((rows.shape[1], 1))
    return _single(np.ascontiguousarray(randomized_svd(rows, number, random_state=seed)[2].T))


def _single(values: Floats) -> Floats:
    """Values as they will be read back from single precision, so that a stored baseline sorts texts the same way."""
    return values.astype(np.float32).astype(np.float64)


def _centres(points: Floats, seed: int) -> Floats:
    """Centres of the topics, unit length."""
    from sklearn.cluster import KMeans

    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    points = (points / np.maximum(lengths, 1e-12))[lengths.ravel() > 1e-9]
    if not points.size:
        return np.zeros((1, max(points.shape[1], 1)))
    number = min(TOPICS, max(1, len(points) // _ROWS_A_TOPIC), len(np.unique(np.round(points, 5), axis=0)))
    centres = KMeans(number, n_init=1, random_state=seed).fit(points).cluster_centers_
    return np.asarray(centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12))


def _names(texts: Sequence[str], weighted: Any, topic: Ints, number: int) -> tuple[str, ...]:
    """For each topic the words that weigh more in it than elsewhere."""
    words = vocabulary(texts)
    if not words:
        return tuple(f"topic {i + 1}" for i in range(number))
    buckets = np.array(list(words.values()))
    overall = np.asarray(weighted[:, buckets].mean(axis=0)).ravel()
    names = []
    for i in range(number):
        rows = weighted[topic == i][:, buckets]
        lift = (np.asarray(rows.sum(axis=0)).ravel() / max(rows.shape[0], 1) - overall) / np.sqrt(overall)
        ranked = sorted(zip(lift, words, strict=True), reverse=True)[:_TERMS]
        names.append(", ".join(word for gain, word in ranked if gain > 0) or f"topic {i + 1}")
    return tuple(names)


def vocabulary(texts: Sequence[str], most: int = 3000) -> dict[str, int]:
    """Words that occur in at least two texts and could name a topic → their hash buckets."""
    read = _hasher().build_analyzer()
    seen = Counter(word for text in texts[:most] for word in set(read(_readable(text))))
    words = [w for w, times in seen.items() if times > 1 and _tells(w)]
    return dict(zip(words, hashed(words).indices.tolist(), strict=True)) if words else {}


def _tells(word: str) -> bool:
    """Whether a word could name a topic: of letters and what belongs to them, and not too short to mean anything."""
    return word[0].isalpha() and not any(map(str.isdigit, word)) and (len(word) > 2 or not word.isascii())
