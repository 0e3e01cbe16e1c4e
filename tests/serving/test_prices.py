"""What models cost: looked up once and daily, each endpoint's own price first; a budget that can't be kept is told."""

from datetime import timedelta

import pytest

from fakes.plane import ASSISTANT, TRIAGE, route, target
from fakes.state import FakeState
from fakes.story import PROJECT, StoppedClock
from noria.adapters.prices import list_price
from noria.domain.endpoint import Role, Wire
from noria.domain.errors import InvalidProject
from noria.domain.limits import Limits
from noria.domain.price import Price, PriceList
from noria.governance import keys
from noria.serving.prices import PriceKeeper, prices_in_service
from noria.settings import Project, Upstream, UpstreamKind

MINI = "upstream:openai/gpt-4o-mini"
LISTED = Price(input=0.15, output=0.6, cached_input=0.075, source="list")


def project(**assistant) -> Project:
    said = PROJECT.model_dump(mode="json", exclude_unset=True)
    said["upstreams"] = {
        "openai": {"url": "https://api.openai.com/v1", "key": "K"},
        "vllm": {"url": "http://10.0.0.1:8000", "auth": "none", "private": True},
    }
    said["endpoints"]["assistant"].update(assistant)
    return Project.model_validate(said)


def elsewhere(url: str = MINI, version: str = "1"):
    from dataclasses import replace

    away = replace(target(version, model="assistant"), url=url)
    return route(away, endpoint="assistant", wire=Wire.OPENAI)


class Lookup:
    """A provider's list that counts how often it is read."""

    def __init__(self, **prices: Price):
        self.prices, self.asked = prices, []

    def __call__(self, upstream, model):
        self.asked.append(model)
        return self.prices.get(model)


@pytest.fixture
def clock():
    return StoppedClock()


@pytest.fixture
def state(clock):
    return FakeState(clock)


def put(state, *nouns):
    with state.note() as note:
        for noun in nouns:
            note.put(noun)


def test_a_price_is_looked_up_once_a_day_and_when_a_version_comes(state, clock):
    look = Lookup(**{"gpt-4o-mini": LISTED, "gpt-4.1": Price(input=2)})
    keeper = PriceKeeper(state, clock, project(), look)
    keeper.ensure()
    assert state.get(PriceList, "prices") is None  # nothing elsewhere, nothing to look up
    put(state, TRIAGE, elsewhere())
    for _ in range(3):
        keeper.ensure()
    assert look.asked == ["gpt-4o-mini"]
    assert state.get(PriceList, "prices").prices == {MINI: LISTED}
    put(state, elsewhere("upstream:openai/gpt-4.1", "2"))
    keeper.ensure()
    assert look.asked == ["gpt-4o-mini", "gpt-4.1"]
    clock.at += timedelta(days=1)
    keeper.ensure()
    assert look.asked == ["gpt-4o-mini", "gpt-4.1", "gpt-4.1"]
    assert state.get(PriceList, "prices").at == clock.at


def test_a_price_that_changed_is_in_the_account_and_one_that_did_not_is_not(state, clock):
    look = Lookup(**{"gpt-4o-mini": LISTED})
    keeper = PriceKeeper(state, clock, project(), look)
    put(state, elsewhere())
    keeper.ensure()
    clock.at += timedelta(days=1)
    keeper.ensure()
    look.prices["gpt-4o-mini"] = Price(input=1)
    clock.at += timedelta(days=1)
    keeper.ensure()
    trail = list(state.audit_trail())
    assert [event.action for event in trail] == ["prices.found", "prices.found"]
    assert trail[1].evidence == {MINI: [1, 0, None, ""]}


def test_what_is_nobodys_list_is_free_on_ones_own_network_and_else_unknown(state, clock):
    put(state, elsewhere("upstream:vllm/qwen"))
    PriceKeeper(state, clock, project(), Lookup()).ensure()
    assert state.get(PriceList, "prices").prices["upstream:vllm/qwen"].free
    put(state, elsewhere("upstream:openai/mine"))
    PriceKeeper(state, clock, project(), Lookup()).ensure()
    assert state.get(PriceList, "prices").unknown == ("upstream:openai/mine",)


