"""Judges: language models that say how good an endpoint's answers are, by a guideline, a rubric or an MLflow scorer."""

from datetime import timedelta
from enum import StrEnum

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from noria.settings.basics import Duration, Name, Strict


class Scorer(StrEnum):
    """The scorers of MLflow that judge one answer."""

    COMPLETENESS = "Completeness"
    CORRECTNESS = "Correctness"
    EQUIVALENCE = "Equivalence"
    FLUENCY = "Fluency"
    GUIDELINES = "Guidelines"
    RELEVANCE_TO_QUERY = "RelevanceToQuery"
    RETRIEVAL_GROUNDEDNESS = "RetrievalGroundedness"
    RETRIEVAL_RELEVANCE = "RetrievalRelevance"
    RETRIEVAL_SUFFICIENCY = "RetrievalSufficiency"
    SAFETY = "Safety"
    SUMMARIZATION = "Summarization"

    @property
    def needs_context(self) -> bool:
        """Whether it judges what was retrieved for an answer."""
        return self.value.startswith("Retrieval")

    @property
    def needs_reference(self) -> bool:
        """Whether it compares an answer with the right one."""
        return self in (Scorer.CORRECTNESS, Scorer.EQUIVALENCE)


class Judge(Strict):
    """One judge of an endpoint's answers. Its scores are feedback with the source `judge:NAME`."""

    guideline: str = Field("", description="What every answer has to keep to; met is 1, broken is 0.")
    rubric: str = Field("", description="What makes an answer good, and what deserves which score between 0 and 1.")
    scorer: Scorer | None = Field(None, description="A scorer of MLflow; Guidelines takes the guideline, too.")
    endpoint: Name | None = Field(None, description="The chat endpoint of this project whose champion judges.")
    upstream: Name | None = Field(None, description="Or the upstream that judges, with its model.")
    model: str = Field("", description="What the upstream calls the model.")
    share: float = Field(1.0, gt=0, le=1, description="Share of a window's answers that may be judged.")
    per_window: int = Field(20, ge=1, le=10_000, description="Most answers that are judged in a window.")
    requests_per_day: int = Field(1000, ge=1, description="Most requests to the judging model in a day (UTC).")
    usd_per_day: float | None = Field(None, gt=0, description="Most money that a day's requests may cost.")
    timeout: Duration = Field(timedelta(seconds=60), description="Longest time of one request.")
    max_tokens: int = Field(512, ge=16, description="Longest verdict.")
    structured: bool = Field(
        True, description="Ask for a verdict by its JSON schema; false for servers that know no response_format."
    )

    @model_validator(mode="after")
    def _says_what_it_judges_by(self) -> "Judge":
        scored = self.scorer is not None
        if scored and bool(self.guideline) != (self.scorer is Scorer.GUIDELINES):
            raise PydanticCustomError("scorer", "write a guideline with the scorer Guidelines, and with no other")
        if (not scored and bool(self.guideline) == bool(self.rubric)) or (scored and self.rubric):
            raise PydanticCustomError("judge", "give exactly one of guideline, rubric, scorer")
        return self

    @model_validator(mode="after")
    def _names_who_judges(self) -> "Judge":
        if (self.endpoint is None) == (self.upstream is None):
            raise PydanticCustomError("judge", "give either the endpoint that judges, or an upstream and its model")
        if (self.upstream is None) != (not self.model):
            raise PydanticCustomError("judge", "give the model together with its upstream")
        return self
