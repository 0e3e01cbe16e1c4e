"""Model cards, written from evidence and never from memory: what nobody measured is printed as not evaluated.

The format is that of a Hugging Face README.md: front matter in YAML with the metrics as `model-index`, then Markdown.
Source: Hugging Face's model card and model-index documentation; Mitchell et al. 2019 for what a card has to say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, select_autoescape

from noria.domain.gate import Verdict
from noria.domain.model import ModelVersion
from noria.domain.run import Run
from noria.settings import Policy, Task

FILE_NAME = "README.md"
"""Name of the card among a version's artefacts, in the folder `card`."""
NOT_EVALUATED = "not evaluated"
_PIPELINES = {Task.CLASSIFICATION: "text-classification", Task.CHAT: "text-generation"}
_HUB_LICENCES = frozenset(
    {
        *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0"),
        *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "openrail", "bigscience-openrail-m", "unlicense"),
        *("gemma", "llama2", "llama3", "llama3.1", "llama3.2"),
    }
)
"""Licences that the Hub knows by name; another one is `other` with its name beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a card may say. What is left out is printed as not evaluated.

    Attributes:
        endpoint: Endpoint that the version is for.
        task: What it does there.
        version: The version, with its licence, source and checksum.
        written_at: When the card is written.
        run: The run that made it.
        data: Numbers of the data it was made from (rows by split, group, label …).
        metrics: What was measured on held-out rows.
        fairness: One row a group, as `FairnessTable.to_rows()` gives them.
        policy: Policy in force.
        policy_hash: Its hash.
        verdict: What the gates decided.
        baseline: What the monitors compare traffic with (rows, cells, …).
        environment: Package → version that it was trained with.
    """

    endpoint: str
    task: Task
    version: ModelVersion
    written_at: datetime
    run: Run | None = None
    data: Mapping[str, float | str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    fairness: Sequence[Mapping[str, Any]] = ()
    policy: Policy | None = None
    policy_hash: str = ""
    verdict: Verdict | None = None
    baseline: Mapping[str, float | str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def to_markdown(self) -> str:
        """The card: front matter and body."""
        body = _template().render(card=self, version=self.version, not_evaluated=NOT_EVALUATED)
        head = yaml.safe_dump(self.front_matter(), sort_keys=False, allow_unicode=True)
        return f"---\n{head}---\n\n{body}"

    def front_matter(self) -> dict[str, Any]:
        """What the Hub and other tools read."""
        pipeline = _PIPELINES[self.task]
        head: dict[str, Any] = _licence(self.version.licence)
        if self.policy is not None:
            head["language"] = list(self.policy.languages)
        head |= {"pipeline_tag": pipeline, "tags": ["noria", pipeline, self.version.flavor.value]}
        if results := self._results(pipeline):
            head["model-index"] = [{"name": self.version.ref, "results": results}]
        return head

    def _results(self, pipeline: str) -> list[dict[str, Any]]:
        measured = [
            {"type": name, "name": name.replace("_", " "), "value": round(float(value), 6)}
            for name, value in sorted(self.metrics.items())
            if math.isfinite(value)
        ]
        if not measured:
            return []
        dataset = {"name": f"held-out rows of {self.endpoint}", "type": f"noria/{self.endpoint}"}
        return [{"task": {"type": pipeline}, "dataset": dataset, "metrics": measured}]


def _licence(licence: str) -> dict[str, Any]:
    if not licence:
        return {}
    known = licence.lower()
    return {"license": known} if known in _HUB_LICENCES else {"license": "other", "license_name": licence}


def _template() -> Any:
    environment = Environment(
        autoescape=select_autoescape(
            default_for_string=False
        ),  # the card is Markdown; `cell` defuses what comes from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "number": number}
    return environment.from_string(files("noria.governance").joinpath("card.md.j2").read_text(encoding="utf-8"))


def cell(value: object) -> str:
    """Text that can break neither a Markdown table nor the page that shows it."""
    text = " ".join(str(value).split())
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'"), ("[", "\\["), ("](", "]\\(")):
        text = text.replace(raw, safe)
    return text


def number(value: object) -> str:
    """A number as people read it: whole ones whole, shares with three digits, what isn't finite as not evaluated."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return cell(value)
    if not math.isfinite(value):
        return NOT_EVALUATED
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}"
