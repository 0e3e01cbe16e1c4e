"""Where a model of an upstream is asked, and what its body calls it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from noria.adapters.upstreams.places import address_of, named, split, url_of
from noria.domain.errors import UnknownUpstream
from noria.settings import Upstream, UpstreamKind

CHAT = "/v1/chat/completions"


def upstream(kind: str = "openai", url: str = "https://api.example.com", **more: str) -> Upstream:
    return Upstream.model_validate({"kind": kind, "url": url, "auth": "none", **more})


@pytest.mark.parametrize(
    ("base", "asked"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("http://localhost:11434", "http://localhost:11434/v1/chat/completions"),
        ("https://api.groq.com/openai", "https://api.groq.com/openai/v1/chat/completions"),
        ("https://g.example/v1beta/openai", "https://g.example/v1beta/openai/chat/completions"),
    ],
)
def test_openais_base_url_may_name_its_version_or_not(base: str, asked: str) -> None:
    assert url_of(upstream(url=base), "gpt", CHAT) == asked


@pytest.mark.parametrize("base", ["https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/"])
def test_azure_is_asked_by_its_v1_path_and_by_the_classic_one_where_a_date_says_so(base: str) -> None:
    assert url_of(upstream("azure", base), "gpt-4o", CHAT) == "https://r.openai.azure.com/openai/v1/chat/completions"
    preview = upstream("azure", base, api_version="preview")
    assert url_of(preview, "gpt-4o", CHAT).endswith("/openai/v1/chat/completions?api-version=preview")
    classic = upstream("azure", base, api_version="2024-10-21")
    expected = "https://r.openai.azure.com/openai/deployments/gpt-4o/embeddings?api-version=2024-10-21"
    assert url_of(classic, "gpt-4o", "/v1/embeddings") == expected


def test_databricks_and_mlflow_answer_at_invocations_whatever_is_asked() -> None:
    databricks = upstream("databricks", "https://adb-1.azuredatabricks.net/serving-endpoints")
    assert (
        url_of(databricks, "triage", CHAT) == "https://adb-1.azuredatabricks.net/serving-endpoints/triage/invocations"
    )
    assert (
        url_of(upstream("mlflow", "https://m.example/base"), "", "/invocations") == "https://m.example/base/invocations"
    )


@given(st.text(min_size=1, max_size=40))
def test_no_name_of_a_model_leads_to_another_path(model: str) -> None:
    for kind, more, before, after in (
        ("databricks", {}, "/serving-endpoints/", "/invocations"),
        ("azure", {"api_version": "2024-10-21"}, "/openai/deployments/", "/chat/completions"),
    ):
        try:
            asked = URL(url_of(upstream(kind, **more), model, CHAT), encoded=True)
        except UnknownUpstream:
            continue
        assert asked.host == "api.example.com"
        assert asked.raw_path == f"{before}{model}{after}"
        assert "/" not in model
        assert model not in (".", "..")


@pytest.mark.parametrize("model", ["..", ".", "../admin", "a/b", "a%2fb", "a\nb", "a b", "a?b", "a#b", ""])
def test_path_tricks_are_refused(model: str) -> None:
    with pytest.raises(UnknownUpstream):
        url_of(upstream("databricks"), model, CHAT)


def test_the_model_is_called_as_the_upstream_calls_it_and_the_rest_stays_byte_for_byte() -> None:
    body = b'{"model":"assistant","n":1.10,"x":{"deep" : [ 1e3 ]},"messages":[{"role":"user","content":"\\u00e9"}]}'
    sent = named(UpstreamKind("openai"), "gpt-4o", body)
    assert sent == body.replace(b'"assistant"', b'"gpt-4o"')
    assert named(UpstreamKind("openai"), "assistant", body) is body


def test_a_body_without_a_model_gets_one_where_the_upstream_wants_it_and_loses_it_where_the_path_has_it() -> None:
    assert json.loads(named(UpstreamKind("openai"), "gpt", b'{"messages":[]}')) == {"model": "gpt", "messages": []}
    assert named(UpstreamKind("databricks"), "gpt", b'{"model":"a","messages":[]}') == b'{"messages":[]}'
    untouched = b'{"inputs": [1]}'
    assert named(UpstreamKind("mlflow"), "m", untouched) is untouched


def test_an_address_names_an_upstream_and_a_model_that_may_have_slashes() -> None:
    assert split(address_of("hub", "meta-llama/Llama-3.1-8B")) == ("hub", "meta-llama/Llama-3.1-8B")
