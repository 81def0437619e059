"""The bodies of the control plane, and what data answers look like; the only Pydantic bodies.

Rows of numbers never pass through here: they are decoded and encoded in ``payloads``, and the
classes of data answers only document them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.config import JsonDict

from service.api.problems import problem_of
from service.domain.aliases import AliasView
from service.domain.catalogue import (
    COVARIANCE_TYPES,
    CRITERIA,
    INIT_PARAMS,
    ModelChange,
    ModelView,
)
from service.domain.estimates import FitEstimate as Estimate
from service.domain.fitting import refusal_of
from service.domain.identifiers import ID_PATTERN, ID_RULE, is_legal_id
from service.domain.records import (
    AliasRecord,
    CandidateFigures,
    CandidateRecord,
    FitSummary,
    JobProgress,
    JobRecord,
    ModelRecord,
    SelectionRecord,
    VersionRecord,
)

MAX_LABELS = 64
LARGEST_SEED = 2**63 - 1
LARGEST_VERSION = 2**31 - 1


def one_of(values: Sequence[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return value

    return check


def few_entries(value: object) -> object:
    if isinstance(value, dict) and len(value) > MAX_LABELS:
        raise ValueError(f"there may be at most {MAX_LABELS} labels")
    return value


def integral(value: object) -> object:
    """Take 3.0 for 3, as JSON Schema does: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def auto_or_not_negative(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (is_number and 0 <= cast("float", value) < math.inf):
        return value
    raise ValueError('must be "auto" or a finite number of at least 0')


def legal_id(value: str) -> str:
    if not is_legal_id(value):
        raise ValueError(ID_RULE)
    return value


def without_colon(key: str) -> str:
    if ":" in key:
        raise ValueError("a label's key must not have a colon in it")
    return key


CovarianceType = Annotated[
    str,
    AfterValidator(one_of(COVARIANCE_TYPES)),
    WithJsonSchema({"type": "string", "enum": list(COVARIANCE_TYPES)}),
]
InitParams = Annotated[
    str,
    AfterValidator(one_of(INIT_PARAMS)),
    WithJsonSchema({"type": "string", "enum": list(INIT_PARAMS)}),
]
Criterion = Annotated[
    str,
    AfterValidator(one_of(CRITERIA)),
    WithJsonSchema({"type": "string", "enum": list(CRITERIA)}),
]
Whole = Annotated[int, BeforeValidator(integral)]
LegalId = Annotated[
    str,
    AfterValidator(legal_id),
    WithJsonSchema({"type": "string", "pattern": ID_PATTERN}),
]
RegCovar = Annotated[
    Literal["auto"] | float,
    BeforeValidator(auto_or_not_negative),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "enum": ["auto"]}, {"type": "number", "minimum": 0}]}
    ),
]
RandomState = Annotated[
    Annotated[Whole, Field(ge=0, le=LARGEST_SEED)] | None,
    WithJsonSchema({"type": ["integer", "null"], "minimum": 0, "maximum": LARGEST_SEED}),
]
PcaComponents = Annotated[
    Annotated[Whole, Field(ge=1)] | None,
    WithJsonSchema({"type": ["integer", "null"], "minimum": 1}),
]
LabelKey = Annotated[
    str,
    StringConstraints(min_length=1, max_length=63),
    AfterValidator(without_colon),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[^:]+$"}),
]
LabelValue = Annotated[str, StringConstraints(max_length=256)]
Labels = Annotated[dict[LabelKey, LabelValue], BeforeValidator(few_entries)]


class Body(BaseModel):
    """A request's body: exact types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def without_defaults(schema: JsonDict) -> None:
    """Take the defaults out of an update's schema: what it leaves out stays as it is."""
    for field in cast("dict[str, JsonDict]", schema["properties"]).values():
        field.pop("default", None)
    schema["examples"] = [{"n_components": 4, "description": "one more species"}]


