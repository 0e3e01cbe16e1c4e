"""Which examples each step sees: a function of seed and step alone, so that a killed run goes on as it would have."""

import math
import random
from collections.abc import Sequence
from functools import lru_cache

_BUCKETS = 8
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""


class Schedule:
    """Batches of example numbers, for ever: every example once in each epoch, in an order of that epoch's own.

    Args:
        lengths: Tokens of each example.
        repeats: How many times each is shown in an epoch.
        batch: Examples in a batch.
        seed: For the order.
    """

    def __init__(self, lengths: Sequence[int], repeats: Sequence[int], batch: int, seed: int) -> None:
        self._lengths = tuple(lengths)
        self._shown = tuple(i for i, times in enumerate(repeats) for _ in range(times))
        self._batch = min(batch, len(self._shown))
        self._seed = seed
        self.per_epoch = max(1, len(self._shown) // self._batch)
        self._epoch = lru_cache(maxsize=2)(self._deal)

    def batch(self, step: int) -> tuple[int, ...]:
        """The examples of a step, counted from 0."""
        epoch, place = divmod(step, self.per_epoch)
        return self._epoch(epoch)[place]

    def _deal(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        chance = random.Random(f"{self._seed}/{epoch}")  # noqa: S311 (no secret)
        order = list(self._shown)
        chance.shuffle(order)
        size, batches = self._batch * _BUCKETS, []
        for start in range(0, len(order), size):
            drawn = sorted(order[start : start + size], key=lambda i: self._lengths[i])
            batches += [tuple(drawn[at : at + self._batch]) for at in range(0, len(drawn), self._batch)]
        whole = [b for b in batches if len(b) == self._batch]
        chance.shuffle(whole)
        return tuple(whole)


def learning_rate(step: int, steps: int, highest: float, warmup: float) -> float:
    """The learning rate of a step, counted from 0: linear rise, then a cosine to a tenth of the highest."""
    rising = int(steps * warmup)
    if step < rising:
        return highest * (step + 1) / (rising + 1)
    left = (step - rising) / max(1, steps - rising)
    return highest * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * left)))
