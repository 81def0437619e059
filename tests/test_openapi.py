"""The committed contract is the one the code has, and fit for generators of clients."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import pytest
from pydantic import BaseModel

from service import __version__
from service.api import examples, schemas
from service.api.payloads import FORMATS
from service.main import contract
from tests.service.client import serving

COMMITTED = Path(__file__).parent.parent / "openapi.json"
DOCUMENT = orjson.loads(contract())
METHODS = ("get", "post", "put", "patch", "delete")

# The table of the contract: method, path, operationId.
PROMISED = """
POST /models create_model
GET /models list_models
GET /models/{id} get_model
PATCH /models/{id} update_model
DELETE /models/{id} delete_model
POST /models/{id}/fit fit_model
POST /models/{id}/predict predict
POST /models/{id}/predict_proba predict_proba
POST /models/{id}/score_samples score_samples
POST /models/{id}/score score
POST /models/{id}/score/{metric} score_metric
GET /models/{id}/score/{metric} get_training_score
GET /models/{id}/score get_training_scores
POST /models/{id}/sample sample
GET /models/{id}/parameters get_parameters
GET /models/{id}/versions list_versions
GET /models/{id}/versions/{n} get_version
DELETE /models/{id}/versions/{n} delete_version
GET /models/{id}/versions/{n}/artifact download_artifact
POST /models/{id}/versions/{n}/predict predict_with_version
POST /predict predict_bare
POST /predict_proba predict_proba_bare
POST /score_samples score_samples_bare
POST /score score_bare
POST /score/{metric} score_metric_bare
GET /models/{id}/aliases list_aliases
PUT /models/{id}/aliases/{alias} put_alias
GET /models/{id}/aliases/{alias} get_alias
DELETE /models/{id}/aliases/{alias} delete_alias
GET /models/{id}/aliases/{alias}/history get_alias_history
POST /models/{id}/aliases/{alias}/rollback rollback_alias
GET /models/{id}/plots/{kind} get_plot
POST /models/{id}/plots/{kind} plot_rows
GET /jobs list_jobs
GET /jobs/{id} get_job
POST /jobs/{id}/cancel cancel_job
GET /livez livez
GET /readyz readyz
GET /version version
GET /v2 server_metadata
GET /v2/health/live server_live
GET /v2/health/ready server_ready
GET /v2/models/{id} model_metadata
GET /v2/models/{id}/versions/{n} model_metadata_with_version
GET /v2/models/{id}/ready model_ready
GET /v2/models/{id}/versions/{n}/ready model_ready_with_version
POST /v2/models/{id}/infer model_infer
POST /v2/models/{id}/versions/{n}/infer model_infer_with_version
POST /v2/repository/index repository_index
POST /v2/repository/models/{id}/load load_model
POST /v2/repository/models/{id}/unload unload_model
GET /v2/models/stats server_statistics
GET /v2/models/{id}/stats model_statistics
"""


def operations() -> Iterator[tuple[str, str, Mapping[str, object]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in methods:
                yield method.upper(), path, methods[method]


def every_object(node: object) -> Iterator[dict[str, object]]:
    if isinstance(node, dict):
        yield node
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from every_object(inner)


def test_the_committed_contract_is_the_one_of_the_code() -> None:
    assert COMMITTED.read_bytes() == contract(), "run: gmm-service openapi --output openapi.json"


def test_the_service_serves_the_same_contract() -> None:
    with serving() as client:
        assert client.get("/openapi.json").content == contract()


def test_it_is_openapi_3_1_of_this_version() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert DOCUMENT["info"]["version"] == __version__


@pytest.mark.parametrize("promise", PROMISED.strip().splitlines())
def test_a_promised_operation_is_there(promise: str) -> None:
    method, path, operation_id = promise.split()

    assert DOCUMENT["paths"][path][method.lower()]["operationId"] == operation_id


def test_every_operation_has_a_name_of_its_own_and_one_tag() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z_]+", str(name)) for name in names)
    known = {tag["name"] for tag in DOCUMENT["tags"]}
    for _, _, operation in operations():
        tags = operation["tags"]
        assert isinstance(tags, list)
        assert len(tags) == 1
        assert set(tags) <= known


def test_every_body_and_answer_has_an_example_and_a_named_schema() -> None:
    for method, path, operation in operations():
        for content in json_contents(operation):
            schema = content["schema"]
            assert isinstance(schema, dict)
            assert set(schema) == {"$ref"}, (method, path)
            has_example = content.get("example") or content.get("examples")
            assert schema in NOT_IN_JSON or has_example, (method, path)


NOT_IN_JSON = [
    {"$ref": f"#/components/schemas/{name}"}
    for name in ("Columns", "Image", "Tensors", "ParameterFile")
]
"""What can't be shown in JSON."""


WITHOUT_BODY = {"204", "304"}
WITHOUT_SCHEMA = "text/event-stream"
"""OpenAPI 3.1 leaves open whether that were of the text or of each event; there is an example."""


def test_every_answer_that_may_have_a_body_says_of_what_type_and_shape() -> None:
    for method, path, operation in operations():
        responses = operation["responses"]
        assert isinstance(responses, dict)
        for status in responses.keys() - WITHOUT_BODY:
            contents = responses[status].get("content", {})
            assert contents, (method, path, status)
            for media_type, content in contents.items():
                assert ("schema" in content) == (media_type != WITHOUT_SCHEMA), (path, media_type)


