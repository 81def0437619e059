"""The OpenAPI document: generated from the routes, then made whole and plain for generators.

FastAPI knows routes, parameters and answers. Bodies are decoded by our own code, so their schemas
are added here; ``anyOf [T, null]``, which breaks client generators, is written the 3.1 way.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.api.codes import PLACES, Described, Found, codes_under, every_code
from service.api.documentation import NULL, Json, problem_example
from service.api.headers import HEEDED, SENT, Answered, SentHeader
from service.api.open_inference.schemas import (
    InferenceRequest,
    LoadParameters,
    OpenInferenceError,
    WantedIndex,
)
from service.api.payloads.json_format import request_schema
from service.api.payloads.values import BARE_FIELDS, LABELLED_FIELDS, TRAINING_FIELDS
from service.api.problems import PROBLEM_MEDIA_TYPE, STATUS_OF
from service.api.schemas import CreateModel, Problem, PutAlias, SampleRequest, UpdateModel

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
PARAMETER_FILE: dict[str, Json] = {
    "title": "ParameterFile",
    "type": "string",
    "format": "binary",
    "description": "A version's parameters as plain arrays, as joblib writes them.",
}
DESCRIPTION = """Train, version and serve Gaussian mixture models.

Declare a model, fit it with rows of numbers, ask its versions for labels, responsibilities,
densities and criteria. Refusals are `application/problem+json` with a stable `code`; under each
response are those that it can have. More may be added: take one that you don't know by its status.

Anywhere a path that there is not is 404 `not_found`, a method that a path does not have is 405
`method_not_allowed`, with `Allow`, and a fault of the service is 500 `internal_error`.
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
    _name_codes_of_fields(schemas)
    for operation, described in _operations(document):
        _name_codes(operation, described, components)
        _name_sent_headers(operation, described, components)
        _name_heeded_headers(operation, described, components)
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


def _operations(document: Mapping[str, Json]) -> Iterator[tuple[Described, dict[str, Json]]]:
    for path, methods in _object(document["paths"]).items():
        for method, node in _object(methods).items():
            described = _object(node)
            (tag,) = _list(described["tags"])
            given = list(map(_object, _list(described.get("parameters", []))))
            content = _object(described.get("requestBody", {})).get("content", {})
            names = (_schema_name(_object(body)) for body in _object(content).values())
            bodies = frozenset(name for name in names if name is not None)
            parameters = frozenset(str(each["name"]) for each in given)
            yield Described(method, path, str(tag), parameters, bodies), described


def _schema_name(content: Mapping[str, Json]) -> str | None:
    reference = _object(content.get("schema", {})).get("$ref")
    return reference.rpartition("/")[2] if isinstance(reference, str) else None


def _name_codes_of_fields(schemas: Mapping[str, Json]) -> None:
    """Name the codes as examples: an enumeration would make a new one a break."""
    for schema, codes in (("Problem", every_code()), ("ProblemIssue", iter(PLACES))):
        properties = _object(_object(schemas[schema])["properties"])
        _object(properties["code"])["examples"] = list(codes)


def _name_codes(
    operation: Described, described: dict[str, Json], components: dict[str, Json]
) -> None:
    """Put the codes under each refusal; a status that none has is none of this operation."""
    responses = _object(described["responses"])
    for status, node in list(responses.items()):
        response = _object(node)
        content = _object(response.get("content", {}))
        if PROBLEM_MEDIA_TYPE not in content:
            continue
        codes = codes_under(operation, HTTPStatus(int(status)))
        if not codes:
            del responses[status]
            continue
        titles = dict.fromkeys(kind.title for kind, _, _ in codes)
        named = ", ".join(f"`{code}`" for _, code, _ in codes)
        response["description"] = f"{', or '.join(titles)}: {named}"
        examples = _object(components.setdefault("examples", {}))
        _object(content[PROBLEM_MEDIA_TYPE])["examples"] = {
            found[1]: _example_in(examples, found) for found in codes
        }


def _example_in(examples: dict[str, Json], found: Found) -> Json:
    """Return the reference to a code's example, which may be there under another status, too."""
    kind, code, meaning = found
    status = STATUS_OF[kind]
    value = problem_example(kind.title, status, code, meaning)
    is_first = code not in examples or _object(examples[code])["value"] == value
    name = code if is_first else f"{code}-{status.value}"
    examples[name] = {"summary": meaning, "value": value}
    return {"$ref": f"#/components/examples/{name}"}


def _name_sent_headers(
    operation: Described, described: dict[str, Json], components: dict[str, Json]
) -> None:
    headers = _object(components.setdefault("headers", {}))
    for status, node in _object(described["responses"]).items():
        response = _object(node)
        json = _object(_object(response.get("content", {})).get("application/json", {}))
        answer = Answered(operation, int(status), _schema_name(json))
        response["headers"] = {
            header.name: _header_in(headers, header, is_there=header.always(answer))
            for header in SENT
            if header.always(answer) or header.sometimes(answer)
        }


def _header_in(headers: dict[str, Json], header: SentHeader, *, is_there: bool) -> Json:
    name = header.name if is_there else f"{header.name}-if-any"
    headers[name] = {
        "description": header.description,
        "required": is_there,
        "schema": dict(header.schema),
    }
    return {"$ref": f"#/components/headers/{name}"}


def _name_heeded_headers(
    operation: Described, described: dict[str, Json], components: dict[str, Json]
) -> None:
    known = _object(components.setdefault("parameters", {}))
    parameters = _list(described.setdefault("parameters", []))
    for header in HEEDED:
        if header.is_heeded(operation):
            known[header.name] = {
                "name": header.name,
                "in": "header",
                "required": False,
                "description": header.description,
                "schema": dict(header.schema),
            }
            parameters.append({"$ref": f"#/components/parameters/{header.name}"})


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
        "ParameterFile": PARAMETER_FILE,
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


def _list(node: Json) -> list[Json]:
    if not isinstance(node, list):
        raise TypeError("the document has something else where a list belongs")
    return node
