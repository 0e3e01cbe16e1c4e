"""`GET /openapi.json`: everything that is served, described in OpenAPI 3.1 from the tables that route.

The description names no endpoint of the project: a caller may not know them all. It is made once, for the first who
asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from noria.api.addresses import ADDRESSES, OPENAI_PREFIXES, Address
from noria.api.auth import needed
from noria.api.inference import PARQUET
from noria.api.messages import JSON
from noria.api.schemas import REPLIES, REQUESTS, TEXT, Schema, ref
from noria.serving.wires import Form
from noria.settings.basics import NAME_PATTERN

HTML = "text/html"
PLAIN = "text/plain"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Page:
    """What is at an address that is read.

    Attributes:
        summary: One sentence.
        schema: Component that comes back.
        media: Its content type.
        unwell: Status and component beside 200, where something isn't well.
    """

    summary: str
    schema: str = "Text"
    media: str = JSON
    unwell: tuple[tuple[str, str], ...] = ()


PAGES = {
    "/livez": Page("Whether the process lives.", "Alive"),
    "/readyz": Page(
        "Whether every endpoint can answer and be recorded now, and why not.", "Ready", unwell=(("503", "Ready"),)
    ),
    "/ping": Page("MLflow's probe: whether the default endpoint answers.", media=PLAIN, unwell=(("404", "Text"),)),
    "/health": Page("The same.", media=PLAIN, unwell=(("404", "Text"),)),
    "/version": Page("MLflow's version.", media=PLAIN, unwell=(("404", "Text"),)),
    "/metrics": Page("For Prometheus.", media=PLAIN),
    "/openapi.json": Page("This description.", "Description"),
    "/api/status": Page("The loop at a glance.", "Status"),
    "/api/trace/{id}": Page(
        "Where an answer comes from, and what a version or a run made.", "Lineage", unwell=(("404", "Problem"),)
    ),
    "/api/runs": Page("The newest runs of the training pipeline.", "Runs"),
    "/api/runs/{id}": Page("One of them.", "Run", unwell=(("404", "Problem"),)),
    "/v1/models": Page("OpenAI's list: endpoints that can be chatted with.", "Models"),
    "/v1/models/{id}": Page("One of them.", "Model"),
    "/openai/v1/models": Page("The same, as Azure's v1 has it.", "Models"),
    "/openai/v1/models/{id}": Page("One of them.", "Model"),
    "/openai/models": Page("The same, as classic Azure has it.", "Models"),
    "/openai/models/{id}": Page("One of them.", "Model"),
    "/openai/deployments": Page("The same as deployments.", "Models"),
    "/openai/deployments/{id}": Page("One of them.", "Model"),
    "/api/2.0/endpoints": Page("All endpoints, as MLflow's gateway lists them.", "Endpoints"),
    "/api/2.0/endpoints/{name}": Page("One of them.", "Endpoint"),
    "/api/2.0/serving-endpoints": Page("All endpoints, as Databricks lists them.", "Endpoints"),
    "/api/2.0/serving-endpoints/{name}": Page("One of them.", "Endpoint"),
    "/": Page("The console.", media=HTML),
    "/endpoints/{name}": Page("An endpoint's page of the console.", media=HTML),
    "/runs": Page("The console's list of runs.", media=HTML),
    "/runs/{id}": Page("A run's page of the console.", media=HTML),
    "/verdicts/{id}": Page("A verdict's page of the console.", media=HTML),
    "/trace/{id}": Page("A lineage in the console.", media=HTML),
    "/audit": Page("The audit trail in the console.", media=HTML),
    "/console/{file}": Page("A file that the console's pages need.", media="*/*"),
}
"""Address → what is there. A route that isn't here makes `Description` fail, and its test."""
ACTIONS = {
    "/api/retrain/{endpoint}": ("Ask for a run of an endpoint's training.", "202", "Asked"),
    "/api/cancel/{id}": ("Stop a run; it registers nothing.", "200", "Run"),
}
"""Address → what a POST there does, the status of its success, and the component that comes back."""
_ACTION = ("400", "401", "403", "404", "405", "408", "409", "413", "431", "500", "503")
_REPLY_OF = {
    Form.PREDICT: "Prediction",
    Form.INVOCATIONS: "Predictions",
    Form.CHAT: "Completion",
    Form.COMPLETIONS: "Completion",
    Form.EMBEDDINGS: "Vectors",
}
_REFUSALS = {
    "400": "The request can't be answered as it is.",
    "401": "An API key is needed.",
    "403": "The API key doesn't reach that far, or a page of another site asks.",
    "404": "There is no such endpoint.",
    "405": "The address takes another method.",
    "409": "That can't be done as things are.",
    "408": "The request did not arrive in time.",
    "413": "The body is too long.",
    "415": "The body's type can't be read.",
    "429": "A limit or a budget is used up; Retry-After says for how long.",
    "431": "The headers are too long.",
    "500": "Noria met a fault of its own.",
    "502": "The model server failed.",
    "503": "Not ready, overloaded, or the log can't be written; Retry-After says when to come back.",
    "504": "The model server took too long.",
}
_READING = ("400", "401", "403", "405", "431", "500", "503")
"""What else may come back where nothing is sent."""
_FEEDBACK = ("400", "401", "403", "404", "405", "408", "413", "415", "429", "431", "500", "503")
_HEADERS = (
    ("x-client-request-id", "The caller's own id for the request, kept in its record."),
    ("x-noria-session", "Whoever should be answered by the same version again."),
    ("x-noria-metadata", "JSON object of plain values, kept in the record."),
)


