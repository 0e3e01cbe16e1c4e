import pytest
from pydantic import ValidationError

from noria.settings import Judge, Project, Scorer

MODEL = {"gguf": {"gguf": "m.gguf", "licence": "MIT", "source": "here"}}


def project(judge, **more):
    endpoints = {
        "assistant": {"task": "chat", "policy": "p.yaml", "judges": {"polite": judge}, **MODEL},
        "triage": {"task": "classification", "policy": "p.yaml", "training": {"data": "seed.csv"}},
    }
    return Project.model_validate({"project": "care", "endpoints": endpoints, **more})


def test_a_judge_is_a_guideline_a_rubric_or_a_scorer_and_who_judges():
    assert Judge.model_validate({"guideline": "Be polite.", "endpoint": "assistant"}).per_window == 20
    assert Judge.model_validate({"rubric": "Kinder is better.", "upstream": "u", "model": "m"}).model == "m"
    both = {"scorer": "Guidelines", "guideline": "Be polite.", "endpoint": "assistant"}
    assert Judge.model_validate(both).scorer is Scorer.GUIDELINES


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ({"endpoint": "assistant"}, "exactly one of guideline, rubric, scorer"),
        ({"guideline": "a", "rubric": "b", "endpoint": "assistant"}, "exactly one of guideline, rubric, scorer"),
        ({"scorer": "Safety", "rubric": "b", "endpoint": "assistant"}, "exactly one of guideline, rubric, scorer"),
        ({"scorer": "Safety", "guideline": "b", "endpoint": "assistant"}, "with the scorer Guidelines"),
        ({"scorer": "Guidelines", "endpoint": "assistant"}, "with the scorer Guidelines"),
        ({"scorer": "Beauty", "endpoint": "assistant"}, "RetrievalGroundedness"),
        ({"guideline": "a"}, "either the endpoint that judges, or an upstream"),
        ({"guideline": "a", "endpoint": "assistant", "upstream": "u", "model": "m"}, "either the endpoint"),
        ({"guideline": "a", "upstream": "u"}, "the model together with its upstream"),
        ({"guideline": "a", "endpoint": "assistant", "share": 0}, "greater than 0"),
        ({"guideline": "a", "endpoint": "triage"}, "triage is no chat endpoint"),
        ({"guideline": "a", "endpoint": "nobody"}, "nobody is no chat endpoint"),
        ({"guideline": "a", "upstream": "nobody", "model": "m"}, "nobody is no upstream"),
        ({"guideline": "a", "upstream": "scoring", "model": "m"}, "scoring is no upstream that speaks OpenAI's wire"),
    ],
)
def test_what_is_no_judge_says_what_is_wrong(judge, problem):
    upstreams = {"scoring": {"kind": "mlflow", "url": "https://m.example", "auth": "none"}}
    with pytest.raises(ValidationError, match=problem):
        project(judge, upstreams=upstreams)


def watching(**monitors):
    judge = {"guideline": "Be polite.", "endpoint": "assistant"}
    endpoint = {"task": "chat", "policy": "p.yaml", "judges": {"polite": judge}, "monitors": monitors, **MODEL}
    return Project.model_validate({"project": "care", "endpoints": {"assistant": endpoint}})


def test_a_judges_scores_can_be_watched_against_a_promise():
    found = watching(watch=["judge:polite"], floors={"judge:polite": 0.8}).endpoints["assistant"].monitors
    assert found.floors == {"judge:polite": 0.8}
    with pytest.raises(ValidationError, match="judge:polite is watched against a promise"):
        watching(watch=["judge:polite"])
    with pytest.raises(ValidationError, match="judge:kind is no judge of it"):
        watching(watch=["judge:kind"], floors={"judge:kind": 0.8})
