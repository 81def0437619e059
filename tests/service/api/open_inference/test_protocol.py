"""The Open Inference Protocol byte by byte; real clients are in ``tests/clients``."""

import gzip
import json
import struct
import zlib
from collections.abc import Mapping

import httpx
import numpy as np
import orjson
import pytest

from gmm_engine import FitOptions, fit
from service.api.arrivals import LARGE_BODY_BYTES
from service.api.open_inference import tensors
from service.settings import Settings
from tests.service.api.test_short_way import Answer, received
from tests.service.client import Client, serving
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

MIXTURE = fit(np.array(TWO_GROUPS), FitOptions(n_components=2, random_state=0)).mixture
ROWS = np.array(ONE_OF_EACH)
LENGTH = "inference-header-content-length"


def tensor(data: object = ONE_OF_EACH, **changes: object) -> dict[str, object]:
    return {"name": "X", "shape": [2, 2], "datatype": "FP64", "data": data} | changes


def asked(client: Client, request: object, path: str = "/v2/models/groups/infer") -> httpx.Response:
    return client.send("POST", path, body=orjson.dumps(request))


def with_bytes(
    client: Client,
    request: Mapping[str, object],
    binary: bytes,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    head = json.dumps(request).encode()
    return client.send(
        "POST",
        "/v2/models/groups/infer",
        body=head + binary,
        headers={LENGTH: str(len(head)), **(headers or {})},
    )


def binary_input(X: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> dict[str, object]:
    return {
        "name": "X",
        "shape": list(X.shape),
        "datatype": "FP64" if X.dtype == np.float64 else "FP32",
        "parameters": {"binary_data_size": X.nbytes},
    }


def refusal_of(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    message = response.json()["error"]
    assert isinstance(message, str)
    return message


def test_inference_answers_labels_and_responsibilities_by_default(fitted: Client) -> None:
    response = asked(fitted, {"id": "seven", "inputs": [tensor()]})

    assert response.json() == {
        "model_name": "groups",
        "model_version": "1",
        "id": "seven",
        "outputs": [
            {
                "name": "predict",
                "shape": [2],
                "datatype": "INT64",
                "data": MIXTURE.predict(ROWS).tolist(),
            },
            {
                "name": "predict_proba",
                "shape": [2, 2],
                "datatype": "FP64",
                "data": MIXTURE.predict_proba(ROWS).ravel().tolist(),
            },
        ],
    }


def test_flat_data_are_the_same_rows(fitted: Client) -> None:
    nested = asked(fitted, {"inputs": [tensor()]})
    flat = asked(fitted, {"inputs": [tensor([1.0, 2.0, 5.0, 6.0])]})

    assert flat.json() == nested.json()


def test_only_the_outputs_that_are_asked_for_come_back(fitted: Client) -> None:
    wanted = [{"name": "score_samples"}]

    response = asked(fitted, {"inputs": [tensor()], "outputs": wanted})

    (output,) = response.json()["outputs"]
    assert output["name"] == "score_samples"
    assert output["data"] == MIXTURE.score_samples(ROWS).tolist()


def test_one_version_is_asked_by_its_path(fitted: Client) -> None:
    fitted.post("/models/groups/fit", {"X": TWO_GROUPS})

    response = asked(fitted, {"inputs": [tensor()]}, "/v2/models/groups/versions/1/infer")

    assert response.json()["model_version"] == "1"
    assert asked(fitted, {"inputs": [tensor()]}).json()["model_version"] == "2"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_binary_input_is_the_same_rows(fitted: Client, dtype: type[np.floating]) -> None:
    X = ROWS.astype(dtype)

    response = with_bytes(fitted, {"inputs": [binary_input(X)]}, X.tobytes())

    assert response.json()["outputs"] == asked(fitted, {"inputs": [tensor()]}).json()["outputs"]


def test_binary_outputs_follow_the_json_part(fitted: Client) -> None:
    request = {"inputs": [tensor()], "parameters": {"binary_data_output": True}}

    response = asked(fitted, request)

    assert response.headers["content-type"] == "application/octet-stream"
    end = int(response.headers[LENGTH])
    head = json.loads(response.content[:end])
    sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
    labels = np.frombuffer(response.content[end : end + sizes[0]], "<i8")
    responsibilities = np.frombuffer(response.content[end + sizes[0] :], "<f8")
    assert labels.tolist() == MIXTURE.predict(ROWS).tolist()
    assert responsibilities.tolist() == MIXTURE.predict_proba(ROWS).ravel().tolist()


def test_one_output_may_be_binary_and_another_not(fitted: Client) -> None:
    wanted = [
        {"name": "predict"},
        {"name": "score_samples", "parameters": {"binary_data": True}},
    ]

    response = asked(fitted, {"inputs": [tensor()], "outputs": wanted})

    end = int(response.headers[LENGTH])
    labels, densities = json.loads(response.content[:end])["outputs"]
    assert labels["data"] == MIXTURE.predict(ROWS).tolist()
    assert "data" not in densities
    assert response.content[end:] == MIXTURE.score_samples(ROWS).tobytes()


def test_a_raw_body_is_the_one_input(fitted: Client) -> None:
    response = fitted.send(
        "POST", "/v2/models/groups/infer", body=ROWS.tobytes(), headers={LENGTH: "0"}
    )

    end = int(response.headers[LENGTH])
    assert response.content[end : end + 16] == MIXTURE.predict(ROWS).tobytes()


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_body_is_read(fitted: Client, coding: str, compress: object) -> None:
    assert callable(compress)
    head = json.dumps({"inputs": [binary_input(ROWS)]}).encode()

    response = fitted.send(
        "POST",
        "/v2/models/groups/infer",
        body=compress(head + ROWS.tobytes()),
        headers={LENGTH: str(len(head)), "content-encoding": coding},
    )

    assert response.json()["outputs"][0]["data"] == MIXTURE.predict(ROWS).tolist()


def test_a_small_body_that_inflates_beyond_the_bound_is_refused() -> None:
    with serving(Settings(max_body_bytes=100_000)) as client:
        response = client.send(
            "POST",
            "/v2/models/groups/infer",
            body=gzip.compress(b" " * 10_000_000),
            headers={"content-encoding": "gzip"},
        )

    assert response.status_code == 413
    refusal_of(response)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"{}")[:-4]),
        ("gzip", gzip.compress(b"{}") + b"more"),
        ("deflate", b"\x00"),
    ],
    # By their bytes they would be called by the time of their packing: otherwise in each process.
    ids=["not gzip", "cut off", "more behind it", "not deflate"],
)
def test_a_compressed_body_that_is_broken_is_refused(
    fitted: Client, coding: str, body: bytes
) -> None:
    response = fitted.send(
        "POST", "/v2/models/groups/infer", body=body, headers={"content-encoding": coding}
    )

    assert response.status_code == 400
    assert coding in refusal_of(response)


