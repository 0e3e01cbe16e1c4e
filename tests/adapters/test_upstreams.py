"""Upstreams elsewhere: what they are sent, and where nothing is ever sent."""

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fakes.azure import AzureDouble, azure
from fakes.upstream import Script, listening, reply
from noria.adapters.upstreams.both import ProjectUpstream
from noria.adapters.upstreams.credentials import UpstreamCredentials
from noria.adapters.upstreams.own import HttpUpstream
from noria.domain.errors import ForbiddenAddress, NoCredentials, UnknownUpstream, UpstreamFailed, UpstreamTimeout
from noria.ports import UpstreamReply
from noria.settings import Upstream

ASK = b'{"model": "assistant", "messages": [{"role": "user", "content": "hello there"}], "x-unknown": [1]}'
CHAT = "/v1/chat/completions"


class Site:
    """A project's upstreams and what calls them."""

    def __init__(self) -> None:
        self.upstreams: dict[str, Upstream] = {}
        self.environment = {"AZURE_KEY": "azure-key"}
        credentials = UpstreamCredentials(lambda name: self.environment.get(name, ""))
        self.upstream = ProjectUpstream(HttpUpstream(), lambda: self.upstreams, credentials)

    def has(self, name: str, url: str, **more: Any) -> None:
        known = {"kind": "openai", "url": url, "auth": "none", "private": True, **more}
        self.upstreams = {**self.upstreams, name: Upstream.model_validate(known)}

    async def post(self, url: str, body: bytes = ASK, path: str = CHAT) -> UpstreamReply:
        return await self.upstream.post(url, path, body, {"content-type": "application/json"}, 5.0)

    async def json(self, url: str, body: bytes = ASK, path: str = CHAT) -> Any:
        return msgspec.json.decode(await whole(await self.post(url, body, path)))


async def whole(got: UpstreamReply) -> bytes:
    return b"".join([piece async for piece in got.chunks])


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    yield made
    await made.upstream.aclose()


@pytest.fixture
def double() -> Iterator[AzureDouble]:
    with azure() as listens:
        yield listens


def at(double: AzureDouble, **more: Any) -> dict[str, Any]:
    return {"url": double.url, "kind": "azure", "auth": "key", "key": "AZURE_KEY", **more}


async def test_azure_is_asked_with_its_key_by_the_v1_path_for_the_deployment(site: Site, double: AzureDouble) -> None:
    site.has("azure", **at(double, headers={"x-ms-tag": "noria"}))
    answer = await site.json("upstream:azure/gpt-4o-mini")
    assert answer["choices"][0]["message"]["content"] == "You said: hello there"
    path, headers, body = double.last
    assert path == "/openai/v1/chat/completions"
    assert (headers["api-key"], headers["x-ms-tag"], headers["accept-encoding"]) == ("azure-key", "noria", "identity")
    assert "authorization" not in headers
    assert body == {**msgspec.json.decode(ASK), "model": "gpt-4o-mini"}


async def test_azure_is_asked_by_the_classic_path_where_a_dated_version_is_set(site: Site, double: AzureDouble) -> None:
    site.has("azure", **at(double, api_version="2024-10-21"))
    await site.json("upstream:azure/gpt-4o-mini")
    assert double.last[0] == "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21"
    await site.json("upstream:azure/gpt-4o-mini", b'{"input": "x"}', "/v1/embeddings")
    assert double.last[0] == "/openai/deployments/gpt-4o-mini/embeddings?api-version=2024-10-21"


async def test_azure_is_asked_with_a_token_of_entra(site: Site, double: AzureDouble) -> None:
    class Source:
        def get_token(self, *scopes: str, claims: str | None = None, tenant_id: str | None = None) -> Any:
            from azure.core.credentials import AccessToken

            return AccessToken("entra-token", 4102444800)

    site.has("azure", **at(double, auth="entra"))
    credentials = UpstreamCredentials(lambda _: "", Source)
    upstream = ProjectUpstream(HttpUpstream(), lambda: site.upstreams, credentials)
    got = await upstream.post("upstream:azure/gpt-4o-mini", CHAT, ASK, {}, 5.0)
    await whole(got)
    await upstream.aclose()
    assert (got.status, double.last[1]["authorization"]) == (200, "Bearer entra-token")
    assert "api-key" not in double.last[1]


async def test_whoever_grants_no_token_takes_no_more_than_the_requests_time(site: Site, double: AzureDouble) -> None:
    class Silent:
        async def headers(self, upstream: Any) -> dict[str, str]:
            await asyncio.Event().wait()
            return {}

    upstream = ProjectUpstream(HttpUpstream(), lambda: site.upstreams, Silent())
    site.has("azure", **at(double, auth="entra"))
    with pytest.raises(UpstreamTimeout, match="No token") as caught:
        await upstream.post("upstream:azure/gpt", CHAT, ASK, {}, 0.01)
    assert not caught.value.sent
    await upstream.aclose()


async def test_a_stream_comes_as_it_is_sent(site: Site, double: AzureDouble) -> None:
    site.has("azure", **at(double))
    got = await site.post("upstream:azure/gpt-4o-mini", ASK[:-1] + b', "stream": true}')
    assert got.headers["content-type"].startswith("text/event-stream")
    assert (await whole(got)).endswith(b"data: [DONE]\n\n")


