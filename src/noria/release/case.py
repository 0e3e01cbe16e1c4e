"""The case that the gates decide: the candidate, what it answered, and whom it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray

from noria.domain.errors import InvalidData
from noria.domain.gate import GateResult
from noria.domain.model import ModelVersion
from noria.evaluation.probes import Probe
from noria.evaluation.references import likeness
from noria.release.trial import Answers
from noria.settings import Policy, Task

FROZEN = "frozen"
"""Origin of the rows of the policy's frozen set."""
Hits = NDArray[np.float64]
"""1 for each row that was answered rightly, else 0; of a chat how like the wanted answer it was, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Labelled rows that nothing was learnt from; all four are equally long."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    origins: tuple[str, ...]

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(
            texts=self.texts + other.texts,
            labels=self.labels + other.labels,
            groups=self.groups + other.groups,
            origins=self.origins + other.origins,
        )

    def sample(self, most: int) -> "Rows":
        """So many of the rows at most, always the same ones, in their order."""
        if len(self.labels) <= most:
            return self
        chosen = np.sort(np.random.default_rng(0).choice(len(self.labels), most, replace=False)).tolist()
        texts, labels, groups, origins = (
            tuple(each[place] for place in chosen) for each in (self.texts, self.labels, self.groups, self.origins)
        )
        return Rows(texts=texts, labels=labels, groups=groups, origins=origins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that the gates look at.

    Attributes:
        candidate: The version to be judged.
        policy: Policy in force.
        today: For the policy's review date.
        has_card: Whether a model card lies beside the version.
        rows: Held-out rows; None for what is not judged on rows, or if there are none.
        answers: What the candidate answered; None if its model server didn't.
        problem: Why not.
        champion: `model/version` that serves now, empty for a first version.
        champion_answers: What it answered to the same rows.
        task: What the endpoint does.
        size_bytes: What the candidate's own files take; None if nobody could read them.
        learnt: Texts that it learnt from; None if no run of ours made it.
        probes: What it was asked to see whether it is safe.
        safety_answers: What it answered to them.
        champion_safety: What the champion answered to them.
        facts: What is no number and belongs into the verdict: the frozen set's checksum.
    """

    candidate: ModelVersion
    policy: Policy
    today: date
    has_card: bool
    rows: Rows | None = None
    answers: Answers | None = None
    problem: str = ""
    champion: str = ""
    champion_answers: Answers | None = None
    task: Task = Task.CLASSIFICATION
    size_bytes: int | None = None
    learnt: Sequence[str] | None = None
    probes: Sequence[Probe] = ()
    safety_answers: Sequence[str] | None = None
    champion_safety: Sequence[str] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_chat(self) -> bool:
        """Whether the endpoint chats."""
        return self.task is Task.CHAT

    @property
    def held_out(self) -> Rows:
        """The held-out rows.

        Raises:
            InvalidData: There are none.
        """
        if self.rows is None or not self.rows.labels:
            raise InvalidData("There are no held-out rows to judge it on.", "Keep some rows out of training.")
        return self.rows

    @property
    def said(self) -> Answers:
        """What the candidate answered.

        Raises:
            InvalidData: It gave no answers.
        """
        if self.answers is None:
            raise InvalidData(self.problem or "It was not tried.", "See the model server's log in .noria/run.")
        return self.answers

    @property
    def champion_said(self) -> Answers:
        """What the champion answered.

        Raises:
            InvalidData: It gave no answers.
        """
        if self.champion_answers is None:
            raise InvalidData(
                f"The champion {self.champion} gave no answers to compare with. {self.problem}".strip(),
                "See the model server's log in .noria/run.",
            )
        return self.champion_answers

    def hits(self, answers: Answers) -> Hits:
        """Which held-out rows were answered rightly; of a chat how like the wanted answer each answer was."""
        pairs = zip(answers.predictions, self.held_out.labels, strict=True)
        if self.is_chat:
            return np.array([likeness(said, wanted).rouge_l for said, wanted in pairs], float)
        return np.array([said == right for said, right in pairs], float)


def result(
    gate: str,
    passed: bool,
    summary: str,
    numbers: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> GateResult:
    """A result with plain numbers: numpy's own can't be stored."""
    plain = {key: float(value) for key, value in (numbers or {}).items()}
    limits = {key: float(value) for key, value in (thresholds or {}).items()}
    return GateResult(gate=gate, passed=bool(passed), summary=summary, numbers=plain, thresholds=limits)
