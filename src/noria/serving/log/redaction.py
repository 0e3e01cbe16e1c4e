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

from noria.serving.log.national_ids import DIGIT_FIRST, LETTER_FIRST, LETTERS_THEN_DIGITS, national_id
from noria.serving.log.secrets import SECRET, may_hold_secret
from noria.settings import READ, Project, RedactElse, Redaction, Region

TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
"""A string in valid JSON."""
_FIELD_NUMBER: Final = re.compile(r'": ?-?[0-9]+')
"""The name of a field with a number after it: where nothing is escaped, no string holds such a thing."""
_VALID: Final = msgspec.json.Decoder(msgspec.Raw)
_ROUNDS: Final = 8
_BEFORE: Final = 64
"""Characters before a string that are looked at for a word that says what it is."""

_EMAIL: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_CARD: Final = re.compile(r"[2-6](?<!\d.)(?<!\d[ -].)(?:[ -]?\d){12,18}(?![ -]?\d)", re.ASCII)
_IBAN: Final = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}", re.ASCII | re.IGNORECASE)
_IBAN_DIGITS: Final = re.compile(r"\d(?<=[A-Za-z]{2}.)(?<![A-Za-z0-9]..\d)\d(?:[ -]?[A-Za-z0-9]){11}", re.ASCII)
_PHONE: Final = re.compile(
    r"[+(\d](?<![\w.].)(?:(?<=\d)|\d)(?:(?:/|[ ().\-\u00a0]{0,3})\d){6,16}(?![\dA-DF-WYZa-df-wyz_])"
)
_DATE: Final = re.compile(r"(?:19|20)\d\d-[01]\d-[0-3]\d(?!\d)")
_SHAPE: Final = bytes(48 if 48 <= n <= 57 else 97 if bytes([n]).isalpha() else 120 for n in range(256))
_GAPS: Final = b" ().-/+\xc2\xa0"
_OTHER_DIGIT: Final = re.compile(r"(?![0-9])\d")
_SHORTEST: Final = 7
"""A string token of JSON that is shorter holds nothing: `"a@b.c"` has seven characters."""
_MOST_CHECKED: Final = 5000
"""Candidates of a kind in one text that are checked one by one; what comes after goes unchecked, so that nobody can
keep us busy for minutes."""

Span = tuple[int, int]
Part = Callable[[re.Match[str], str], Span | None]
"""Which part of a candidate has to go, given what stands before the text; None if nothing has."""


