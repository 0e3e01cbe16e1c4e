"""Takes out of bodies what an EntityReader has found: names, places and organisations leave a marker, as emails do."""

import json
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from noria.ports import EntityReader
from noria.serving.log.redaction import TOKEN

Found = Sequence[tuple[int, int, str]]
"""From, to, and which kind."""
WITHHELD: Final = "withheld"
"""The one key of what stands for a body that could not be read for names and so isn't kept."""
_PROSE: Final = re.compile(r"[^\W\d_].*\s|\s.*[^\W\d_]|[A-Z][a-z]+$", re.DOTALL)
"""Words, or a single one that begins with a capital: identifiers and numbers are not read."""
_VALID: Final = msgspec.json.Decoder(msgspec.Raw)


def withheld(size: int) -> bytes:
    """What the log keeps instead of a body of that many bytes."""
    return msgspec.json.encode({WITHHELD: {"bytes": size, "why": "it could not be read for names"}})


async def without_entities(body: bytes, reader: EntityReader, kinds: frozenset[str]) -> tuple[bytes, tuple[str, ...]]:
    """A body without the entities in it, and codes of what went; JSON stays JSON.

    Raises:
        RedactionUnavailable: It could not be read.
    """
    text = body.decode(errors="surrogateescape")
    try:
        _VALID.decode(body)
        spans = [match.span() for match in TOKEN.finditer(text) if not _is_key(text, match.end())]
        texts = [json.loads(text[start:end], strict=False) for start, end in spans]
    except (msgspec.MsgspecError, UnicodeDecodeError, json.JSONDecodeError):
        (found,) = await reader.find([body.decode(errors="replace")], kinds)
        clean, went = marked(body.decode(errors="replace"), found)
        return (clean.encode(), went) if went else (body, ())
    prose = [number for number, each in enumerate(texts) if _PROSE.match(each)]
    if not prose:
        return body, ()
    answers = await reader.find([texts[number] for number in prose], kinds)
    codes, pieces, last = set[str](), [], 0
    for number, found in zip(prose, answers, strict=True):
        clean, some = marked(texts[number], found)
        if some:
            codes.update(some)
            pieces += [text[last : spans[number][0]], json.dumps(clean)]
            last = spans[number][1]
    return "".join([*pieces, text[last:]]).encode(), tuple(sorted(codes))


def marked(text: str, found: Found) -> tuple[str, tuple[str, ...]]:
    """A text with a marker in the place of each entity, and codes of what went; a marker that is there stays."""
    pieces, last, codes = [], 0, set()
    for start, end, kind in sorted(found):
        if start >= last and not {"[", "]"} & set(text[start:end]):
            pieces += [text[last:start], f"[{kind}]"]
            last = end
            codes.add(f"REDACTED_{kind.upper()}")
    return "".join([*pieces, text[last:]]), tuple(sorted(codes))


def _is_key(text: str, end: int) -> bool:
    """Whether the string that ends there is the name of a field."""
    while end < len(text) and text[end] in " \t\r\n":
        end += 1
    return text[end : end + 1] == ":"