async def test_an_error_of_azures_is_an_answer(site: Site, double: AzureDouble) -> None:
    site.has("azure", **at(double))
    got = await site.post("upstream:azure/other")
    assert (got.status, b"DeploymentNotFound" in await whole(got)) == (404, True)


async def test_a_key_that_is_not_set_stops_the_request_before_it_is_sent(site: Site, double: AzureDouble) -> None:
    site.has("azure", **at(double))
    site.environment.clear()
    with pytest.raises(NoCredentials, match="AZURE_KEY"):
        await site.post("upstream:azure/gpt-4o-mini")
    with pytest.raises(NoCredentials, match="AZURE_KEY"):
        await site.upstream.reachable("upstream:azure/gpt-4o-mini")
    assert double.asked == []


async def test_a_key_that_was_refused_is_why_it_is_not_ready(site: Site, double: AzureDouble) -> None:
    site.has("azure", **at(double))
    assert await site.upstream.reachable("upstream:azure/gpt-4o-mini")
    site.environment["AZURE_KEY"] = "old"
    refused = await site.post("upstream:azure/gpt-4o-mini")
    assert (refused.status, b"Access denied" in await whole(refused)) == (401, True)
    with pytest.raises(NoCredentials, match="refused our credentials"):
        await site.upstream.reachable("upstream:azure/gpt-4o-mini")


async def test_an_upstream_that_the_project_has_not_is_unknown(site: Site) -> None:
    for address in ("upstream:nobody/m", "upstream:", "upstream:/m", "upstream:a/"):
        with pytest.raises(UnknownUpstream):
            await site.post(address)


async def test_a_changed_project_changes_where_requests_go(site: Site) -> None:
    async with listening(lambda _: reply("one")) as one, listening(lambda _: reply("two")) as two:
        site.has("u", one)
        assert await site.json("upstream:u/m") == "one"
        site.has("u", two)
        assert await site.json("upstream:u/m") == "two"


async def test_a_compressed_answer_that_nobody_asked_for_is_refused(site: Site) -> None:
    async with listening(lambda _: Script(200, (b"x",), headers={"content-encoding": "gzip"})) as url:
        site.has("u", url)
        with pytest.raises(UpstreamFailed, match="encoding"):
            await site.post("upstream:u/m")


async def test_no_redirect_is_followed(site: Site, double: AzureDouble) -> None:
    async with listening(
        lambda _: Script(307, headers={"location": f"{double.url}/openai/v1/chat/completions"})
    ) as url:
        site.has("u", url)
        got = await site.post("upstream:u/m")
        await whole(got)
    assert got.status == 307
    assert double.asked == []


# --- where nothing is ever sent ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"]
)
async def test_this_machine_is_called_only_where_the_project_says_so(site: Site, host: str) -> None:
    asked: list[object] = []
    async with listening(lambda request: asked.append(request) or reply(1)) as url:
        port = url.rpartition(":")[2]
        site.has("u", f"http://{host}:{port}", private=False)
        with pytest.raises(ForbiddenAddress, match=r"private|no address"):
            await site.post("upstream:u/m")
        with pytest.raises(ForbiddenAddress):
            await site.upstream.reachable("upstream:u/m")
    assert asked == []


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "[fe80::1]", "[::ffff:169.254.169.254]", "224.0.0.1"])
async def test_metadata_and_link_local_addresses_are_never_called(site: Site, host: str) -> None:
    site.has("u", f"http://{host}", private=True)
    with pytest.raises(ForbiddenAddress):
        await site.post("upstream:u/m")


async def test_a_name_that_changes_where_it_points_leads_nowhere(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the rule is asked about the address that is connected to, at every connection."""
    asked: list[object] = []
    answers = ["127.0.0.1", "169.254.169.254"]
    async with listening(
        lambda request: asked.append(request) or Script(200, (b"1",), headers={"connection": "close"})
    ) as url:
        port = int(url.rpartition(":")[2])

        async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[Any]:
            where = answers.pop(0)
            found = {"hostname": host, "host": where, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            return [found]

        monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
        monkeypatch.setattr(aiohttp.connector._DNSCacheTable, "expired", lambda *_: True)
        site.has("u", f"http://models.example:{port}", private=True)
        await whole(await site.post("upstream:u/m"))
        await asyncio.sleep(0)
        for session in site.upstream._elsewhere()._sessions.values():
            await session.close()
        site.upstream._elsewhere()._sessions.clear()
        with pytest.raises(ForbiddenAddress, match=r"169\.254"):
            await site.post("upstream:u/m")
    assert len(asked) == 1


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that nobody has signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    file = tmp_path / "cert.pem"
    file.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    return file


async def test_a_certificate_that_nobody_has_signed_is_refused_and_one_that_is_trusted_is_not(
    site: Site, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"secure": request.secure})

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    site.has("u", f"https://localhost:{runner.addresses[0][1]}")
    with pytest.raises(ForbiddenAddress, match="certificate"):
        await site.post("upstream:u/m")
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
    assert await site.json("upstream:u/m") == {"secure": True}
    await runner.cleanup()