def test_an_unknown_coding_is_refused(fitted: Client) -> None:
    response = fitted.send(
        "POST", "/v2/models/groups/infer", body=b"x", headers={"content-encoding": "br"}
    )

    assert response.status_code == 415
    assert "gzip" in refusal_of(response)


def test_a_large_answer_comes_in_parts_and_reads_the_same(
    fitted: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = asked(fitted, {"inputs": [tensor()]}).json()
    monkeypatch.setattr(tensors, "LARGE_ANSWER_NUMBERS", 1)
    monkeypatch.setattr(tensors, "PART_NUMBERS", 3)

    assert asked(fitted, {"inputs": [tensor()]}).json() == whole


@pytest.mark.parametrize(
    ("request_body", "words"),
    [
        ([], "object"),
        ({}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": [1]}, "inputs"),
        ({"inputs": []}, "one tensor 'X'"),
        ({"inputs": [tensor(name="Y")]}, "one tensor 'X'"),
        ({"inputs": [tensor(), tensor()]}, "one tensor 'X'"),
        ({"inputs": [tensor(shape=[2])]}, "shape"),
        ({"inputs": [tensor(shape=[0, 2])]}, "shape"),
        ({"inputs": [tensor(shape=[2.0, 2])]}, "shape"),
        ({"inputs": [tensor(shape=[1, 2])]}, "1 rows of 2"),
        ({"inputs": [tensor(shape=[2, 3])]}, "2 rows of 3"),
        ({"inputs": [tensor([1.0, 2.0, 3.0])]}, "2 × 2"),
        ({"inputs": [tensor([[1.0, 2.0], 3.0])]}, "2 rows of 2"),
        ({"inputs": [tensor([[1.0, 2.0], [3.0, "4"]])]}, "must be numbers"),
        ({"inputs": [tensor([[1.0, 2.0], [3.0, [4.0]]])]}, "must be numbers"),
        ({"inputs": [tensor([1.0, 2.0, True, 3.0])]}, "must be numbers"),
        ({"inputs": [tensor("1,2")]}, "list"),
        ({"inputs": [tensor(datatype="INT64")]}, "FP64, FP32"),
        ({"inputs": [tensor(datatype=None)]}, "FP64, FP32"),
        ({"inputs": [tensor([1.0] * 6, shape=[2, 3])]}, "2 features"),
        ({"inputs": [tensor(parameters=[])]}, "parameters"),
        ({"inputs": [tensor(parameters={"binary_data_size": 32})]}, "not both"),
        ({"inputs": [tensor()], "id": 7}, "id"),
        ({"inputs": [tensor()], "id": "x" * 257}, "id"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, "true or false"),
        ({"inputs": [tensor()], "outputs": [{"name": "cluster"}]}, "predict_proba"),
        ({"inputs": [tensor()], "outputs": [{"name": "predict"}] * 2}, "twice"),
        ({"inputs": [tensor()], "outputs": [{"name": "predict"}] * 17}, "outputs"),
        ({"inputs": [tensor()], "outputs": {}}, "outputs"),
        ({"inputs": [tensor()], "outputs": False}, "outputs"),
        ({"inputs": [tensor([1.0, 2.0], shape=[True, 2])]}, "shape"),
    ],
)
def test_a_wrong_request_is_refused_in_a_sentence(
    fitted: Client, request_body: object, words: str
) -> None:
    response = asked(fitted, request_body)

    assert response.status_code == 400
    assert words in refusal_of(response)


def test_a_null_is_as_if_it_were_left_out(fitted: Client) -> None:
    nulls = {"id": None, "parameters": None, "outputs": None}

    response = asked(fitted, {"inputs": [tensor(parameters=None)], **nulls})

    assert response.json() == asked(fitted, {"inputs": [tensor()]}).json()


def test_a_number_that_is_not_finite_is_refused(fitted: Client) -> None:
    X = np.array([[1.0, np.nan]])

    response = with_bytes(fitted, {"inputs": [binary_input(X)]}, X.tobytes())

    assert response.status_code == 400
    assert "NaN or infinity" in refusal_of(response)


@pytest.mark.parametrize(
    ("data", "datatype"),
    [
        ("[[1,2],[3,1e999]]", "FP64"),
        ("[1,2,3,1e999]", "FP64"),
        ("[[1,2],[3,-1e999],[1e999,4]]", "FP64"),
        (f"[[1,2],[3,{'9' * 400}]]", "FP64"),
        ('[[1,2],[3,"4"]]', "FP64"),
        ("[1,2,3,null]", "FP64"),
        ("[[1,2],[3,[4]]]", "FP64"),
        ("[1,2,3,1e39]", "FP32"),
        ("[[1,2],[3,1e39]]", "FP32"),
        ("[[1,2],[3,1e200]]", "FP64"),
        ("[1,2,3,-1e200]", "FP64"),
        (f"[[1,2],[3,1e200],{','.join(['[5,6]'] * 30_000)}]", "FP64"),
    ],
    ids=lambda text: text[:30],
)
def test_a_number_that_can_not_be_taken_is_named_by_its_index(
    fitted: Client, data: str, datatype: str
) -> None:
    shape = [max(2, data.count("],[") + 1), 2]
    described = f'"name":"X","shape":{shape},"datatype":"{datatype}"'
    body = f'{{"inputs":[{{{described},"data":{data}}}]}}'

    response = fitted.send("POST", "/v2/models/groups/infer", body=body.encode())

    assert response.status_code == 400
    assert "first at index [1, 1]" in refusal_of(response)


@pytest.mark.parametrize(
    "body",
    [
        '{"id":1e999,"inputs":[{"name":"X","shape":[2,2],"datatype":"FP64","data":[1,2,3,4]}]}',
        '{"inputs":[{"name":"X","shape":[2,1e999],"datatype":"FP64","data":[1,2,3,4]}]}',
        '{"inputs":[{"name":"X","shape":[2,0],"datatype":"FP64","data":[1,2,3,1e999]}]}',
        '{"inputs":[{"name":"X","shape":[2,2],"datatype":"FP64","data":1e999}]}',
        '{"inputs":1e999}',
        "[1e999]",
    ],
)
def test_a_number_beyond_doubles_is_refused_wherever_it_stands(fitted: Client, body: str) -> None:
    response = fitted.send("POST", "/v2/models/groups/infer", body=body.encode())

    assert response.status_code == 400
    assert "beyond the range of a double" in refusal_of(response)


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 40, "5000"])
def test_a_length_that_can_not_be_is_refused(fitted: Client, length: str) -> None:
    response = fitted.send("POST", "/v2/models/groups/infer", body=b"{}", headers={LENGTH: length})

    assert response.status_code in (400, 413)
    refusal_of(response)


