"""What is wrong with a request, and what it is answered: one table.

Every row is sent as raw bytes. Each answer must be a problem of the one shape, small, and without
the marks that the rows plant in their values.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from service.api.payloads import CODECS
from service.settings import Settings
from tests.service.client import JSON_HEADERS, Client, serving
from tests.service.rows import TWO_GROUPS

MARK = "xqz7"
"""Planted in values; an answer that holds it echoes what it was sent."""
PYDANTIC_S_WORDS = "Input should|should match|valid dictionary|valid integer|can't be this"
MAX_PROBLEM_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024

MODELS = "/models"
MODEL = "/models/groups"
FIT = "/models/groups/fit"
PREDICT = "/models/groups/predict"
SCORE = "/models/groups/score"
SAMPLE = "/models/groups/sample"

DEEP = b"[" * 17 + b"]" * 17
MANY_WRONG = b'{"X":[[' + b",".join([b'"xqz7"'] * 5000) + b"]]}"


@dataclass(frozen=True, slots=True)
class Row:
    method: str
    path: str
    body: bytes | None
    status: int
    code: str
    pointer: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_HEADERS)


def post(path: str, body: bytes | str, status: int, code: str, pointer: str | None = None) -> Row:
    content = body.encode() if isinstance(body, str) else body
    return Row("POST", path, content, status, code, pointer)


def get(path: str, status: int, code: str, pointer: str | None = None) -> Row:
    return Row("GET", path, None, status, code, pointer, {})


def sent(headers: Mapping[str, str], status: int, code: str, body: bytes = b'{"X":[[1,2]]}') -> Row:
    return Row("POST", PREDICT, body, status, code, None, headers)


MALFORMED = [
    post(PREDICT, b"", 400, "malformed_json"),
    post(PREDICT, b"   ", 400, "malformed_json"),
    post(PREDICT, b"{", 400, "malformed_json"),
    post(PREDICT, b'{"X":[[1,2]]', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[1,2]]}}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[1,2]]} xqz7', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[1,2],]}', 400, "malformed_json"),
    post(PREDICT, b"{'X':[[1,2]]}", 400, "malformed_json"),
    post(PREDICT, b'{"X":[[01,2]]}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[+1,2]]}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[1.,2]]}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[0x1,2]]}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[NaN,2]]}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[1,Infinity]]}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[[1,-Infinity]]}', 400, "malformed_json"),
    post(PREDICT, b'\xef\xbb\xbf{"X":[[1,2]]}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[["\\ud800",2]]}', 400, "malformed_json"),
    post(PREDICT, b'{"\\udfff":1}', 400, "malformed_json"),
    post(PREDICT, b'{"X":[["\xff\xfe",2]]}', 400, "not_utf8"),
    post(PREDICT, b'{"X":[["\xed\xa0\x80",2]]}', 400, "not_utf8"),
    post(PREDICT, '{"X":[[1,2]]}'.encode("utf-16"), 400, "not_utf8"),
    post(PREDICT, b'{"X":[[1,2]],"X":[[3,4]]}', 400, "duplicate_key"),
    post(PREDICT, b'{"X":[[1,2]],"\\u0058":[[3,4]]}', 400, "duplicate_key"),
    post(PREDICT, b'{"X":[[1,2]],"instances":[{"a":1,"a":2}]}', 400, "duplicate_key"),
    post(MODELS, b'{"n_components":2,"n_components":3}', 400, "duplicate_key"),
    post(MODELS, b'{"labels":{"a":"1","a":"2"}}', 400, "duplicate_key"),
    post(PREDICT, b'{"X":' + DEEP + b"}", 400, "nesting_too_deep"),
    post(MODELS, b'{"labels":' + DEEP + b"}", 400, "nesting_too_deep"),
    post(MODELS, b'{"labels":' + b'{"a":' * 20 + b"1" + b"}" * 21, 400, "nesting_too_deep"),
    post(PREDICT, b'{"X":' + b"[" * 3000 + b"]" * 3000 + b"}", 400, "nesting_too_deep"),
    post(PREDICT, b'{"X":' + b"[" * 17, 400, "nesting_too_deep"),
    post(PREDICT, b'{"X":' + b"[" * 15, 400, "malformed_json"),
    post(PREDICT, b'{"X":"' + b"[" * 17, 400, "malformed_json"),
    post(PREDICT, b"[" * 60_000, 400, "nesting_too_deep"),
    post(PREDICT, b'"' + b'\\"' * 30_000, 400, "malformed_json"),
    post(PREDICT, b'{"X":[[1,-NaN]]}', 400, "malformed_json"),
]

ROWS = [
    post(PREDICT, b"[[1,2]]", 422, "invalid_parameter", "#"),
    post(PREDICT, b"null", 422, "invalid_parameter", "#"),
    post(PREDICT, b'"xqz7"', 422, "invalid_parameter", "#"),
    post(PREDICT, b"{}", 422, "invalid_parameter", "#"),
    post(PREDICT, b'{"X":null}', 422, "invalid_parameter", "#/X"),
    post(PREDICT, b'{"X":"xqz7"}', 422, "invalid_parameter", "#/X"),
    post(PREDICT, b'{"X":{"a":[1,2]}}', 422, "invalid_parameter", "#/X"),
    post(PREDICT, b'{"X":[]}', 422, "empty_data"),
    post(PREDICT, b'{"X":[[]]}', 422, "empty_data"),
    post(PREDICT, b'{"X":[[],[]]}', 422, "empty_data"),
    post(PREDICT, b'{"X":[1,2]}', 422, "invalid_data", "#/X/0"),
    post(PREDICT, b'{"X":[[1,2],3]}', 422, "invalid_data", "#/X/1"),
    post(PREDICT, b'{"X":[[1,2],{"a":1}]}', 422, "invalid_data", "#/X/1"),
    post(PREDICT, b'{"X":[[1,2],[3]]}', 422, "ragged_rows", "#/X/1"),
    post(PREDICT, b'{"X":[[1,2],[3,4],[5,6,7]]}', 422, "ragged_rows", "#/X/2"),
    post(PREDICT, b'{"X":[[1,2],[]]}', 422, "ragged_rows", "#/X/1"),
    post(PREDICT, b'{"X":[[1,"xqz7"]]}', 422, "invalid_data", "#/X/0/1"),
    post(PREDICT, b'{"X":[[1,"2"]]}', 422, "invalid_data", "#/X/0/1"),
    post(PREDICT, b'{"X":[[1,2],[true,4]]}', 422, "invalid_data", "#/X/1/0"),
    post(PREDICT, b'{"X":[[1,[2]]]}', 422, "invalid_data", "#/X/0/1"),
    post(PREDICT, b'{"X":[[1,{}]]}', 422, "invalid_data", "#/X/0/1"),
    post(PREDICT, b'{"X":[[1,2],[3,null]]}', 422, "non_finite_number", "#/X/1/1"),
    post(PREDICT, b'{"X":[[1,1e400]]}', 422, "non_finite_number", "#/X/0/1"),
    post(PREDICT, b'{"X":[[1,2],[-1e400,2]]}', 422, "non_finite_number", "#/X/1/0"),
    post(PREDICT, b'{"X":[[1,1' + b"0" * 400 + b"]]}", 422, "non_finite_number", "#/X/0/1"),
    post(PREDICT, b'{"X":[[1,1e300]]}', 422, "value_out_of_range"),
    post(PREDICT, MANY_WRONG, 422, "invalid_data", "#/X/0/0"),
    post(PREDICT, b'{"X":[[1,2,3]]}', 422, "dimension_mismatch"),
    post(PREDICT, b'{"X":[[1]]}', 422, "dimension_mismatch"),
    post(PREDICT, b'{"X":[[1,2]],"xqz":1}', 422, "invalid_parameter", "#/xqz"),
    post(PREDICT, b'{"X":[[1,2]],"a b":1}', 422, "invalid_parameter", "#"),
    post(PREDICT, b'{"X":[[1,2]],"instances":[[1,2]]}', 422, "invalid_parameter", "#"),
    post(PREDICT, b'{"X":[[1,2]],"model":"groups"}', 422, "invalid_parameter", "#/model"),
    post(PREDICT, b'{"X":[[1,2]],"sample_weight":[1]}', 422, "invalid_parameter"),
    post(PREDICT, b'{"data":[[1,2]],"columns":"xqz7"}', 422, "invalid_parameter", "#/columns"),
    post(PREDICT, b'{"data":[[1,2]],"columns":["a",1.5]}', 422, "invalid_parameter", "#/columns/1"),
    post(PREDICT, b'{"data":[[1,2]],"columns":["a"]}', 422, "dimension_mismatch"),
    post(PREDICT, b'{"data":[[1,2]],"columns":["a","a"]}', 422, "invalid_parameter"),
    post(PREDICT, b'{"data":[[1,2]],"columns":["a",""]}', 422, "invalid_parameter"),
    post("/predict", b'{"X":[[1,2]],"model":7}', 422, "invalid_parameter", "#/model"),
    post(SCORE, b'{"X":[[1,2],[3]]}', 422, "ragged_rows", "#/X/1"),
    post(SCORE + "/bic", b'{"X":[["xqz7",2]]}', 422, "invalid_data", "#/X/0/0"),
]

FITS = [
    post(FIT, b'{"X":[[1,2]]}', 422, "too_few_samples"),
    post(FIT, b'{"X":[[1,2],[3,4]],"sample_weight":[1,0]}', 422, "too_few_samples"),
    post(FIT, b'{"X":[[1,2],[3,4]],"sample_weight":[1]}', 422, "dimension_mismatch"),
    post(FIT, b'{"X":[[1,2],[3,4]],"sample_weight":[1,-1]}', 422, "invalid_parameter"),
    post(FIT, b'{"X":[[1,2],[3,4]],"sample_weight":[0,0]}', 422, "invalid_parameter"),
    post(FIT, b'{"X":[[1,2],[3,4]],"sample_weight":[1,"xqz7"]}', 422, "invalid_data"),
    post(FIT, b'{"X":[[1,2],[3,4]],"sample_weight":7}', 422, "invalid_parameter"),
    post(FIT, b'{"X":[[1,2],[3,4]],"feature_names":["a"]}', 422, "dimension_mismatch"),
    post(FIT, b'{"X":[[1,2],[3,4]],"feature_names":["a",1]}', 422, "invalid_parameter"),
    post(FIT, b'{"X":[[1,2],[3,4]],"feature_names":["a",null]}', 422, "invalid_parameter"),
    post(FIT, b'{"X":[[1,2],[3,null]]}', 422, "non_finite_number", "#/X/1/1"),
    post(FIT, b'{"X":[[1,2],[3,4]],"y":[0,1]}', 422, "invalid_parameter", "#/y"),
    post(FIT + "?xqz7=1", b'{"X":[[1,2],[3,4]]}', 422, "invalid_parameter", "#/query"),
    post(FIT + "?wait=xqz7", b'{"X":[[1,2],[3,4]]}', 422, "invalid_parameter", "#/query/wait"),
    post(FIT + "?wait=-1", b'{"X":[[1,2],[3,4]]}', 422, "invalid_parameter", "#/query/wait"),
    post(FIT + "?wait=nan", b'{"X":[[1,2],[3,4]]}', 422, "invalid_parameter", "#/query/wait"),
    post("/models/wide/fit", b'{"X":' + b"[[1,2]]" + b"}", 404, "model_not_found"),
]

DECLARATIONS = [
    post(MODELS, b"[]", 422, "invalid_parameter", "#"),
    post(MODELS, b'{"id":"Iris"}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":""}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":"-xqz7"}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":"a/b"}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":"../xqz7"}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":"a\\u0000b"}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":"a\\n"}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":"' + b"a" * 64 + b'"}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":"stats"}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":null}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"id":7}', 422, "invalid_parameter", "#/id"),
    post(MODELS, b'{"n_components":0}', 422, "invalid_parameter", "#/n_components"),
    post(MODELS, b'{"n_components":-3}', 422, "invalid_parameter", "#/n_components"),
    post(MODELS, b'{"n_components":"3"}', 422, "invalid_parameter", "#/n_components"),
    post(MODELS, b'{"n_components":3.5}', 422, "invalid_parameter", "#/n_components"),
    post(MODELS, b'{"n_components":1e300}', 422, "invalid_parameter", "#/n_components"),
    post(MODELS, b'{"random_state":99999999999999999999}', 422, "invalid_parameter"),
    post(MODELS, b'{"reg_covar":true}', 422, "invalid_parameter", "#/reg_covar"),
    post(MODELS, b'{"reg_covar":null}', 422, "invalid_parameter", "#/reg_covar"),
    post(MODELS, b'{"labels":{"":"c"}}', 422, "invalid_parameter", "#/labels"),
    post(MODELS, b'{"n_components":true}', 422, "invalid_parameter", "#/n_components"),
    post(MODELS, b'{"n_components":null}', 422, "invalid_parameter", "#/n_components"),
    post(MODELS, b'{"n_components":1e400}', 422, "non_finite_number", "#/n_components"),
    post(MODELS, b'{"n_components":1025}', 422, "invalid_parameter", "#/n_components"),
    post(MODELS, b'{"covariance_type":"xqz7"}', 422, "invalid_parameter", "#/covariance_type"),
    post(MODELS, b'{"covariance_type":["full"]}', 422, "invalid_parameter", "#/covariance_type"),
    post(MODELS, b'{"init_params":"xqz7"}', 422, "invalid_parameter", "#/init_params"),
    post(MODELS, b'{"tol":-1}', 422, "invalid_parameter", "#/tol"),
    post(MODELS, b'{"tol":"xqz7"}', 422, "invalid_parameter", "#/tol"),
    post(MODELS, b'{"max_iter":0}', 422, "invalid_parameter", "#/max_iter"),
    post(MODELS, b'{"max_iter":100001}', 422, "invalid_parameter", "#/max_iter"),
    post(MODELS, b'{"n_init":101}', 422, "invalid_parameter", "#/n_init"),
    post(MODELS, b'{"reg_covar":"xqz7"}', 422, "invalid_parameter", "#/reg_covar"),
    post(MODELS, b'{"reg_covar":-1e-6}', 422, "invalid_parameter", "#/reg_covar"),
    post(MODELS, b'{"random_state":-1}', 422, "invalid_parameter", "#/random_state"),
    post(MODELS, b'{"random_state":1.5}', 422, "invalid_parameter", "#/random_state"),
    post(MODELS, b'{"labels":{"a":1}}', 422, "invalid_parameter", "#/labels/a"),
    post(MODELS, b'{"labels":{"a:b":"c"}}', 422, "invalid_parameter", "#/labels"),
    post(MODELS, b'{"labels":["xqz7"]}', 422, "invalid_parameter", "#/labels"),
    post(MODELS, b'{"description":"' + b"x" * 4097 + b'"}', 422, "invalid_parameter"),
    post(MODELS, b'{"status":"fitted"}', 422, "invalid_parameter", "#/status"),
    post(MODELS, b'{"xqz 7":1}', 422, "invalid_parameter", "#"),
    Row("PATCH", MODEL, b'{"id":"other"}', 422, "invalid_parameter", "#/id"),
    Row("PATCH", MODEL, b'{"n_components":0}', 422, "invalid_parameter", "#/n_components"),
    Row("PATCH", "/models/nowhere", b"{}", 404, "model_not_found"),
    post(SAMPLE, b'{"n_samples":0}', 422, "invalid_parameter", "#/n_samples"),
    post(SAMPLE, b'{"n_samples":"2"}', 422, "invalid_parameter", "#/n_samples"),
    post(SAMPLE, b'{"n_samples":10000001}', 422, "work_budget_exceeded", "#/n_samples"),
    post(SAMPLE, b'{"seed":1}', 422, "invalid_parameter", "#/seed"),
]

PLACES = [
    get("/xqz7", 404, "not_found"),
    get("/models/", 404, "not_found"),
    get("/models/nowhere", 404, "model_not_found"),
    get("/models/XQZ7", 404, "model_not_found"),
    get("/models/..%2f..%2fetc", 404, "not_found"),
    get("/models/%00", 404, "model_not_found"),
    get("/models/a%0a", 404, "model_not_found"),
    get("/models/stats", 404, "model_not_found"),
    get(f"/models/{'a' * 64}", 404, "model_not_found"),
    get("/models/groups/versions/2", 404, "version_not_found"),
    get("/models/groups/versions/0", 404, "version_not_found"),
    get("/models/groups/versions/-1", 404, "version_not_found"),
    get("/models/groups/versions/xqz7", 404, "version_not_found"),
    get("/models/groups/versions/01", 404, "version_not_found"),
    get("/models/groups/versions/1.0", 404, "version_not_found"),
    get("/models/groups/versions/+1", 404, "version_not_found"),
    get("/models/groups/versions/%201", 404, "version_not_found"),
    get("/models/groups/versions/1%0a", 404, "version_not_found"),
    post("/models/groups/versions/01/predict", b'{"X":[[1,2]]}', 404, "version_not_found"),
    Row("DELETE", "/models/groups/versions/01", None, 404, "version_not_found", None, {}),
    get(f"/models/groups/versions/{'9' * 5000}", 404, "version_not_found"),
    get("/models/groups/versions/2/artifact", 404, "version_not_found"),
    get("/models/groups/score/xqz7", 404, "metric_not_found"),
    get("/jobs/nowhere", 404, "job_not_found"),
    get("/jobs/XQZ7", 404, "job_not_found"),
    get("/models?page_size=0", 422, "invalid_parameter", "#/query/page_size"),
    get("/models?page_size=1001", 422, "invalid_parameter", "#/query/page_size"),
    get("/models?page_size=xqz7", 422, "invalid_parameter", "#/query/page_size"),
    get("/models?page_token=xqz7", 422, "invalid_parameter", "#/query/page_token"),
    get("/models?page_token=bnVsbA", 422, "invalid_parameter", "#/query/page_token"),
    get("/models?page_token=%ff%00", 422, "invalid_parameter", "#/query/page_token"),
    get("/models?page_size=1.0", 422, "invalid_parameter", "#/query/page_size"),
    get("/models?page_size=1&page_size=2", 422, "invalid_parameter", "#/query/page_size"),
    get("/models?order_by=id&order_by=id", 422, "invalid_parameter", "#/query/order_by"),
    get("/jobs?model=a&model=b", 422, "invalid_parameter", "#/query/model"),
    get("/jobs/x?wait=0&wait=1", 422, "invalid_parameter", "#/query/wait"),
    get("/models?order_by=xqz7", 422, "invalid_parameter", "#/query/order_by"),
    get("/models?label=xqz7", 422, "invalid_parameter", "#/query/label"),
    get("/models?xqz7=1", 422, "invalid_parameter", "#/query"),
    get("/jobs?status=xqz7", 422, "invalid_parameter", "#/query/status"),
    get("/livez?xqz7", 422, "invalid_parameter", "#/query"),
    post("/models/nowhere/predict", b'{"X":[[1,2]]}', 404, "model_not_found"),
    post(PREDICT + "?version=2", b'{"X":[[1,2]]}', 404, "version_not_found"),
    post(PREDICT + "?version=xqz7", b'{"X":[[1,2]]}', 422, "invalid_parameter", "#/query/version"),
    post(PREDICT + "?version=01", b'{"X":[[1,2]]}', 422, "invalid_parameter", "#/query/version"),
    post(PREDICT + "?version=1.0", b'{"X":[[1,2]]}', 422, "invalid_parameter", "#/query/version"),
    post(PREDICT + "?version=1_0", b'{"X":[[1,2]]}', 422, "invalid_parameter", "#/query/version"),
    post(PREDICT + "?version=", b'{"X":[[1,2]]}', 422, "invalid_parameter", "#/query/version"),
    post(PREDICT + "?version=1&version=1", b"{}", 422, "invalid_parameter", "#/query/version"),
    post(PREDICT + "?version=0", b'{"X":[[1,2]]}', 422, "invalid_parameter", "#/query/version"),
    post("/models/groups/versions/9/predict", b'{"X":[[1,2]]}', 404, "version_not_found"),
    post(SCORE + "/xqz7", b'{"X":[[1,2]]}', 404, "metric_not_found"),
    post("/predict?model=nowhere", b'{"X":[[1,2]]}', 404, "model_not_found"),
    post("/predict?model=XQZ7", b'{"X":[[1,2]]}', 404, "model_not_found"),
    post("/predict?model=a", b'{"X":[[1,2]],"model":"b"}', 400, "model_ambiguous"),
    post("/predict?model=a&model=a", b'{"X":[[1,2]]}', 422, "invalid_parameter", "#/query/model"),
    post("/predict?model=a&model=b", b'{"X":[[1,2]]}', 400, "model_ambiguous"),
    post("/predict?model=a&model=xqz7", b'{"X":[[1,2]]}', 400, "model_ambiguous"),
]

METHODS = [
    Row("PUT", "/models", b"{}", 405, "method_not_allowed"),
    Row("DELETE", "/predict", None, 405, "method_not_allowed"),
    Row("GET", FIT, None, 405, "method_not_allowed"),
    Row("PATCH", "/models/groups/versions/1", b"{}", 405, "method_not_allowed"),
    Row("OPTIONS", MODEL, None, 405, "method_not_allowed"),
    Row("TRACE", MODEL, None, 405, "method_not_allowed"),
    Row("XQZ7", MODEL, None, 405, "method_not_allowed"),
]

TYPES = [
    sent({}, 415, "unsupported_media_type"),
    sent({"content-type": ""}, 415, "unsupported_media_type"),
    sent({"content-type": "text/plain"}, 415, "unsupported_media_type"),
    sent({"content-type": "text/xqz7"}, 415, "unsupported_media_type"),
    sent({"content-type": "application/xml"}, 415, "unsupported_media_type"),
    sent({"content-type": "application/json; charset=utf-16"}, 415, "unsupported_media_type"),
    sent({**JSON_HEADERS, "content-encoding": "br"}, 415, "unsupported_encoding"),
    sent({**JSON_HEADERS, "content-encoding": "gzip, gzip"}, 415, "unsupported_encoding"),
    sent({**JSON_HEADERS, "content-encoding": "gzip"}, 400, "malformed_encoding"),
    sent({**JSON_HEADERS, "content-encoding": "zstd"}, 400, "malformed_encoding"),
    sent({**JSON_HEADERS, "accept": "text/html"}, 406, "not_acceptable"),
    sent({**JSON_HEADERS, "accept": "application/json;q=0"}, 406, "not_acceptable"),
    sent({**JSON_HEADERS, "accept": "text/*;q=0, */*;q=0"}, 406, "not_acceptable"),
    sent({**JSON_HEADERS, "accept": "xqz7"}, 406, "not_acceptable"),
    Row("GET", MODEL, None, 406, "not_acceptable", None, {"accept": "text/html"}),
    Row("POST", MODELS, b"{}", 415, "unsupported_media_type", None, {"content-type": "text/plain"}),
    Row("POST", PREDICT, b" " * (MAX_BODY_BYTES + 1), 413, "body_too_large"),
    Row("POST", FIT, b" " * (MAX_BODY_BYTES + 1), 413, "body_too_large"),
    Row("POST", MODELS, b" " * (MAX_BODY_BYTES + 1), 413, "body_too_large"),
]

TABLE = MALFORMED + ROWS + FITS + DECLARATIONS + PLACES + METHODS + TYPES


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(Settings(max_body_bytes=MAX_BODY_BYTES)) as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        yield client


def named(row: Row) -> str:
    body = "" if row.body is None else row.body[:40].decode("ascii", "replace")
    return f"{row.method} {row.path[:50]} {body}"


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_a_wrong_request_is_refused_with_its_code(client: Client, row: Row) -> None:
    response = client.send(row.method, row.path, body=row.body, headers=row.headers)

    assert (response.status_code, response.json().get("code")) == (row.status, row.code)
    require_shape(response.headers, response.content, response.json())
    assert not re.search(PYDANTIC_S_WORDS, response.text)
    if row.pointer is not None:
        assert response.json()["errors"][0]["pointer"] == row.pointer
    if row.status == 405:
        assert response.headers["allow"]


def require_shape(headers: Mapping[str, str], content: bytes, problem: dict[str, object]) -> None:
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"] == problem["request_id"]
    assert len(content) <= MAX_PROBLEM_BYTES
    assert MARK not in content.decode().lower()
    assert "Traceback" not in content.decode()
    fields = ("type", "title", "status", "detail", "instance", "code", "request_id", "errors")
    assert tuple(problem) == fields
    errors = problem["errors"]
    assert isinstance(errors, list)
    assert len(errors) <= 20
    assert all(set(error) == {"pointer", "code", "detail"} for error in errors)


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        (MODELS, b'{"standardize": "no"}', "#/standardize: must be true or false"),
        (PREDICT, b'{"X":[[NaN,2]]}', "NaN and Infinity are not JSON"),
        (PREDICT, b'{"X":[[1,-Infinity]]}', "NaN and Infinity are not JSON"),
        (PREDICT, '{"é":[["ü", NaN]]}'.encode(), "NaN and Infinity are not JSON"),
        (PREDICT, b'{"nan":[[1,,2]]}', "the body is not JSON (RFC 8259): line 1, column 12"),
        (PREDICT, b'{"X":[[1,2]],"y":1}', "there is no such field here; X stands alone"),
        (
            "/predict",
            b'{"X":[[1,2]],"y":1}',
            "there is no such field here; beside X there may be: model",
        ),
        (FIT, b'{"X":[[1,2]],"feature_names":[1,"a"]}', "a name must be a string"),
        (MODELS, b'{"n_components":0}', "#/n_components: must be at least 1"),
        (MODELS, b'{"n_components":"3"}', "#/n_components: must be a whole number"),
        (MODELS, b'{"n_components":2.5}', "#/n_components: must be a whole number"),
        (MODELS, b'{"n_components":true}', "#/n_components: must be a whole number"),
        (MODELS, b'{"pca_components":1025}', "pca_components is limited to 1024 by this service"),
        (MODELS, b'{"n_components":2000}', "n_components is limited to 1024 by this service"),
        (
            MODELS,
            b'{"random_state":9223372036854775808}',
            "#/random_state: must be at most 9223372036854775807",
        ),
        (
            MODELS,
            b'{"reg_covar":-1}',
            '#/reg_covar: must be "auto" or a finite number of at least 0',
        ),
        (
            MODELS,
            b'{"reg_covar":"x"}',
            '#/reg_covar: must be "auto" or a finite number of at least 0',
        ),
        (MODELS, b'{"tol":"x"}', "#/tol: must be a number"),
        (MODELS, b'{"description":7}', "#/description: must be a string"),
        (MODELS, b'{"labels":[]}', "#/labels: must be an object"),
        (MODELS, b'{"labels":{"a:b":"c"}}', "a label's key must not have a colon in it"),
        (MODELS, b'{"id":"A"}', "#/id: an id has 1 to 63 lower-case letters"),
        (SAMPLE, b'{"seed":1}', "there may be: n_samples, random_state"),
        (SAMPLE, b'{"a b":1}', "there may be: n_samples, random_state"),
    ],
)
def test_a_refusal_says_in_our_words_what_is_wrong(
    client: Client, path: str, body: bytes, sentence: str
) -> None:
    response = client.send("POST", path, body=body, headers=JSON_HEADERS)

    assert sentence in response.json()["detail"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("/models?page_size=0", "#/query/page_size: must be at least 1"),
        (f"/models?page_size={'9' * 20}", "#/query/page_size: must be at most 1000"),
        (f"/models?page_size={'9' * 5000}", "#/query/page_size: must be at most 1000"),
        (f"/models/a/score?version={'9' * 20}", "#/query/version: must be at most 2147483647"),
        ("/models?page_size=many", "#/query/page_size: must be a whole number, written in digits"),
        ("/models?order_by=size", "#/query/order_by: must be one of 'id', 'id desc'"),
        (f"/models?page_token={'a' * 1025}", "must have at most 1024 characters"),
        ("/models?" + "&".join(["label=a:b"] * 17), "there may be at most 16"),
        ("/jobs?status=lost", "#/query/status: must be one of 'queued'"),
        ("/jobs?model=A", "#/query/model: an id has 1 to 63 lower-case letters"),
        ("/jobs/job-1?wait=long", "#/query/wait: must be a number"),
        ("/jobs/job-1?wait=inf", "#/query/wait: must be a finite number"),
        ("/models/groups/plots/clusters?theme=pink", "must be one of 'light' or 'dark'"),
        ("/models/groups/plots/clusters?palette=jet", "must be one of 'okabe-ito', 'tol-muted'"),
        ("/models/groups/plots/pie", "There is no such plot; there are clusters, convergence"),
        ("/models/groups/score/gini", "There is no such metric; there are "),
    ],
)
def test_a_wrong_query_is_told_in_our_words(client: Client, query: str, sentence: str) -> None:
    assert sentence in client.get(query).json()["detail"]


def test_a_whole_number_may_be_written_with_a_point(client: Client) -> None:
    drawn = client.send(
        "POST", SAMPLE, body=b'{"n_samples":2.0,"random_state":1e0}', headers=JSON_HEADERS
    )

    assert len(drawn.json()["labels"]) == 2


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 80


def test_nothing_that_was_refused_left_a_trace(client: Client) -> None:
    assert [model["id"] for model in client.get("/models").json()["models"]] == ["groups"]
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_a_wrong_method_names_all_right_ones(client: Client) -> None:
    response = client.send("PUT", "/models/groups")

    assert response.headers["allow"] == "DELETE, GET, HEAD, PATCH"


def test_an_unsupported_type_is_told_which_ones_there_are(client: Client) -> None:
    response = client.send("POST", PREDICT, body=b"1 2", headers={"content-type": "text/plain"})

    for media_type in CODECS:
        assert media_type in response.json()["detail"]


def test_a_request_id_that_is_not_well_formed_is_replaced(client: Client) -> None:
    for given in ("a b", "x" * 129, 'a"b', ""):
        response = client.get("/livez", {"x-request-id": given})
        assert response.headers["x-request-id"] != given


def test_an_unexpected_error_is_answered_without_its_cause(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError(MARK)

    monkeypatch.setattr(type(client.services.catalogue), "get_model", broken)

    response = client.get(MODEL)

    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    require_shape(response.headers, response.content, response.json())
    assert MARK in caplog.text