def test_a_parameter_file_comes_as_bytes() -> None:
    path = DOCUMENT["paths"]["/models/{id}/versions/{n}/artifact"]
    content = path["get"]["responses"]["200"]["content"]

    assert content.keys() == {"application/octet-stream"}
    assert content["application/octet-stream"]["schema"] == {
        "$ref": "#/components/schemas/ParameterFile"
    }
    schema = DOCUMENT["components"]["schemas"]["ParameterFile"]
    assert (schema["type"], schema["format"]) == ("string", "binary")


def test_every_operation_names_what_is_refused_before_it_is_known() -> None:
    for method, path, operation in operations():
        responses = operation["responses"]
        assert isinstance(responses, dict)
        assert {"408", "431", "503"} <= responses.keys(), (method, path)


def test_every_data_format_is_in_the_contract_both_ways() -> None:
    predict = DOCUMENT["paths"]["/models/{id}/predict"]["post"]

    for contents in (predict["requestBody"]["content"], predict["responses"]["200"]["content"]):
        assert list(contents) == [each.media_type for each in FORMATS]


def json_contents(operation: Mapping[str, object]) -> Iterator[dict[str, object]]:
    for node in every_object([operation.get("requestBody", {}), operation["responses"]]):
        for content in every_object(node.get("content")):
            if "schema" in content:
                yield content


def test_the_nulls_of_an_example_are_there() -> None:
    answer = DOCUMENT["paths"]["/jobs/{id}"]["get"]["responses"]["200"]["content"]

    assert answer["application/json"]["example"] == examples.JOB


def test_every_operation_lists_its_refusals_in_the_shape_of_its_face() -> None:
    for method, path, operation in operations():
        responses = operation["responses"]
        assert isinstance(responses, dict)
        refusals = {status: body for status, body in responses.items() if status >= "400"}
        assert refusals, (method, path)
        for body in refusals.values():
            media_type, name = refusal_under(path)
            assert set(body["content"]) == {media_type}
            schema = body["content"][media_type]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{name}"}


def refusal_under(path: str) -> tuple[str, str]:
    """Return the media type and the schema that refusals under a path have."""
    if path.startswith("/v2"):
        return "application/json", "OpenInferenceError"
    return "application/problem+json", "Problem"


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    targets = {node["$ref"] for node in every_object(DOCUMENT) if "$ref" in node}
    there = {
        f"#/components/{kind}/{name}"
        for kind, components in DOCUMENT["components"].items()
        for name in components
    }

    assert targets == there


def test_requests_hold_no_choice_between_a_type_and_null() -> None:
    for _, _, operation in operations():
        inputs = [operation.get("parameters"), operation.get("requestBody")]
        assert not [node for node in every_object(inputs) if {"type": "null"} in node.values()]
    for name in ("CreateModel", "UpdateModel", "PutAlias", "SampleRequest", "Rows", "TrainingData"):
        for node in every_object(DOCUMENT["components"]["schemas"][name]):
            assert {"type": "null"} not in list_of(node.get("anyOf"))


def list_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def test_an_update_has_no_defaults() -> None:
    schema = DOCUMENT["components"]["schemas"]["UpdateModel"]

    assert not [node for node in every_object(schema["properties"]) if "default" in node]


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        (schemas.Model, examples.MODEL),
        (schemas.FitResult, examples.FIT_RESULT),
        (schemas.FitEstimate, examples.FIT_ESTIMATE),
        (schemas.Job, examples.QUEUED_JOB),
        (schemas.Job, examples.JOB),
        (schemas.Version, examples.VERSION),
        (schemas.VersionSummary, examples.VERSION_SUMMARY),
        (schemas.Alias, examples.ALIAS),
        (schemas.AliasHistory, examples.ALIAS_HISTORY),
        (schemas.PredictAnswer, examples.PREDICT),
        (schemas.PredictProbaAnswer, examples.PREDICT_PROBA),
        (schemas.ScoreSamplesAnswer, examples.SCORE_SAMPLES),
        (schemas.ScoreAnswer, examples.SCORE),
        (schemas.MetricAnswer, examples.METRIC),
        (schemas.Parameters, examples.PARAMETERS),
        (schemas.SampleAnswer, examples.SAMPLE),
    ],
)
def test_an_example_is_what_its_schema_says(
    schema: type[BaseModel], example: Mapping[str, object]
) -> None:
    assert set(example) == set(schema.model_fields)
    schema.model_validate(example)


def test_the_examples_of_the_requests_work() -> None:
    with serving() as client:
        for path, sent in (
            ("/models", "CreateModel"),
            ("/models/iris/fit", "TrainingData"),
            ("/models/iris/predict", "Rows"),
            ("/predict", "RowsOfModel"),
            ("/models/iris/sample", "SampleRequest"),
        ):
            response = client.post(path, example_of(sent))
            assert response.status_code in (200, 201), response.text


def example_of(schema: str) -> object:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return next(
        node["example"]
        for node in every_object(DOCUMENT["paths"])
        if node.get("schema") == reference
    )


def test_the_page_for_people_needs_no_network_and_no_script() -> None:
    with serving() as client:
        response = client.get("/docs")

    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in response.text
    assert "//" not in response.text.replace("application//", "")
    for _, _, operation in operations():
        assert f"<code>{operation['operationId']}</code>" in response.text
