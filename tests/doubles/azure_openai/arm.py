"""The management plane of the double: deployments, made and deleted by operations that take their time."""

import re
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from doubles.azure_openai.world import Deployment, Refusal, World

_PATH = re.compile(
    r"(?P<account>/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.CognitiveServices/accounts/[^/]+)"
    r"/deployments(?:/(?P<name>[^/]+))?",
    re.IGNORECASE,
)
_OPERATION = re.compile(r"/subscriptions/[^/]+/providers/Microsoft\.CognitiveServices/operations/(?P<id>[^/]+)")
Answer = tuple[int, Any, Mapping[str, str]]


class Management:
    """What `azure-mgmt-cognitiveservices` talks to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._operations: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, body: Any, url: str) -> Answer:
        """Answer a request."""
        if operation := _OPERATION.fullmatch(path):
            return self._told(operation["id"])
        asked = _PATH.fullmatch(path)
        if asked is None:
            raise Refusal(404, "InvalidResourceType", f"There is nothing at {path}.")
        account, name = asked["account"], asked["name"]
        with self._world.lock:
            if name is None:
                return 200, {"value": [_shown(account, each) for each in self._world.deployments.values()]}, {}
            if method == "PUT":
                return self._put(account, name, body, url)
            if name not in self._world.deployments:
                if method == "DELETE":
                    return 204, None, {}
                raise Refusal(404, "ResourceNotFound", f"The deployment {name} was not found.")
            found = self._world.deployments[name]
            if method == "DELETE":
                self._demand_quiet()
                found.state = "Deleting"
                return 202, None, self._begin(found, url, account)
            return 200, _shown(account, found), {}

    def _put(self, account: str, name: str, body: Any, url: str) -> Answer:
        self._demand_quiet()
        known = self._world.deployments.get(name)
        try:
            model, capacity = body["properties"]["model"], int((body.get("sku") or {}).get("capacity") or 1)
        except (KeyError, TypeError) as error:
            raise Refusal(400, "InvalidRequestBody", "properties.model is missing.") from error
        if model.get("name") not in self._world.models:
            raise Refusal(400, "DeploymentModelNotSupported", f"The model {model.get('name')} is not supported.")
        used = sum(
            int((d.body.get("sku") or {}).get("capacity") or 1)
            for d in self._world.deployments.values()
            if d.name != name
        )
        if used + capacity > self._world.quota:
            raise Refusal(
                400, "InsufficientQuota", f"This operation requires {capacity} new capacity; the quota is used."
            )
        made = Deployment(name, body)
        self._world.deployments[name] = made
        return (200 if known else 201), _shown(account, made), self._begin(made, url, account)

    def _demand_quiet(self) -> None:
        """Azure does one thing at a time with an account's deployments."""
        if any(d.state in ("Creating", "Deleting") for d in self._world.deployments.values()):
            raise Refusal(409, "RequestConflict", "Another operation is being performed on the parent resource.")

    def _begin(self, deployment: Deployment, url: str, account: str) -> dict[str, str]:
        operation = uuid.uuid4().hex
        self._operations[operation] = {"status": "InProgress"}

        def work() -> None:
            time.sleep(self._world.operation_s)
            self._world.released.wait()
            with self._world.lock:
                if deployment.state == "Deleting":
                    del self._world.deployments[deployment.name]
                else:
                    deployment.state = "Succeeded"
                self._operations[operation]["status"] = "Succeeded"

        threading.Thread(target=work, daemon=True).start()
        where = (
            f"{url}/subscriptions/{account.split('/')[2]}/providers/Microsoft.CognitiveServices/operations/{operation}"
        )
        return {"Azure-AsyncOperation": f"{where}?api-version=2025-06-01", "Retry-After": "0"}

    def _told(self, operation: str) -> Answer:
        if operation not in self._operations:
            raise Refusal(404, "OperationNotFound", f"There is no operation {operation}.")
        return 200, {"id": operation, **self._operations[operation]}, {"Retry-After": "0"}


def _shown(account: str, deployment: Deployment) -> dict[str, Any]:
    return {
        "id": f"{account}/deployments/{deployment.name}",
        "name": deployment.name,
        "type": "Microsoft.CognitiveServices/accounts/deployments",
        "sku": deployment.body.get("sku"),
        "tags": deployment.body.get("tags"),
        "properties": deployment.body["properties"] | {"provisioningState": deployment.state},
    }