def test_a_budget_without_a_price_is_told(state, clock):
    put(state, elsewhere("upstream:openai/mine"))
    with pytest.raises(
        InvalidProject, match="a budget for assistant, but nobody knows what assistant/1 costs"
    ) as caught:
        PriceKeeper(state, clock, project(limits={"usd_per_day": 5}), Lookup()).ensure()
    assert "endpoints.assistant.price" in caught.value.remedy
    PriceKeeper(state, clock, project(limits={"usd_per_day": 5}, price={"input": 1}), Lookup()).ensure()
    PriceKeeper(state, clock, project(), Lookup()).ensure()
    keys.create(state, clock, "shop", "ada", endpoints=["triage"], limits=Limits(usd_per_day=1.0))
    PriceKeeper(state, clock, project(), Lookup()).ensure()
    keys.create(state, clock, "all", "ada", limits=Limits(usd_per_day=1.0))
    with pytest.raises(InvalidProject, match="a budget for assistant"):
        PriceKeeper(state, clock, project(), Lookup()).ensure()


def test_an_endpoints_own_price_comes_before_the_list_and_what_runs_here_is_free(clock):
    routes = {"triage": TRIAGE, "assistant": elsewhere()}
    kept = PriceList(at=clock.now(), prices={MINI: LISTED})
    assert prices_in_service(project(), routes, kept)["assistant"]["assistant/1"] == LISTED
    assert prices_in_service(project(), routes, kept)["triage"]["triage/1"].free
    assert prices_in_service(project(), routes, None)["assistant"] == {}
    own = prices_in_service(project(price={"input": 3, "output": 4}), routes, kept)["assistant"]["assistant/1"]
    assert (own.input, own.output, own.cached_input, own.source) == (3, 4, None, "noria.yaml")
    local = prices_in_service(project(price={"input": 3}), {"assistant": ASSISTANT}, None)
    assert local["assistant"]["assistant/1"].input == 3


def test_who_stands_in_costs_what_his_own_endpoint_says(clock):
    said = PROJECT.model_dump(mode="json", exclude_unset=True)
    said["endpoints"]["backup"] = {**said["endpoints"]["triage"], "price": {"input": 3}}
    said["endpoints"]["triage"]["routing"] = {"fallbacks": ["backup"]}
    canary = route(target("1", weight=90), target("2", Role.CANARY, 10))
    backup = route(target("1", model="backup"), endpoint="backup")
    found = prices_in_service(Project.model_validate(said), {"triage": canary, "backup": backup}, None)
    assert {ref: price.input for ref, price in found["triage"].items()} == {
        "triage/1": 0,
        "triage/2": 0,
        "backup/1": 3,
    }


def test_cached_tokens_are_input_tokens_at_their_own_price():
    assert LISTED.cost(1_000_000, 1_000_000) == pytest.approx(0.75)
    assert LISTED.cost(1_000_000, 0, 400_000) == pytest.approx(0.15 * 0.6 + 0.075 * 0.4)
    assert LISTED.cost(10, 0, 1_000_000) == pytest.approx(LISTED.cost(10, 0, 10))
    assert Price(input=1.0).cost(1_000_000, 5, 500_000) == pytest.approx(1.0)


# --- the list itself ---


def upstream(url: str, kind: UpstreamKind = UpstreamKind.OPENAI) -> Upstream:
    return Upstream(url=url, kind=kind, key="K")


@pytest.mark.parametrize(
    "where",
    [
        upstream("https://api.openai.com/v1"),
        upstream("https://api.openai.com"),
        upstream("https://mine.openai.azure.com", UpstreamKind.AZURE),
    ],
)
def test_the_list_knows_providers_by_kind_or_address(where):
    price = list_price(where, "gpt-4o-mini")
    assert price is not None
    assert 0 < price.cached_input < price.input < price.output < 10  # dollars a million
    assert price.source.startswith("genai-prices ")


@pytest.mark.parametrize(
    ("where", "model"),
    [
        (upstream("https://mine.openai.azure.com", UpstreamKind.AZURE), "my-deployment"),
        (upstream("https://vllm.example/v1"), "gpt-4o-mini"),
        (upstream("https://api.openai.com/v1"), "no-such-model-xyz"),
        (upstream("https://x.example", UpstreamKind.MLFLOW), "m"),
    ],
)
def test_what_the_list_does_not_know_has_no_price(where, model):
    assert list_price(where, model) is None
