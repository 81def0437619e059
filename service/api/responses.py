"""Answers of the control plane: JSON bytes, entity tags, conditional requests."""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from pydantic import BaseModel

from service.api.negotiation import JSON

REVALIDATE = "no-cache"


def json_response(
    body: BaseModel,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return Response(
        body.model_dump_json(), status_code=status, media_type=JSON, headers=dict(headers or {})
    )


def tagged_response(
    request: Request,
    body: BaseModel,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with an ETag of the content; with 304 to a client that has it already."""
    tag = etag_of(body)
    all_headers = {**(headers or {}), "ETag": tag, "Cache-Control": REVALIDATE}
    if request.method == "GET" and names_tag(request, "if-none-match", tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=all_headers)
    return json_response(body, status=status, headers=all_headers)


def etag_of(body: BaseModel) -> str:
    return f'"{hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:32]}"'


def names_tag(request: Request, header: str, tag: str) -> bool:
    """Say whether the list of tags in ``header`` holds this one, or is ``*``.

    If-Match asks for strong comparison: a weak tag never matches there (RFC 9110, 8.8.3.2).
    """
    given = [entry.strip() for entry in ",".join(request.headers.getlist(header)).split(",")]
    if header == "if-none-match":
        given = [entry.removeprefix("W/") for entry in given]
    return tag in given or given == ["*"]


def next_link(request: Request, token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    query = request.query_params.multi_items()
    others = [(name, value) for name, value in query if name != "page_token"]
    target = f"{quote(request.url.path)}?{urlencode([*others, ('page_token', token)])}"
    return {"Link": f'<{target}>; rel="next"'}
