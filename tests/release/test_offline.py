"""Versions compared beside the traffic: the same rows for each, their servers left as they were found."""

import json
import xml.etree.ElementTree as ET

import pytest

from fakes.release import BEGIN, Body, Servers, immediately, passed_verdict
from fakes.release import Stage as Scene
from noria.domain.endpoint import Wire
from noria.domain.errors import InvalidData, Refused, UpstreamFailed
from noria.domain.events import GatePassed
from noria.domain.experiment import Borrowed
from noria.domain.price import FREE, Price
from noria.ports import UpstreamReply
from noria.release.comparison_page import page, picture
from noria.release.fleet import Fleet
from noria.release.offline import Offline

TEXTS = [f"text {n}" for n in range(200)]
LABELS = ["positive" if n % 2 else "negative" for n in range(200)]


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    with scene.state.note() as note:
        note.put(passed_verdict("1"))
    scene.rollouts.begin(GatePassed(endpoint="triage", verdict_id="verdict-1"), immediately)
    scene.servers = Servers()
    scene.said = []
    return scene


def offline(scene, price=FREE, upstream=None):
    return Offline(
        state=scene.state,
        registry=scene.registry,
        host=scene.host,
        upstream=upstream or scene.servers,
        clock=scene.clock,
        price=lambda _: price,
        say=scene.said.append,
    )


def right_until(number):
    """A model server that is right about so many of the rows."""

    def answer(text):
        n = int(text.split()[-1])
        return LABELS[n] if n < number else "neither"

    return answer


def test_versions_are_asked_the_same_rows_and_the_difference_is_paired(scene):
    scene.servers.answer = {"unix:/triage/1": right_until(120), "unix:/triage/2": right_until(190)}
    found = offline(scene).compare("triage", ["triage/1", "triage/2"], TEXTS, LABELS, "rows.csv")
    first, second = found.versions
    assert (first.right, second.right, first.rows) == (120, 190, 200)
    assert first.against is None
    mean, low, high = second.against
    assert mean == pytest.approx(0.35)
    assert 0 < low < mean < high
    assert found.sentence.startswith("triage/2 is right more often than triage/1 (+0.350")
    assert (first.usd_per_thousand, first.p50_ms > 0) == (0.0, True)
    assert json.loads(json.dumps(found.to_json()))["versions"][1]["ref"] == "triage/2"


def test_equal_versions_are_not_told_apart(scene):
    scene.servers.answer = {f"unix:/triage/{v}": right_until(150) for v in ("1", "2")}
    found = offline(scene).compare("triage", ["triage/1", "triage/2"], TEXTS, LABELS, "rows.csv")
    assert "may be as good as" in found.sentence


def test_what_serves_goes_on_and_what_was_brought_up_is_stopped(scene):
    scene.servers.answer = {f"unix:/triage/{v}": right_until(150) for v in ("1", "2")}
    offline(scene).compare("triage", ["triage/2", "triage/1"], TEXTS, LABELS, "rows.csv")
    assert set(scene.host.up) == {"triage/1"}
    assert scene.host.stopped == ["triage/2"]


def test_the_worker_leaves_servers_alone_while_they_are_asked(scene):
    scene.host.start(scene.registry.version("triage", "2"))
    with scene.state.note() as note:
        note.put(passed_verdict("2"))
        note.put(Borrowed(endpoint="triage", refs=("triage/2",), until=BEGIN.replace(hour=20)))
    fleet = Fleet(scene.state, scene.registry, scene.host, scene.clock)
    for _ in range(3):
        scene.clock.pass_s(600)
        fleet.reconcile()
    assert "triage/2" in scene.host.up
    scene.clock.pass_s(24 * 3600)  # whoever borrowed it died
    for _ in range(3):
        scene.clock.pass_s(10)
        fleet.reconcile()
    fleet.close()
    assert "triage/2" not in scene.host.up


def test_a_version_that_does_not_answer_leaves_nothing_behind(scene):
    scene.servers.answer = {"unix:/triage/1": right_until(150)}
    with pytest.raises(UpstreamFailed):
        offline(scene).compare("triage", ["triage/1", "triage/2"], TEXTS, LABELS, "rows.csv")
    assert set(scene.host.up) == {"triage/1"}
    assert scene.state.get(Borrowed, "triage").refs == ()


def test_what_is_no_comparison_is_refused(scene):
    for refs in (["triage/1"], ["triage/1", "triage/1"]):
        with pytest.raises(Refused, match="two versions or more"):
            offline(scene).compare("triage", refs, TEXTS, LABELS, "rows.csv")
    with pytest.raises(InvalidData, match=r"rows\.csv has no labelled rows"):
        offline(scene).compare("triage", ["triage/1", "triage/2"], [], [], "rows.csv")


class Chats:
    """A chat server that counts tokens, and takes no temperature where it thinks first."""

    def __init__(self, thinks=False):
        self.thinks, self.asked = thinks, []

    def __call__(self):
        return self

    async def post(self, url, path, body, headers, timeout_s):
        asked = json.loads(body)
        self.asked.append(asked)
        if self.thinks and "max_tokens" in asked:
            return UpstreamReply(400, {}, Body(b'{"error": {"message": "Use max_completion_tokens."}}'))
        n = int(asked["messages"][-1]["content"].split()[-1])
        said = LABELS[n] if url.endswith("2") else LABELS[n].upper() + " I think"
        usage = {"prompt_tokens": 1000, "completion_tokens": 500}
        given = {"choices": [{"message": {"role": "assistant", "content": said}}], "usage": usage}
        return UpstreamReply(200, {}, Body(json.dumps(given).encode()))

    async def aclose(self):
        """Nothing to close."""


@pytest.mark.parametrize("thinks", [False, True])
def test_chats_are_compared_by_their_words_and_cost_what_their_tokens_cost(scene, thinks):
    scene.host.default_wire = Wire.OPENAI
    price = Price(input=1.0, output=2.0)
    made = offline(scene, price, Chats(thinks)).compare(
        "triage", ["triage/1", "triage/2"], TEXTS[:40], LABELS[:40], "rows.csv"
    )
    first, second = made.versions
    assert (first.right, second.right) == (0, 40)
    assert (first.overlap, second.overlap) == (pytest.approx(0.5), 1.0)
    assert first.usd_per_thousand == pytest.approx(2.0)


def test_what_nobody_knows_the_price_of_is_unknown(scene):
    scene.host.default_wire = Wire.OPENAI
    made = offline(scene, None, Chats()).compare("triage", ["triage/1", "triage/2"], TEXTS[:5], LABELS[:5], "rows.csv")
    assert [row.usd_per_thousand for row in made.versions] == [None, None]
    assert "unknown" in page(made)


def test_the_page_is_one_file_whose_picture_can_be_read(scene):
    scene.servers.answer = {f"unix:/triage/{v}": right_until(150) for v in ("1", "2")}
    made = offline(scene).compare("triage", ["triage/1", "triage/2"], TEXTS, LABELS, "<rows>.csv")
    text = page(made)
    assert "<script" not in text
    assert "&lt;rows&gt;.csv" in text
    drawn = ET.fromstring(picture(made))
    assert len(drawn.findall(".//circle")) == 2
