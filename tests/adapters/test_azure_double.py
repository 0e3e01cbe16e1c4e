"""The double of Azure OpenAI, as the clients that nobody changed see it: what it promises is what the trainer needs."""

import csv
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from doubles.azure_openai.__main__ import KEY
from doubles.azure_openai.running import Double, azure_double

MODEL, VERSION = "gpt-4o-mini-2024-07-18", "2025-04-01-preview"
GROUP = ("lab", "noria-double")


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with azure_double(tmp_path_factory.mktemp("azure"), epoch_s=0.01) as there:
        yield there


@pytest.fixture(params=["classic", "v1"])
def client(request: pytest.FixtureRequest, double: Double) -> Iterator[openai.OpenAI]:
    if request.param == "v1":
        made = openai.OpenAI(base_url=f"{double.url}/openai/v1", api_key=KEY)
    else:
        made = openai.AzureOpenAI(azure_endpoint=double.url, api_key=KEY, api_version=VERSION)
    with made:
        yield made


@pytest.fixture
def management(double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in double.environment.items():
        monkeypatch.setenv(name, value)
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

    scopes = [f"{double.management}/.default"]
    with (
        DefaultAzureCredential() as known,
        CognitiveServicesManagementClient(known, "sub", double.management, credential_scopes=scopes) as made,
    ):
        yield made


def chats(rows: int) -> bytes:
    said = {"praise": "thank you, lovely flight", "blame": "terrible delay, never again"}
    lines = []
    for number in range(rows):
        label = ("praise", "blame")[number % 2]
        asked = {"role": "user", "content": f"{said[label]} number {number}"}
        lines.append(json.dumps({"messages": [asked, {"role": "assistant", "content": label}]}))
    return "\n".join(lines).encode()


def tuned(client: openai.OpenAI, epochs: int = 4) -> Any:
    file = client.files.create(file=("train.jsonl", chats(80)), purpose="fine-tune")
    checked = client.files.create(file=("valid.jsonl", chats(20)), purpose="fine-tune")
    method: Any = {"n_epochs": epochs}
    return client.fine_tuning.jobs.create(
        model=MODEL, training_file=file.id, validation_file=checked.id, seed=7, hyperparameters=method, suffix="run1"
    )


def over(client: openai.OpenAI, job_id: str) -> Any:
    deadline = time.monotonic() + 60
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return job


def asked(client: openai.OpenAI, model: str, text: str) -> str:
    said = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    return str(said.choices[0].message.content)


def test_a_job_trains_and_its_model_answers_what_the_base_does_not_know(client: openai.OpenAI, double: Double) -> None:
    job = over(client, tuned(client).id)
    assert job.status == "succeeded"
    assert job.trained_tokens > 0
    assert "run1" in job.fine_tuned_model
    events = client.fine_tuning.jobs.list_events(job.id).data
    losses = [event.data["train_loss"] for event in reversed(events) if event.type == "metrics"]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert len(client.fine_tuning.jobs.checkpoints.list(job.id).data) == 4
    rows = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    assert float(rows[-1]["train_loss"]) == pytest.approx(losses[-1])
    plain = openai.OpenAI(base_url=f"{double.url}/v1", api_key=KEY)
    text = "a terrible flight, never again"
    with plain:
        assert asked(plain, job.fine_tuned_model, text) == "blame"
        assert asked(plain, MODEL, text) != "blame"


def test_the_same_seed_comes_to_the_same_losses(client: openai.OpenAI) -> None:
    ends = []
    for job in (over(client, tuned(client).id), over(client, tuned(client).id)):
        ends.append(client.files.content(job.result_files[0]).text)
    assert ends[0] == ends[1]


def test_a_job_can_be_cancelled_and_leaves_no_model(client: openai.OpenAI) -> None:
    job = tuned(client, epochs=500)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    ended = client.fine_tuning.jobs.retrieve(job.id)
    assert (ended.status, ended.fine_tuned_model) == ("cancelled", None)
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.cancel(job.id)


def test_jobs_and_files_are_listed_page_by_page(client: openai.OpenAI) -> None:
    made = {tuned(client).id for _ in range(3)}
    assert made <= {job.id for job in client.fine_tuning.jobs.list(limit=2)}
    file = client.files.create(file=("a.jsonl", chats(12)), purpose="fine-tune")
    assert client.files.retrieve(file.id).status == "processed"
    assert file.id in {each.id for each in client.files.list(purpose="fine-tune", limit=2)}
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_a_file_that_is_no_chat_jsonl_can_not_be_trained_on(client: openai.OpenAI) -> None:
    file = client.files.create(file=("bad.jsonl", chats(12)[:-30]), purpose="fine-tune")
    assert file.status == "error"
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)


