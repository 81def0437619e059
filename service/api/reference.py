"""Routes of the documentation: the OpenAPI document, and a page of it for people.

The page is made here, whole: no script, nothing loaded from elsewhere, so it reads the same
without a network and under a policy that allows nothing but its own style.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, reduce

import orjson
from fastapi import APIRouter, Request, Response

from service.api.dependencies import IN_EVERY_ROUTE
from service.api.services import services_of

router = APIRouter(dependencies=IN_EVERY_ROUTE)

Json = Mapping[str, "Json"] | list["Json"] | str | int | float | bool | None
Object = Mapping[str, "Json"]

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); text-transform: capitalize; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: 0 .8rem; }
summary { cursor: pointer; padding: .5rem 0; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); padding: .7rem; border-radius: .3rem; overflow-x: auto; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--line); }
"""
STYLE_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_DIGEST}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
INNERMOST_LIST = re.compile(r"\[[^\[\]{}]*\]")
METHODS = ("get", "post", "put", "patch", "delete")


@router.get("/openapi.json", include_in_schema=False)
async def openapi_json(request: Request) -> Response:
    return Response(await _document(request), media_type="application/json")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    return Response(
        page_of(await _document(request)),
        media_type="text/html",
        headers={"Content-Security-Policy": POLICY},
    )


async def _document(request: Request) -> bytes:
    """Return the contract, which takes half a second to make when it is first asked for."""
    document: bytes = await services_of(request).threads.look_up(request.app.state.contract)
    return document


@lru_cache(maxsize=4)
def page_of(document: bytes) -> str:
    contract = orjson.loads(document)
    return "\n".join(_page(contract))


def _page(contract: Object) -> Iterator[str]:
    info = _object(contract["info"])
    title = f"{info['title']} {info['version']}"
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(title)}</title>"
    yield "<meta name=viewport content='width=device-width, initial-scale=1'>"
    yield f"<style>{STYLE}</style><h1>{_text(title)}</h1>"
    for paragraph in str(info["description"]).strip().split("\n\n"):
        yield f"<p>{_prose(paragraph)}</p>"
    yield "<p>For programs: <a href=openapi.json>openapi.json</a> (OpenAPI 3.1).</p>"
    for tag in _list(contract["tags"]):
        yield from _section(contract, _object(tag))
    yield "<h2>Bodies</h2>"
    for name, schema in _object(_object(contract["components"])["schemas"]).items():
        yield f"<details id='schema-{_text(name)}'><summary><code>{_text(name)}</code></summary>"
        yield f"{_code(schema)}</details>"


def _section(contract: Object, tag: Object) -> Iterator[str]:
    yield f"<h2>{_text(tag['name'])}</h2><p>{_text(tag['description'])}</p>"
    for path, methods in _object(contract["paths"]).items():
        for method in METHODS:
            operation = _object(methods).get(method)
            if operation is not None and tag["name"] in _list(_object(operation)["tags"]):
                yield from _operation(contract, method, path, _object(operation))


def _operation(contract: Object, method: str, path: str, operation: Object) -> Iterator[str]:
    name = _text(operation["operationId"])
    yield f"<details id={name}><summary><span class=method>{method.upper()}</span>"
    yield f"<code>{_text(path)}</code> {_text(operation['summary'])}</summary>"
    yield f"<p>{_prose(operation.get('description', ''))} <code>{name}</code></p>"
    given = map(_object, _list(operation.get("parameters", [])))
    parameters = [_resolved(contract, parameter) for parameter in given]
    if parameters:
        yield "<table>"
        for parameter in parameters:
            yield f"<tr><td><code>{_text(parameter['name'])}</code><td>{_text(parameter['in'])}"
            yield f"<td>{_prose(parameter.get('description', ''))}"
        yield "</table>"
    body = _object(operation.get("requestBody", {}))
    for media_type, content in _object(body.get("content", {})).items():
        yield f"<p>Request, <code>{_text(media_type)}</code>{_schema_link(_object(content))}</p>"
        yield _code(_object(content).get("example"))
    for status, response in _object(operation["responses"]).items():
        yield from _response(status, _object(response))
    yield "</details>"


def _response(status: str, response: Object) -> Iterator[str]:
    contents = _object(response.get("content", {}))
    links = "".join(_schema_link(_object(content)) for content in contents.values())
    yield f"<p><b>{_text(status)}</b> {_prose(response['description'])}{links}"
    headers = ", ".join(f"<code>{_text(name)}</code>" for name in _object(response["headers"]))
    yield f"<br>{headers}</p>"
    if status.startswith("2"):
        for content in contents.values():
            yield _code(_object(content).get("example"))


def _resolved(contract: Object, node: Object) -> Object:
    """Return what a node is, or refers to."""
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return node
    _, *steps = reference.split("/")
    return reduce(lambda found, step: _object(found[step]), steps, contract)


def _schema_link(content: Object) -> str:
    reference = _object(content.get("schema", {})).get("$ref")
    if not isinstance(reference, str):
        return ""
    name = _text(reference.rpartition("/")[2])
    return f" <a href='#schema-{name}'><code>{name}</code></a>"


def _code(value: Json) -> str:
    if value is None:
        return ""
    lines = INNERMOST_LIST.sub(_on_one_line, json.dumps(value, indent=2))
    return f"<pre>{_text(lines)}</pre>"


def _on_one_line(innermost: re.Match[str]) -> str:
    return " ".join(innermost.group().split()).replace("[ ", "[").replace(" ]", "]")


def _prose(value: Json) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", _text(value))


def _text(value: Json) -> str:
    return html.escape(str(value))


def _object(value: Json) -> Object:
    if not isinstance(value, Mapping):
        raise TypeError("the document has something else where an object belongs")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError("the document has something else where a list belongs")
    return value
