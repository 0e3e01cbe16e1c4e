"""National identity, tax and health numbers, by the way they are written and by their check digits (python-stdnum).

A number is taken for one if it is written in one of the ways below and valid. Where the way it is written and its check
digits leave little to chance that is enough (`alone`). A bare row of digits with one check digit or none is as often a
number of something else: it goes only if a word that names it stands near (`near`).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Final

from noria.serving.log.effort import Effort

DIGIT_FIRST: Final = re.compile(
    r"\d(?=[A-Za-z0-9 ./+-]{7})(?<![\w@].)(?<!\w[-./+].)(?:"
    r"\d{0,7}(?: \d{1,8}){1,7}"
    r"|[A-Za-z0-9]{0,17}(?:[-./+][A-Za-z0-9]{1,8}){0,4}"
    r")(?![\w@])(?![-/]\w)",
    re.ASCII,
)
"""Candidates that begin with a digit, as nearly all do."""
LETTER_FIRST: Final = re.compile(
    r"(?<![\w@])(?<!\w[-./+])[A-Za-z](?:"
    r"[A-Za-z] \d\d \d\d \d\d [A-Da-d]"
    r"|(?=[A-Za-z-]{0,6}\d)[A-Za-z0-9]{0,17}(?:-[A-Za-z0-9]{1,8}){0,4}"
    r")(?![\w@])(?![-/]\w)",
    re.ASCII,
)
"""Candidates that begin with a letter."""
LETTERS_THEN_DIGITS: Final = re.compile(
    r"\d(?:"
    r"(?:(?<=\b[A-Za-z].)|(?<=\b[A-Za-z]{2}.)|(?<=\b[A-Za-z]{4}.)|(?<=\b[A-Za-z]-.)|(?<=\b[A-Za-z]{2}[ -].))"
    r"\d[ -]?\d\d[ -]?\d\d"
    r"|(?<=\b[A-Za-z]{5}.)\d{3}[A-Za-z]\b"
    r"|(?<=\b[A-Za-z]{6}.)\d[A-Za-z]\d\d[A-Za-z]\d{3}[A-Za-z]\b)",
    re.ASCII,
)
"""What every one of them holds: quicker to look for, since it begins with a digit."""
_NEAR_BEFORE, _NEAR_AFTER = 48, 24
"""Characters before and after a number in which a word that names it counts."""
_LEAST, _MOST = 8, 22
"""Length of what may be one of these numbers as it is written."""
Span = tuple[int, int]
Ways = dict[str, list[tuple["NationalId", bool]]]
"""A way of writing → what may be written so, and whether a word has to stand near."""


@dataclass(frozen=True, slots=True)
class NationalId:
    """One kind of number.

    Attributes:
        country: ISO 3166 code.
        name: What it is called there.
        check: Module of python-stdnum that validates it.
        alone: The ways of writing it that need no word: `9` is a digit, `A` a letter.
        near: The ways that need one.
        words: Words that name it, a pattern; whole words, in any case.
    """

    country: str
    name: str
    check: str
    alone: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    words: str = ""


_DE: Final = r"steuer\w*|id-?nr|identifikationsnummer"
_FR: Final = r"nir|insee|s[ée]cu(?:rit[ée])?"
_TAX: Final = r"tax (?:file )?(?:id|number|no)|taxpayer|tin"
KNOWN: Final = (
    NationalId("US", "SSN", "us.ssn", ("999-99-9999",), ("999 99 9999", "999999999"), r"ssn|social security|soc sec"),
    NationalId("US", "ITIN", "us.itin", ("999-99-9999",), ("999 99 9999", "999999999"), rf"itin|{_TAX}"),
    NationalId(
        "GB", "NHS number", "gb.nhs", near=("999 999 9999", "999-999-9999", "9999999999"), words="nhs|health service"
    ),
    NationalId("GB", "National Insurance number", "nino", ("AA999999A", "AA 99 99 99 A", "AA-99-99-99-A")),
    NationalId("DE", "Steuer-IdNr", "de.idnr", ("99 999 999 999",), ("99/999/999/999", "9" * 11), _DE),
    NationalId("FR", "NIR", "fr.nir", ("9 99 99 99 999 999 99", "999999A99999999"), ("9" * 15,), _FR),
    NationalId("FR", "SPI", "fr.nif", near=("9999999999999", "99 99 999 999 999"), words="fiscal|spi|impôts?|impots?"),
    NationalId("ES", "DNI", "es.dni", ("99999999A", "99999999-A", "99.999.999-A")),
    NationalId("ES", "NIE", "es.nie", ("A9999999A", "A-9999999-A", "A9999999-A", "A-9999999A")),
    NationalId("IT", "codice fiscale", "it.codicefiscale", ("AAAAAA99A99A999A",)),
    NationalId("NL", "BSN", "nl.bsn", near=("999999999", "999 999 999", "9999.99.999"), words="bsn|burgerservice|sofi"),
    NationalId(
        "BE",
        "rijksregisternummer",
        "be.nn",
        ("99.99.99-999.99",),
        ("99999999999",),
        "rijksregister|national number|registre national",
    ),
    NationalId("CH", "AHV", "ch.ssn", ("999.9999.9999.99",), ("9999999999999",), "ahv|avs"),
    NationalId("AT", "SVNR", "at.vnr", near=("9999999999", "9999 999999"), words="svnr|sozialversicherung|sv-nummer"),
    NationalId("IE", "PPS", "ie.pps", near=("9999999A", "9999999AA"), words="ppsn?|personal public"),
    NationalId("PT", "NIF", "pt.nif", near=("999999999", "999 999 999"), words="nif|contribuinte"),
    NationalId("SE", "personnummer", "se.personnummer", ("999999-9999", "999999+9999", "99999999-9999")),
    NationalId("DK", "CPR", "dk.cpr", near=("999999-9999", "9999999999"), words="cpr"),
    NationalId("NO", "fødselsnummer", "no.fodselsnummer", ("99999999999", "999999 99999")),
    NationalId("FI", "henkilötunnus", "fi.hetu", ("999999-9999", "999999-999A", "999999A9999", "999999A999A")),
    NationalId("IS", "kennitala", "is_.kennitala", near=("999999-9999", "9999999999"), words="kennitala"),
    NationalId("PL", "PESEL", "pl.pesel", near=("99999999999",), words="pesel"),
    NationalId("CZ", "rodné číslo", "cz.rc", ("999999/9999",), ("9999999999", "999999999"), "rodn[ée]|rč"),
    NationalId("RO", "CNP", "ro.cnp", near=("9999999999999",), words="cnp|cod numeric"),
    NationalId("BG", "EGN", "bg.egn", near=("9999999999",), words="egn|егн"),
    NationalId("EE", "isikukood", "ee.ik", near=("99999999999",), words="isikukood"),
    NationalId("LT", "asmens kodas", "lt.asmens", near=("99999999999",), words="asmens"),
    NationalId("HR", "OIB", "hr.oib", near=("99999999999",), words="oib"),
    NationalId("GR", "AMKA", "gr.amka", near=("99999999999",), words="amka|αμκα"),
    NationalId("TR", "T.C. kimlik", "tr.tckimlik", near=("99999999999",), words="kimlik|tckn|t\\.c\\."),
    NationalId("IL", "ID number", "il.idnr", near=("999999999",), words="israeli id|teudat|zehut"),
    NationalId("ZA", "ID number", "za.idnr", near=("9999999999999", "999999 9999 99 9"), words="id|identity"),
    NationalId(
        "IN", "Aadhaar", "in_.aadhaar", near=("9999 9999 9999", "9999-9999-9999", "9" * 12), words="aadhaa?r|आधार"
    ),
    NationalId("IN", "PAN", "in_.pan", near=("AAAAA9999A",), words="pan|permanent account|income tax"),
    NationalId("CN", "resident id", "cn.ric", ("9" * 18, "9" * 17 + "A")),
    NationalId("KR", "RRN", "kr.rrn", ("999999-9999999",), ("9999999999999",), "rrn|resident registration|주민"),
    NationalId(
        "JP", "My Number", "jp.in_", near=("9" * 12, "9999 9999 9999"), words="my number|individual number|マイナンバー"
    ),
    NationalId("TH", "ID number", "th.pin", ("9-9999-99999-99-9",), ("9" * 13,), "thai id|บัตรประชาชน"),
    NationalId("MY", "MyKad", "my.nric", ("999999-99-9999",), ("9" * 12,), "nric|mykad"),
    NationalId("ID", "NIK", "id.nik", near=("9" * 16,), words="nik|ktp"),
    NationalId("AU", "TFN", "au.tfn", near=("999999999", "999 999 999"), words=rf"tfn|{_TAX}"),
    NationalId("NZ", "IRD", "nz.ird", near=("99-999-999", "999-999-999", "999999999"), words="ird|inland revenue"),
    NationalId("CA", "SIN", "ca.sin", near=("999 999 999", "999-999-999", "999999999"), words="sin|social insurance"),
    NationalId("MX", "CURP", "mx.curp", ("AAAA999999AAAAAA99", "AAAA999999AAAAAAA9")),
    NationalId("BR", "CPF", "br.cpf", ("999.999.999-99",), ("9" * 11,), "cpf"),
    NationalId("AR", "CUIL", "ar.cuit", ("99-99999999-9",), ("9" * 11,), "cui[lt]"),
    NationalId(
        "CL", "RUT", "cl.rut", ("99.999.999-9", "99.999.999-A", "9.999.999-9"), ("99999999-9",), "rut|rol [uú]nico"
    ),
    NationalId("UA", "RNTRC", "ua.rntrc", near=("9999999999",), words="рнокпп|іпн|rntrc"),
    NationalId("RU", "ИНН", "ru.inn", near=("999999999999",), words="инн"),
)


def _ways(known: Iterable[NationalId]) -> Ways:
    ways: Ways = {}
    for kind in known:
        for way in kind.alone:
            ways.setdefault(way, []).append((kind, False))
        for way in kind.near:
            ways.setdefault(way, []).append((kind, True))
    return ways


_SHAPE: Final = bytes(57 if 48 <= n <= 57 else 65 if bytes([n]).isalpha() else n for n in range(256))
_WAYS: Final = _ways(KNOWN)
_PART: Final = re.compile(r"[^ ]+")
_NINO: Final = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")
_FIELD: Final = re.compile(r"[,{\[]")
_GAPS: Final = str.maketrans("", "", " -./")


def national_id(match: re.Match[str], before: str, effort: Effort) -> Span | None:
    """Which part of a candidate is a national identity number.

    Args:
        match: Of one of the patterns above, in the text that it was found in.
        before: What stands before that text.
        effort: Checks that may still be made.
    """
    candidate = match.group()
    if len(candidate) < _LEAST:
        return None
    shape = candidate.encode().translate(_SHAPE).decode()
    around: tuple[str, str] | None = None
    for start, end in _parts(candidate):
        way = shape[start:end]
        kinds = _WAYS.get(way)
        if kinds is None:
            continue
        around = around or _around(match, before)
        named = _stands(_any_word(way), around)
        for kind, needs_word in kinds:
            if needs_word and not (named and _stands(_words(kind.words), around)):
                continue
            if not effort.check() or valid(kind, candidate[start:end]):
                return start, end
    return None


def valid(kind: NationalId, written: str) -> bool:
    """Whether something written in one of the ways of a kind is a valid number of it."""
    bare = written.translate(_GAPS)
    if kind.check == "nino":  # it has no check digit, and python-stdnum doesn't know it
        return _NINO.fullmatch(bare.upper()) is not None
    check = _checker(kind.check)
    return check(written) or check(bare)  # some need their gaps, some know only few


def _parts(candidate: str) -> Iterator[Span]:
    """The candidate, then shorter runs of its groups: a number may stand before or after it."""
    groups = [group.span() for group in _PART.finditer(candidate)]
    for size in range(len(groups), 0, -1):
        for first in range(len(groups) - size + 1):
            start, end = groups[first][0], groups[first + size - 1][1]
            if _LEAST <= end - start <= _MOST:
                yield start, end


def _around(match: re.Match[str], before: str) -> tuple[str, str]:
    """What stands so near a candidate that a word in it may name it."""
    text, start, end = match.string, match.start(), match.end()
    near = text[max(0, start - _NEAR_BEFORE) : start]
    if len(near) < _NEAR_BEFORE:
        near = _FIELD.split(before[len(near) - _NEAR_BEFORE :])[-1] + near
    return near, text[end : end + _NEAR_AFTER]


def _stands(words: re.Pattern[str], around: tuple[str, str]) -> bool:
    return words.search(around[0]) is not None or words.search(around[1]) is not None


@cache
def _any_word(way: str) -> re.Pattern[str]:
    """Any word that names a number written so: mostly there is none, and one search says so."""
    return _words("|".join(kind.words for kind, needs_word in _WAYS[way] if needs_word) or "(?!)")


@cache
def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{pattern})(?![^\W_])", re.IGNORECASE)


@cache
def _checker(module: str) -> Callable[[str], bool]:
    """Loaded when the first number that needs it turns up."""
    is_valid: Callable[[str], bool] = import_module(f"stdnum.{module}").is_valid

    def check(number: str) -> bool:
        try:
            return is_valid(number)
        except (LookupError, ValueError):  # some modules trip over what isn't one
            return False

    return check
