"""The double, started and stopped by a test."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from doubles.azure_openai.__main__ import IDENTITY, KEY

TESTS = Path(__file__).parents[2]


@dataclass(frozen=True)
class Double:
    """Where a double is.

    Attributes:
        url: Data plane.
        management: Management plane.
        authority: The certificate that its callers have to trust.
    """

    url: str
    management: str
    authority: Path

    @property
    def environment(self) -> dict[str, str]:
        """By which azure-identity and azure-core find it, without a change of theirs."""
        identity = {"IDENTITY_ENDPOINT": f"{self.url}/msi/token", "IDENTITY_HEADER": IDENTITY}
        return identity | {"REQUESTS_CA_BUNDLE": str(self.authority), "AZURE_OPENAI_API_KEY": KEY}

    def fault(self, match: str, kind: str, times: int = 1, seconds: float = 0.0) -> None:
        """Have something go wrong with the next requests whose `METHOD PATH` holds that text.

        Args:
            match: The text.
            kind: `429` (seconds: Retry-After), `500`, `500 after` (the work is done all the same), `slow` (seconds),
                `cut` (the connection ends and nothing was done), `expired` (no token is good any more).
            times: How often.
            seconds: See the kinds.
        """
        self.tell("faults", {"match": match, "kind": kind, "times": times, "seconds": seconds})

    def tell(self, what: str, body: Any = None) -> Any:
        """Ask the double itself: `jobs`, `uploads`, `deployments`, `ledger`.

        Or tell it to `hold` and `release` operations of the management plane, or to have `half` of an upload (its name
        and content).
        """
        sent = Request(f"{self.url}/double/{what}", json.dumps(body or {}).encode(), method="POST")
        with urlopen(sent, timeout=30) as reply:
            return json.loads(reply.read())

    def asked(self, line: str) -> list[int]:
        """The statuses of all requests whose `METHOD PATH` ends so."""
        return [each["status"] for each in self.tell("ledger") if each["asked"].endswith(line)]


@contextmanager
def azure_double(folder: Path, *, epoch_s: float = 0.0, operation_s: float = 0.05) -> Iterator[Double]:
    """A double in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "doubles.azure_openai", "--folder", str(folder)]
    command += ["--epoch-seconds", str(epoch_s), "--operation-seconds", str(operation_s)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(TESTS)})
    try:
        deadline = time.monotonic() + 60
        while not (folder / "where.json").exists():
            assert process.poll() is None, "the double ended before it was there"
            assert time.monotonic() < deadline, "the double didn't come up"
            time.sleep(0.05)
        where = json.loads((folder / "where.json").read_text())
        yield Double(where["url"], where["management"], folder / "ca.pem")
    finally:
        process.terminate()
        process.wait(timeout=30)
