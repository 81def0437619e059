"""Routes of questions about rows that the client sends, each in three forms."""

from functools import partial

from fastapi import APIRouter, Response

from service.api import examples
from service.api.dependencies import IN_EVERY_ROUTE, Metric
from service.api.forms import on_every_form
from service.api.payloads.values import Value
from service.api.questions import Question
from service.api.schemas import (
    MetricAnswer,
    PredictAnswer,
    PredictProbaAnswer,
    ScoreAnswer,
    ScoreSamplesAnswer,
    whole,
)
from service.domain.data import Table
from service.domain.inference import METRICS, FittedModel, Measured

router = APIRouter(dependencies=IN_EVERY_ROUTE)


def labels_of(fitted: FittedModel, table: Table) -> dict[str, Value]:
    return {"labels": fitted.predict(table)}


def probabilities_of(fitted: FittedModel, table: Table) -> dict[str, Value]:
    return {"probabilities": fitted.predict_proba(table)}


def densities_of(fitted: FittedModel, table: Table) -> dict[str, Value]:
    return {"log_likelihood": fitted.score_samples(table)}


def criteria_of(fitted: FittedModel, table: Table) -> dict[str, Value]:
    return every_criterion(fitted.score(table))


@on_every_form(
    router,
    "/predict",
    "predict",
    summary="Label rows",
    description="The index of the most probable component of each row.",
    answer=PredictAnswer,
    example=examples.PREDICT,
    verb=labels_of,
)
async def predict(question: Question) -> Response:
    return await question.answer_by_rows(labels_of)


@on_every_form(
    router,
    "/predict_proba",
    "predict_proba",
    summary="Give responsibilities",
    description="The probability of each component given the row; rows sum to one.",
    answer=PredictProbaAnswer,
    example=examples.PREDICT_PROBA,
    verb=probabilities_of,
)
async def predict_proba(question: Question) -> Response:
    return await question.answer_by_rows(probabilities_of)


@on_every_form(
    router,
    "/score_samples",
    "score_samples",
    summary="Give the log-density of rows",
    answer=ScoreSamplesAnswer,
    example=examples.SCORE_SAMPLES,
    verb=densities_of,
)
async def score_samples(question: Question) -> Response:
    return await question.answer_by_rows(densities_of)


@on_every_form(
    router,
    "/score",
    "score",
    summary="Give every criterion of the rows",
    description="BIC, AIC, AICc and ICL are signed so that lower is better.",
    answer=ScoreAnswer,
    example=examples.SCORE,
    verb=criteria_of,
)
async def score(question: Question) -> Response:
    return await question.answer_in_sum(every_criterion)


@on_every_form(
    router,
    "/score/{metric}",
    "score_metric",
    summary="Give one criterion of the rows",
    answer=MetricAnswer,
    example=examples.METRIC,
)
async def score_metric(question: Question, metric: Metric) -> Response:
    return await question.answer_in_sum(partial(one_criterion, metric))


def every_criterion(measured: Measured) -> dict[str, Value]:
    values: dict[str, Value] = {
        "n_samples": whole(measured.n_samples),
        "n_parameters": measured.n_parameters,
    }
    for metric in ("log_likelihood", "mean_log_likelihood", "bic", "aic", "aicc", "icl"):
        values[metric] = METRICS[metric](measured)
    return values


def one_criterion(metric: str, measured: Measured) -> dict[str, Value]:
    return {
        "metric": metric,
        "value": METRICS[metric](measured),
        "n_samples": whole(measured.n_samples),
    }