class Description:
    """Makes and serves the description of an app.

    Args:
        routes: Starlette's, looked at when somebody asks; inference and feedback stand beside them.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = routes

    async def serve(self, _request: Request) -> Response:
        """The description."""
        return Response(self.body, media_type=JSON)

    @cached_property
    def body(self) -> bytes:
        """The description as JSON."""
        return msgspec.json.encode(self.document())

    def document(self) -> Schema:
        """The description."""
        paths = [route.path.replace(":path}", "}") for route in self._routes if isinstance(route, Route)]
        shown = [path for path in paths if (path == "/" or path[-1] != "/") and path not in ACTIONS]
        read = {path: {"get": _page(path, PAGES[path])} for path in shown}
        done = {path: {"post": _action(path)} for path in paths if path in ACTIONS}
        asked = {a.path: {"post": _inference(a)} for a in ADDRESSES}
        keys: Schema = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
            "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        return {
            "openapi": "3.1.0",
            "info": {"title": "Noria", "version": version("noria"), "license": {"name": "Apache-2.0"}},
            "security": [{}, *({name: []} for name in keys)],
            "paths": {**asked, "/feedback": {"post": _feedback()}, **read, **done},
            "components": {"schemas": {**REQUESTS, **REPLIES}, "securitySchemes": keys},
        }  # fmt: skip


def _page(path: str, page: Page) -> Schema:
    """An operation that reads."""
    statuses = (*_READING, "404") if "{" in path else _READING
    kind = "OpenAIProblem" if path.startswith(OPENAI_PREFIXES) else "Problem"
    replies = {"200": _reply(page.summary, page.media, page.schema), **_problems(statuses, kind)}
    for status, schema in page.unwell if page.media != HTML else [(status, "Text") for status in statuses]:
        replies.setdefault(status, _reply("Not well.", page.media, schema))["content"][page.media] = {
            "schema": ref(schema)
        }
    operation: Schema = {"summary": page.summary, "operationId": _id("get", path), "responses": replies}
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    if names:
        operation["parameters"] = [_parameter(name, "path", "") for name in names]
    return operation if needed(path) is not None else {**operation, "security": [{}]}


def _inference(address: Address) -> Schema:
    """An operation that asks a model."""
    form = address.form
    content = {JSON: {"schema": ref(_component(form))}}
    answer = {JSON: {"schema": ref(_REPLY_OF[form])}}
    if form is Form.INVOCATIONS:
        content |= {"text/csv": {"schema": TEXT}, PARQUET: {"schema": {}}}
        answer[JSON] = {"schema": {"anyOf": [ref("Predictions"), ref("Completion"), ref("Vectors")]}}
    if form in (Form.CHAT, Form.COMPLETIONS, Form.INVOCATIONS):
        answer[EVENTS] = {"schema": ref("Event")}
    parameters = [_parameter(name, "header", said) for name, said in _HEADERS]
    if address.named:
        parameters.insert(
            0, {**_parameter("endpoint", "path", "The endpoint."), "schema": {**TEXT, "pattern": NAME_PATTERN}}
        )
    if address.path.startswith("/openai/"):
        parameters.append(_parameter("api-version", "query", "Azure's; not looked at."))
    kind = "OpenAIProblem" if form.names_its_endpoint else "Problem"
    reply: Schema = {"description": "The answer.", "headers": _answer_headers(), "content": answer}
    return {
        "summary": f"Ask an endpoint, as {address.wire} does.",
        "operationId": _id("post", address.path),
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": reply, **_problems(tuple(_REFUSALS), kind)},
    }


def _action(path: str) -> Schema:
    """An operation that changes something, in the name of whoever's key it comes with."""
    summary, status, schema = ACTIONS[path]
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return {
        "summary": summary,
        "operationId": _id("post", path),
        "parameters": [_parameter(name, "path", "") for name in names],
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("Why")}}},
        "responses": {status: _reply(summary, JSON, schema), **_problems(_ACTION, "Problem")},
    }


def _feedback() -> Schema:
    return {
        "summary": "Say something about an answer.",
        "operationId": "post_feedback",
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("Feedback")}}},
        "responses": {"200": _reply("On disk.", JSON, "FeedbackIds"), **_problems(_FEEDBACK, "Problem")},
    }


def _answer_headers() -> Schema:
    """Of an answer."""
    said = {"x-request-id": "Noria's id for the request.", "x-noria-version": "Who answered: model/version."}
    return {name: {"description": text, "schema": TEXT} for name, text in said.items()}


def _problems(statuses: tuple[str, ...], kind: str) -> Schema:
    return {status: _reply(_REFUSALS[status], JSON, kind) for status in sorted(statuses)}


def _reply(summary: str, media: str, schema: str) -> Schema:
    return {"description": summary, "content": {media: {"schema": ref(schema)}}}


def _parameter(name: str, place: str, said: str) -> Schema:
    shown: Schema = {"name": name, "in": place, "required": place == "path", "schema": TEXT}
    return {**shown, "description": said} if said else shown


def _component(form: Form) -> str:
    return {
        Form.PREDICT: "Predict",
        Form.INVOCATIONS: "Invocations",
        Form.CHAT: "Chat",
        Form.COMPLETIONS: "Completions",
    }.get(form, "Embeddings")


def _id(method: str, path: str) -> str:
    """A name for an operation."""
    words = "_".join(part.strip("{}").replace("-", "_").replace(".", "_") for part in path.split("/") if part)
    return f"{method}_{words or 'console'}"
