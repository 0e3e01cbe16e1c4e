"""What callers see of routing over HTTP: who answered, whether from memory, and when to come back."""

from dataclasses import replace

from fakes.plane import ASSISTANT, route, target
from fakes.site import running, until
from fakes.story import PROJECT
from fakes.upstream import Script, Step, listening, reply, talker
from noria.domain.endpoint import Wire
from noria.settings import Project, Routing

HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


def routed(**routing) -> Project:
    """The project with this routing of its assistant, and a spare one."""
    assistant = PROJECT.endpoints["assistant"].model_copy(update={"routing": Routing.model_validate(routing)})
    endpoints = {**PROJECT.endpoints, "assistant": assistant, "spare": PROJECT.endpoints["assistant"]}
    return PROJECT.model_copy(update={"endpoints": endpoints})


async def test_an_answer_from_memory_says_so_whole_or_streamed(tmp_path):
    async with running(tmp_path, assistant=talker("hi"), project=routed(cache={})) as site:
        for stream in (False, True):
            seen = []
            for _ in range(2):
                async with site.http.post(site.url + PATH, json={**HELLO, "stream": stream}) as response:
                    seen.append((response.headers, await response.read()))
            assert [headers.get("x-noria-cache") for headers, _ in seen] == [None, "hit"]
            assert seen[0][1] == seen[1][1]
            assert {headers["x-noria-version"] for headers, _ in seen} == {"assistant/1"}
        status, _, headers = await site.post(PATH, HELLO, headers={"cache-control": "no-cache"})
        assert (status, headers.get("x-noria-cache")) == (200, None)


async def test_the_answer_names_who_stood_in(tmp_path):
    project = routed(fallbacks=["spare"], tries=1)
    async with (
        running(tmp_path, assistant=lambda _: Script(before=Step.CUT), project=project) as site,
        listening(talker("hi"), tmp_path) as url,
    ):
        spare = replace(target("7", model="spare"), url=url)
        site.put(route(spare, endpoint="spare", wire=Wire.OPENAI))
        await until(lambda: "spare" in site.router.snapshot.routes)
        status, _, headers = await site.post(PATH, HELLO)
        assert (status, headers["x-noria-version"]) == (200, "spare/7")


async def test_a_version_that_is_left_alone_says_when_to_come_back(tmp_path):
    project = routed(patience="1ms", breaker={"failures": 1, "open_for": "60s"})
    async with running(tmp_path, project=project) as site:
        site.put(replace(ASSISTANT, targets=(replace(ASSISTANT.champion, url=f"unix:{tmp_path}/nobody.sock"),)))
        await until(lambda: "assistant" in site.router.snapshot.routes)
        assert (await site.post(PATH, HELLO))[0] == 502
        status, problem, headers = await site.post(PATH, HELLO)
        assert (status, problem["error"]["code"]) == (503, "circuit_open")
        assert 1 < int(headers["retry-after"]) <= 60


async def test_the_time_that_a_service_asks_for_reaches_the_caller(tmp_path):
    busy = replace(reply({"error": {"message": "slow down"}}, 503), headers={"retry-after": "17"})
    async with running(tmp_path, assistant=lambda _: busy, project=routed(patience="1ms")) as site:
        status, _, headers = await site.post(PATH, HELLO)
        assert (status, headers["retry-after"]) == (503, "17")
