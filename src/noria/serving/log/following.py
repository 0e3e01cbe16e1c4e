"""Follows the log: sees every request once, as soon as it is on disk, be it found in a spool or in the tables."""

from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc

from noria.domain.errors import StorageCorrupted
from noria.ports import RecordStore, RecordView
from noria.serving.log.records import Place, Readers, pieces
from noria.serving.log.shipping import application
from noria.tables import INFERENCE


class Follower:
    """What comes from the moment on at which it was made.

    Args:
        readers: The spools, to look at only.
        store: The tables.
    """

    def __init__(self, readers: Readers, store: RecordStore) -> None:
        self._readers = readers
        self._store = store
        self._places: dict[str, Place] = {}
        self._shipped: dict[str, int] = {}
        self._seen: dict[str, set[int]] = {}
        self._look(first=True)

    def new(self) -> pa.Table:
        """The requests that have ended since the last call, oldest first."""
        return pa.concat_tables([INFERENCE.empty_table(), *self._look()]).sort_by("request_time")

    def _look(self, *, first: bool = False) -> list[pa.Table]:
        """What is new in the spools, then what went to the tables before it was seen in its spool."""
        found = []
        with self._readers() as readers:
            for reader in readers:
                place, seen = self._places.setdefault(reader.id, Place()), self._seen.setdefault(reader.id, set())
                with suppress(StorageCorrupted):  # whoever asks for it all is told; what follows comes from the table
                    for table, piece in pieces(reader, place):
                        if table == "inference":
                            seen.update(piece["sequence"].to_pylist())
                            found.append(piece)
        view = self._store.view()
        for spool in self._places:
            found += self._from_table(view, spool, first=first)
        return found

    def _from_table(self, view: RecordView, spool: str, *, first: bool) -> list[pa.Table]:
        seen, place = self._seen[spool], self._places[spool]
        before, now = self._shipped.get(spool, 0), view.last_version("inference", application(spool, "inference"))
        self._shipped[spool] = now
        self._seen[spool] = {number for number in seen if number > now}
        if first or now <= before:
            return []
        sql = f"SELECT * FROM inference WHERE spool = '{spool}' AND sequence > {before} AND sequence <= {now}"  # noqa: S608 (an id of hex digits)
        rest = view.query(sql).cast(INFERENCE)
        rest = rest.filter(pc.invert(pc.is_in(rest["sequence"], pa.array(seen, pa.int64()))))
        for name in rest["databricks_request_id"].to_pylist():
            place.open.pop(name, None)
        return [rest] if rest.num_rows else []
