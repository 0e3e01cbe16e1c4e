"""What there is to ask, in the words of each wire's own clients: OpenAI's and Azure's models, MLflow's and Databricks'
endpoints."""

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from noria.api.auth import asker
from noria.api.problems import explain
from noria.domain.endpoint import Route, Wire
from noria.domain.errors import UnknownEndpoint
from noria.domain.key import ApiKey
from noria.serving.router import Router
from noria.serving.wires import Form

Item = dict[str, Any]


class Catalogue:
    """Handlers that list endpoints, and the routes that lead to them.

    Args:
        router: What is in service.
    """

    def __init__(self, router: Router) -> None:
        self._router = router

    def routes(self) -> list[Path]:
        """Address → handler."""
        return [
            *self._pair("/v1/models", self._chats, _model, "id", Form.CHAT),
            *self._pair("/openai/v1/models", self._chats, _model, "id", Form.CHAT),
            *self._pair("/openai/models", self._chats, _model, "id", Form.CHAT),
            *self._pair("/openai/deployments", self._chats, _deployment, "id", Form.CHAT),
            *self._pair("/api/2.0/endpoints", self._all, _mlflow, "name", None),
            *self._pair("/api/2.0/serving-endpoints", self._all, _databricks, "name", None),
        ]

    def _pair(
        self,
        path: str,
        names: Callable[[ApiKey | None], list[str]],
        shape: Callable[[str, Route | None], Item],
        key: str,
        form: Form | None,
    ) -> list[Path]:
        """The address of a list, as clients write it with and without a slash, and below it the one of each item."""

        async def many(request: Request) -> Response:
            items = [shape(name, self._route(name)) for name in names(asker(request))]
            listed = {"endpoints": items} if form is None else {"object": "list", "data": items}
            return _json(listed)

        async def one(request: Request) -> Response:
            name, known = request.path_params[key], names(asker(request))
            if name in known:
                return _json(shape(name, self._route(name)))
            what = "endpoint" if form is None else "model"
            error = UnknownEndpoint(f"There is no {what} named {name[:64]!r}.", f"Known: {', '.join(known)}.")
            status, body = explain(error, form)
            return Response(body, status, media_type="application/json")

        return [Path(path, many), Path(f"{path}/", many), Path(f"{path}/{{{key}}}", one)]

    def _route(self, name: str) -> Route | None:
        return self._router.snapshot.routes.get(name)

    def _all(self, asking: ApiKey | None) -> list[str]:
        """Every endpoint of the project that the caller's key is for."""
        return [name for name in self._router.project.endpoints if asking is None or asking.may_ask(name)]

    def _chats(self, asking: ApiKey | None) -> list[str]:
        """Those of them that are in service and speak OpenAI's wire."""
        routes = (self._route(name) for name in self._all(asking))
        return [route.endpoint for route in routes if route is not None and route.wire is Wire.OPENAI]


def _model(name: str, _route: Route | None) -> Item:
    """An endpoint as OpenAI describes a model. `created` is unknown: versions come and go behind an endpoint."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "noria"}


def _deployment(name: str, route: Route | None) -> Item:
    """An endpoint as Azure OpenAI describes a deployment."""
    model = route.champion.model if route else name
    shown = {"id": name, "object": "deployment", "status": "succeeded", "created_at": 0, "updated_at": 0}
    return {**shown, "model": model, "owner": "organization-owner"}


def _mlflow(name: str, route: Route | None) -> Item:
    """An endpoint as MLflow's gateway describes one."""
    kind = "llm/v1/chat" if route is not None and route.wire is Wire.OPENAI else "mlflow/scoring"
    model = {"name": route.champion.model if route else name, "provider": "noria"}
    url = f"/endpoints/{name}/invocations"
    return {"name": name, "endpoint_type": kind, "model": model, "endpoint_url": url, "limit": None}


def _databricks(name: str, route: Route | None) -> Item:
    """An endpoint as Databricks' serving describes one."""
    state = {"ready": "NOT_READY" if route is None else "READY", "config_update": "NOT_UPDATING"}
    versions = (
        [{"name": t.ref, "entity_name": t.model, "entity_version": t.version} for t in route.targets] if route else []
    )
    return {"name": name, "state": state, "config": {"served_entities": versions}}


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
