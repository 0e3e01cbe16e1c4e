"""What every source of credentials promises; the real one keeps tokens as long as they are good."""

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from fakes.credentials import FixedCredentials
from noria.adapters.upstreams.credentials import SCOPES, UpstreamCredentials
from noria.domain.errors import MissingExtra, NoCredentials
from noria.ports import Credentials
from noria.settings import Upstream, UpstreamKind


def upstream(kind: str = "openai", auth: str = "key") -> Upstream:
    return Upstream.model_validate({"kind": kind, "url": "https://u.example", "auth": auth, "key": "U_KEY"})


Make = Callable[[dict[str, str]], Credentials]


@pytest.fixture(params=["fixed", "real"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes credentials from an environment."""
    real: Make = lambda environment: UpstreamCredentials(lambda name: environment.get(name, ""))  # noqa: E731
    return FixedCredentials if request.param == "fixed" else real


async def test_openai_and_databricks_get_a_bearer_and_azure_its_own_header(make: Make) -> None:
    credentials = make({"U_KEY": "sk-1"})
    assert await credentials.headers(upstream()) == {"authorization": "Bearer sk-1"}
    assert await credentials.headers(upstream("databricks")) == {"authorization": "Bearer sk-1"}
    assert await credentials.headers(upstream("azure")) == {"api-key": "sk-1"}


async def test_an_upstream_that_asks_for_nothing_gets_nothing(make: Make) -> None:
    assert await make({}).headers(upstream(auth="none")) == {}


async def test_a_key_that_is_not_set_is_named(make: Make) -> None:
    with pytest.raises(NoCredentials) as caught:
        await make({}).headers(upstream())
    assert "U_KEY" in caught.value.problem
    assert "U_KEY" in caught.value.remedy


async def test_a_key_that_would_add_a_header_is_refused_without_being_shown() -> None:
    credentials = UpstreamCredentials(lambda _: "secret\r\nx-evil: 1")
    with pytest.raises(NoCredentials) as caught:
        await credentials.headers(upstream())
    assert "secret" not in str(caught.value)


class Source:
    """azure-core's TokenCredential, which grants numbered tokens for an hour."""

    def __init__(self) -> None:
        self.now, self.scopes, self.refuses = 1000.0, list[str](), False
        self.threads = set[int]()

    def get_token(self, *scopes: str, claims: str | None = None, tenant_id: str | None = None) -> AccessToken:
        self.threads.add(threading.get_ident())
        if self.refuses:
            raise ClientAuthenticationError("Tenant not found.\nA long story.")
        self.scopes += scopes
        return AccessToken(f"token-{len(self.scopes)}", int(self.now) + 3600)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def entra(source: Source) -> UpstreamCredentials:
    return UpstreamCredentials(lambda _: "", lambda: source, lambda: source.now)


async def bearer(credentials: Credentials, kind: str = "azure") -> str:
    return (await credentials.headers(upstream(kind, "entra")))["authorization"]


async def test_a_token_is_asked_for_once_in_a_thread_however_many_wait(
    entra: UpstreamCredentials, source: Source
) -> None:
    got = await asyncio.gather(*(bearer(entra) for _ in range(50)))
    assert set(got) == {"Bearer token-1"}
    assert source.scopes == [SCOPES[UpstreamKind.AZURE]]
    assert threading.get_ident() not in source.threads


async def test_each_kind_has_a_scope_of_its_own(entra: UpstreamCredentials, source: Source) -> None:
    assert await bearer(entra, "azure") != await bearer(entra, "databricks")
    assert source.scopes == [SCOPES[UpstreamKind.AZURE], SCOPES[UpstreamKind.DATABRICKS]]


async def test_a_token_is_replaced_before_it_ends(entra: UpstreamCredentials, source: Source) -> None:
    await bearer(entra)
    source.now += 3000
    assert await bearer(entra) == "Bearer token-1"
    source.now += 400
    assert await bearer(entra) == "Bearer token-1"  # which is good yet: nobody waits for the next
    await _renewed(entra)
    assert await bearer(entra) == "Bearer token-2"


async def _renewed(credentials: UpstreamCredentials) -> None:
    """Come back once nobody is asked for a token."""
    while credentials._asking:
        await asyncio.wait(credentials._asking.values())


async def test_a_token_that_is_good_yet_is_used_while_no_new_one_can_be_had(
    entra: UpstreamCredentials, source: Source
) -> None:
    await bearer(entra)
    source.refuses, source.now = True, source.now + 3500
    assert await bearer(entra) == "Bearer token-1"
    await _renewed(entra)
    assert await bearer(entra) == "Bearer token-1"
    await _renewed(entra)
    source.now += 200
    with pytest.raises(NoCredentials, match="Tenant not found") as caught:
        await bearer(entra)
    assert "long story" not in str(caught.value)
    source.refuses = False
    assert await bearer(entra) == "Bearer token-2"


async def test_without_azure_identity_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(MissingExtra) as caught:
        await bearer(UpstreamCredentials(lambda _: ""))
    assert "noria[azure]" in caught.value.remedy


async def test_azure_identitys_own_chain_grants_what_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real DefaultAzureCredential, whose `az` is a script: the one link of its chain that needs no network."""
    az = tmp_path / "az"
    answer = '{"accessToken": "from-az", "expires_on": 4102444800, "expiresOn": "2100-01-01 00:00:00.000000"}'
    az.write_text(f"#!/bin/sh\necho '{answer}'\n")
    az.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    assert await bearer(UpstreamCredentials(lambda _: "")) == "Bearer from-az"
