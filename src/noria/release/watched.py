"""What a candidate is watched for, as a table; light, so that any process may show it."""

from collections.abc import Mapping
from dataclasses import dataclass

from noria.domain.rollout import Arm


@dataclass(frozen=True, slots=True)
class Guard:
    """Which counts of an `Arm` are compared, and what is said where the candidate's are worse.

    Attributes:
        bad: Name of the count of bad ones.
        of: Name of the count of all.
        says: What the candidate does.
        counts: What is counted, in words.
    """

    bad: str
    of: str
    says: str
    counts: str

    def look(self, arm: Arm) -> tuple[int, int]:
        """(bad, all) of what was seen."""
        return getattr(arm, self.bad), getattr(arm, self.of)


GUARDS: Mapping[str, Guard] = {
    "errors": Guard("errors", "requests", "it fails more often than the champion", "answers failed"),
    "latency": Guard("slow", "timed", "it is slow more often than the champion", "answers were slow"),
    "refusals": Guard("refused", "worded", "it declines more often than the champion", "answers decline"),
    "guardrails": Guard("stopped", "requests", "it is stopped more often than the champion", "were stopped"),
    "feedback": Guard("wrong", "labelled", "it is wrong more often than the champion", "labelled were wrong"),
}
"""By the name that they have in the project file."""
