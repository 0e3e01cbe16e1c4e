"""MLflow models that chat: a real ChatModel behind OpenAI's wire, and what other flavours say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.asgi import Caller, Reply
from noria.adapters.registry.client import load_mlflow
from noria.adapters.registry.packages import chats, describe, prepare
from noria.domain.errors import UntrustedArtifact
from noria.modelserver import chat
from noria.modelserver.app import App
from noria.modelserver.batching import Batcher, Call
from noria.modelserver.models import load

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow warns of its own ChatModel, which people have in service

CODE = """
import mlflow
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage

class Echo(mlflow.pyfunc.ChatModel):
    def predict(self, context, messages, params):
        said = f"{messages[-1].content} at {params.temperature}"
        choice = ChatChoice(index=0, message=ChatMessage(role="assistant", content=said), finish_reason="stop")
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        return ChatCompletionResponse.from_dict({"choices": [choice.to_dict()], "usage": usage, "model": "echo"})

mlflow.models.set_model(Echo())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ChatModel as MLflow keeps it."""
    where = tmp_path_factory.mktemp("chat")
    (where / "echo.py").write_text(CODE)
    mlflow = load_mlflow("pyfunc")
    mlflow.pyfunc.save_model(str(where / "m"), python_model=str(where / "echo.py"), pip_requirements=[])
    return where / "m"


@pytest.fixture
def app(folder: Path) -> Iterator[App]:
    model = load(folder, trust=True)
    assert model.chats
    batcher = Batcher(model.predict)
    yield App(batcher, chats=True)
    batcher.close()


async def post(app: App, path: str, body: object) -> Reply:
    reply, raw = Reply(), body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = ((b"content-type", b"application/json"),)
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await app(scope, Caller(raw).receive, reply.send)
    return reply


ASK = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.5}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/invocations"])
async def test_a_chat_model_answers_as_openai_does(app: App, path: str) -> None:
    reply = await post(app, path, ASK)
    assert reply.status == 200
    assert reply.json["object"] == "chat.completion"
    assert reply.json["choices"][0]["message"]["content"] == "hello at 0.5"
    assert reply.json["usage"]["total_tokens"] == 3


async def test_a_stream_is_the_answer_in_one_chunk_and_its_usage_if_that_is_wanted(app: App) -> None:
    reply = await post(app, "/v1/chat/completions", ASK | {"stream": True, "stream_options": {"include_usage": True}})
    assert reply.headers[b"content-type"] == b"text/event-stream"
    *lines, done = [line.removeprefix("data: ") for line in reply.body.decode().strip().split("\n\n")]
    said, usage = (json.loads(line) for line in lines)
    assert done == "[DONE]"
    assert said["choices"][0]["delta"]["content"] == "hello at 0.5"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 3)


@pytest.mark.parametrize("body", [b"{", b"[]", {}, {"messages": []}, {"inputs": ["a"]}])
async def test_what_is_no_chat_is_the_callers_mistake(app: App, body: object) -> None:
    assert (await post(app, "/v1/chat/completions", body)).status == 400


def test_its_code_is_loaded_on_somebodys_word_only(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UntrustedArtifact):
        load(folder, trust=False)
    package = prepare(folder, tmp_path)
    assert package.chats
    assert package.risks


@pytest.mark.parametrize(
    "said",
    [
        "hi",
        ["hi"],
        {"messages": [{"role": "assistant", "content": "hi"}]},
        {"choices": [{"message": {"content": "hi"}}]},
    ],
)
def test_whatever_shape_a_flavour_answers_in_becomes_a_completion(said: Any) -> None:
    class Model:
        def predict(self, asked: Any) -> Any:
            assert set(asked) == {"messages"}
            return said

    (answer,) = chat.predictor(Model(), ("messages",))(Call([ASK], params=chat.PARAMS)).predictions
    assert answer["choices"][0]["message"]["content"] == "hi"
    assert answer["id"].startswith("chatcmpl-")


def test_what_chats_is_seen_from_its_description(folder: Path) -> None:
    assert chats(describe(folder))
    assert not chats({"flavors": {}, "signature": {"inputs": '[{"type": "string", "name": "text"}]'}})
