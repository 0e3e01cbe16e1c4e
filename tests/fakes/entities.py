"""Finds names without a model: it knows four."""

import re

from noria.domain.errors import RedactionUnavailable

KNOWN = {"Ada Lovelace": "name", "Bob": "name", "Turin": "location", "Contoso": "organisation"}


def find(text, kinds):
    """What `noria.redactor` asks of a model."""
    spans = [(*match.span(), kind) for name, kind in KNOWN.items() for match in re.finditer(name, text)]
    return sorted(span for span in spans if span[2] in kinds)


class KnownNames:
    """Implements ports.EntityReader. `gone` makes it answer nobody."""

    def __init__(self) -> None:
        self.gone = False
        self.asked: list[str] = []

    async def find(self, texts, kinds):
        return self.find_now(texts, kinds)

    def find_now(self, texts, kinds):
        if self.gone:
            raise RedactionUnavailable("Names could not be looked for: it is gone.", "Try again.")
        self.asked += texts
        return [find(text, kinds) for text in texts]
