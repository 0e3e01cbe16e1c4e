"""What the project's upstreams know us by: keys from environment variables, tokens of Microsoft Entra ID.

Nothing here is ever written anywhere, and no error shows a secret.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from noria.domain.errors import MissingExtra, NoCredentials
from noria.settings import Auth, Upstream, UpstreamKind

SCOPES: Mapping[UpstreamKind, str] = {
    UpstreamKind.AZURE: "https://cognitiveservices.azure.com/.default",
    UpstreamKind.DATABRICKS: "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default",
}
"""What a token of Entra ID is asked for; the second is Azure Databricks' application id, the same everywhere."""
EARLY_S = 300.0
"""A token this close to its end is replaced, in seconds; until it ends it is still good if none can be had."""


class Token(Protocol):
    """azure-core's AccessToken, as far as we read it."""

    @property
    def token(self) -> str:
        """What is sent."""
        ...

    @property
    def expires_on(self) -> int:
        """Until when it is good, seconds since the epoch."""
        ...


class TokenSource(Protocol):
    """azure-core's TokenCredential, as far as we use it. Blocks on the network."""

    def get_token(self, *scopes: str, claims: str | None = None, tenant_id: str | None = None) -> Token:
        """A token for the scopes."""
        ...


def default_source() -> TokenSource:
    """azure-identity's default: a service principal in the environment, a workload's or machine's identity, `az login`.

    Raises:
        MissingExtra: azure-identity isn't installed.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise MissingExtra("auth: entra needs azure-identity.", "Run pip install 'noria[azure]'.") from error
    source: TokenSource = DefaultAzureCredential()
    return source


@dataclass
class UpstreamCredentials:
    """`ports.Credentials`. Belongs to the event loop that first uses it.

    Attributes:
        secret: Environment variable → what it holds, empty for nothing.
        source: Makes what tokens are asked of; called once, when the first is needed.
        now: Seconds since the epoch.
    """

    secret: Callable[[str], str]
    source: Callable[[], TokenSource] = default_source
    now: Callable[[], float] = time.time
    _asked: TokenSource | None = None
    _tokens: dict[str, Token] = field(default_factory=dict)
    _asking: dict[str, "asyncio.Task[Token]"] = field(default_factory=dict)

    async def headers(self, upstream: Upstream) -> Mapping[str, str]:
        """See the port."""
        match upstream.auth:
            case Auth.NONE:
                return {}
            case Auth.KEY:
                return _with_key(upstream, self.secret(upstream.key))
            case Auth.ENTRA:
                return {"authorization": f"Bearer {await self._token(SCOPES[upstream.kind])}"}

    def demand(self, upstream: Upstream) -> None:
        """See that there is something to be known by, without asking anybody.

        Raises:
            NoCredentials: A key isn't set.
            MissingExtra: azure-identity isn't installed.
        """
        if upstream.auth is Auth.KEY:
            _with_key(upstream, self.secret(upstream.key))
        elif upstream.auth is Auth.ENTRA and self._asked is None:
            self._asked = self.source()

    async def _token(self, scope: str) -> str:
        """A token that is good; however many wait for one, one is asked for, and nobody waits for one's successor."""
        known = self._tokens.get(scope)
        if known is not None and known.expires_on - self.now() > EARLY_S:
            return known.token
        asking = self._asking.get(scope)
        if asking is None:
            asking = self._asking[scope] = asyncio.create_task(asyncio.to_thread(self._fetch, scope))
            asking.add_done_callback(lambda done: self._asked_for(scope, done))
        if known is not None and known.expires_on > self.now():
            return known.token
        return (await asyncio.shield(asking)).token

    def _asked_for(self, scope: str, asking: "asyncio.Task[Token]") -> None:
        """Keep a token that came; who is refused one hears of it when there is none that is good."""
        del self._asking[scope]
        if not asking.cancelled() and asking.exception() is None:
            self._tokens[scope] = asking.result()

    def _fetch(self, scope: str) -> Token:
        """Ask for a token; blocks.

        Raises:
            NoCredentials: Nobody grants one.
            MissingExtra: See `default_source`.
        """
        if self._asked is None:
            self._asked = self.source()
        try:
            return self._asked.get_token(scope)
        except Exception as error:  # azure-identity raises its own and those of the networks that it asks
            raise NoCredentials(
                f"Microsoft Entra ID gave no token: {_first_line(error)}.",
                "Sign in with az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET.",
            ) from error


def _with_key(upstream: Upstream, key: str) -> dict[str, str]:
    if not key:
        raise NoCredentials(
            f"The environment variable {upstream.key} isn't set, so {upstream.url} can't be asked.",
            f"Set {upstream.key} to the key where Noria is started, and start it again.",
        )
    if not key.isascii() or not key.isprintable():
        raise NoCredentials(f"{upstream.key} holds characters that no key has.", "Copy the key again, on one line.")
    return {"api-key": key} if upstream.kind is UpstreamKind.AZURE else {"authorization": f"Bearer {key}"}


def _first_line(error: Any) -> str:
    """What an error says first; the long story of every credential that was tried follows."""
    said = str(error).strip().splitlines()
    return (said[0] if said else type(error).__name__).rstrip(".:")[:300]
