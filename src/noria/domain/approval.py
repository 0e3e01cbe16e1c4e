"""An approval: what a policy asks of people once every gate has passed, and what they said.

    waiting → approved | refused | expired

Only an approved one lets its version go to the traffic. Each ends once, and keeps who ended it, when and why.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from noria.domain.audit import LOOP
from noria.domain.errors import Refused
from noria.domain.gate import Verdict


class ApprovalState(StrEnum):
    """Where an approval stands."""

    WAITING = "waiting"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    """Nobody decided in time, or there was nothing left to decide; `Approval.reason` says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Whether people allow what the gates let pass.

    Attributes:
        verdict_id: Verdict that waits for it.
        endpoint: Endpoint that the verdict is about.
        state: Where it stands.
        asked_at: When the gates had passed.
        expires_at: From when on nobody can give it any more.
        people: Who may decide; empty if anybody may.
        requested_by: People who asked for the run or uploaded the version.
        four_eyes: Whether those may not decide themselves.
        by: Who decided; empty until somebody did.
        at: When it ended.
        reason: Why it ended so.
    """

    verdict_id: str
    endpoint: str
    state: ApprovalState
    asked_at: datetime
    expires_at: datetime
    people: tuple[str, ...] = ()
    requested_by: tuple[str, ...] = ()
    four_eyes: bool = True
    by: str = ""
    at: datetime | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        """Its verdict's: there is one for each."""
        return self.verdict_id

    @property
    def waits(self) -> bool:
        """Whether nobody has decided yet."""
        return self.state is ApprovalState.WAITING

    @property
    def whom(self) -> str:
        """Who may decide, in words."""
        barred = self.requested_by if self.four_eyes else ()
        if not self.people:
            return "anybody" + (f" but {' and '.join(barred)}" if barred else "")
        able = [person for person in self.people if not _among(person, barred)]
        return " or ".join(able) or f"nobody: {' and '.join(self.people)} asked for it"

    def decided(self, state: ApprovalState, by: str, at: datetime, reason: str) -> "Approval":
        """The approval as that person ends it.

        Raises:
            Refused: Nobody is named, no reason is given, it has ended already, or this person may not decide.
        """
        person = by.strip()
        if not person or not reason.strip():
            raise Refused("An approval needs a person and a reason, whichever way it goes.", "Say who decides and why.")
        if not self.waits:
            raise Refused(f"Verdict {self.verdict_id} waits for nobody: {self.ending}.", "See noria verdict show.")
        if at >= self.expires_at:
            raise Refused(
                f"The time to decide about verdict {self.verdict_id} was over at {_time(self.expires_at)}.",
                "Have the version judged once more: noria model add ENDPOINT models:/NAME/VERSION.",
            )
        if _among(person, (LOOP,)):
            raise Refused(f"{LOOP} is the loop itself, and it takes a person.", "Say --by YOUR NAME.")
        if self.people and not _among(person, self.people):
            raise Refused(
                f"{person} may not decide about verdict {self.verdict_id}.", f"The policy names {_all(self.people)}."
            )
        if self.four_eyes and _among(person, self.requested_by):
            raise Refused(
                f"{person} asked for what verdict {self.verdict_id} is about, and the policy wants a second person.",
                f"It waits for {self.whom}.",
            )
        return replace(self, state=state, by=person, at=at, reason=reason.strip())

    def ended(self, at: datetime, why: str) -> "Approval":
        """The approval, over without a decision."""
        return replace(self, state=ApprovalState.EXPIRED, at=at, reason=why)

    @property
    def ending(self) -> str:
        """Where it stands, in words and without a full stop."""
        if self.waits:
            return f"waits for approval by {self.whom} until {_time(self.expires_at)}"
        return f"{self.state.value}{f' by {self.by}' if self.by else ''}: {self.reason}"


def standing(verdict: Verdict, approval: Approval | None) -> str:
    """What a verdict comes to, in one word.

    passed, refused, overridden; where people are asked: waiting, approved, refused, expired, or unapproved if nothing
    is kept.
    """
    if verdict.override_by:
        return "overridden"
    if not verdict.passed:
        return "refused"
    if not verdict.needs_approval:
        return "passed"
    return approval.state.value if approval is not None else "unapproved"


def obstacle(verdict: Verdict, approval: Approval | None) -> str:
    """Why a verdict allows no traffic, in words and without a full stop; empty if it does."""
    if not verdict.passed:
        return "; ".join(reason.rstrip(".") for reason in verdict.reasons) or "no gate has passed"
    if not verdict.needs_approval:
        return ""
    if approval is None:
        return "its policy asks for an approval, and none is kept"
    return "" if approval.state is ApprovalState.APPROVED else approval.ending


def _among(person: str, people: Iterable[str]) -> bool:
    """Whether somebody is one of them, however the name is spaced or capitalised."""
    return _plain(person) in {_plain(other) for other in people}


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


def _all(people: Iterable[str]) -> str:
    return ", ".join(people)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
