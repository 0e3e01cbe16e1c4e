"""When a project is ready, what keeps it from being so, and what is only worth a warning."""

import json

from fakes.entities import KnownNames
from fakes.plane import ASSISTANT, TRIAGE
from fakes.site import running
from fakes.spool import MemorySpool
from fakes.state import FakeState
from fakes.story import PROJECT, StoppedClock
from fakes.upstream import labels, talker
from noria.api.readiness import Readiness, Siblings
from noria.serving.breaker import BreakerState
from noria.serving.log.recorder import Recorder
from noria.serving.router import Router
from noria.settings import RedactElse, Redaction


async def there(url):
    return True


def router_of(project=PROJECT):
    clock = StoppedClock()
    state = FakeState(clock)
    with state.change("noria", "route.changed", "test") as change:
        change.put(TRIAGE)
        change.put(ASSISTANT)
    router = Router(state, project, lambda _: project, clock)
    router.refresh()
    return router


def asking(redact_else):
    changed = {"redact": (Redaction.NAME,), "redact_else": redact_else}
    triage = PROJECT.endpoints["triage"].model_copy(update=changed)
    return PROJECT.model_copy(update={"endpoints": {**PROJECT.endpoints, "triage": triage}})


async def test_nobody_is_ready_before_every_process_knows_the_routes_and_then_for_good(tmp_path):
    one, two, three = (
        Readiness(router_of(), there, siblings=Siblings(tmp_path / "counts", f"api-{n}", 3)) for n in range(3)
    )
    one.tell_siblings()
    two.siblings.tell({"triage": 1})
    assert (await one.look())[0] == [f"api-{n} does not know the newest routes yet." for n in (1, 2)]
    two.tell_siblings()
    three.tell_siblings()
    assert [(await each.look())[0] for each in (one, two, three)] == [[], [], []]
    (tmp_path / "counts" / "api-2.routes").write_bytes(b"{")
    assert (await one.look())[0] == []
    fresh = Readiness(router_of(), there, siblings=Siblings(tmp_path / "counts", "api-1", 3))
    assert (await fresh.look())[0] == ["api-2 does not know the newest routes yet."]


async def test_a_process_tells_its_siblings_what_it_has_read(tmp_path):
    siblings = Siblings(tmp_path / "counts", "api-0", 2)
    async with running(tmp_path, labels, talker("hi"), siblings=siblings) as site:
        status, body, _ = await site.get("/readyz")
        assert (status, json.loads(body)["problems"]) == (503, ["api-1 does not know the newest routes yet."])
        Siblings(tmp_path / "counts", "api-1", 2).tell({"triage": 1, "assistant": 1})
        assert (await site.get("/readyz"))[0] == 200
        read = tmp_path / "counts" / "api-0.routes"
        assert json.loads(read.read_bytes()) == {"triage": 1, "assistant": 1}


async def test_a_redactor_that_does_not_answer_makes_a_project_unready_that_refuses_without_it():
    names = KnownNames()
    names.gone = True
    recorder = Recorder(MemorySpool(), {}, StoppedClock(), reader=names)
    ready = Readiness(router_of(asking(RedactElse.REFUSE)), there, names_problem=recorder.names_problem)
    (problem,), _ = await ready.look()
    assert problem.startswith("triage asked for names to be taken out, and the redactor does not answer yet: ")
    keeps = Readiness(router_of(asking(RedactElse.WITHHOLD)), there, names_problem=recorder.names_problem)
    problems, facts = await keeps.look()
    assert (problems, len(facts["warnings"])) == ([], 1)
    names.gone = False
    assert await ready.look() == await keeps.look()
    assert await Recorder(MemorySpool(), {}, StoppedClock()).names_problem() == "Nothing here looks for names."


async def test_a_version_that_is_left_alone_is_a_warning():
    states = {"triage/1": BreakerState.OPEN, "triage/2": BreakerState.HALF_OPEN, "assistant/1": BreakerState.CLOSED}
    problems, facts = await Readiness(router_of(), there, breakers=lambda: states).look()
    assert problems == []
    assert facts["breakers"] == {"triage/1": "open", "triage/2": "half_open"}
    assert facts["warnings"] == ["triage/1 failed again and again and is left alone for the moment."]
