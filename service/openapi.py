"""The OpenAPI document: generated from the routes, then made whole and plain for generators.

FastAPI knows routes, parameters and answers. Bodies are decoded by our own code, so their schemas
are added here; ``anyOf [T, null]``, which breaks client generators, is written the 3.1 way.
"""

from collections.abc import Mapping

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.api.documentation import NULL
from service.api.open_inference.schemas import (
    InferenceRequest,
    LoadParameters,
    OpenInferenceError,
    WantedIndex,
)
from service.api.payloads.json_format import request_schema
from service.api.payloads.values import BARE_FIELDS, LABELLED_FIELDS, TRAINING_FIELDS
from service.api.schemas import CreateModel, Problem, PutAlias, SampleRequest, UpdateModel

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

REFERENCE = "#/components/schemas/{model}"
BODIES = (
    CreateModel,
    UpdateModel,
    PutAlias,
    SampleRequest,
    InferenceRequest,
    LoadParameters,
    WantedIndex,
)
REFUSALS = (Problem, OpenInferenceError)
DATA_BODIES = {
    "Rows": frozenset[str](),
    "RowsOfModel": BARE_FIELDS,
    "TrainingData": TRAINING_FIELDS,
    "LabelledRows": LABELLED_FIELDS,
}
OF_FASTAPI = ("HTTPValidationError", "ValidationError")
COLUMNS: dict[str, Json] = {
    "title": "Columns",
    "type": "string",
    "format": "binary",
    "description": "Rows as columns of numbers, in the format of the media type. Names of columns, "
    "where the format has them, are matched with the model's.",
}
IMAGE: dict[str, Json] = {
    "title": "Image",
    "type": "string",
    "format": "binary",
    "description": "A picture, in the format of the media type.",
}
TENSORS: dict[str, Json] = {
    "title": "Tensors",
    "type": "string",
    "format": "binary",
    "description": "JSON, and behind it the tensors that it describes as little-endian bytes.",
}
DESCRIPTION = """Train, version and serve Gaussian mixture models.

Declare a model, fit it with rows of numbers, ask its versions for labels, responsibilities,
densities and criteria. Refusals are `application/problem+json` with a stable `code`.
"""
TAGS = {
    "models": "Declared models: what the next fit will do.",
    "fits": "Training: rows in, a version or a job out.",
    "inference": "Questions to a fitted version.",
    "versions": "What fits have made; immutable.",
    "aliases": "Names that lead to one version at a time, and their history.",
    "jobs": "Fits that take longer than a request waits.",
    "open inference": 'The Open Inference Protocol, version 2: refusals are `{"error": …}`.',
    "model repository": "Loading and unloading under that protocol.",
    "service": "The service itself.",
}


def openapi_document(app: FastAPI) -> dict[str, Json]:
    document: dict[str, Json] = get_openapi(
        title=app.title,
        version=app.version,
        summary="Gaussian mixture models as a service",
        description=DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    _drop_foreign_refusals(document)
    components = _object(document["components"])
    schemas = _object(components["schemas"]) | _body_schemas()
    for name in OF_FASTAPI:
        schemas.pop(name, None)
    components["schemas"] = dict(sorted(schemas.items()))
    return _object(_plain(document))


def canonical_json(document: Mapping[str, Json]) -> bytes:
    """Return the bytes that are committed: indented, so that a change reads well.

    Fields keep the order in which they are declared, which is the one to read them in.
    """
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _drop_foreign_refusals(document: dict[str, Json]) -> None:
    """Drop the 422 in FastAPI's own shape, which it adds wherever a route names no other."""
    for path in _object(document["paths"]).values():
        for described in _object(path).values():
            responses = _object(_object(described)["responses"])
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]


def _body_schemas() -> dict[str, Json]:
    _, definitions = models_json_schema(
        [(body, "validation") for body in BODIES]
        + [(refusal, "serialization") for refusal in REFUSALS],
        ref_template=REFERENCE,
    )
    return {
        **definitions["$defs"],
        **{
            name: dict(request_schema(extra_fields=fields)) | {"title": name}
            for name, fields in DATA_BODIES.items()
        },
        "Columns": COLUMNS,
        "Image": IMAGE,
        "Tensors": TENSORS,
    }


def _plain(node: Json) -> Json:
    """Write ``anyOf [T, null]`` as ``type: [T, "null"]``; drop null where a query may be absent."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return None if node == NULL else node
    plain = {name: _plain(value) for name, value in node.items()}
    schema = plain.get("schema")
    if "in" in plain and isinstance(schema, dict):
        plain["schema"] = _without_null(schema)
    return _with_type_list(plain)


def _without_null(schema: dict[str, Json]) -> Json:
    types = schema.get("type")
    if isinstance(types, list) and "null" in types and len(types) == 2:
        return schema | {"type": next(kind for kind in types if kind != "null")}
    choices = schema.get("anyOf")
    if not isinstance(choices, list):
        return schema
    others = [choice for choice in choices if choice != {"type": "null"}]
    if len(others) == 1 and isinstance(others[0], dict):
        return {name: value for name, value in schema.items() if name != "anyOf"} | others[0]
    return schema


def _with_type_list(schema: dict[str, Json]) -> dict[str, Json]:
    choices = schema.get("anyOf")
    if not (isinstance(choices, list) and len(choices) == 2 and {"type": "null"} in choices):
        return schema
    (choice,) = [choice for choice in choices if choice != {"type": "null"}]
    if not (isinstance(choice, dict) and isinstance(choice.get("type"), str)):
        return schema
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return rest | choice | {"type": [choice["type"], "null"]}


def _object(node: Json) -> dict[str, Json]:
    if not isinstance(node, dict):
        raise TypeError("the document has something else where an object belongs")
    return node
