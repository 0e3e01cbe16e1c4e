"""The policy file of an endpoint: read, checked, and known by its hash.

The hash is of what the policy says, not of how the file is laid out: a comment changes nothing, a threshold does.
Verdicts and records carry it.
"""

import json
from datetime import date
from hashlib import sha256
from pathlib import Path

from noria.domain.errors import InvalidProject
from noria.projectfile import parse_yaml, read_text
from noria.settings import Policy


def load_policy(path: Path) -> tuple[Policy, str]:
    """The policy in a file, and its hash.

    Raises:
        InvalidProject: There is no such file, it can't be read, or something in it is wrong: with line, key and what to
            write instead.
    """
    text = read_text(path.parent, path.name)
    policy = parse_yaml(text, Policy, f"{path.parent.name}/{path.name}")
    expired(policy.review_by, date.min)  # a date that doesn't exist is found here, not when it is due
    return policy, policy_hash(policy)


def policy_hash(policy: Policy) -> str:
    """SHA-256 of the policy as canonical JSON, hex."""
    canonical = json.dumps(policy.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(canonical.encode()).hexdigest()


def expired(review_by: str, today: date) -> bool:
    """Whether the date by which somebody had to look again has passed.

    Raises:
        InvalidProject: The calendar has no such day.
    """
    try:
        return date.fromisoformat(review_by) < today
    except ValueError:
        raise InvalidProject(
            f"review_by: {review_by} is not a day of the calendar.", "Write a date such as 2027-12-31."
        ) from None
