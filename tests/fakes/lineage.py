"""A log that holds nothing, for lineages of what the state knows."""

from collections.abc import Mapping, Sequence
from typing import Any

from noria.domain.run import Run
from noria.governance.lineage import Given, Learnt


class EmptyLog:
    """Implements governance.lineage.Log."""

    def answer(self, name: str) -> Mapping[str, Any] | None:
        return None

    def feedback(self, request_id: str) -> Sequence[Mapping[str, Any]]:
        return ()

    def given(self, model: str, version: str, most: int) -> Given:
        return Given()

    def learnt(self, run: Run, most: int) -> Learnt | None:
        return None

    def lessons(self, runs: Sequence[Run], request_id: str) -> Mapping[str, str]:
        return {}
