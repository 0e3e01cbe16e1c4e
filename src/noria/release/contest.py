"""What the tables gained for one experiment since its last look, for each version that takes part."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from noria.domain.endpoint import Role
from noria.domain.experiment import BINS, Experiment, Tally, bin_of
from noria.domain.inference import OutcomeKind
from noria.release import counts
from noria.release.following import AGAIN, SAYS_NOTHING, Following, cursors, first_seen, ref_of
from noria.release.standings import weigh


@dataclass(kw_only=True)
class Contest(Following):
    """Reads the tables for one experiment."""

    def look(self, experiment: Experiment, now: datetime) -> Experiment:
        """The experiment with what came in; the same one if nothing did."""
        snapshots = self.changed()
        if snapshots is None:
            return experiment
        judgements, rows = self.read(experiment)
        seen, refs = dict(experiment.seen), [variant.ref for variant in experiment.variants]
        tallies = dict(experiment.tallies)
        times: dict[str, list[int]] = {}
        for row in rows:
            ref = ref_of(row)
            new = first_seen(seen, "inference", row)
            if row["request_time"] >= experiment.began_at:
                self.remember(row, ref, new)
            if new and (of := self._of(experiment, row, ref, refs)):
                tally, ms = _served(row, counts.rescued(row, experiment.endpoint))
                tallies[of] = tallies.get(of, Tally()) + tally
                if ms is not None:
                    times.setdefault(of, [0] * BINS)[bin_of(ms)] += 1
        for ref, binned in times.items():
            tallies[ref] += Tally(times=tuple(binned))
        judged, waiting = self.count_labels(refs, judgements, seen, now)
        for ref, arm in zip(refs, judged, strict=True):
            if arm.labelled:
                tallies[ref] = tallies.get(ref, Tally()) + Tally(labelled=arm.labelled, wrong=arm.wrong)
        self.fresh, self.snapshots = False, AGAIN if waiting else snapshots
        outcomes, feedback = cursors(experiment, judgements, rows)
        return weigh(replace(experiment, seen=seen, tallies=tallies, cursor_us=outcomes, feedback_cursor_us=feedback))

    @staticmethod
    def _of(experiment: Experiment, row: Mapping[str, Any], ref: str, refs: list[str]) -> str:
        """The version that a row counts for, empty if for none.

        A request that a fallback answered counts as a failure of the champion, as far as the log tells who was asked.
        """
        if row["request_time"] < experiment.began_at or row["outcome"] in SAYS_NOTHING or row["cache_hit"]:
            return ""
        if row["route"] == Role.CHAMPION and counts.rescued(row, experiment.endpoint):
            return refs[0]
        return ref if row["route"] in (Role.CHAMPION, Role.VARIANT) and ref in refs else ""


def _served(row: Mapping[str, Any], rescued: bool) -> tuple[Tally, float | None]:
    """What one request counts for, and how many milliseconds its answer took, if it was one."""
    arm = counts.served(row, rescued, 0.0, None)
    answered = not arm.errors and row["outcome"] == OutcomeKind.ANSWERED
    cost = None if rescued else row["cost_usd"]
    paid = cost or 0.0
    tally = Tally(requests=1, errors=arm.errors, priced=int(cost is not None), cost=paid, cost_squares=paid * paid)
    return tally, row["execution_duration_ms"] if answered else None
