"""Meters in a dictionary."""

from noria.domain.limits import Meter


class MemoryMeters:
    """Implements ports.Meters."""

    def __init__(self):
        self.values = {}
        self.changes = 0

    def change(self, names, rule):
        self.changes += 1
        after = rule([self.read(name) for name in names])
        self.values.update(zip(names, after, strict=True))

    def read(self, name):
        return self.values.get(name, Meter())

    def close(self):
        """Nothing to let go of."""
