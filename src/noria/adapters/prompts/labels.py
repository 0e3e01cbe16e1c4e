"""Where labels part ways as tokens, which is where a model has to be asked how probable each is."""

from collections.abc import Callable, Mapping

Path = tuple[int, ...]
"""Tokens that an answer begins with."""


def ways(tokens: Mapping[str, Path], end: Callable[[], int]) -> dict[str, Path]:
    """Each label's tokens, told apart from those of any other: what begins another is ended by the token that ends
    an answer."""

    def closed(path: Path) -> Path:
        begins = any(other != path and other[: len(path)] == path for other in tokens.values())
        return (*path, end()) if begins else path

    return {label: closed(path) for label, path in tokens.items()}


def forks(labels: Mapping[str, Path]) -> dict[Path, Path]:
    """Beginning of an answer → the tokens that may come next, wherever that is more than one; shortest first."""
    nexts: dict[Path, dict[int, None]] = {}
    for path in labels.values():
        for place, token in enumerate(path):
            nexts.setdefault(path[:place], {})[token] = None
    return {path: tuple(found) for path, found in sorted(nexts.items(), key=lambda i: len(i[0])) if len(found) > 1}


def likely(labels: Mapping[str, Path], shares: Mapping[Path, Mapping[int, float]]) -> dict[str, float]:
    """Label → probability, from the share of each token at every fork."""
    found = {}
    for label, path in labels.items():
        probability = 1.0
        for place, token in enumerate(path):
            if path[:place] in shares:
                probability *= shares[path[:place]][token]
        found[label] = probability
    return found
