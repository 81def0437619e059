"""The page at ``/ui``: its files as they are in ``service/ui``, under a strict policy.

The page is plain files that talk to the public API like any other client; nothing here knows what
it does. The files are few and small: they are read once, so that a request touches no disk and
only names that are known are answered.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request, Response

from service.api.dependencies import IN_EVERY_ROUTE
from service.api.responses import names_tag
from service.errors import NotFound

router = APIRouter(dependencies=IN_EVERY_ROUTE)

FILES = Path(__file__).resolve().parent.parent / "ui"
PAGE = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
"""What is served; a file of another kind is not."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    media_type: str
    etag: str


@router.get("/ui", include_in_schema=False)
async def ui(request: Request) -> Response:
    return served(request, PAGE)


@router.get("/ui/{path:path}", include_in_schema=False)
async def ui_file(request: Request, path: str) -> Response:
    return served(request, path)


def served(request: Request, path: str) -> Response:
    asset = assets().get(path)
    if asset is None:
        raise NotFound("not_found", "the page has no such file")
    headers = {
        "Cache-Control": "no-cache",  # kept by the browser, asked about each time
        "Content-Security-Policy": POLICY,
        "ETag": asset.etag,
        "Referrer-Policy": "no-referrer",
    }
    if names_tag(request, "if-none-match", asset.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@cache
def assets() -> Mapping[str, Asset]:
    """Return every file of the page by its path below ``/ui/``."""
    return {
        path.relative_to(FILES).as_posix(): asset_of(path)
        for path in sorted(FILES.rglob("*"))
        if path.is_file() and path.suffix in MEDIA_TYPES
    }


def asset_of(path: Path) -> Asset:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Asset(content, MEDIA_TYPES[path.suffix], f'"{digest[:32]}"')
