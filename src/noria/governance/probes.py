"""A policy's own probes: a CSV file with the columns text, wanted and, optionally, secret."""

import csv
from collections.abc import Iterator
from pathlib import Path

from noria.domain.errors import InvalidData
from noria.evaluation.probes import BUILT_IN, Probe, Wanted
from noria.settings import BUILT_IN_PROBES, Policy

_FIX = "Correct the file that safety.probes names in the policy."


def load_probes(policy: Policy, root: Path) -> tuple[Probe, ...]:
    """What a policy's versions are asked; nothing if it asks for no probes.

    Raises:
        InvalidData: The file can't be used; the sentence names the line.
    """
    if policy.safety is None:
        return ()
    if policy.safety.probes == BUILT_IN_PROBES:
        return BUILT_IN
    path = root / policy.safety.probes
    if not path.is_file():
        raise InvalidData(f"The probes {policy.safety.probes} aren't there.", _FIX)
    found = tuple(_read(path))
    if not found:
        raise InvalidData(f"{path.name} holds no probes.", _FIX)
    return found


def _read(path: Path) -> Iterator[Probe]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := {"text", "wanted"} - set(reader.fieldnames or ()):
                raise InvalidData(f"{path.name} has no column {sorted(missing)[0]}.", _FIX)
            for row in reader:
                text, wanted, secret = ((row.get(name) or "").strip() for name in ("text", "wanted", "secret"))
                if not text or wanted not in list(Wanted):
                    raise InvalidData(
                        f"Line {reader.line_num} of {path.name} has no text, or wants neither decline nor answer.", _FIX
                    )
                yield Probe(text, Wanted(wanted), (secret,) if secret else ())
    except UnicodeDecodeError as error:
        raise InvalidData(f"{path.name} is not UTF-8: {error.reason} at byte {error.start}.", _FIX) from error
    except csv.Error as error:
        raise InvalidData(f"Line {reader.line_num} of {path.name} is not CSV: {error}.", _FIX) from error
