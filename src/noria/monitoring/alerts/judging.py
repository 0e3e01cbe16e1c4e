"""What a rule makes of the newest windows' values: pure, so that folding a window in again changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from noria.domain.alert import Seen
from noria.settings import AlertRule


@dataclass(frozen=True, slots=True)
class Finding:
    """How the newest windows stand.

    Attributes:
        newest: The newest window.
        hits: How many of the windows are beyond the threshold.
        windows: How many windows were looked at.
        since: Start of the oldest of the windows beyond the threshold that nothing interrupts; of the newest, if it
            isn't beyond.
        beyond: Whether the newest is.
        fires: Whether enough are, the newest among them.
        well: Whether so few still are on the wrong side of `clear`, the newest not among them, that it is over.
    """

    newest: Seen
    hits: int
    windows: int
    since: datetime
    beyond: bool
    fires: bool
    well: bool


def remember(seen: Sequence[Seen], new: Seen, most: int) -> tuple[Seen, ...]:
    """The newest windows with one more; one that was seen before is replaced, one of another version forgotten."""
    known = {each.start: each for each in seen if each.model == new.model}
    known[new.start] = new
    return tuple(known[start] for start in sorted(known)[-most:])


def judge(rule: AlertRule, seen: Sequence[Seen]) -> Finding:
    """How a rule's windows stand.

    Args:
        rule: With a threshold.
        seen: The newest windows with a value, oldest first; at least one.
    """
    needed, of = rule.needed
    last = seen[-of:]
    hits = [_beyond(rule, each.value) for each in last]
    sick = [not _well(rule, each.value) for each in last]
    since = last[-1].start
    for each, hit in zip(reversed(last), reversed(hits), strict=True):
        if not hit:
            break
        since = each.start
    return Finding(
        newest=last[-1],
        hits=sum(hits),
        windows=len(last),
        since=since,
        beyond=hits[-1],
        fires=hits[-1] and sum(hits) >= needed,
        well=not sick[-1] and sum(sick) < needed,
    )


def _beyond(rule: AlertRule, value: float) -> bool:
    if rule.above is not None:
        return value > rule.above
    return rule.below is not None and value < rule.below


def _well(rule: AlertRule, value: float) -> bool:
    """Whether a value is on the right side of where a window counts as well again."""
    if rule.above is not None:
        return value <= (rule.above if rule.clear is None else rule.clear)
    return rule.below is not None and value >= (rule.below if rule.clear is None else rule.clear)
