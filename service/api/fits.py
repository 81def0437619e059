"""The route of fits: data in, a version or a job out."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BeforeValidator

from service.api.arrivals import read_training_payload
from service.api.dependencies import (
    IN_EVERY_ROUTE,
    Door,
    ModelId,
    Prefer,
    WaitQuery,
    cut_to_finite,
)
from service.api.documentation import OTHER_FORMATS, data_body, operation
from service.api.examples import FIT_RESULT, QUEUED_JOB, TRAINING_ROWS
from service.api.idempotency import Once, OnceOnly, fingerprint_of_data
from service.api.negotiation import JSON, accepted_type, answers_json
from service.api.payloads import CODECS, codec_of
from service.api.payloads.values import TRAINING_FIELDS, DataAnswer, DataPayload
from service.api.problems import problem_response
from service.api.questions import data_response
from service.api.responses import json_response
from service.api.schemas import FitAnswer, FitEnd, FitEstimate, Job, job_result, selection_result
from service.api.services import Services
from service.domain.fitting import OnConflict, refusal_of
from service.domain.records import JobRecord, SelectionRequest
from service.errors import (
    Conflict,
    InternalFailure,
    NotFound,
    ServiceError,
    StorageFull,
    TooManyRequests,
)

router = APIRouter(dependencies=IN_EVERY_ROUTE)

RETRY_SECONDS = 1
WAIT_PREFERENCE = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d+)\"?(?=$|[,;\s])", re.IGNORECASE)
ASYNC_PREFERENCE = re.compile(r"(?:^|[,;\s])respond-async(?=$|[,;\s])", re.IGNORECASE)

OnConflictQuery = Annotated[
    OnConflict,
    Query(
        description="While the model is being fitted already: `queue` behind that, `reject` this "
        "fit, or let this one `supersede` those before it, which are cancelled."
    ),
]
BudgetQuery = Annotated[
    float | None,
    Query(
        gt=0,
        allow_inf_nan=False,
        description="Seconds of fitting after which the best parameters found so far are the "
        "result (`stop_reason` is then `time_budget`).",
    ),
    BeforeValidator(cut_to_finite),
]

ValidateOnlyQuery = Annotated[
    bool,
    Query(
        description="Check everything and answer with the work, memory and seconds that the fit "
        "is expected to take; nothing is fitted or stored."
    ),
]


async def answered_type(request: Request) -> str:
    return accepted_type(request, CODECS)


@dataclass(frozen=True, slots=True)
class Order:
    """A job that is to be made of the rows in the body, and how that is bounded and waited for."""

    request: Request
    door: Services
    model_id: str
    once: OnceOnly
    on_conflict: OnConflict
    budget_seconds: float | None
    wait: float | None
    prefer: str | None

    async def answer(
        self, selection: SelectionRequest | None = None, *, media_type: str = JSON
    ) -> Response:
        """Begin the fit, or the selection, and answer with what there is when the wait is over."""
        await self._require_startable()
        handed = [await self._payload()]
        asked = () if selection is None else (selection,)
        formats = () if media_type == JSON else (media_type,)
        conditions = (*asked, self.on_conflict, self.budget_seconds, *formats)
        begin = partial(self._begin, handed, selection, media_type)
        return await self.once.answer(lambda: fingerprint_of_data(handed[0], *conditions), begin)

    async def estimate(self) -> FitEstimate:
        """Return what the fit is expected to take; nothing begins."""
        await self._require(self.door.fitting.require_model, self.model_id)
        payload = await self._payload()
        estimate = await self.door.threads.compute(
            self.door.fitting.estimate,
            self.model_id,
            payload.table,
            sample_weight=payload.sample_weight,
            budget_seconds=self.budget_seconds,
        )
        return FitEstimate.of(estimate)

    async def _require_startable(self) -> None:
        """Let nothing but a key that came before go on; it may have an answer."""
        try:
            await self._require(
                self.door.fitting.require_startable, self.model_id, self.on_conflict
            )
        except ServiceError:
            # Asked for behind the check: what refused may be the first request under the key.
            if not await self.once.has_come_before():
                raise

    async def _require(self, check: Callable[..., None], *arguments: object) -> None:
        """Refuse what the head alone decides before the body is read, or even asked for."""
        self.door.lifecycle.require_serving()
        await self.door.threads.look_up(check, *arguments)

    async def _payload(self) -> DataPayload:
        payload = await read_training_payload(self.request, extra_fields=TRAINING_FIELDS)
        self.door.lifecycle.require_serving()
        return payload

    async def _begin(
        self,
        handed: list[DataPayload],
        selection: SelectionRequest | None,
        media_type: str,
        token: str,
    ) -> Response:
        """Begin with the rows that are handed over, which are let go of once the fit has them."""
        payload = handed.pop()
        begun = self.door.threads.begin(
            self.door.fitting.start,
            self.model_id,
            payload.table,
            sample_weight=payload.sample_weight,
            budget_seconds=self.budget_seconds,
            on_conflict=self.on_conflict,
            token=token,
            selection=selection,
        )
        del payload
        job = await begun
        return await waited_answer(
            self.request,
            self.door,
            job,
            wait=self.wait,
            prefer=self.prefer,
            media_type=media_type,
        )


async def ordered(
    request: Request,
    door: Door,
    model_id: ModelId,
    once: Once,
    *,
    on_conflict: OnConflictQuery = OnConflict.QUEUE,
    budget_seconds: BudgetQuery = None,
    wait: WaitQuery = None,
    prefer: Prefer = None,
) -> Order:
    return Order(
        request,
        door,
        model_id,
        once,
        on_conflict=on_conflict,
        budget_seconds=budget_seconds,
        wait=wait,
        prefer=prefer,
    )


Ordered = Annotated[Order, Depends(ordered)]


@router.post(
    "/models/{id}/fit",
    **operation(
        "fit_model",
        tag="fits",
        summary="Fit a model",
        description=(
            "Waits for the fit for a while: 200 with the result when it ends in time, else 202 "
            "with the job, in JSON. `?wait=` or `Prefer` say how long. In other formats than JSON "
            "the result is one row: its numbers and texts, without its lists."
        ),
        answers={
            HTTPStatus.OK: (FitAnswer, FIT_RESULT),
            HTTPStatus.ACCEPTED: (Job, QUEUED_JOB),
        },
        also=OTHER_FORMATS,
        body=data_body("TrainingData", TRAINING_ROWS),
        refusals=(NotFound, Conflict, TooManyRequests, StorageFull, InternalFailure),
    ),
)
async def fit_model(
    request: Request,
    media_type: Annotated[str, Depends(answered_type)],
    order: Ordered,
    *,
    validate_only: ValidateOnlyQuery = False,
) -> Response:
    if validate_only:
        await answers_json(request)
        return json_response(await order.estimate())
    return await order.answer(media_type=media_type)


async def waited_answer(
    request: Request,
    door: Services,
    job: JobRecord,
    *,
    wait: float | None,
    prefer: str | None,
    media_type: str = JSON,
) -> Response:
    """Wait for the job as long as the client wishes, and answer with what there is then."""
    wished = wait if wait is not None else preferred_wait(prefer)
    seconds = door.wait_seconds(wished, door.options.fit_wait_seconds)
    job = await door.job_within(job.id, seconds)
    applied = {} if prefer is None or wait is not None else applied_preference(prefer, seconds)
    return job_answer(request, job, applied, media_type)


def job_answer(
    request: Request, job: JobRecord, headers: Mapping[str, str], media_type: str
) -> Response:
    """Answer with the job while it goes on, with its result, or with why there is none."""
    if not job.is_done:
        return json_response(
            Job.of(job),
            status=HTTPStatus.ACCEPTED,
            headers={"Location": f"/jobs/{job.id}", "Retry-After": str(RETRY_SECONDS), **headers},
        )
    result = selection_result(job) or job_result(job)
    if result is None:
        return problem_response(refusal_of(job), request.scope)
    headers = {
        "Content-Location": f"/models/{result.model}/versions/{result.version}",
        **headers,
    }
    if media_type == JSON:
        return json_response(result, headers=headers)
    content = codec_of(media_type).encode(in_one_row(result))
    version = {"GMM-Model-Version": str(result.version)}
    return data_response(content, media_type, headers | version)


def in_one_row(result: FitEnd) -> DataAnswer:
    """Return what is a number or a text in a result, by name; what is not known as NaN."""
    figures = {
        name: math.nan if value is None else value
        for name, value in result.model_dump(exclude={"model", "version"}).items()
        if value is None or isinstance(value, float | int | str)
    }
    return DataAnswer(result.model, result.version, figures)


def preferred_wait(prefer: str | None) -> float | None:
    """Return the seconds that a Prefer header asks for; what it can't say is ignored (RFC 7240)."""
    if prefer is None:
        return None
    if ASYNC_PREFERENCE.search(prefer):
        return 0.0
    wait = WAIT_PREFERENCE.search(prefer)
    return None if wait is None else float(wait.group(1))


def applied_preference(prefer: str, seconds: float) -> dict[str, str]:
    if ASYNC_PREFERENCE.search(prefer):
        return {"Preference-Applied": "respond-async"}
    if WAIT_PREFERENCE.search(prefer):
        return {"Preference-Applied": f"wait={math.floor(seconds)}"}
    return {}