class _Glance:
    """A quick look at a text: enough to know that most texts hold nothing of a kind."""

    __slots__ = ("_shape", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._shape: bytes | None = None

    @property
    def shape(self) -> bytes:
        """The text with every digit as 0, every letter as a, and without the gaps that numbers are written with."""
        if self._shape is None:
            text = self.text if self.text.isascii() else _OTHER_DIGIT.sub("0", self.text)
            self._shape = text.encode(errors="replace").translate(_SHAPE, _GAPS)
        return self._shape

    def may_be_any_number(self) -> bool:
        """Three digits in a row, or what an IBAN begins with: every other number has that, too."""
        return b"000" in self.shape or b"aa00" in self.shape

    def may_be_email(self) -> bool:
        return "@" in self.text

    def may_be_number(self) -> bool:
        """A phone or a card: seven digits in a row."""
        return b"0000000" in self.shape

    def may_be_iban(self) -> bool:
        return b"aa00" in self.shape and _IBAN_DIGITS.search(self.text) is not None

    def may_be_national_id(self) -> bool:
        """Six digits in a row."""
        return b"000000" in self.shape

    def may_be_lettered_id(self) -> bool:
        """A number that begins with letters."""
        shape = self.shape
        maybe = b"a000000" in shape or b"aaaaa0000a" in shape or b"a00a000a" in shape
        return maybe and LETTERS_THEN_DIGITS.search(self.text) is not None

    def may_be_secret(self) -> bool:
        return may_hold_secret(self.text)


Rule = tuple[Redaction, Callable[[_Glance], bool], re.Pattern[str], Part]
"""What is taken out, whether a text may hold it, candidates, and which part of a candidate it is."""


class Redactor:
    """Redacts what an endpoint's project file says.

    Args:
        kinds: What to take out.
        regions: Countries whose national phone numbers are known; international ones always are.
        refuses: Whether a request in which names can't be looked for is refused, and not only kept out of the log.
    """

    def __init__(self, kinds: Iterable[Redaction], regions: Sequence[str] = ("US",), *, refuses: bool = True) -> None:
        chosen = set(kinds)
        self.asks: frozenset[str] = frozenset(kind.value for kind in READ & chosen)
        """What an EntityReader has to look for besides."""
        self.refuses = refuses
        self._regions = tuple(regions)
        every: tuple[Rule, ...] = (
            (Redaction.CREDENTIAL, _Glance.may_be_secret, SECRET, _whole),
            (Redaction.EMAIL, _Glance.may_be_email, _EMAIL, _whole),
            (Redaction.IBAN, _Glance.may_be_iban, _IBAN, _iban),
            (Redaction.CARD, _Glance.may_be_number, _CARD, _card),
            (Redaction.NATIONAL_ID, _Glance.may_be_national_id, DIGIT_FIRST, national_id),
            (Redaction.NATIONAL_ID, _Glance.may_be_lettered_id, LETTER_FIRST, national_id),
            (Redaction.PHONE, _Glance.may_be_number, _PHONE, self._phone),
        )
        self._rules = [rule for rule in every if rule[0] in chosen]
        self._wordy = [rule for rule in self._rules if rule[1] in (_Glance.may_be_secret, _Glance.may_be_email)]
        self._looks = tuple(dict.fromkeys(may_hold for _, may_hold, _, _ in self._rules))

    def text(self, text: str, before: str = "") -> tuple[str, tuple[str, ...]]:
        """The text without what has to go, and codes of what went (`REDACTED_EMAIL`).

        Args:
            text: Any text.
            before: What stands before it: a word there may say what a number is.
        """
        if not self._may_hold(text):
            return text, ()
        codes: set[str] = set()
        for _ in range(_ROUNDS):  # what goes may uncover its neighbour
            once = text
            for kind, may_hold, pattern, part in self._rules:
                if may_hold(_Glance(text)):
                    text = _without(text, before, kind, pattern, part, codes)
            if text == once:
                break
        return text, tuple(sorted(codes))

    def json(self, body: bytes) -> bytes:
        """A body without what has to go: in the strings of valid JSON, which stays valid, else anywhere."""
        return self.body(body)[0]

    def body(self, body: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Like `json`, with codes of what went. What isn't touched stays as it was, byte for byte."""
        try:
            text = body.decode()
            if "\\" not in text and not self._holds(text):
                return body, ()
            _VALID.decode(body)
            return self._strings(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, json.JSONDecodeError):
            clean, codes = self.text(body.decode(errors="surrogateescape"))
            return clean.encode(errors="surrogateescape"), codes

    def _may_hold(self, text: str) -> bool:
        glance = _Glance(text)
        for look in self._looks:  # noqa: SIM110 (a generator costs more than the looks)
            if look(glance):
                return True
        return False

    def _holds(self, body: str) -> bool:
        """Whether there is anything to take out of JSON in which nothing is escaped.

        No pattern but a secret's reaches over a quote, so what is found here is what its strings hold, or a number.
        """
        bare, glance, rules = body, _Glance(body), self._wordy
        if glance.may_be_any_number():
            bare = _FIELD_NUMBER.sub('":', body)
            glance = _Glance(bare)
            if glance.may_be_any_number():
                rules = self._rules
        for _, may_hold, pattern, part in rules:
            if not may_hold(glance):
                continue
            for checked, match in enumerate(pattern.finditer(bare)):
                if checked == _MOST_CHECKED or part(match, "") is not None:
                    return True
        return False

    def _strings(self, body: str) -> tuple[bytes, tuple[str, ...]]:
        """Valid JSON with its strings redacted; the name of a field says something of the string after it."""
        codes: set[str] = set()

        def redacted(match: re.Match[str]) -> str:
            token = match.group()
            if len(token) < _SHORTEST:
                return token
            text = json.loads(token, strict=False) if "\\" in token else token[1:-1]
            if not self._may_hold(text):
                return token
            after, found = self.text(text, body[max(0, match.start() - _BEFORE) : match.start()])
            codes.update(found)
            return token if after == text else json.dumps(after)

        clean = TOKEN.sub(redacted, body)
        return clean.encode(), tuple(sorted(codes))

    def _phone(self, found: re.Match[str], _: str) -> Span | None:
        """A valid number: written in any way with its country's code, in the usual groups without."""
        import phonenumbers  # its tables are loaded when the first number turns up

        candidate = found.group()
        if _DATE.match(candidate):
            return None
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


def _whole(found: re.Match[str], _: str) -> Span:
    return 0, len(found.group())


def _card(found: re.Match[str], _: str) -> Span | None:
    """A payment card's number, by its check digit."""
    from stdnum import luhn

    return (0, len(found.group())) if luhn.is_valid(re.sub("[ -]", "", found.group())) else None


def _iban(found: re.Match[str], _: str) -> Span | None:
    """An IBAN, by its check digits and its country's length; text may follow it."""
    from stdnum import iban

    candidate = found.group()
    for end in range(len(candidate), 14, -1):
        if candidate[end - 1].isalnum() and iban.is_valid(candidate[:end], check_country=False):
            return 0, end
    return None


def _without(text: str, before: str, kind: Redaction, pattern: re.Pattern[str], part: Part, codes: set[str]) -> str:
    """The text with a marker in the place of every confirmed match of a rule."""

    checks = itertools.count()

    def marked(match: re.Match[str]) -> str:
        found = match.group()
        span = part(match, before) if next(checks) < _MOST_CHECKED else (0, len(found))
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
        self._made: dict[tuple[tuple[Redaction, ...], tuple[Region, ...], RedactElse], Redactor] = {}

    def __getitem__(self, endpoint: str) -> Redactor:
        asked = self._project().endpoints[endpoint]
        wanted = asked.redact, asked.redact_regions, asked.redact_else
        if wanted not in self._made:
            refuses = asked.redact_else is RedactElse.REFUSE
            self._made[wanted] = Redactor(asked.redact, asked.redact_regions, refuses=refuses)
        return self._made[wanted]

    def __iter__(self) -> Iterator[str]:
        return iter(self._project().endpoints)

    def __len__(self) -> int:
        return len(self._project().endpoints)
