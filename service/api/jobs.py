"""Routes of jobs: look at, list, wait for, cancel."""

from enum import StrEnum
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.audit import tell_audit
from service.api.dependencies import (
    IN_EVERY_JSON_ROUTE,
    Door,
    JobId,
    PageSize,
    PageToken,
    WaitQuery,
)
from service.api.documentation import operation
from service.api.examples import JOB
from service.api.responses import json_response, next_link
from service.api.schemas import Job, JobList, LegalId
from service.domain.records import JobStatus
from service.errors import NotFound

router = APIRouter(dependencies=IN_EVERY_JSON_ROUTE)

TAG = "jobs"
ModelQuery = Annotated[LegalId | None, Query(description="Jobs of this model.")]
StatusQuery = Annotated[JobStatus | None, Query(description="Jobs in this state.")]


class Keep(StrEnum):
    BEST = "best"


KeepQuery = Annotated[
    Keep | None, Query(description="What to keep of a running fit; nothing without it.")
]


@router.get(
    "/jobs",
    **operation(
        "list_jobs",
        tag=TAG,
        summary="List jobs, the newest first",
        answers={HTTPStatus.OK: (JobList, {"jobs": [JOB], "next_page_token": None})},
    ),
)
async def list_jobs(
    request: Request,
    door: Door,
    *,
    model: ModelQuery = None,
    status: StatusQuery = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Response:
    page = await door.threads.look_up(
        door.fitting.list_jobs,
        model_id=model,
        status=status,
        page_size=page_size,
        page_token=page_token,
    )
    body = JobList(jobs=list(map(Job.of, page.items)), next_page_token=page.next_token)
    return json_response(body, headers=next_link(request, page.next_token))


@router.get(
    "/jobs/{id}",
    **operation(
        "get_job",
        tag=TAG,
        summary="Get a job",
        description="With `?wait=` held until the job ends or the time is up.",
        answers={HTTPStatus.OK: (Job, JOB)},
        refusals=(NotFound,),
    ),
)
async def get_job(door: Door, job_id: JobId, wait: WaitQuery = None) -> Response:
    job = await door.job_within(job_id, door.wait_seconds(wait, default=0.0))
    return json_response(Job.of(job))


@router.post(
    "/jobs/{id}/cancel",
    **operation(
        "cancel_job",
        tag=TAG,
        summary="Cancel a job",
        description=(
            "202 while the fit is being stopped, 200 when the job had ended already. With "
            "`?keep=best` a running fit finishes with the best parameters that it has found: they "
            "become a version, with `stop_reason` `cancelled`, and the job succeeds."
        ),
        answers={HTTPStatus.ACCEPTED: (Job, JOB), HTTPStatus.OK: (Job, JOB)},
        refusals=(NotFound,),
    ),
)
async def cancel_job(
    request: Request, door: Door, job_id: JobId, keep: KeepQuery = None
) -> Response:
    before = await door.threads.look_up(door.fitting.get_job, job_id)
    tell_audit(request, model_id=before.model_id)
    job = await door.threads.look_up(door.fitting.cancel, job_id, keep_best=keep is Keep.BEST)
    status = HTTPStatus.OK if before.is_done else HTTPStatus.ACCEPTED
    return json_response(Job.of(job), status=status, headers={"Location": f"/jobs/{job.id}"})