@pytest.mark.parametrize("binary", [b"", b"\0" * 31, b"\0" * 33])
def test_bytes_of_another_length_than_the_shape_s_are_refused(
    fitted: Client, binary: bytes
) -> None:
    response = with_bytes(fitted, {"inputs": [binary_input(ROWS)]}, binary)

    assert response.status_code == 400
    assert "32 bytes" in refusal_of(response)


@pytest.mark.parametrize("size", ["32", True, 32.0, [32]])
def test_a_number_of_bytes_that_is_none_is_refused_as_such(fitted: Client, size: object) -> None:
    told = {**binary_input(ROWS), "parameters": {"binary_data_size": size}}

    response = with_bytes(fitted, {"inputs": [told]}, ROWS.tobytes())

    assert response.status_code == 400
    assert refusal_of(response) == "binary_data_size must be a whole number"


@pytest.mark.parametrize(
    "sent",
    [
        b"FOO /v2/models/groups HTTP/1.1\r\nHost: a\r\n\r\n",
        b"XYZ /v2?x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /v2/models/groups HTTP/9.9\r\nHost: a\r\n\r\n",
    ],
)
def test_what_the_parser_refuses_is_told_as_all_else_is(fitted: Client, sent: bytes) -> None:
    here = Answer(received(fitted, sent))
    elsewhere = Answer(received(fitted, sent.replace(b" /v2", b" /v3")))

    assert (here.status, elsewhere.status) == (400, 400)
    assert here.header("content-type") == "application/json"
    assert json.loads(here.content) == {"error": "This is not a request of HTTP/1.1."}
    assert elsewhere.header("content-type") == "application/problem+json"


