"""What a judge has done so far."""

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeState:
    """A judge's account: what it judged, what came of it, and what it cost.

    Attributes:
        id: `endpoint:judge:NAME`.
        endpoint: Endpoint whose answers it judges.
        judge: Its name in the project file.
        version: Of what it judges by and with; another one begins to count anew.
        model: The judging model, `model/version` or `upstream/model`.
        judged: Answers with a verdict.
        garbage: Replies that were no verdict: counted, never guessed at.
        failed: Requests that got no reply.
        skipped: Sampled answers that the day's budget left out.
        day: The day that the two below are of.
        requests: Requests of that day.
        usd: What they cost, US dollars.
        problem: Why it can't judge now; empty if it can.
        at: When it last judged.
    """

    id: str
    endpoint: str
    judge: str
    version: str
    model: str
    judged: int = 0
    garbage: int = 0
    failed: int = 0
    skipped: int = 0
    day: date
    requests: int = 0
    usd: float = 0.0
    problem: str = ""
    at: datetime
