"""Where a model of one of the project's upstreams is asked: `upstream:NAME/MODEL` → a URL, and the body that fits.

| kind | `/v1/chat/completions` becomes | the model's name stands in |
|---|---|---|
| openai | `URL/v1/chat/completions` | the body |
| azure | `URL/openai/v1/chat/completions` | the body |
| azure with a dated api_version | `URL/openai/deployments/MODEL/chat/completions?api-version=…` | the path, the body |
| databricks | `URL/serving-endpoints/MODEL/invocations` | the path |
| mlflow | `URL/invocations` | nowhere |
"""

import re
from urllib.parse import quote, urlsplit

import msgspec

from noria.domain.errors import UnknownUpstream
from noria.settings import Upstream, UpstreamKind

PREFIX = "upstream:"
"""What the address of a model elsewhere begins with."""
_VERSION = re.compile(r"v\d+\w*")
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}")
_IN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def address_of(upstream: str, model: str) -> str:
    """The address of an upstream's model, as a target carries it."""
    return f"{PREFIX}{upstream}/{model}"


def split(address: str) -> tuple[str, str]:
    """Upstream and model of such an address."""
    upstream, _, model = address.removeprefix(PREFIX).partition("/")
    return upstream, model


def url_of(upstream: Upstream, model: str, path: str) -> str:
    """Where a request goes that asks an upstream's model for an OpenAI or MLflow path. Nothing in it needs quoting.

    Raises:
        UnknownUpstream: The upstream can't have a model of that name: it would lead to another path.
    """
    base = upstream.url.rstrip("/")
    match upstream.kind:
        case UpstreamKind.OPENAI:
            return _openai(base) + path.removeprefix("/v1")
        case UpstreamKind.AZURE:
            return _azure(base, upstream.api_version, model, path)
        case UpstreamKind.DATABRICKS:
            return f"{base.removesuffix('/serving-endpoints')}/serving-endpoints/{_segment(model)}/invocations"
        case UpstreamKind.MLFLOW:
            return base.removesuffix("/invocations") + "/invocations"


def named(kind: UpstreamKind, model: str, body: bytes) -> bytes:
    """A JSON body with the name that an upstream of that kind has for its model; all else stays byte for byte."""
    try:
        fields = _fields.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return body
    if kind in (UpstreamKind.OPENAI, UpstreamKind.AZURE):
        name = _encode(model)
        if bytes(fields.get("model", b"")) == name:
            return body
        return _encode({"model": msgspec.Raw(name)} | fields | {"model": msgspec.Raw(name)})
    return _encode(fields) if fields.pop("model", None) is not None else body


def _openai(base: str) -> str:
    """OpenAI's base URL: itself where it names a version (`…/v1`, `…/v1beta/openai`), else with `/v1`."""
    versioned = any(_VERSION.fullmatch(part) for part in urlsplit(base).path.split("/"))
    return base if versioned else f"{base}/v1"


def _azure(base: str, version: str, model: str, path: str) -> str:
    host = base.removesuffix("/v1").removesuffix("/openai")
    asked = path.removeprefix("/v1")
    if _DATED.match(version):
        return f"{host}/openai/deployments/{_segment(model)}{asked}?api-version={quote(version, safe='')}"
    return f"{host}/openai/v1{asked}" + (f"?api-version={quote(version, safe='')}" if version else "")


def _segment(model: str) -> str:
    """A name as one segment of a path.

    Raises:
        UnknownUpstream: It isn't one: `..`, a slash, a blank, a control character.
    """
    if not _IN_PATH.fullmatch(model):
        raise UnknownUpstream(
            f"{model[:64]!r} can't be the name of a model in a path.", "Write the deployment's or endpoint's own name."
        )
    return quote(model, safe="")
