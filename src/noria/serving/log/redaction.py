"""Takes personal data and secrets out of text before it touches the disk.

Clean text is let pass after a quick look at it, in microseconds. What is taken out leaves a marker that says what it
was (`[email]`), and redacting twice changes nothing. Patterns are bounded, and so are the checks that one body is worth
(`effort`): no text takes more than a linear look and a tenth of a second.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from noria.serving.log.effort import Effort, Span, whole
from noria.serving.log.national_ids import DIGIT_FIRST, LETTER_FIRST, LETTERS_THEN_DIGITS, national_id
from noria.serving.log.secrets import SECRET, may_hold_secret
from noria.settings import READ, Endpoint, Project, RedactElse, Redaction, Region

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
_IBAN_SHAPE: Final = re.compile(rb"0(?<=aa0)0[a0]{11}")
_LETTERED_SHAPE: Final = re.compile(rb"0(?<=a0)(?:00000|000a(?<=a{5}0{4}a)|0a000a)")
"""Both begin with a digit, of which there are fewest, so that they are found quickest."""
_PHONE: Final = re.compile(
    r"[+(\d](?<![\w.].)(?:(?<=\d)|\d)(?:(?:/|[ ().\-\u00a0]{0,3})\d){6,16}(?![\dA-DF-WYZa-df-wyz_])"
)
_DATE: Final = re.compile(r"(?:19|20)\d\d-[01]\d-[0-3]\d(?!\d)")
_SHAPE: Final = bytes(48 if 48 <= n <= 57 else 97 if bytes([n]).isalpha() else 120 for n in range(256))
_GAPS: Final = b" ().-/+\xc2\xa0"
_OTHER_DIGIT: Final = re.compile(r"(?![0-9])\d")
_SHORTEST: Final = 7
"""A string token of JSON that is shorter holds nothing: `"a@b.c"` has seven characters."""
_SHORTEST_IBAN: Final = 15
_MANY: Final = 1000
"""So many strings of JSON are not redacted one by one, but together."""
_APART: Final = "\udfff"
"""Stands between them in a line of its own: no pattern reaches over it, and no string of valid JSON holds it."""
_GROUP: Final = re.compile(r"\d+")
_FEWEST_GROUPED: Final = 5
"""So many digits of a national phone number at the least don't stand alone: `0 3 1234 5678`."""

