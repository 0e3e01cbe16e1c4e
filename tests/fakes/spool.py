"""A spool in memory: what an API process appends to, and what the shipper reads from."""

from noria.domain.errors import LogUnavailable
from noria.domain.inference import Entry
from noria.ports import Poison


class MemorySpool:
    """Implements ports.RecordSpool and ports.SpoolReader. `full` makes appends fail, `poison` spoils a number."""

    def __init__(self, id: str = "spool", *, sealed: bool = False) -> None:
        self.id = id
        self.sealed = sealed
        self.full = False
        self.closed = False
        self.retired = False
        self.entries: dict[int, Entry | Poison] = {}
        self.trimmed = 0
        self._last = 0

    async def append(self, entry: Entry) -> int:
        if self.closed or self.full:
            raise LogUnavailable("The spool is full.", "Free space.")
        return self.add(entry)

    def add(self, *entries: Entry) -> int:
        for entry in entries:
            self._last += 1
            self.entries[self._last] = entry
        return self._last

    def poison(self, number: int, reason: str = "spoilt", payload: bytes = b"x") -> None:
        self._last = max(self._last, number)
        self.entries[number] = Poison(number, number, reason, payload)

    def written(self) -> int:
        return self._last

    def read(self, after: int, limit: int) -> list[tuple[int, Entry | Poison]]:
        return sorted(((n, e) for n, e in self.entries.items() if n > after), key=lambda pair: pair[0])[:limit]

    def trim(self, upto: int) -> None:
        self.trimmed = max(self.trimmed, upto)
        self.entries = {n: e for n, e in self.entries.items() if n > upto}

    def retire(self) -> None:
        self.retired = True

    def close(self) -> None:
        self.closed = True