def test_bytes_that_belong_to_no_input_are_refused(fitted: Client) -> None:
    response = with_bytes(fitted, {"inputs": [tensor()]}, b"\0")

    assert response.status_code == 400
    assert "no input" in refusal_of(response)


@pytest.mark.parametrize("body", [b"", b"\0" * 8, b"\0" * 17])
def test_a_raw_body_that_is_no_rows_is_refused(fitted: Client, body: bytes) -> None:
    response = fitted.send("POST", "/v2/models/groups/infer", body=body, headers={LENGTH: "0"})

    assert response.status_code == 400
    refusal_of(response)


def test_what_other_servers_have_and_this_one_does_not_is_told_by_501(fitted: Client) -> None:
    wanted = [{"name": "predict", "parameters": {"classification": 3}}]

    response = asked(fitted, {"inputs": [tensor()], "outputs": wanted})
    config = fitted.post("/v2/repository/models/groups/load", {"parameters": {"config": "{}"}})

    assert response.status_code == config.status_code == 501
    refusal_of(response)
    refusal_of(config)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/NO NAME", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("GET", "/v2/models/groups/versions/7", 404),
        ("GET", "/v2/models/groups/versions/x", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/repository/models/none/load", 404),
        ("POST", "/v2/repository/models/none/unload", 404),
        ("GET", "/v2/models/none/stats", 404),
        ("GET", "/v2/models/groups/infer", 405),
        ("GET", "/v2?verbose=1", 400),
    ],
)
def test_a_refusal_has_the_protocol_s_shape(
    fitted: Client, method: str, path: str, status: int
) -> None:
    body = orjson.dumps({"inputs": [tensor()]}) if method == "POST" else None

    response = fitted.send(method, path, body=body)

    assert response.status_code == status
    refusal_of(response)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://elsewhere.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[broken"}, 403),
        ({"origin": "http://service", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
def test_a_page_of_another_site_is_refused(
    fitted: Client, headers: Mapping[str, str], status: int
) -> None:
    body = orjson.dumps({"inputs": [tensor()]})

    response = fitted.send("POST", "/v2/models/groups/infer", body=body, headers=headers)

    assert response.status_code == status
    if status == 403:
        assert "other sites" in refusal_of(response)


def test_a_model_that_was_never_fitted_is_not_ready(client: Client) -> None:
    client.post("/models", {"id": "new", "n_components": 2})

    assert client.get("/v2/models/new/ready").status_code == 503
    assert asked(client, {"inputs": [tensor()]}, "/v2/models/new/infer").status_code == 503
    assert client.post("/v2/repository/models/new/load", {}).status_code == 503
    (entry,) = client.post("/v2/repository/index", {}).json()
    assert entry["state"] == "UNAVAILABLE"
    assert "no version" in entry["reason"]


def test_the_server_describes_itself(client: Client) -> None:
    described = client.get("/v2").json()

    assert described["name"] == "gmm-service"
    assert "binary_tensor_data" in described["extensions"]
    assert client.get("/v2/health/live").json() == {"live": True, "ready": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}


def test_a_server_that_drains_lives_and_is_not_ready(client: Client) -> None:
    client.services.lifecycle.begin_draining()

    assert client.get("/v2/health/live").json() == {"live": True, "ready": False}
    ready = client.get("/v2/health/ready")
    assert ready.status_code == 503
    refusal_of(ready)


def test_a_model_describes_its_tensors(fitted: Client) -> None:
    fitted.post("/models/groups/fit", {"X": TWO_GROUPS})

    described = fitted.get("/v2/models/groups").json()

    assert described == {
        "name": "groups",
        "versions": ["1", "2"],
        "platform": "gmm",
        "inputs": [{"name": "X", "datatype": "FP64", "shape": [-1, 2]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
            {"name": "score_samples", "datatype": "FP64", "shape": [-1]},
        ],
    }
    assert fitted.get("/v2/models/groups/versions/1").json()["versions"] == ["1"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/repository/index", {"ready": "yes"}),
        ("/v2/repository/index", {"ready": []}),
        ("/v2/repository/models/groups/load", {"parameters": 1}),
        ("/v2/repository/models/groups/unload", {"parameters": None}),
    ],
)
def test_control_of_another_type_is_refused(fitted: Client, path: str, body: object) -> None:
    refused = fitted.post(path, body)
    assert refused.status_code == 400
    assert "must be" in refused.json()["error"]
    assert fitted.get("/v2/models/groups/ready").status_code == 200


def test_an_unloaded_model_is_not_answered_for_until_it_is_loaded_again(fitted: Client) -> None:
    fitted.post("/v2/repository/models/groups/unload", {"parameters": {}})
    unloaded = asked(fitted, {"inputs": [tensor()]})
    entries = fitted.post("/v2/repository/index", {}).json()
    ready_ones = fitted.post("/v2/repository/index", {"ready": True}).json()
    native = fitted.post("/models/groups/predict", {"X": ONE_OF_EACH})
    fitted.send("POST", "/v2/repository/models/groups/load")

    assert unloaded.status_code == 503
    assert "load it first" in refusal_of(unloaded)
    assert [entry["state"] for entry in entries] == ["UNAVAILABLE"]
    assert ready_ones == []
    assert native.status_code == 200
    assert asked(fitted, {"inputs": [tensor()]}).status_code == 200


def test_a_later_model_of_an_unloaded_one_s_name_is_loaded(fitted: Client) -> None:
    fitted.send("POST", "/v2/repository/models/groups/unload")
    fitted.delete("/models/groups")
    fitted.post("/models", {"id": "groups", "n_components": 2})
    fitted.post("/models/groups/fit", {"X": TWO_GROUPS})

    assert asked(fitted, {"inputs": [tensor()]}).status_code == 200


def test_questions_are_counted(fitted: Client) -> None:
    for _ in range(3):
        asked(fitted, {"inputs": [tensor()]})
    asked(fitted, {"inputs": [tensor([1.0] * 6, shape=[2, 3])]})
    asked(fitted, {"inputs": []})
    asked(fitted, {"inputs": [tensor([1.0] * LARGE_BODY_BYTES)]})

    (counted,) = fitted.get("/v2/models/groups/stats").json()["model_stats"]

    assert (counted["name"], counted["version"]) == ("groups", "1")
    assert counted["inference_count"] == 6
    assert counted["execution_count"] == 3
    durations = counted["inference_stats"]
    assert durations["success"]["count"] == durations["queue"]["count"] == 3
    assert durations["compute_infer"]["ns"] > 0
    assert durations["fail"]["count"] == 3
    assert counted["last_inference"] > 0
    assert fitted.get("/v2/models/stats").json() == {"model_stats": [counted]}


def test_the_answer_tells_how_long_it_took(fitted: Client) -> None:
    response = asked(fitted, {"inputs": [tensor()]})

    timing = response.headers["server-timing"]
    assert [part.partition(";")[0].strip() for part in timing.split(",")] == [
        "parse",
        "queue",
        "compute",
        "encode",
    ]
    assert response.headers["gmm-model-version"] == "1"


@pytest.mark.parametrize("is_nested", [False, True])
def test_numbers_in_json_are_rounded_to_their_datatype(fitted: Client, is_nested: bool) -> None:
    X = np.array([[0.1, 1.7], [5.3, 6.1]])
    outputs = [{"name": "score_samples"}]
    data = X.tolist() if is_nested else X.ravel().tolist()

    response = asked(fitted, {"inputs": [tensor(data, datatype="FP32")], "outputs": outputs})

    rounded = [[struct.unpack("<f", struct.pack("<f", x))[0] for x in row] for row in X.tolist()]
    same = asked(fitted, {"inputs": [tensor(rounded)], "outputs": outputs})
    other = asked(fitted, {"inputs": [tensor(data)], "outputs": outputs})
    assert response.json()["outputs"] == same.json()["outputs"] != other.json()["outputs"]


@pytest.mark.parametrize("data", [[1e39, 1.0, 2.0, 3.0], [[1.0, 2.0], [3.0, -3.5e38]]])
def test_numbers_in_json_beyond_their_datatype_are_refused(fitted: Client, data: object) -> None:
    response = asked(fitted, {"inputs": [tensor(data, datatype="FP32")]})

    assert response.status_code == 400
    assert "range of FP32" in refusal_of(response)
