"""Bodies of the Open Inference Protocol, for ``openapi.json``; tensors never pass through here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from service.api.open_inference import examples
from service.domain.served_models import ServedModel

Datatype = Literal["FP64", "FP32", "INT64"]


class OpenInferenceError(BaseModel):
    """A refusal under ``/v2``."""

    error: str


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ServerHealth(BaseModel):
    live: bool
    ready: bool


class TensorMetadata(BaseModel):
    name: str
    datatype: Datatype
    shape: list[int] = Field(description="-1 stands for any number of rows.")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReadiness(BaseModel):
    name: str
    ready: bool


class IndexedModel(BaseModel):
    name: str
    version: str = Field(description="The one that answers by default; empty when none does.")
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class RepositoryIndex(RootModel[list[IndexedModel]]):
    """Every model, by name."""


def indexed(model: ServedModel) -> IndexedModel:
    return IndexedModel(
        name=model.model_id,
        version="" if model.version is None else str(model.version.number),
        state="UNAVAILABLE" if model.version is None else "READY",
        reason=model.reason,
    )


class WantedIndex(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ready": True}]})

    ready: bool = Field(False, description="List only the models that answer.")


class LoadParameters(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"parameters": {}}]})

    parameters: dict[str, object] = Field({}, description="No `config` and no `file:`.")


class RequestInput(BaseModel):
    name: Literal["X"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=2, max_length=2, description="Rows and features."
    )
    datatype: Literal["FP64", "FP32"]
    parameters: dict[str, object] | None = Field(
        None, description="`binary_data_size` when the numbers follow the JSON part as bytes."
    )
    data: list[object] = Field([], description="The numbers, nested or flat, row by row.")


class RequestOutput(BaseModel):
    name: Literal["predict", "predict_proba", "score_samples"]
    parameters: dict[str, object] | None = Field(
        None, description="`binary_data`: answer as bytes."
    )


class InferenceRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.REQUEST]})

    id: str | None = Field(None, description="Comes back in the answer.")
    parameters: dict[str, object] | None = Field(
        None, description="`binary_data_output`: answer every output as bytes."
    )
    inputs: list[RequestInput] = Field(min_length=1, max_length=1)
    outputs: list[RequestOutput] | None = Field(
        None, description="What to answer; `predict` and `predict_proba` without it."
    )


class AnsweredOutput(BaseModel):
    name: str
    shape: list[int]
    datatype: Datatype
    parameters: dict[str, int] = Field({}, description="`binary_data_size` of what is bytes.")
    data: list[float] = Field([], description="The numbers, flat, row by row.")


class InferenceAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str = Field("", description="The request's, if it had one.")
    outputs: list[AnsweredOutput]


class Duration(BaseModel):
    count: int
    ns: int


class InferenceDurations(BaseModel):
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class ModelStatistics(BaseModel):
    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 when there was none.")
    inference_count: int = Field(description="Rows that were answered.")
    execution_count: int = Field(description="Requests that were answered.")
    inference_stats: InferenceDurations
    batch_stats: list[object]


class ServerStatistics(BaseModel):
    model_stats: list[ModelStatistics]