class ModelFields(Body):
    n_components: Whole = Field(1, ge=1, description="Number of Gaussian components, K.")
    covariance_type: CovarianceType = Field("full", description="Form of the covariances.")
    tol: float = Field(
        1e-6, ge=0, description="Estimated distance from convergence to stop at, nats a row."
    )
    max_iter: Whole = Field(500, ge=1, description="EM steps of each restart at the most.")
    n_init: Whole = Field(1, ge=1, description="Restarts; the best is kept.")
    init_params: InitParams = Field("auto", description="How starts are found.")
    reg_covar: RegCovar = Field(
        "auto", description='Added to variances; "auto" follows the scale of the data.'
    )
    random_state: RandomState = Field(None, description="Seed of the fit; null draws a new one.")
    standardize: bool = Field(
        False, description="Bring every feature to mean 0 and standard deviation 1 first."
    )
    pca_components: PcaComponents = Field(
        None, description="Keep so many principal axes of the rows; null keeps all features."
    )
    description: str = Field("", max_length=4096)
    labels: Labels = Field({}, description="Labels to find the model by.")

    def change(self) -> ModelChange:
        given = self.model_fields_set
        return ModelChange(
            options={name: getattr(self, name) for name in OPTIONS if name in given},
            preprocessing={name: getattr(self, name) for name in PREPROCESSING if name in given},
            description=self.description if "description" in given else None,
            labels=self.labels if "labels" in given else None,
        )


PREPROCESSING = ("standardize", "pca_components")
OPTIONS = tuple(
    name
    for name in ModelFields.model_fields
    if name not in ("description", "labels", *PREPROCESSING)
)


class CreateModel(ModelFields):
    id: LegalId = Field(
        default_factory=str,  # empty, which no client can send
        description="Made by the server when it is left out.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "iris",
                    "n_components": 3,
                    "covariance_type": "full",
                    "n_init": 10,
                    "random_state": 0,
                    "labels": {"team": "botany"},
                }
            ]
        }
    )


class UpdateModel(ModelFields):
    model_config = ConfigDict(json_schema_extra=without_defaults)


