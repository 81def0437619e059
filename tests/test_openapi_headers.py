"""The headers that are sent are those of the contract: all that it promises, and none but these."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from service.api.headers import HEEDED, SENT
from service.main import contract
from service.settings import Settings
from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

DOCUMENT = orjson.loads(contract())
PLAIN = frozenset(
    {"content-type", "content-length", "cache-control", "vary"}
    | {"x-content-type-options", "x-accel-buffering"}
)
"""Of HTTP itself, or for what lies between: they tell a client nothing of the answer."""
CSV = {"accept": "text/csv"}
JSON = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream"}
ROWS = {"X": ONE_OF_EACH}
OWN_ID = {"x-request-id": "mine"}


@dataclass
class Asked:
    """What a client asks, held to the contract; ``seen`` are the headers that came."""

    client: Client
    seen: set[str] = field(default_factory=set)

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        status: int,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        content = body if isinstance(body, bytes | None) else orjson.dumps(body)
        typed = JSON if content and not isinstance(body, bytes) else {}
        response = self.client.send(
            method, path, body=content, headers={**typed, **(headers or {})}
        )
        assert response.status_code == status, response.text
        self.hold(method, path.partition("?")[0], response)
        return response

    def hold(self, method: str, path: str, response: httpx.Response) -> None:
        operation = operation_of(method, path)
        described = operation["responses"][str(response.status_code)]
        headers = {name.lower(): resolved(node) for name, node in described["headers"].items()}
        required = {name for name, header in headers.items() if header["required"]}
        there = set(response.headers) - PLAIN
        assert required <= there, (method, path, response.status_code, required - there)
        assert there <= headers.keys(), (method, path, response.status_code, there - headers.keys())
        self.seen |= there
        if response.headers.get("content-type") == "application/problem+json":
            named = described["content"]["application/problem+json"]["examples"]
            assert response.json()["code"] in named, (method, path)


def resolved(node: Mapping[str, str]) -> dict[str, object]:
    kind, name = node["$ref"].split("/")[2:]
    header: dict[str, object] = DOCUMENT["components"][kind][name]
    return header


def operation_of(method: str, path: str) -> dict[str, Any]:
    """Return the operation of a path; of several, that with fewer parameters."""
    for template in sorted(DOCUMENT["paths"], key=lambda each: each.count("{")):
        if re.fullmatch(re.sub(r"\{[a-z]+\}", "[^/]+", template), path):
            methods: dict[str, dict[str, Any]] = DOCUMENT["paths"][template]
            if method.lower() in methods:
                return methods[method.lower()]
    raise AssertionError(f"{method} {path} is not in the contract")


@pytest.fixture
def asked() -> Iterator[Asked]:
    with serving(Settings(default_model="iris")) as client:
        asked = Asked(client)
        asked("POST", "/models", {"id": "iris", "n_components": 2}, status=201)
        asked("POST", "/models/iris/fit?wait=60", {"X": TWO_GROUPS}, status=200)
        yield asked


def test_models_and_versions_send_what_is_documented(asked: Asked) -> None:
    key = {"idempotency-key": "once"}
    for _ in range(2):
        asked("POST", "/models", {"id": "other", "n_components": 2}, status=201, headers=key)
    assert {"location", "idempotency-replayed"} <= asked.seen
    asked("POST", "/models", {"id": "third", "n_components": 2}, status=422, headers=key)
    asked("POST", "/models", {"id": "iris", "n_components": 2}, status=409)
    asked("POST", "/models", b'{"id": 1, "id": 2}', status=400, headers=JSON)
    asked("POST", "/models", b"<xml/>", status=415, headers={"content-type": "text/xml"})
    asked("GET", "/models?page_size=1", status=200, headers=OWN_ID)
    asked("GET", "/models?label=wrong", status=422)
    asked("GET", "/models", status=400, headers={"request-timeout": "soon"})
    assert "link" in asked.seen
    for path in ("/models/iris", "/models/iris/versions/1", "/models/iris/versions/1/artifact"):
        tag = asked("GET", path, status=200).headers["etag"]
        asked("GET", path, status=304, headers={"if-none-match": tag})
        asked("GET", path.replace("iris", "no"), status=404)
    asked("PATCH", "/models/iris", {"description": "three"}, status=200)
    asked("PATCH", "/models/iris", {}, status=412, headers={"if-match": '"no"'})
    asked("GET", "/models/iris/versions?page_size=1", status=200)
    asked("PUT", "/models/iris/aliases/champion", {"version": 1}, status=200)
    asked("PUT", "/models/iris/aliases/latest", {"version": 1}, status=409)
    asked("PUT", "/models/iris/aliases/next", {"version": 7}, status=404)
    asked("POST", "/models/iris/aliases/champion/rollback", status=409)
    asked("GET", "/models/iris/aliases", status=200)
    asked("GET", "/models/iris/aliases/champion", status=200)
    asked("GET", "/models/iris/aliases/no", status=404)
    asked("GET", "/models/iris/aliases/champion/history", status=200)
    asked("DELETE", "/models/iris/versions/1", status=409)
    asked("DELETE", "/models/iris/aliases/champion", status=204)
    asked("POST", "/models/iris/aliases/champion/rollback", status=200)
    asked("DELETE", "/models/other", status=204)


def test_questions_send_what_is_documented(asked: Asked) -> None:
    for prefix in ("/models/iris", "/models/iris/versions/1", ""):
        for path in ("/predict", "/predict_proba", "/score_samples", "/score", "/score/bic"):
            asked("POST", prefix + path, ROWS, status=200)
            asked("POST", prefix + path, ROWS, status=200, headers=CSV)
            asked("POST", prefix + path, {"X": []}, status=422)
            asked("POST", prefix + path, ROWS, status=406, headers={"accept": "text/xml"})
            asked("POST", prefix + path, ROWS, status=503, headers={"request-timeout": "0"})
            coded = {"content-encoding": "rot13"}
            asked("POST", prefix + path, ROWS, status=415, headers=coded)
        if prefix:
            asked("POST", f"{prefix}/score/no", ROWS, status=404)
            asked("GET", f"{prefix}/score", status=200)
            asked("GET", f"{prefix}/score/bic", status=200)
            asked("GET", f"{prefix}/parameters", status=200)
            asked("POST", f"{prefix}/sample", {"n_samples": 3}, status=200)
            asked("POST", f"{prefix}/sample", {"n_samples": 10**9}, status=422)
            asked("POST", f"{prefix}/diagnostics", {"X": TWO_GROUPS}, status=200)
            asked("POST", f"{prefix}/compare/kmeans", {"X": TWO_GROUPS}, status=200)
            asked("GET", f"{prefix}/plots/density", status=200, headers={"accept": JSON_TYPE})
            asked("GET", f"{prefix}/plots/uncertainty", status=422)
            asked("GET", f"{prefix}/plots/selection", status=409)
            asked("POST", f"{prefix}/plots/convergence", {"X": TWO_GROUPS}, status=422)
            asked("POST", f"{prefix}/plots/clusters", {"X": TWO_GROUPS}, status=200)
    asked("POST", "/predict?model=other", {**ROWS, "model": "iris"}, status=400)
    asked("POST", "/models", {"id": "unfitted", "n_components": 2}, status=201)
    asked("POST", "/models/unfitted/predict", ROWS, status=409)
    asked("POST", "/models/no/predict", ROWS, status=404)
    assert {"content-location", "gmm-space", "server-timing", "accept-encoding"} <= asked.seen


JSON_TYPE = JSON["content-type"]


def test_fits_and_jobs_send_what_is_documented(asked: Asked) -> None:
    rows, key = {"X": TWO_GROUPS}, {"idempotency-key": "once"}
    asked("POST", "/models/iris/fit?wait=60", rows, status=200, headers=CSV)
    asked("POST", "/models/iris/fit?validate_only=true", rows, status=200)
    prefer = {"prefer": "wait=60"}
    asked("POST", "/models/iris/fit", rows, status=200, headers=prefer)
    for _ in range(2):
        asked("POST", "/models/iris/fit?wait=60", rows, status=200, headers=key)
    asked("POST", "/models/iris/fit", {"X": [[1.0]]}, status=422)
    asked("POST", "/models/iris/select?n_components=1-2&wait=60", rows, status=200)
    (job, *_) = asked("GET", "/jobs?page_size=1", status=200).json()["jobs"]
    asked("GET", f"/jobs/{job['id']}", status=200)
    asked("GET", f"/jobs/{job['id']}/events", status=200)
    last = {"last-event-id": str(2**62)}
    asked("GET", f"/jobs/{job['id']}/events", status=204, headers=last)
    asked("POST", f"/jobs/{job['id']}/cancel", status=200)
    asked("GET", "/jobs/no", status=404)
    for path in ("/livez", "/readyz", "/version"):
        asked("GET", path, status=200)
    assert {"preference-applied", "idempotency-replayed", "gmm-model-version"} <= asked.seen


def test_fits_that_go_on_send_what_is_documented() -> None:
    with serving(runner=HeldRunner(queue_size=1)) as client:
        asked = Asked(client)
        asked("POST", "/models", {"id": "iris", "n_components": 2}, status=201)
        rows, at_once = {"X": TWO_GROUPS}, {"prefer": "respond-async"}
        begun = asked("POST", "/models/iris/fit", rows, status=202, headers=at_once)
        alone = "/models/iris/fit?wait=0&on_conflict=reject"
        asked("POST", alone, rows, status=409)
        for _ in range(3):
            full = client.post("/models/iris/select?wait=0", rows)
            asked.hold("POST", "/models/iris/select", full)
        assert full.status_code == 429
        cancelled = client.post(f"{begun.headers['location']}/cancel")
        asked.hold("POST", f"{begun.headers['location']}/cancel", cancelled)
        assert {"retry-after", "location", "preference-applied"} <= asked.seen


def test_the_other_protocol_sends_what_is_documented(asked: Asked) -> None:
    values = np.array(ONE_OF_EACH).tobytes()
    tensor = {"name": "X", "datatype": "FP64", "shape": [2, 2]}
    wanted = [{"name": "predict", "parameters": {"binary_data": True}}]
    sized = {**tensor, "parameters": {"binary_data_size": len(values)}}
    described = orjson.dumps({"inputs": [sized], "outputs": wanted})
    length = {"inference-header-content-length": str(len(described))}
    whole = {"inputs": [{**tensor, "data": ONE_OF_EACH}]}
    for prefix in ("/v2/models/iris", "/v2/models/iris/versions/1"):
        asked("POST", f"{prefix}/infer", whole, status=200)
        asked("POST", f"{prefix}/infer", described + values, status=200, headers=OCTETS | length)
        wrong = {"inference-header-content-length": "much"}
        asked("POST", f"{prefix}/infer", whole, status=400, headers=wrong)
        asked("POST", f"{prefix}/infer", whole, status=400, headers={"request-timeout": "soon"})
        asked("POST", f"{prefix}/infer", whole, status=503, headers={"request-timeout": "0"})
        for path in ("", "/ready", "/stats"):
            asked("GET", prefix + path, status=200)
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats"):
        asked("GET", path, status=200)
    asked("POST", "/v2/repository/index", {}, status=200)
    asked("POST", "/v2/repository/models/iris/unload", {}, status=200)
    asked("GET", "/v2/models/iris/ready", status=503)
    asked("POST", "/v2/repository/models/iris/load", {}, status=200)
    assert "inference-header-content-length" in asked.seen


def test_every_header_is_documented_somewhere() -> None:
    named = {
        name
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        for name in response["headers"]
    }

    assert named == {header.name for header in SENT}
    assert "`Allow`" in DOCUMENT["info"]["description"]


def test_headers_of_requests_are_parameters_where_they_are_heeded() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            given = [node for node in operation["parameters"] if "$ref" in node]
            names = {resolved(node)["name"] for node in given}
            is_infer = path.endswith("/infer")
            is_question = is_infer or operation["tags"] == ["inference"]
            assert names == {
                "X-Request-Id",
                *(["Request-Timeout"] if is_question else []),
                *(["Inference-Header-Content-Length"] if is_infer else []),
            }
            assert "400" in operation["responses"]


@pytest.mark.parametrize("text", ["0", "5", "0.5", "12.25", ".5", "5.", "1e3", "2E+1"])
def test_a_time_that_fits_its_pattern_is_taken(asked: Asked, text: str) -> None:
    (timeout,) = [header for header in HEEDED if header.name == "Request-Timeout"]

    assert re.search(str(timeout.schema["pattern"]), text)
    status = 503 if text == "0" else 200
    asked("POST", "/models/iris/predict", ROWS, status=status, headers={"request-timeout": text})


@pytest.mark.parametrize("text", ["-1", "soon", "nan", "inf", "1 s", "0x1", "."])
def test_a_time_that_does_not_is_refused(asked: Asked, text: str) -> None:
    (timeout,) = [header for header in HEEDED if header.name == "Request-Timeout"]

    assert not re.search(str(timeout.schema["pattern"]), text)
    asked("POST", "/models/iris/predict", ROWS, status=400, headers={"request-timeout": text})


def test_a_method_that_a_path_has_not_is_told_as_the_description_says(asked: Asked) -> None:
    response = asked.client.send("PUT", "/models/iris")

    assert response.status_code == 405
    assert response.json()["code"] == "method_not_allowed"
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD", "PATCH", "DELETE"}
