"""Routes of versions: list, look at, download, delete."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from service.api.dependencies import (
    IN_EVERY_JSON_ROUTE,
    IN_EVERY_ROUTE,
    Door,
    IfNoneMatch,
    ModelId,
    PageSize,
    PageToken,
    Preconditions,
    VersionNumber,
)
from service.api.documentation import operation
from service.api.examples import VERSION, VERSION_SUMMARY
from service.api.responses import etag_of, json_response, names_tag, next_link, tagged_response
from service.api.schemas import Version, VersionList, VersionSummary
from service.errors import Conflict, NotFound, PreconditionFailed

router = APIRouter(dependencies=IN_EVERY_JSON_ROUTE)
without_json = APIRouter(dependencies=IN_EVERY_ROUTE)

TAG = "versions"
ARTIFACT_TYPE = "application/octet-stream"


@router.get(
    "/models/{id}/versions",
    **operation(
        "list_versions",
        tag=TAG,
        summary="List the versions of a model",
        answers={
            HTTPStatus.OK: (VersionList, {"versions": [VERSION_SUMMARY], "next_page_token": None})
        },
        refusals=(NotFound,),
    ),
)
async def list_versions(
    request: Request,
    door: Door,
    model_id: ModelId,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Response:
    page = await door.threads.look_up(
        door.catalogue.list_versions, model_id, page_size=page_size, page_token=page_token
    )
    body = VersionList(
        versions=list(map(VersionSummary.of, page.items)), next_page_token=page.next_token
    )
    return json_response(body, headers=next_link(request, page.next_token))


@router.get(
    "/models/{id}/versions/{n}",
    **operation(
        "get_version",
        tag=TAG,
        summary="Get a version",
        description="Immutable: it keeps the hyperparameters and the result of its fit.",
        answers={HTTPStatus.OK: (Version, VERSION), HTTPStatus.NOT_MODIFIED: (None, {})},
        refusals=(NotFound,),
    ),
)
async def get_version(
    request: Request,
    door: Door,
    model_id: ModelId,
    number: VersionNumber,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001  # documents the header; read by the response
) -> Response:
    version = await door.threads.look_up(door.catalogue.get_version, model_id, number)
    return tagged_response(request, Version.of(version))


@without_json.delete(
    "/models/{id}/versions/{n}",
    **operation(
        "delete_version",
        tag=TAG,
        summary="Delete a version",
        description="Its number is never given again.",
        answers={HTTPStatus.NO_CONTENT: (None, {})},
        refusals=(NotFound, Conflict, PreconditionFailed),
    ),
)
async def delete_version(
    door: Door, model_id: ModelId, number: VersionNumber, may_change: Preconditions
) -> Response:
    await door.threads.look_up(
        door.catalogue.delete_version,
        model_id,
        number,
        is_current=(
            None if may_change is None else lambda version: may_change(etag_of(Version.of(version)))
        ),
    )
    return Response(status_code=HTTPStatus.NO_CONTENT)


@without_json.get(
    "/models/{id}/versions/{n}/artifact",
    response_class=Response,
    **operation(
        "download_artifact",
        tag=TAG,
        summary="Download the parameter file",
        description="The joblib file as stored; its ETag is its SHA-256.",
        answers={
            HTTPStatus.OK: (
                None,
                {ARTIFACT_TYPE: {"schema": {"$ref": "#/components/schemas/ParameterFile"}}},
            ),
            HTTPStatus.NOT_MODIFIED: (None, {}),
        },
        refusals=(NotFound,),
    ),
)
async def download_artifact(
    request: Request,
    door: Door,
    model_id: ModelId,
    number: VersionNumber,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001  # documents the header; read below
) -> Response:
    version, content = await door.threads.look_up(door.catalogue.read_artifact, model_id, number)
    headers = {"ETag": f'"{version.artifact_digest}"', "Cache-Control": "no-cache"}
    if names_tag(request, "if-none-match", headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    file_name = f"{version.model_id}-{version.number}.joblib"
    headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return Response(content, media_type=ARTIFACT_TYPE, headers=headers)