class SampleRequest(Body):
    n_samples: Whole = Field(1, ge=1, description="Rows to draw.")
    random_state: RandomState = Field(None, description="Seed; the same seed draws the same rows.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"n_samples": 2, "random_state": 0}]})


class Hyperparameters(BaseModel):
    n_components: int
    covariance_type: CovarianceType
    tol: float
    max_iter: int
    n_init: int
    init_params: InitParams
    reg_covar: RegCovar
    random_state: RandomState
    standardize: bool
    pca_components: PcaComponents


class Named(BaseModel):
    id: str


class Model(Hyperparameters, Named):
    description: str
    labels: dict[str, str]
    status: Literal["created", "fitting", "fitted"]
    latest_version: int | None
    aliases: dict[str, int]
    feature_names: list[str] | None
    n_features: int | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, view: ModelView) -> Self:
        record, latest = view.record, view.latest
        return cls(
            **hyperparameters(record),
            id=record.id,
            description=record.description,
            labels=dict(record.labels),
            status=view.status.value,
            latest_version=None if latest is None else latest.number,
            aliases=dict(view.aliases),
            feature_names=None if latest is None else names_of(latest),
            n_features=None if latest is None else latest.summary.n_features,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class ModelList(BaseModel):
    models: list[Model]
    next_page_token: str | None


class FitWarning(BaseModel):
    code: str
    detail: str


class Criteria(BaseModel):
    """Every criterion of a mixture on rows. For bic, aic, aicc and icl lower is better."""

    n_samples: int | float = Field(
        description="The number of rows; of a weighted fit the sum of the weights."
    )
    n_parameters: int
    log_likelihood: float | None
    mean_log_likelihood: float | None
    bic: float | None
    aic: float | None
    aicc: float | None = Field(description="Null where it is not defined, for n ≤ p + 1.")
    icl: float | None


SPACES = ("original", "standardized", "principal")
Space = Annotated[
    str,
    Field(
        description="What log-likelihoods are densities over: rows as they come, or as the "
        "preprocessing maps them.",
    ),
    WithJsonSchema({"type": "string", "enum": list(SPACES)}),
]


class FitEnd(BaseModel):
    model: str
    version: int
    job: str
    converged: bool
    stop_reason: str
    n_iter: int


class FitResult(Criteria, FitEnd):
    """What a fit found out; of its parameters the weights."""

    n_features: int
    log_likelihood_history: list[float]
    weights: list[float]
    warnings: list[FitWarning]
    duration_seconds: float
    space: Space

    @classmethod
    def of(cls, summary: FitSummary, *, model: str, version: int, job: str) -> Self:
        return cls(
            model=model,
            version=version,
            job=job,
            converged=summary.converged,
            stop_reason=summary.stop_reason,
            n_iter=summary.n_iter,
            n_samples=whole(summary.n_samples),
            n_features=summary.n_features,
            n_parameters=summary.n_parameters,
            log_likelihood=summary.log_likelihood,
            mean_log_likelihood=summary.mean_log_likelihood,
            bic=summary.bic,
            aic=summary.aic,
            aicc=summary.aicc,
            icl=summary.icl,
            log_likelihood_history=list(summary.log_likelihood_history),
            weights=list(summary.weights),
            warnings=[FitWarning(code=w.code, detail=w.detail) for w in summary.warnings],
            duration_seconds=summary.duration_seconds,
            space=summary.space,
        )


class CandidateError(BaseModel):
    code: str
    detail: str


class Candidate(BaseModel):
    """One line of a selection's table; the figures are null where the candidate failed."""

    n_components: int
    covariance_type: CovarianceType
    rank: int | None = Field(description="1 is the best.")
    value: float | None = Field(description="The criterion.")
    origin: Literal["fresh", "split", "merge", "family"] = Field(
        description="Where its best run began: a start of its own, or a neighbour in the grid."
    )
    n_parameters: int | None
    log_likelihood: float | None
    mean_log_likelihood: float | None
    bic: float | None
    aic: float | None
    aicc: float | None
    icl: float | None
    held_out_log_likelihood: float | None = Field(
        description="Mean over rows that the fit did not see; null without cross-validation."
    )
    held_out_standard_error: float | None
    converged: bool | None
    n_iter: int | None
    warnings: list[FitWarning]
    error: CandidateError | None = Field(description="Why there is no result.")

    @classmethod
    def of(cls, record: CandidateRecord) -> Self:
        figures = record.figures
        known = {} if figures is None else {name: getattr(figures, name) for name in FIGURES}
        return cls(
            n_components=record.n_components,
            covariance_type=record.covariance_type,
            rank=record.rank,
            value=record.value,
            origin=cast("Literal['fresh', 'split', 'merge', 'family']", record.origin),
            **dict.fromkeys(FIGURES) | known,
            warnings=[]
            if figures is None
            else [FitWarning(code=w.code, detail=w.detail) for w in figures.warnings],
            error=None
            if record.failure is None
            else CandidateError(code=record.failure.code, detail=record.failure.detail),
        )


FIGURES = tuple(field.name for field in fields(CandidateFigures) if field.name != "warnings")


class BestCandidate(BaseModel):
    n_components: int
    covariance_type: CovarianceType
    value: float | None


class Selection(BaseModel):
    """Every candidate that was fitted, and the best of them."""

    criterion: Criterion
    n_folds: int | None = Field(description="Of the cross-validation; null without one.")
    complete: bool = Field(description="False where the time budget ended the search.")
    best: BestCandidate
    candidates: list[Candidate] = Field(
        description="By number of components, then in the order in which the families were named."
    )

    @classmethod
    def of(cls, record: SelectionRecord) -> Self:
        best = record.best
        return cls(
            criterion=record.plan.criterion,
            n_folds=record.plan.n_folds if record.plan.is_cross_validated else None,
            complete=record.is_complete,
            best=BestCandidate(
                n_components=best.n_components,
                covariance_type=best.covariance_type,
                value=best.value,
            ),
            candidates=list(map(Candidate.of, record.candidates)),
        )


class SelectionResult(FitResult):
    """What the fit of the best candidate found out, and the table that it won."""

    selection: Selection


class FitEstimate(BaseModel):
    """What a fit is expected to take; the fit itself is not begun."""

    model: str
    n_samples: int
    n_features: int
    n_components: int
    work: int = Field(description="Rows weighed by components, each time counted.")
    memory_bytes: int = Field(description="Of the arrays at their most, the rows included.")
    seconds: float = Field(
        description="Of fitting, on an otherwise idle machine: foretold by a pilot of the fit "
        "that takes half a second at the most."
    )
    seconds_at_most: float = Field(description="Were every step taken that the model allows.")
    uncertainty: float = Field(
        description="Factor, upwards and downwards, that `seconds` may well be off by: 1.5 where "
        "the pilot took the whole fit, more where the steps to convergence had to be foretold."
    )

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        return cls(
            model=estimate.model_id,
            n_samples=estimate.n_samples,
            n_features=estimate.n_features,
            n_components=estimate.n_components,
            work=estimate.work,
            memory_bytes=estimate.memory_bytes,
            seconds=estimate.seconds,
            seconds_at_most=estimate.seconds_at_most,
            uncertainty=estimate.uncertainty,
        )


class FitAnswer(RootModel[FitResult | FitEstimate]):
    """The result, or with `validate_only` the estimate."""


class Artifact(BaseModel):
    sha256: str
    size_bytes: int


class VersionSummary(BaseModel):
    model: str
    version: int
    job: str
    created_at: datetime
    n_components: int
    covariance_type: CovarianceType
    n_features: int
    n_samples: int | float
    converged: bool
    mean_log_likelihood: float | None
    bic: float | None

    @classmethod
    def of(cls, version: VersionRecord) -> Self:
        summary = version.summary
        return cls(
            model=version.model_id,
            version=version.number,
            job=version.job_id,
            created_at=version.created_at,
            n_components=version.options.n_components,
            covariance_type=version.covariance_type,
            n_features=summary.n_features,
            n_samples=whole(summary.n_samples),
            converged=summary.converged,
            mean_log_likelihood=summary.mean_log_likelihood,
            bic=summary.bic,
        )


class VersionList(BaseModel):
    versions: list[VersionSummary]
    next_page_token: str | None


class Version(BaseModel):
    model: str
    version: int
    created_at: datetime
    hyperparameters: Hyperparameters
    feature_names: list[str] | None
    fit: FitResult
    data_sha256: str = Field(description="Digest of the training rows and weights.")
    artifact: Artifact
    libraries: dict[str, str] = Field(description="Versions of the libraries that fitted it.")
    selection: Selection | None = Field(description="The table that it was chosen from.")

    @classmethod
    def of(cls, version: VersionRecord) -> Self:
        return cls(
            model=version.model_id,
            version=version.number,
            created_at=version.created_at,
            hyperparameters=Hyperparameters.model_validate(hyperparameters(version)),
            feature_names=names_of(version),
            fit=fit_result_of(version),
            data_sha256=version.data_digest,
            artifact=Artifact(sha256=version.artifact_digest, size_bytes=version.artifact_bytes),
            libraries=dict(version.libraries),
            selection=None if version.selection is None else Selection.of(version.selection),
        )


class PutAlias(Body):
    version: Whole = Field(ge=1, le=LARGEST_VERSION, description="The version that it shall name.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 1}]})


class Alias(BaseModel):
    model: str
    alias: str
    version: int
    updated_at: datetime

    @classmethod
    def of(cls, view: AliasView) -> Self:
        return cls(
            model=view.model_id,
            alias=view.name,
            version=view.version,
            updated_at=view.updated_at,
        )


class AliasList(BaseModel):
    aliases: list[Alias]


class AliasChange(BaseModel):
    action: Literal["set", "rollback", "delete"]
    version: int | None = Field(description="Named from then on; null once deleted.")
    changed_at: datetime


class AliasHistory(BaseModel):
    model: str
    alias: str
    history: list[AliasChange] = Field(description="Newest first.")

    @classmethod
    def of(cls, model_id: str, alias: AliasRecord) -> Self:
        changes = [
            AliasChange.model_validate(change, from_attributes=True)
            for change in reversed(alias.history)
        ]
        return cls(model=model_id, alias=alias.name, history=changes)


class ProblemIssue(BaseModel):
    pointer: str = Field(description="JSON pointer into the request, as a URI fragment.")
    code: str
    detail: str


class Problem(BaseModel):
    """A refusal, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None
    code: str = Field(description="Stable; decide by it.")
    request_id: str | None
    errors: list[ProblemIssue] = Field(description="The first twenty wrong places.")


class Leader(BaseModel):
    n_components: int
    covariance_type: CovarianceType
    value: float | None = Field(description="The criterion.")
    log_likelihood: float | None


class Leaderboard(BaseModel):
    n_candidates: int = Field(description="Of the whole grid.")
    leaders: list[Leader] = Field(description="Those with a result so far, the best first.")


class Progress(BaseModel):
    restart: int = Field(description="Of `n_init`; counts from 0.")
    run: int = Field(
        description="Of EM within the restart, counts from 0: `auto` tries several starts and goes "
        "on with the most promising ones; of many rows they are tried on a part. Only the steps of "
        "one run follow each other: their log-likelihood does not fall."
    )
    n_init: int
    iteration: int = Field(description="Of the run.")
    max_iter: int
    log_likelihood: float | None
    delta: float | None = Field(description="What the last step of the run has gained.")
    eta_seconds: float | None = Field(
        description="Were every step taken that the options allow, in all runs to come."
    )
    leaderboard: Leaderboard | None = Field(
        description="Of a selection; the rest is about the candidate being fitted."
    )

    @classmethod
    def of(cls, progress: JobProgress) -> Self:
        return cls.model_validate(progress, from_attributes=True)


class Job(BaseModel):
    id: str
    kind: Literal["fit", "select"]
    model: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
    done: bool
    progress: Progress | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: FitResult | None
    selection: Selection | None = Field(description="The table of a selection that succeeded.")
    error: Problem | None

    @classmethod
    def of(cls, job: JobRecord) -> Self:
        return cls(
            id=job.id,
            kind=job.kind,
            model=job.model_id,
            status=job.status.value,
            done=job.is_done,
            progress=None if job.progress is None else Progress.of(job.progress),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            result=job_result(job),
            selection=None if job.selection is None else Selection.of(job.selection),
            error=Problem.model_validate(problem_of(refusal_of(job))) if job.failure else None,
        )


class JobList(BaseModel):
    jobs: list[Job]
    next_page_token: str | None


class Health(BaseModel):
    status: Literal["live", "ready"]


class ServiceVersion(BaseModel):
    name: str
    version: str


class VersionAnswer(BaseModel):
    """What a version answers."""

    model: str
    version: int


class DataAnswerFields(VersionAnswer):
    """What a version answers in every format that data has."""


class PredictAnswer(DataAnswerFields):
    labels: list[int] = Field(description="Index of the most probable component of each row.")


class PredictProbaAnswer(DataAnswerFields):
    probabilities: list[list[float]] = Field(description="One row of responsibilities a row.")


class ScoreSamplesAnswer(DataAnswerFields):
    log_likelihood: list[float | None] = Field(description="log p(x) of each row, in nats.")


class ScoreAnswer(Criteria, DataAnswerFields):
    pass


class MetricAnswer(DataAnswerFields):
    metric: str
    value: float | None
    n_samples: int | float


class SampleAnswer(DataAnswerFields):
    X: list[list[float]]
    labels: list[int] = Field(description="Index of the component that each row was drawn from.")


class Silhouette(BaseModel):
    value: float = Field(description="From −1 to 1; the mean over the rows.")
    n_rows: int = Field(description="Measured; of many rows a random part.")
    standard_error: float | None = Field(description="Of a random part; null where all were.")


class ComponentDiagnostics(BaseModel):
    weight: float
    size: int = Field(description="Rows that it is the most probable component of.")
    effective_size: float = Field(description="Rows that it has a share of: Σγ.")
    condition_number: float = Field(description="Of its covariance.")


class LowRow(BaseModel):
    row: int = Field(description="Counts from 0.")
    log_likelihood: float
    label: int


class DiagnosticsAnswer(VersionAnswer):
    n_samples: int
    space: Space
    components: list[ComponentDiagnostics]
    overlap: list[list[float]] = Field(
        description="Bhattacharyya's coefficient of every two components: 1 is the same density."
    )
    entropy_mean: float
    entropy_max: float
    silhouette: Silhouette | None = Field(description="Null without two clusters.")
    adjusted_rand_index: float | None = Field(description="Null without true labels.")
    adjusted_mutual_information: float | None
    lowest_density: list[LowRow] = Field(description="The lowest first.")
    labels: list[int] = Field(description="Of each row.")
    entropy: list[float] = Field(description="−Σγ ln γ of each row, in nats.")
    log_likelihood: list[float] = Field(description="log p(x) of each row, in nats.")


class ClusteringSide(BaseModel):
    labels: list[int]
    centers: list[list[float]]
    inertia: float = Field(description="Σ‖x − centre‖² over the rows.")
    silhouette: Silhouette | None


class KMeansSide(ClusteringSide):
    n_iter: int


class ComparisonAnswer(VersionAnswer):
    n_samples: int
    space: Space
    n_components: int
    mixture: ClusteringSide = Field(description="Its centres are the components' means.")
    kmeans: KMeansSide
    adjusted_rand_index: float
    adjusted_mutual_information: float
    n_differing: int
    differing: list[int] = Field(description="The rows that the two label differently, from 0.")


class Parameters(VersionAnswer):
    space: Space
    covariance_type: CovarianceType
    weights: list[float] = Field(description="(K,)")
    means: list[list[float]] = Field(description="(K, D)")
    covariances: list[object] = Field(
        description="full (K, D, D), tied (D, D), diag (K, D), spherical (K,)"
    )
    precisions: list[object] = Field(description="Their inverses, in the same shape.")
    precisions_cholesky: list[object] = Field(
        description="Factors U with precisions = U Uᵀ, upper triangular; 1/σ for diag and "
        "spherical. Where features are nearly collinear they hold digits that covariances can't."
    )
    center: list[float] = Field(
        [], description="(D,) Subtracted from the rows first; left out without preprocessing."
    )
    scale: list[float] = Field([], description="(D,) What they are divided by then.")
    axes: list[list[float]] = Field(
        [], description="(D, n) Principal axes that they are laid along then; left out without."
    )
    variance_ratio: list[float] = Field(
        [], description="(n,) The share of the variance along each axis."
    )


def hyperparameters(record: ModelRecord | VersionRecord) -> Mapping[str, object]:
    return {name: getattr(record.options, name) for name in OPTIONS} | {
        name: getattr(record.preprocessing, name) for name in PREPROCESSING
    }


def names_of(version: VersionRecord) -> list[str] | None:
    return None if version.feature_names is None else list(version.feature_names)


def whole(number: float) -> int | float:
    """Write 150.0 rows as 150; a sum of weights may have a fraction."""
    return int(number) if number.is_integer() else number


def fit_result_of(version: VersionRecord) -> FitResult:
    return FitResult.of(
        version.summary, model=version.model_id, version=version.number, job=version.job_id
    )


def selection_result(job: JobRecord) -> SelectionResult | None:
    fit = job_result(job)
    if fit is None or job.selection is None:
        return None
    return SelectionResult(**dict(fit), selection=Selection.of(job.selection))


def job_result(job: JobRecord) -> FitResult | None:
    if job.summary is None or job.version is None:
        return None
    return FitResult.of(job.summary, model=job.model_id, version=job.version, job=job.id)
