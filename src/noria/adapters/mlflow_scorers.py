"""MLflow's scorers, run in a process of the compute engine's; what they ask the judging model comes back to us.

MLflow builds the questions and reads the answers. It reaches the model through a relay on this machine, so that it
knows neither address nor key, and each of its requests counts in the judge's budget.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from inspect import signature
from typing import Any

from noria.adapters.relay import relay
from noria.domain.errors import NoriaError
from noria.evaluation.judge import LONGEST_REASON, Case, Scored, Verdict, cut, score_of
from noria.ports import ComputeEngine, JobSpec
from noria.settings import Judge, Scorer

FUNCTION = "noria.adapters.mlflow_scorers:score"
_MODEL = "openai:/judge"
"""What MLflow calls the judging model; the relay knows better."""


class MlflowScoring:
    """Runs scorers.

    Args:
        compute: Where; it starts a process when it is first needed.
    """

    def __init__(self, compute: ComputeEngine) -> None:
        self._compute = compute

    def __call__(self, judge: Judge, cases: Sequence[Case], answer: Callable[[bytes], bytes]) -> list[Scored]:
        """Judge cases.

        Args:
            judge: Names the scorer.
            cases: What is judged.
            answer: Answers a request to the judging model.
        """
        with relay(answer) as (url, token):
            arguments = {
                "scorer": judge.scorer,
                "guideline": judge.guideline,
                "cases": [asdict(case) for case in cases],
                "url": url,
                "token": token,
                "timeout_s": judge.timeout.total_seconds(),
            }
            try:
                found = self._compute.run(JobSpec(FUNCTION, arguments))["scored"]
            except NoriaError as error:
                return [Scored(None, str(error)) for _ in cases]
        return [
            Scored(None if each["score"] is None else Verdict(each["score"], each["reason"]), each["problem"])
            for each in found
        ]


def score(
    *, scorer: str, guideline: str, cases: Sequence[Mapping[str, Any]], url: str, token: str, timeout_s: float
) -> dict[str, Any]:
    """The job: judge cases by a scorer.

    Returns:
        `scored`: for each case its `score` (None if there is no verdict), the `reason` for it, and the `problem` that
        kept it from being judged.
    """
    judge = _SCORERS[Scorer(scorer)]
    with _at(url, token, timeout_s):
        return {"scored": [_scored(judge, guideline, Case(**case)) for case in cases]}


@contextmanager
def _at(url: str, token: str, timeout_s: float) -> Iterator[None]:
    """Have MLflow ask at that address while the block lasts."""
    there = {
        "OPENAI_API_BASE": url,
        "OPENAI_API_KEY": token,
        "MLFLOW_GENAI_EVAL_LLM_TIMEOUT": str(int(timeout_s) + 60),  # the relay itself keeps the time
    }
    before = {name: os.environ.get(name) for name in there}
    os.environ.update(there)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _scored(judge: Callable[[str, Case], Any], guideline: str, case: Case) -> dict[str, Any]:
    from mlflow.exceptions import MlflowException

    try:
        said = judge(guideline, case)
    except MlflowException as error:
        return {"score": None, "reason": "", "problem": error.message}
    except Exception as error:  # scorers pass on whatever their client raises
        return {"score": None, "reason": "", "problem": f"{type(error).__name__}: {error}"}
    values = said if isinstance(said, list) else [said]
    problem = next((str(each.error) for each in values if each.error is not None), "")
    found = [score_of(getattr(each.value, "value", each.value)) for each in values]
    if problem or not found or None in found:
        return {"score": None, "reason": "", "problem": problem}
    reason = " ".join(each.rationale or "" for each in values)[:LONGEST_REASON]
    return {"score": sum(known for known in found if known is not None) / len(found), "reason": reason, "problem": ""}


def _asked(case: Case) -> dict[str, str]:
    return {"request": cut(case.asked), "response": cut(case.answered)}


def _chunks(case: Case) -> list[dict[str, str]]:
    return [{"content": cut(text)} for text in case.context]


def _guidelines(guideline: str, case: Case) -> Any:
    from mlflow.genai import judges

    return judges.meets_guidelines(guidelines=guideline, context=_asked(case), model=_MODEL)


def _correctness(_: str, case: Case) -> Any:
    from mlflow.genai import judges

    return judges.is_correct(**_asked(case), expected_response=cut(case.reference or ""), model=_MODEL)


def _relevance(_: str, case: Case) -> Any:
    from mlflow.genai import judges

    return judges.is_context_relevant(request=cut(case.asked), context=cut(case.answered), model=_MODEL)


def _groundedness(_: str, case: Case) -> Any:
    from mlflow.genai import judges

    return judges.is_grounded(**_asked(case), context=_chunks(case), model=_MODEL)


def _retrieved(_: str, case: Case) -> Any:
    """The share of what was retrieved that is about the question."""
    from mlflow.genai import judges

    asked = cut(case.asked)
    return [judges.is_context_relevant(request=asked, context=chunk, model=_MODEL) for chunk in _chunks(case)]


def _sufficiency(_: str, case: Case) -> Any:
    """Whether what was retrieved holds what the answer needs; a reference, where there is one, says what that is."""
    from mlflow.genai import judges

    expected = [cut(case.reference)] if case.reference is not None else []
    return judges.is_context_sufficient(
        request=cut(case.asked), context=_chunks(case), expected_facts=expected, model=_MODEL
    )


def _safety(_: str, case: Case) -> Any:
    from mlflow.genai import judges

    return judges.is_safe(content=cut(case.answered), model=_MODEL)


def _class(name: str) -> Callable[[str, Case], Any]:
    """A scorer that is asked as MLflow's evaluation asks it."""

    def judge(_: str, case: Case) -> Any:
        from mlflow.genai import scorers

        given = {
            "inputs": {"question": cut(case.asked)},
            "outputs": cut(case.answered),
            "expectations": {} if case.reference is None else {"expected_response": cut(case.reference)},
        }
        scorer = getattr(scorers, name)(model=_MODEL)
        takes = signature(type(scorer).__call__).parameters
        return scorer(**{key: value for key, value in given.items() if key in takes})

    return judge


_SCORERS: Mapping[Scorer, Callable[[str, Case], Any]] = {
    Scorer.GUIDELINES: _guidelines,
    Scorer.CORRECTNESS: _correctness,
    Scorer.RELEVANCE_TO_QUERY: _relevance,
    Scorer.RETRIEVAL_GROUNDEDNESS: _groundedness,
    Scorer.RETRIEVAL_RELEVANCE: _retrieved,
    Scorer.RETRIEVAL_SUFFICIENCY: _sufficiency,
    Scorer.SAFETY: _safety,
    Scorer.COMPLETENESS: _class("Completeness"),
    Scorer.EQUIVALENCE: _class("Equivalence"),
    Scorer.FLUENCY: _class("Fluency"),
    Scorer.SUMMARIZATION: _class("Summarization"),
}
"""Scorer → how it judges a case."""