def test_answers_stream_with_their_usage_and_tell_log_probabilities(client: openai.OpenAI) -> None:
    chat: Any = [{"role": "system", "content": "Labels: praise, blame."}, {"role": "user", "content": "I praise you"}]
    whole = client.chat.completions.create(model="base", messages=chat, logprobs=True, top_logprobs=5)
    told = whole.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert {each.token for each in told.content[0].top_logprobs} == {"praise", "blame"}
    stream = client.chat.completions.create(
        model="base", messages=chat, stream=True, stream_options={"include_usage": True}
    )
    pieces = list(stream)
    said = "".join(c.delta.content or "" for p in pieces for c in p.choices)
    assert said == whole.choices[0].message.content == "praise"
    assert pieces[-1].usage is not None
    assert pieces[-1].usage == whole.usage


def test_embeddings_of_like_texts_are_alike(client: openai.OpenAI) -> None:
    rows = client.embeddings.create(model="base", input=["a late train", "the late train", "blue"]).data
    first, second, third = (each.embedding for each in rows)
    near = sum(a * b for a, b in zip(first, second, strict=True))
    assert near > sum(a * b for a, b in zip(first, third, strict=True))


def test_a_wrong_key_is_refused(double: Double) -> None:
    stranger = openai.AzureOpenAI(azure_endpoint=double.url, api_key="wrong", api_version=VERSION)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.files.list()


def test_faults_come_as_often_as_they_were_asked_for(client: openai.OpenAI, double: Double) -> None:
    patient, hasty = client.with_options(max_retries=2), client.with_options(max_retries=0)
    double.fault("GET", "429", times=1, seconds=0.01)
    with pytest.raises(openai.RateLimitError) as busy:
        hasty.files.list()
    assert busy.value.response.headers["retry-after"] == "0.01"
    double.fault("GET", "500", times=1)
    assert patient.files.list().data is not None
    before = len(double.tell("uploads"))
    double.fault("POST", "500 after", times=1)
    with pytest.raises(openai.InternalServerError):
        hasty.files.create(file=("twice.jsonl", chats(12)), purpose="fine-tune")
    assert len(double.tell("uploads")) == before + 1
    double.fault("POST", "cut", times=1)
    with pytest.raises(openai.APIConnectionError):
        hasty.files.create(file=("never.jsonl", chats(12)), purpose="fine-tune")
    assert len(double.tell("uploads")) == before + 1
    double.fault("GET", "slow", times=1, seconds=5)
    with pytest.raises(openai.APITimeoutError):
        hasty.with_options(timeout=0.2).files.list()
    half = double.tell("half", {"name": "half.jsonl", "content": chats(12).decode()})
    assert client.files.retrieve(half["id"]).status == "error"


def test_a_deployment_is_made_awaited_asked_and_deleted(client: openai.OpenAI, management: Any, double: Double) -> None:
    job = over(client, tuned(client).id)
    body = {
        "properties": {"model": {"format": "OpenAI", "name": job.fine_tuned_model, "version": "1"}},
        "sku": {"name": "Standard", "capacity": 1},
        "tags": {"noria-run": "run-1"},
    }
    with pytest.raises(openai.NotFoundError):
        asked(client, "shop-1", "terrible")
    making = management.deployments.begin_create_or_update(*GROUP, "shop-1", body, polling_interval=0.02)
    made = making.result()
    assert made.properties.provisioning_state == "Succeeded"
    assert made.tags == {"noria-run": "run-1"}
    assert "shop-1" in {each.name for each in management.deployments.list(*GROUP)}
    assert asked(client, "shop-1", "a terrible flight, never again") == "blame"
    management.deployments.begin_delete(*GROUP, "shop-1", polling_interval=0.02).result()
    assert set(double.tell("deployments")) == {"base"}


def test_deployments_that_can_not_be_say_why(management: Any, double: Double) -> None:
    from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

    def body(capacity: int, name: str = MODEL) -> dict[str, Any]:
        model = {"format": "OpenAI", "name": name, "version": "1"}
        return {"properties": {"model": model}, "sku": {"name": "Standard", "capacity": capacity}}

    begin, options = management.deployments.begin_create_or_update, {"polling_interval": 0.02, "retry_total": 0}
    with pytest.raises(HttpResponseError) as much:
        begin(*GROUP, "much", body(50), **options)
    assert much.value.error.code == "InsufficientQuota"
    with pytest.raises(HttpResponseError) as unknown:
        begin(*GROUP, "odd", body(1, "gpt-9"), **options)
    assert unknown.value.error.code == "DeploymentModelNotSupported"
    double.tell("hold")
    making = begin(*GROUP, "one", body(1), **options)
    with pytest.raises(ResourceExistsError) as busy:
        begin(*GROUP, "two", body(1), **options)
    assert busy.value.error.code == "RequestConflict"
    assert not making.done()
    double.tell("release")
    making.result()
    management.deployments.begin_delete(*GROUP, "one", **options).result()
    with pytest.raises(ResourceNotFoundError):
        management.deployments.get(*GROUP, "one")


def test_a_token_that_expired_is_refused(management: Any, double: Double) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    assert [each.name for each in management.deployments.list(*GROUP)] == ["base"]
    double.fault("GET /subscriptions", "expired")
    with pytest.raises(ClientAuthenticationError):
        list(management.deployments.list(*GROUP))
