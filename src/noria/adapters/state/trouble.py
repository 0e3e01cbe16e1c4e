"""What goes wrong with a state's database, in words."""

import sqlite3

from noria.domain.errors import Conflict, NoriaError, StateUnavailable, StorageCorrupted

BUSY_MS = 15_000
"""How long a writer waits for another one on SQLite, milliseconds."""


def explain(where: str, problem: str, error: Exception, *, corrupted: bool = False) -> NoriaError:
    """The domain's error for a database's.

    Args:
        where: The database's URL, without its password.
        problem: What the database says.
        error: How it says so.
        corrupted: Whether the error itself says that what is stored can't be true.
    """
    lowered = problem.lower()
    corrupted = corrupted or isinstance(error, sqlite3.IntegrityError)
    if corrupted or "not a database" in lowered or "malformed" in lowered:
        return StorageCorrupted(
            f"The state at {where} is damaged: {problem}.",
            "Stop Noria and restore it from a backup; `sqlite3 state.db .recover` saves what is still readable.",
        )
    if "locked" in lowered:
        return Conflict(f"The state at {where} stayed locked by another process.", "Try again.")
    if "no such table" in lowered or "does not exist" in lowered:
        return StateUnavailable(f"The state at {where} has no tables yet.", "Start Noria once (noria up) to make them.")
    return StateUnavailable(f"The state at {where} can't be used: {problem}.", "Check that it is there and writable.")
