"""YAML as data together with the line of every key."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]
"""Keys and indexes from the top of a file to a value."""
Mistake = tuple[int, str]
"""A line, and what is wrong there."""


class _Loader(yaml.SafeLoader):
    """YAML whose dates are text and whose only booleans are true and false, as in YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:timestamp" and not (tag == "tag:yaml.org,2002:bool" and first in "yYnNoO")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def compose(text: str) -> tuple[Any, dict[KeyPath, int], list[Mistake]]:
    """The data of a YAML text, the line of every key, and what is wrong with the YAML itself."""
    lines: dict[KeyPath, int] = {}
    mistakes: list[Mistake] = []
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, {(): 1}, []
        _walk(node, (), lines, mistakes, frozenset())
        return (loader.construct_document(node) if not mistakes else None), lines, mistakes
    except yaml.MarkedYAMLError as error:
        return None, lines, [_not_yaml(error)]
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        return None, lines, [(line, f"character {error.character!r} may not stand in YAML; remove it")]


def line_of(lines: Mapping[KeyPath, int], at: KeyPath) -> int:
    """Line of a key, or of the nearest key above it that is written down."""
    while at not in lines and at:
        at = at[:-1]
    return lines.get(at, 1)


def dotted(at: KeyPath) -> str:
    """A key path as people write it: `endpoints.triage.rollout.steps[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")


def leaves(value: Any, at: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value that isn't a mapping, with its key path."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from leaves(below, (*at, str(key)))
    else:
        yield at, value


def _not_yaml(error: yaml.MarkedYAMLError) -> Mistake:
    """Where the parser gave up, and where what it was reading began."""
    mark, began = error.problem_mark or error.context_mark, error.context_mark
    line = mark.line + 1 if mark else 1
    said = ", ".join(part for part in (error.problem, error.context) if part)
    if began and began.line + 1 != line:
        said += f" that began in line {began.line + 1}"
    advice = "indent with spaces, not tabs" if "\\t" in said else "mind indentation, colons and quotes"
    return line, f"this isn't YAML ({said}); {advice}"


def _walk(
    node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int], mistakes: list[Mistake], above: frozenset[int]
) -> None:
    """Note the line of every key below a node, and every key that is written twice."""
    lines.setdefault(at, node.start_mark.line + 1)
    if id(node) in above:
        mistakes.append((node.start_mark.line + 1, f"{dotted(at)}: holds itself; write the value out"))
        return
    inside = above | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*at, index), lines, mistakes, inside)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here, line = (*at, str(key.value)), key.start_mark.line + 1
            if here in lines:
                what = f"{dotted(here)}: is written twice, first in line {lines[here]}; remove one of them"
                mistakes.append((line, what))
                continue
            lines[here] = line
            _walk(value, here, lines, mistakes, inside)