Part = Callable[[re.Match[str], str, Effort], Span | None]
"""Which part of a candidate has to go, given what stands before the text and what may still be checked."""


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
        """Any of the kinds that follow, but for an email."""
        shape = self.shape
        if b"000" not in shape and b"aa00" not in shape:
            return False
        return b"000000" in shape or self.may_be_lettered_id() or self.may_be_iban()

    def may_be_email(self) -> bool:
        return "@" in self.text

    def may_be_number(self) -> bool:
        """A phone or a card: seven digits in a row."""
        return b"0000000" in self.shape

    def may_be_iban(self) -> bool:
        return _IBAN_SHAPE.search(self.shape) is not None and _IBAN_DIGITS.search(self.text) is not None

    def may_be_national_id(self) -> bool:
        """Six digits in a row."""
        return b"000000" in self.shape

    def may_be_lettered_id(self) -> bool:
        """A number that begins with letters."""
        return _LETTERED_SHAPE.search(self.shape) is not None and LETTERS_THEN_DIGITS.search(self.text) is not None

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
            (Redaction.CREDENTIAL, _Glance.may_be_secret, SECRET, whole),
            (Redaction.EMAIL, _Glance.may_be_email, _EMAIL, whole),
            (Redaction.IBAN, _Glance.may_be_iban, _IBAN, _iban),
            (Redaction.CARD, _Glance.may_be_number, _CARD, _card),
            (Redaction.NATIONAL_ID, _Glance.may_be_national_id, DIGIT_FIRST, national_id),
            (Redaction.NATIONAL_ID, _Glance.may_be_lettered_id, LETTER_FIRST, national_id),
            (Redaction.PHONE, _Glance.may_be_number, _PHONE, self._phone),
        )
        self._rules = [rule for rule in every if rule[0] in chosen]
        self._wordy = [rule for rule in self._rules if rule[1] in (_Glance.may_be_secret, _Glance.may_be_email)]
        self._looks = tuple(dict.fromkeys(may_hold for _, may_hold, _, _ in self._rules))

    def text(self, text: str, before: str = "", effort: Effort | None = None) -> tuple[str, tuple[str, ...]]:
        """The text without what has to go, and codes of what went (`REDACTED_EMAIL`).

        Args:
            text: Any text.
            before: What stands before it: a word there may say what a number is.
            effort: What may be done for it and for what belongs to it; a body's worth if nothing is said.
        """
        if not self._may_hold(text):
            return text, ()
        effort = effort or Effort()
        codes: set[str] = set()
        for _ in range(_ROUNDS):  # what goes may uncover its neighbour
            once = text
            for rule in self._rules:
                if rule[1](_Glance(text)):
                    text = _without(text, before, rule, effort, codes)
            if text == once:
                break
        return text, tuple(sorted(codes))

    def json(self, body: bytes) -> bytes:
        """A body without what has to go: in the strings of valid JSON, which stays valid, else anywhere."""
        return self.body(body)[0]

    def body(self, body: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Like `json`, with codes of what went. What isn't touched stays as it was, byte for byte."""
        effort: Effort | None = None
        try:
            text = body.decode()
            if "\\" not in text and (effort := self._effort_for(text)) is None:
                return body, ()
            effort = effort or Effort()
            _VALID.decode(body)
            return self._strings(text, effort) if text.count('"') < 2 * _MANY else self._together(text, effort)
        except (msgspec.MsgspecError, UnicodeDecodeError, json.JSONDecodeError):
            clean, codes = self.text(body.decode(errors="surrogateescape"), "", effort)
            return clean.encode(errors="surrogateescape"), codes

    def _may_hold(self, text: str) -> bool:
        glance = _Glance(text)
        for look in self._looks:  # noqa: SIM110 (a generator costs more than the looks)
            if look(glance):
                return True
        return False

    def _effort_for(self, body: str) -> Effort | None:
        """What may be done for JSON in which nothing is escaped, if there is anything to take out of it.

        No pattern but a secret's reaches over a quote, so what is found here is what its strings hold, or a number.
        """
        bare, glance, rules = body, _Glance(body), self._wordy
        if glance.may_be_any_number():
            bare = _FIELD_NUMBER.sub('":', body)
            glance = _Glance(bare)
            if glance.may_be_any_number():
                rules = self._rules
        effort = quick = None
        for _, may_hold, pattern, part in rules:
            if not may_hold(glance):
                continue
            if effort is None or quick is None:
                effort = Effort()
                quick = effort.share()
            for match in pattern.finditer(bare):
                if not quick.look() or part(match, "", quick) is not None:
                    return effort
        return None

    def _strings(self, body: str, effort: Effort) -> tuple[bytes, tuple[str, ...]]:
        """Valid JSON with its strings redacted; the name of a field says something of the string after it."""
        codes: set[str] = set()

        def redacted(match: re.Match[str]) -> str:
            token = match.group()
            if len(token) < _SHORTEST:
                return token
            text = json.loads(token, strict=False) if "\\" in token else token[1:-1]
            if not self._may_hold(text):
                return token
            after, found = self.text(text, body[max(0, match.start() - _BEFORE) : match.start()], effort)
            codes.update(found)
            return token if after == text else json.dumps(after)

        clean = TOKEN.sub(redacted, body)
        return clean.encode(), tuple(sorted(codes))

    def _together(self, body: str, effort: Effort) -> tuple[bytes, tuple[str, ...]]:
        """Like `_strings`, for very many: what stands before a string are the strings before it."""
        spans = [match.span() for match in TOKEN.finditer(body)]
        texts = [body[start + 1 : end - 1] for start, end in spans]
        if "\\" in body:
            texts = [json.loads(f'"{text}"', strict=False) if "\\" in text else text for text in texts]
        clean, codes = self.text(f"\n{_APART}\n".join(texts), "", effort)
        if not codes:
            return body.encode(), ()
        pieces, last = [], 0
        for (start, end), before, after in zip(spans, texts, f"\n{clean}\n".split(_APART), strict=True):
            after = after[1:].removesuffix("\n")  # a key without its end has taken that with it
            if before != after:
                pieces += [body[last:start], json.dumps(after)]
                last = end
        return "".join([*pieces, body[last:]]).encode(), codes

    def _phone(self, found: re.Match[str], _: str, effort: Effort) -> Span | None:
        """A valid number: written in any way with its country's code, in the usual groups without."""
        candidate = found.group()
        if _DATE.match(candidate):
            return None
        skipped = 1 if candidate.startswith("00") else 0
        number = f"+{candidate[2:]}" if skipped else candidate
        regions: tuple[str | None, ...] = (None,) if number.startswith("+") else self._regions
        groups = _GROUP.findall(number)
        if regions != (None,) and sum(len(group) for group in groups if len(group) > 1) < _FEWEST_GROUPED:
            return None
        if ("phone", candidate) not in effort.known:
            if not effort.check(len(regions) * (1 + len(groups) // 2)):
                return 0, len(candidate)
            effort.known["phone", candidate] = _phone_in(number, regions, skipped)
        return effort.known["phone", candidate]


def _phone_in(number: str, regions: Iterable[str | None], skipped: int) -> Span | None:
    """Which part of a candidate is a valid number, once `skipped` characters before it are counted again."""
    import phonenumbers  # its tables are loaded when the first number turns up

    strict, lenient = phonenumbers.Leniency.STRICT_GROUPING, phonenumbers.Leniency.VALID
    for region in regions:
        for match in phonenumbers.PhoneNumberMatcher(number, region, leniency=strict if region else lenient):
            if match.start == 0:
                return 0, match.end + skipped
            if number[match.start - 1] == " ":  # else it is the rest of another number
                return match.start + skipped, match.end + skipped
    return None


def _card(found: re.Match[str], _: str, _effort: Effort) -> Span | None:
    """A payment card's number, by its check digit."""
    from stdnum import luhn

    return (0, len(found.group())) if luhn.is_valid(re.sub("[ -]", "", found.group())) else None


def _iban(found: re.Match[str], _: str, effort: Effort) -> Span | None:
    """An IBAN, by its check digits and its country's length; text may follow it."""
    from stdnum import iban

    candidate = found.group()
    for end in _balanced(candidate):
        if not effort.check() or iban.is_valid(candidate[:end], check_country=False):
            return 0, end
    return None


def _balanced(candidate: str) -> list[int]:
    """Where an IBAN that begins the candidate may end by its check digits (ISO 7064, modulo 97), the longest first."""
    head, rest, ends = int("".join(str(int(letter, 36)) for letter in candidate[:4])), 0, []
    for end, letter in enumerate(candidate[4:], start=5):
        if letter not in " -":
            value = int(letter, 36)
            rest = (rest * (100 if value > 9 else 10) + value) % 97
            if end >= _SHORTEST_IBAN and (rest * 1_000_000 + head) % 97 == 1:
                ends.append(end)
    return ends[::-1]


def _without(text: str, before: str, rule: Rule, effort: Effort, codes: set[str]) -> str:
    """The text with a marker in the place of every confirmed match of a rule."""
    kind, _, pattern, part = rule
    marker, code, pieces, last = f"[{kind.value}]", f"REDACTED_{kind.name}", [], 0
    if part is whole:
        clean, times = pattern.subn(marker, text)
        if times:
            codes.add(code)
        return clean
    for match in pattern.finditer(text):
        if not effort.look():
            pieces.append(text[last : match.start()])
            codes.add(code)
            return "".join([*pieces, pattern.sub(marker, text[match.start() :])])
        span = part(match, before, effort)
        if span is not None:
            pieces += [text[last : match.start() + span[0]], marker]
            last = match.start() + span[1]
            codes.add(code)
    return "".join([*pieces, text[last:]]) if pieces else text


class Redactors(Mapping[str, Redactor]):
    """Endpoint → what is taken out of its bodies, as the project in service says at this moment.

    Args:
        project: The project in service.
    """

    def __init__(self, project: Callable[[], Project]) -> None:
        self._project = project
        self._seen: Project | None = None
        self._known: dict[str, Redactor] = {}
        self._made: dict[tuple[tuple[Redaction, ...], tuple[Region, ...], RedactElse], Redactor] = {}

    def __getitem__(self, endpoint: str) -> Redactor:
        project = self._project()
        if project is not self._seen:
            self._known = {name: self._redactor(asked) for name, asked in project.endpoints.items()}
            self._seen = project
        return self._known[endpoint]

    def _redactor(self, asked: Endpoint) -> Redactor:
        wanted = asked.redact, asked.redact_regions, asked.redact_else
        if wanted not in self._made:
            refuses = asked.redact_else is RedactElse.REFUSE
            self._made[wanted] = Redactor(asked.redact, asked.redact_regions, refuses=refuses)
        return self._made[wanted]

    def __iter__(self) -> Iterator[str]:
        return iter(self._project().endpoints)

    def __len__(self) -> int:
        return len(self._project().endpoints)
