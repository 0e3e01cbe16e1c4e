"""What aiohttp gives and raises, as the port `Upstream` has it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp

from noria.domain.errors import UpstreamFailed, UpstreamTimeout
from noria.ports import Chunks, UpstreamReply


def read(response: aiohttp.ClientResponse, url: str, remedy: str) -> UpstreamReply:
    """A response that has begun, as the port gives it."""
    names = {name.lower(): value for name, value in response.headers.items()}
    return UpstreamReply(response.status, names, _Body(response, url, remedy))


class _Body:
    """A response's bytes; holds the connection until the end or until it is closed."""

    def __init__(self, response: aiohttp.ClientResponse, url: str, remedy: str) -> None:
        self._response = response
        self._remedy = remedy
        self._chunks: AsyncIterator[bytes] = response.content.iter_any()
        self._url = url

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        with explained(self._url, self._remedy):
            return await anext(self._chunks)

    def rest(self) -> bytes | None:
        """Unknown: what is there may still be compressed."""
        return None

    async def aclose(self) -> None:
        """Close the connection if bytes are still to come; else it is back in the pool already."""
        self._response.close()


@contextmanager
def explained(url: str, remedy: str) -> Iterator[None]:
    """Turn what aiohttp raises into errors of the domain."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise UpstreamTimeout(f"The model server at {url} took no connection in time.", remedy, sent=False) from error
    except TimeoutError as error:
        raise UpstreamTimeout(
            f"The model server at {url} took too long.", "Ask for less, or raise the endpoint's timeout."
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamFailed(f"The model server at {url} is not listening.", remedy, sent=False) from error
    except (aiohttp.ClientError, ConnectionError, ValueError) as error:
        raise UpstreamFailed(f"The model server at {url} broke off: {type(error).__name__}.", remedy) from error
