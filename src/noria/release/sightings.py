"""What the tables gained for one rollout since its last look: both versions' counts, and how their answers compare."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from noria.domain.endpoint import Role
from noria.domain.inference import OutcomeKind
from noria.domain.rollout import Arm, Rollout, Stage
from noria.evaluation.near import normalised
from noria.release import counts
from noria.release.following import AGAIN, SAYS_NOTHING, Following, Request, cursors, first_seen, ref_of
from noria.release.progress import Look


@dataclass(kw_only=True)
class Sightings(Following):
    """Reads the tables for one rollout.

    Args:
        champion: `model/version` that the candidate is compared with.
    """

    champion: str

    def look(self, rollout: Rollout, now: datetime) -> tuple[Look, Rollout]:
        """What came in, and the rollout with its cursors moved on (its counts are not touched)."""
        snapshots = self.changed()
        if snapshots is None:
            return Look(), rollout
        judgements, rows = self.read(rollout)
        seen = dict(rollout.seen)
        candidate = rollout.ref
        served, fresh = self._count_requests(rollout, rows, seen)
        judged, waiting = self.count_labels((self.champion, candidate), judgements, seen, now)
        self.fresh, self.snapshots = False, AGAIN if waiting else snapshots
        look = Look(champion=served[0] + judged[0], candidate=served[1] + judged[1])
        if rollout.stage is Stage.SHADOW:
            look = self._compare(look, fresh, candidate)
        outcomes, feedback = cursors(rollout, judgements, rows)
        return look, replace(rollout, seen=seen, cursor_us=outcomes, feedback_cursor_us=feedback)

    def _count_requests(
        self, rollout: Rollout, rows: list[dict[str, Any]], seen: dict[str, int]
    ) -> tuple[tuple[Arm, Arm], set[str]]:
        """What each version did, and the requests that something new is known of."""
        role = Role.SHADOW if rollout.stage is Stage.SHADOW else Role.CANARY
        limit = rollout.slow_ms if rollout.stage is Stage.CANARY else 0.0  # a shadow's copies wait for one another
        candidate, fresh = rollout.ref, set[str]()
        arms = [Arm(), Arm()]
        words: tuple[list[str], list[str]] = ([], [])
        for row in rows:
            ref = ref_of(row)
            new = first_seen(seen, "inference", row)
            body = self.remember(row, ref, new)
            if not new or row["request_time"] < rollout.changed_at or row["outcome"] in SAYS_NOTHING:
                continue
            if row["cache_hit"]:
                continue
            fresh.add(row["shadow_of"] or row["databricks_request_id"])
            rescued = counts.rescued(row, rollout.endpoint)
            if row["route"] == Role.CHAMPION and (rescued or ref == self.champion):
                side = 0
            elif row["route"] == role and (rescued or ref == candidate):
                side = 1
            else:
                continue
            arms[side] += counts.served(row, rescued, limit, body)
            if not rescued and row["outcome"] == OutcomeKind.ANSWERED:
                words[side].extend(counts.words(body))
        champion, new_one = (arm + counts.refusals(texts) for arm, texts in zip(arms, words, strict=True))
        return (champion, new_one), fresh

    def _compare(self, look: Look, fresh: set[str], candidate: str) -> Look:
        """The look with what the candidate's copies answered beside the champion's own answers."""
        agreed, similar, differing = 0, 0.0, []
        compared = 0
        for name in sorted(fresh):
            request = self.requests.get(name, Request())
            ours, theirs = request.answers.get(self.champion), request.answers.get(candidate)
            if request.given_by != self.champion or ours is None or theirs is None:
                continue
            overlap = counts.similarity(ours, theirs)
            compared, similar = compared + 1, similar + overlap
            if normalised(ours) == normalised(theirs):
                agreed += 1
            else:
                differing.append(name)
        return replace(look, compared=compared, agreed=agreed, similarity=similar, differing=tuple(differing))
