"""Takes personal data and secrets out of text before it touches the disk.

Clean text is let pass after a quick look at it, in microseconds. What is taken out leaves a marker that says what it
was (`[email]`), and redacting twice changes nothing. Patterns are bounded: no text takes more than linear time.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from noria.settings import Project, Redaction

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
"""A string in valid JSON."""
_VALID: Final = msgspec.json.Decoder(msgspec.Raw)
_ROUNDS: Final = 8

_DIGITS: Final = re.compile(r"\d(?:(?:/|[ ().\-\u00a0]{0,3})\d){6}")
_EMAIL: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_CARD: Final = re.compile(r"(?<!\d)(?<!\d[ -])[2-6](?:[ -]?\d){12,18}(?![ -]?\d)", re.ASCII)
_IBAN: Final = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}", re.ASCII | re.IGNORECASE)
_IBAN_HINT: Final = re.compile(r"\d\d[ -]?[A-Za-z0-9]{4}")
_PHONE: Final = re.compile(r"(?<![\w.])[+(]?\d(?:(?:/|[ ().\-\u00a0]{0,3})\d){6,16}(?![\dA-DF-WYZa-df-wyz_])")
_SECRET: Final = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[^-]|-(?!----))*(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?",
            r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, Stripe
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})",
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",  # AWS
            r"\bAIza[\w-]{35}",  # Google
            r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",  # Slack
            r"\bdapi[0-9a-f]{32}",  # Databricks
            r"\b(?:hf|npm)_[A-Za-z0-9]{30,}",
            r"\bSG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
            r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?",  # JSON web tokens
            r"(?<=AccountKey=)[A-Za-z0-9+/=]{40,}",  # Azure storage
            r"(?i:(?<=bearer ))[\w.~+/=-]{16,}",
            r"(?<=://)[^\s/:@\[\]]{1,64}:[^\s/@\[\]]{1,128}(?=@)",  # in a URL
            r"(?i:(?<=password=)|(?<=password: )|(?<=passwd=)|(?<=secret=)|(?<=api_key=)|(?<=apikey=)"
            r"|(?<=api-key: )|(?<=access_token=))[^\s\[\]&;,\"']{6,}",
        )
    )
)
_SECRET_HINTS: Final = {
    "": ("akia", "asia", "aiza", "dapi", "sg.", "eyj", "bearer ", "password: ", "://"),
    "-": ("private key", "sk-", "pk-", "rk-", "glpat-", "xox", "api-key"),
    "_": ("sk_", "pk_", "rk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "hf_", "npm_"),
    "=": ("password=", "passwd=", "secret=", "api_key=", "apikey=", "accountkey=", "access_token="),
}
"""Every secret holds one of these, in lower case; a group is looked for only where its character occurs."""
_MOST_CHECKED: Final = 5000
"""Candidates of a kind in one text that are checked one by one; what comes after goes unchecked, so that nobody can
keep us busy for minutes."""

Span = tuple[int, int]
Rule = tuple[Redaction, Callable[[str], bool], re.Pattern[str], Callable[[str], Span | None]]
"""What is taken out, whether a text may hold it, candidates, and which part of a candidate it is."""


class Redactor:
    """Redacts what an endpoint's project file says.

    Args:
        kinds: What to take out.
        regions: Countries whose national phone numbers are known; international ones always are.
    """

    def __init__(self, kinds: Iterable[Redaction], regions: Sequence[str] = ("US",)) -> None:
        chosen = set(kinds)
        self._regions = tuple(regions)
        every: tuple[Rule, ...] = (
            (Redaction.CREDENTIAL, _may_hold_secret, _SECRET, _whole),
            (Redaction.EMAIL, lambda text: "@" in text, _EMAIL, _whole),
            (Redaction.IBAN, lambda text: _IBAN_HINT.search(text) is not None, _IBAN, _iban),
            (Redaction.CARD, _has_digits, _CARD, _card),
            (Redaction.PHONE, _has_digits, _PHONE, self._phone),
        )
        self._rules = [rule for rule in every if rule[0] in chosen]

    def text(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text without what has to go, and codes of what went (`REDACTED_EMAIL`)."""
        codes: set[str] = set()
        for _ in range(_ROUNDS):  # what goes may uncover its neighbour
            before = text
            for kind, may_hold, pattern, part in self._rules:
                if may_hold(text):
                    text = _without(text, kind, pattern, part, codes)
            if text == before:
                break
        return text, tuple(sorted(codes))

    def json(self, body: bytes) -> bytes:
        """A body without what has to go: in the strings of valid JSON, which stays valid, else anywhere."""
        return self.body(body)[0]

    def body(self, body: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Like `json`, with codes of what went. What isn't touched stays as it was, byte for byte."""
        try:
            text = body.decode()
            if "\\" not in text and not self._may_hold(text):
                return body, ()
            _VALID.decode(body)
            return self._strings(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, json.JSONDecodeError):
            clean, codes = self.text(body.decode(errors="surrogateescape"))
            return clean.encode(errors="surrogateescape"), codes

    def _may_hold(self, text: str) -> bool:
        return any(may_hold(text) for _, may_hold, _, _ in self._rules)

    def _strings(self, body: str) -> tuple[bytes, tuple[str, ...]]:
        """Valid JSON with its strings redacted."""
        codes: set[str] = set()

        def redacted(match: re.Match[str]) -> str:
            token = match.group()
            before = json.loads(token, strict=False) if "\\" in token else token[1:-1]
            after, found = self.text(before)
            codes.update(found)
            return token if after == before else json.dumps(after)

        clean = _TOKEN.sub(redacted, body)
        return clean.encode(), tuple(sorted(codes))

    def _phone(self, candidate: str) -> Span | None:
        """A valid number: written in any way with its country's code, in the usual groups without."""
        import phonenumbers  # its tables are loaded when the first number turns up

        skipped = 1 if candidate.startswith("00") else 0
        number = f"+{candidate[2:]}" if skipped else candidate
        strict, lenient = phonenumbers.Leniency.STRICT_GROUPING, phonenumbers.Leniency.VALID
        for region in (None,) if number.startswith("+") else self._regions:
            matcher = phonenumbers.PhoneNumberMatcher(number, region, leniency=strict if region else lenient)
            for match in matcher:
                if match.start == 0:
                    return 0, match.end + skipped
                if number[match.start - 1] == " ":  # else it is the rest of another number
                    return match.start + skipped, match.end + skipped
        return None


def _has_digits(text: str) -> bool:
    return _DIGITS.search(text) is not None


def _may_hold_secret(text: str) -> bool:
    lower = text.lower()
    return any(mark in lower and any(hint in lower for hint in hints) for mark, hints in _SECRET_HINTS.items())


def _whole(candidate: str) -> Span:
    return 0, len(candidate)


def _card(candidate: str) -> Span | None:
    """A payment card's number, by its check digit."""
    from stdnum import luhn

    return _whole(candidate) if luhn.is_valid(re.sub("[ -]", "", candidate)) else None


def _iban(candidate: str) -> Span | None:
    """An IBAN, by its check digits and its country's length; text may follow it."""
    from stdnum import iban

    for end in range(len(candidate), 14, -1):
        if candidate[end - 1].isalnum() and iban.is_valid(candidate[:end], check_country=False):
            return 0, end
    return None


def _without(
    text: str, kind: Redaction, pattern: re.Pattern[str], part: Callable[[str], Span | None], codes: set[str]
) -> str:
    """The text with a marker in the place of every confirmed match of a rule."""

    checks = itertools.count()

    def marked(match: re.Match[str]) -> str:
        found = match.group()
        span = part(found) if next(checks) < _MOST_CHECKED else _whole(found)
        if span is None:
            return found
        codes.add(f"REDACTED_{kind.name}")
        return f"{found[: span[0]]}[{kind.value}]{found[span[1] :]}"

    return pattern.sub(marked, text)


class Redactors(Mapping[str, Redactor]):
    """Endpoint → what is taken out of its bodies, as the project in service says at this moment.

    Args:
        project: The project in service.
    """

    def __init__(self, project: Callable[[], Project]) -> None:
        self._project = project
        self._made: dict[tuple[Redaction, ...], Redactor] = {}

    def __getitem__(self, endpoint: str) -> Redactor:
        kinds = self._project().endpoints[endpoint].redact
        if kinds not in self._made:
            self._made[kinds] = Redactor(kinds)
        return self._made[kinds]

    def __iter__(self) -> Iterator[str]:
        return iter(self._project().endpoints)

    def __len__(self) -> int:
        return len(self._project().endpoints)
