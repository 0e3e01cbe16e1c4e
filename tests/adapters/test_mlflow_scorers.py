import json
import os
import urllib.error
import urllib.request

import pytest

from fakes.judging_model import completion
from noria.adapters.compute import LocalCompute
from noria.adapters.mlflow_scorers import _SCORERS, MlflowScoring
from noria.adapters.relay import relay
from noria.domain.errors import BudgetExhausted, UpstreamFailed
from noria.evaluation.judge import Case
from noria.settings import Judge, Scorer

CASE = Case(asked="Capital of France?", answered="It is Paris.", context=("Paris is the capital.",), reference="Paris")


def judge(scorer):
    guideline = "Be polite." if scorer is Scorer.GUIDELINES else ""
    return Judge.model_validate({"scorer": scorer, "guideline": guideline, "endpoint": "judge"})


@pytest.fixture(scope="module")
def compute():
    engine = LocalCompute()
    yield engine
    engine.close()


def model(value, asked):
    def answer(raw):
        asked.append(json.loads(raw))
        return json.dumps(completion(json.dumps({"result": value, "rationale": "Because."}))).encode()

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("scorer", list(Scorer))
def test_every_scorer_asks_the_judging_model_and_gives_its_verdict(compute, scorer):
    asked = []
    said = MlflowScoring(compute)(judge(scorer), [CASE], model("no", asked))
    assert [(each.verdict.score, each.verdict.reason) for each in said] == [(0.0, "Because.")]
    assert any("Paris" in message["content"] for message in asked[0]["messages"])


@pytest.mark.slow
def test_replies_that_are_no_verdict_and_requests_without_a_reply_are_told_apart(compute):
    replies = iter([b'{"choices": []}', json.dumps(completion("certainly")).encode()])

    def answer(raw):
        reply = next(replies, None)
        if reply is None:
            raise BudgetExhausted("The judge's budget of today is used up.", "It goes on tomorrow (UTC).")
        return reply

    said = MlflowScoring(compute)(judge(Scorer.SAFETY), [CASE, CASE, CASE], answer)
    assert all(each.verdict is None for each in said)
    assert said[2].problem


def test_every_scorer_that_the_project_file_knows_can_be_run():
    assert set(_SCORERS) == set(Scorer)


def post(url, token, body=b"{}", path="/chat/completions"):
    request = urllib.request.Request(url + path, body, {"authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_relay_answers_who_shows_its_token_and_nobody_else():
    with relay(lambda body: body.upper()) as (url, token):
        assert url.startswith("http://127.0.0.1:")
        assert post(url, token, b"abc") == (200, b"ABC")
        assert post(url, "wrong")[0] == 401
        assert post(url, token, path="/models")[0] == 404


def test_a_relay_says_why_there_is_no_answer():
    def answer(body):
        raise UpstreamFailed("The model is away.", "Look for it.")

    with relay(answer) as (url, token):
        status, raw = post(url, token)
    assert status == 400
    assert "The model is away." in json.loads(raw)["error"]["message"]


def test_the_environment_is_as_it_was_after_a_job(monkeypatch):
    from noria.adapters.mlflow_scorers import _at

    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    with _at("http://127.0.0.1:1/v1", "token", 5.0):
        assert os.environ["OPENAI_API_KEY"] == "token"
    assert os.environ["OPENAI_API_KEY"] == "mine"
    assert "OPENAI_API_BASE" not in os.environ
