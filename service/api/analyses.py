"""Routes of analyses of rows under a version: diagnostics, and k-means beside it."""

from collections.abc import Callable, Mapping
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from service.api import examples
from service.api.arrivals import read_payload
from service.api.dependencies import IN_EVERY_JSON_ROUTE, Door
from service.api.documentation import data_body
from service.api.forms import on_model_and_version
from service.api.negotiation import JSON
from service.api.payloads.values import LABELLED_FIELDS, DataPayload
from service.api.questions import (
    AimedAt,
    Stopwatch,
    Target,
    inference_headers,
)
from service.api.schemas import ComparisonAnswer, DiagnosticsAnswer
from service.api.services import Services
from service.domain.analysis import Comparison, Diagnosis, Side
from service.domain.inference import FittedModel
from service.domain.ports import Silhouette
from service.domain.records import VersionRecord
from service.errors import Unsupported

router = APIRouter(dependencies=IN_EVERY_JSON_ROUTE)

Answer = Mapping[str, object]

LowestQuery = Annotated[
    int, Query(ge=0, le=1000, description="How many rows of lowest density are named.")
]
LabelColumnQuery = Annotated[
    str | None,
    Query(
        max_length=256,
        description="The column that holds the true labels, numbers or texts; it is no feature. "
        "Numbers are equal by value, in CSV where every label is one: else all are texts.",
    ),
]
StartsQuery = Annotated[int, Query(ge=1, le=100, description="Starts of k-means.")]
SeedQuery = Annotated[
    int, Query(ge=0, le=2**32 - 1, description="Seed of k-means; the same finds the same.")
]


async def labelled_payload(request: Request, label_column: LabelColumnQuery = None) -> DataPayload:
    fields = LABELLED_FIELDS if label_column is None else LABELLED_FIELDS - {"labels"}
    return await read_payload(request, extra_fields=fields, label_column=label_column)


async def row_payload(request: Request) -> DataPayload:
    return await read_payload(request, extra_fields=frozenset())


@on_model_and_version(
    router,
    "POST",
    "/diagnostics",
    "diagnose",
    summary="Diagnose a mixture on rows",
    description=(
        "How sure each row is (the entropy of its responsibilities, in nats), sizes, overlap and "
        "condition of the components, the silhouette of the labels, the rows of lowest density, "
        "and with true labels how far the components agree with them. The silhouette of more than "
        "5000 rows is that of a random part of them, with its standard error."
    ),
    answer=DiagnosticsAnswer,
    example=examples.DIAGNOSTICS,
    body=data_body("LabelledRows", examples.LABELLED_ROWS),
    refusals=(Unsupported,),
)
async def diagnose(
    door: Door,
    target: AimedAt,
    payload: Annotated[DataPayload, Depends(labelled_payload)],
    *,
    n_lowest: LowestQuery = 10,
) -> Response:
    return await analysed(
        door,
        target,
        lambda fitted: diagnosis_fields(
            door.analysis.diagnose(fitted, payload.table, n_lowest=n_lowest)
        ),
    )


@on_model_and_version(
    router,
    "POST",
    "/compare/kmeans",
    "compare_with_kmeans",
    summary="Compare a mixture with k-means",
    description=(
        "Clusters the rows by k-means with as many clusters as the mixture has components. Its "
        "clusters are numbered like the components that they share the most rows with."
    ),
    answer=ComparisonAnswer,
    example=examples.COMPARISON,
    body=data_body("Rows", examples.ROWS),
    refusals=(Unsupported,),
)
async def compare_with_kmeans(
    door: Door,
    target: AimedAt,
    payload: Annotated[DataPayload, Depends(row_payload)],
    *,
    n_init: StartsQuery = 10,
    random_state: SeedQuery = 0,
) -> Response:
    return await analysed(
        door,
        target,
        lambda fitted: comparison_fields(
            door.analysis.compare_with_k_means(
                fitted, payload.table, n_init=n_init, random_state=random_state
            )
        ),
    )


async def analysed(
    door: Services, target: Target, analyse: Callable[[FittedModel], Answer]
) -> Response:
    """Open the version, let ``analyse`` answer, encode: in one hop to a computing thread."""
    stopwatch = Stopwatch()

    def answered() -> tuple[VersionRecord, bytes]:
        stopwatch.lap("queue")
        fitted = door.inference.open(target.model_id, target.version, target.alias)
        version, answer = fitted.version, analyse(fitted)
        stopwatch.lap("compute")
        whole = {
            "model": version.model_id,
            "version": version.number,
            "space": version.preprocessing.space,
            **answer,
        }
        content = orjson.dumps(whole, option=orjson.OPT_SERIALIZE_NUMPY)
        stopwatch.lap("encode")
        return version, content

    version, content = await door.threads.compute(answered)
    return Response(content, media_type=JSON, headers=inference_headers(version, stopwatch))


def diagnosis_fields(found: Diagnosis) -> Answer:
    rows, entropy = found.rows, found.rows.entropy
    return {
        "n_samples": len(rows.labels),
        "components": [
            {
                "weight": weight,
                "size": size,
                "effective_size": effective_size,
                "condition_number": condition_number,
            }
            for weight, size, effective_size, condition_number in zip(
                found.weights.tolist(),
                rows.sizes.tolist(),
                rows.effective_sizes.tolist(),
                found.condition_numbers.tolist(),
                strict=True,
            )
        ],
        "overlap": found.overlap,
        "entropy_mean": float(entropy.mean()),
        "entropy_max": float(entropy.max()),
        "silhouette": silhouette_fields(found.silhouette),
        "adjusted_rand_index": found.agreement and found.agreement.adjusted_rand_index,
        "adjusted_mutual_information": found.agreement
        and found.agreement.adjusted_mutual_information,
        "lowest_density": [
            {
                "row": row,
                "log_likelihood": float(rows.log_prob[row]),
                "label": int(rows.labels[row]),
            }
            for row in found.lowest.tolist()
        ],
        "labels": rows.labels,
        "entropy": entropy,
        "log_likelihood": rows.log_prob,
    }


def comparison_fields(found: Comparison) -> Answer:
    return {
        "n_samples": len(found.mixture.labels),
        "n_components": len(found.mixture.centers),
        "mixture": side_fields(found.mixture),
        "kmeans": {**side_fields(found.k_means), "n_iter": found.k_means_n_iter},
        "adjusted_rand_index": found.agreement.adjusted_rand_index,
        "adjusted_mutual_information": found.agreement.adjusted_mutual_information,
        "n_differing": len(found.differing),
        "differing": found.differing,
    }


def side_fields(side: Side) -> Answer:
    return {
        "labels": side.labels,
        "centers": side.centers,
        "inertia": side.inertia,
        "silhouette": silhouette_fields(side.silhouette),
    }


def silhouette_fields(found: Silhouette | None) -> Answer | None:
    if found is None:
        return None
    return {
        "value": found.value,
        "n_rows": found.n_rows,
        "standard_error": found.standard_error,
    }
