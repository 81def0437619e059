"""The route of selections: data and a grid in, a table and its best as a version out."""

import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from service.api.dependencies import IN_EVERY_JSON_ROUTE
from service.api.documentation import data_body, operation
from service.api.examples import QUEUED_JOB, SELECTION_RESULT, TRAINING_ROWS
from service.api.fits import Ordered
from service.api.schemas import CovarianceType, Criterion, Job, SelectionResult
from service.domain.catalogue import COVARIANCE_TYPES
from service.domain.records import SelectionPlan, SelectionRequest
from service.errors import (
    Conflict,
    InternalFailure,
    InvalidInput,
    Issue,
    NotFound,
    StorageFull,
    TooManyRequests,
)

router = APIRouter(dependencies=IN_EVERY_JSON_ROUTE)

RANGE_PATTERN = r"^[1-9][0-9]{0,5}(-[1-9][0-9]{0,5})?$"
RANGE = re.compile(RANGE_PATTERN.replace("$", r"\Z"))
MAX_SIZES = 1024
"""Numbers of components that one request may name, before the limit of candidates is looked at."""

SizesQuery = Annotated[
    list[Annotated[str, Query(json_schema_extra={"pattern": RANGE_PATTERN})]],
    Query(
        max_length=64,
        description="Numbers of components: single ones or ranges such as `1-9`, several times.",
    ),
]
FamiliesQuery = Annotated[
    list[CovarianceType],
    Query(max_length=64, description="Families to try; all without it."),
]
CriterionQuery = Annotated[
    Criterion,
    Query(
        description="What the best is best by. Of `held_out_log_likelihood`, by K-fold "
        "cross-validation, more is better; of the others less."
    ),
]
FoldsQuery = Annotated[
    int,
    Query(ge=2, le=100, description="Folds of the cross-validation."),
]
StartsQuery = Annotated[
    int | None,
    Query(ge=1, description="Restarts of every candidate; without it those of the model."),
]


async def asked_selection(
    *,
    n_components: SizesQuery = ["1-9"],  # noqa: B006  # FastAPI copies it
    covariance_type: FamiliesQuery = list(COVARIANCE_TYPES),  # noqa: B006  # FastAPI copies it
    criterion: CriterionQuery = "bic",
    n_folds: FoldsQuery = 5,
    n_init: StartsQuery = None,
) -> SelectionRequest:
    plan = SelectionPlan(
        n_components=tuple(sizes_of(n_components)),
        covariance_types=tuple(dict.fromkeys(covariance_type)),
        criterion=criterion,
        n_folds=n_folds,
    )
    return SelectionRequest(plan, n_init=n_init)


@router.post(
    "/models/{id}/select",
    **operation(
        "select_model",
        tag="fits",
        summary="Choose the number of components and the family",
        description=(
            "Fits every number of components with every family, lets the candidates share their "
            "starts, and makes the best one a new version. The model stays as it is declared: its "
            "other hyperparameters are those of every candidate. Waits like a fit; a job tells in "
            "its progress which candidates lead."
        ),
        answers={
            HTTPStatus.OK: (SelectionResult, SELECTION_RESULT),
            HTTPStatus.ACCEPTED: (Job, {**QUEUED_JOB, "kind": "select"}),
        },
        body=data_body("TrainingData", TRAINING_ROWS),
        refusals=(NotFound, Conflict, TooManyRequests, StorageFull, InternalFailure),
    ),
)
async def select_model(
    order: Ordered, selection: Annotated[SelectionRequest, Depends(asked_selection)]
) -> Response:
    return await order.answer(selection)


def sizes_of(ranges: Sequence[str]) -> list[int]:
    """Return every number that is named, in order and once."""
    sizes = sorted({size for text in ranges for size in _sizes_in(text)})
    if len(sizes) > MAX_SIZES:
        raise _refused(f"n_components names more than {MAX_SIZES} numbers")
    return sizes


def _sizes_in(text: str) -> Iterator[int]:
    if not RANGE.match(text):
        raise _refused(
            "n_components takes numbers from 1 on, such as 3, and ranges, such as 1-9; give it "
            "once for each"
        )
    first, _, last = text.partition("-")
    begin, end = int(first), int(last or first)
    if end < begin:
        raise _refused("a range of n_components must not end before it begins")
    yield from range(begin, min(end, begin + MAX_SIZES) + 1)


def _refused(detail: str) -> InvalidInput:
    return InvalidInput(
        "invalid_parameter",
        detail,
        issues=[Issue("#/query/n_components", "invalid_value", detail)],
    )
