"""Requests and answers under ``/v2`` as ``openapi.json`` shows them."""

from collections.abc import Mapping

from pydantic.config import JsonDict

Example = Mapping[str, object]

SERVER: Example = {
    "name": "gmm-service",
    "version": "0.1.0",
    "extensions": ["binary_tensor_data", "model_repository", "statistics"],
}
HEALTH: Example = {"live": True, "ready": True}
MODEL: Example = {
    "name": "iris",
    "versions": ["1"],
    "platform": "gmm",
    "inputs": [{"name": "X", "datatype": "FP64", "shape": [-1, 2]}],
    "outputs": [
        {"name": "predict", "datatype": "INT64", "shape": [-1]},
        {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
        {"name": "score_samples", "datatype": "FP64", "shape": [-1]},
    ],
}
READY: Example = {"name": "iris", "ready": True}
NOT_READY: Example = {"name": "iris", "ready": False}
REQUEST: JsonDict = {
    "id": "one",
    "inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP64", "data": [5.1, 3.5]}],
    "outputs": [{"name": "predict"}],
}
ANSWER: Example = {
    "model_name": "iris",
    "model_version": "1",
    "id": "one",
    "outputs": [{"name": "predict", "shape": [1], "datatype": "INT64", "data": [0]}],
}
INDEX: list[Example] = [{"name": "iris", "version": "1", "state": "READY", "reason": ""}]
COUNTED: Example = {"count": 1, "ns": 250_000}
NEVER: Example = {"count": 0, "ns": 0}
STATISTICS: Example = {
    "model_stats": [
        {
            "name": "iris",
            "version": "1",
            "last_inference": 1795543200000,
            "inference_count": 1,
            "execution_count": 1,
            "inference_stats": {
                "success": COUNTED,
                "fail": NEVER,
                "queue": COUNTED,
                "compute_input": COUNTED,
                "compute_infer": COUNTED,
                "compute_output": COUNTED,
                "cache_hit": NEVER,
                "cache_miss": NEVER,
            },
            "batch_stats": [],
        }
    ]
}
