"""The shapes of what callers send and get, as JSON Schema: the components of `/openapi.json`.

Where a wire is somebody else's (OpenAI's, MLflow's) only what Noria itself checks is described; the rest passes
through.
"""

from typing import Any

from noria.api.feedback import FIELDS, MOST

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}


def ref(name: str) -> Schema:
    """A component."""
    return {"$ref": f"#/components/schemas/{name}"}


def thing(required: tuple[str, ...] = (), closed: bool = False, /, **properties: Schema) -> Schema:
    """An object; a closed one takes no other keys."""
    shape: Schema = {"type": "object", "properties": properties}
    if required:
        shape["required"] = list(required)
    return {**shape, "additionalProperties": False} if closed else shape


def many(item: Schema, least: int = 0) -> Schema:
    """A list."""
    return {"type": "array", "items": item, **({"minItems": least} if least else {})}


_ITEM: Schema = {"type": ["string", "number", "boolean", "object"]}
_METADATA: Schema = {
    "description": "What is to be kept beside the record, and by which versions are picked and groups compared.",
    "anyOf": [{"type": "object", "additionalProperties": SCALAR}, {"type": "null"}],
}
_SAYS_SOMETHING = [
    {"required": [field], "properties": {field: {"not": {"type": "null"}}}} for field in ("label", "score", "comment")
]
_FRAME: Schema = {"anyOf": [many({}, 1), {"type": "object", "minProperties": 1}]}
_ENTRY: Schema = {
    **thing(
        ("request_id",),
        True,
        request_id={"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "x-request-id of the answer."},
        endpoint={"type": ["string", "null"], "minLength": 1},
        label={"type": ["string", "number", "boolean", "null"], "minLength": 1},
        score={"type": ["number", "null"], "minimum": 0, "maximum": 1},
        comment={"type": ["string", "null"], "minLength": 1},
        source={"type": ["string", "null"], "minLength": 1, "maxLength": 200},
        feedback_id={"type": ["string", "null"], "minLength": 1, "maxLength": 200},
    ),
    "anyOf": _SAYS_SOMETHING,
}
assert set(_ENTRY["properties"]) == set(FIELDS)

_USAGE = thing(prompt_tokens={"type": ["integer", "null"]}, completion_tokens={"type": ["integer", "null"]})
_STREAM: dict[str, Schema] = {
    "model": {**TEXT, "description": "The endpoint; needed where the address doesn't name it."},
    "stream": {"type": ["boolean", "null"], "description": "Server-sent events that end with `[DONE]`."},
    "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": ["boolean", "null"]}}},
    "user": {"description": "Whoever should be answered by the same version again; a string."},
    "metadata": _METADATA,
}

REQUESTS: dict[str, Schema] = {
    "Predict": thing(
        ("input",), True, input={"anyOf": [_ITEM, many({}, 1)], "description": "One item, or a list."},
        metadata=_METADATA,
    ),
    "Invocations": {
        "description": "One of MLflow's formats; for an endpoint that chats one of OpenAI's bodies without `model`.",
        "oneOf": [
            thing((frame,), True, params={"type": "object"}, metadata=_METADATA, **{frame: shape})
            for frame, shape in (
                ("dataframe_split", thing(("data",), data=many(many({}, 1), 1))),
                ("dataframe_records", many({"type": "object", "minProperties": 1}, 1)),
                ("instances", _FRAME),
                ("inputs", _FRAME),
            )
        ],
    },
    "Chat": thing(("messages",), messages=many(thing(("role",), role=TEXT), 1), **_STREAM),
    "Completions": thing(
        ("prompt",), prompt={"anyOf": [{"type": "string", "minLength": 1}, many({"type": "string"}, 1)]}, **_STREAM
    ),
    "Embeddings": thing(
        ("input",), input={"anyOf": [{"type": "string", "minLength": 1}, many({"type": "string"}, 1)]},
        model=_STREAM["model"], user=_STREAM["user"], metadata=_METADATA,
    ),
    "Feedback": {"anyOf": [ref("Entry"), {**many(ref("Entry"), 1), "maxItems": MOST}]},
    "Entry": _ENTRY,
    "Why": thing(("reason",), reason={"type": "string", "minLength": 1, "pattern": r"\S"}),
}  # fmt: skip
"""What is sent."""

REPLIES: dict[str, Schema] = {
    "Problem": thing(("error_code", "message", "remedy"), error_code=TEXT, message=TEXT, remedy=TEXT),
    "OpenAIProblem": thing(
        ("error",),
        error=thing(("message",), message=TEXT, type={"type": ["string", "null"]}, param={"type": ["string", "null"]},
                    code={"type": ["string", "integer", "null"]}),
    ),
    "Prediction": {"description": "A list of predictions for a list of items, else a single one; of a chat its text."},
    "Predictions": thing(("predictions",), predictions={}, probabilities=many({"type": "object"})),
    "Completion": thing(("choices",), choices=many({"type": "object"}), usage=_USAGE),
    "Vectors": thing(("data",), data=many({"type": "object"}), usage=_USAGE),
    "Event": {"description": "Each of the events.", **thing(("data",), data=TEXT)},
    "FeedbackIds": thing(("feedback_ids",), feedback_ids=many(TEXT)),
    "Alive": thing(("status",), status=TEXT),
    "Ready": thing(
        ("status", "revision", "endpoints", "warnings"), status=TEXT, revision={"type": "integer"},
        stale_since={"type": ["string", "null"]}, endpoints=many(TEXT), warnings=many(TEXT), problems=many(TEXT),
        breakers={"type": "object", "additionalProperties": TEXT},
    ),
    "Model": thing(("id", "object"), id=TEXT, object=TEXT, created={"type": "integer"}, owned_by=TEXT),
    "Models": thing(("object", "data"), object=TEXT, data=many(ref("Model"))),
    "Endpoint": thing(("name",), name=TEXT),
    "Endpoints": thing(("endpoints",), endpoints=many(ref("Endpoint"))),
    "Status": thing(
        ("at", "revision", "endpoints", "worker", "audit"), at=TEXT, revision={"type": "integer"},
        endpoints=many({"type": "object"}), worker={"type": "object"}, audit={"type": "object"},
    ),
    "Run": thing(
        ("id", "endpoint", "state", "started_at", "steps", "seconds"), id=TEXT, endpoint=TEXT, state=TEXT,
        started_at=TEXT, steps=many({"type": "object"}), seconds={"type": "number"},
    ),
    "Runs": thing(("runs",), runs=many(ref("Run"))),
    "Asked": thing(("asked",), asked=TEXT),
    "Lineage": thing(
        ("kind", "id", "says", "at", "facts", "missing", "links"), kind=TEXT, id=TEXT, says=TEXT,
        at={"type": ["string", "null"]}, facts={"type": "object"}, missing=TEXT, links=many({"type": "object"}),
    ),
    "Description": thing(("openapi", "paths"), openapi=TEXT, paths={"type": "object"}),
    "Text": TEXT,
}  # fmt: skip
"""What comes back."""
