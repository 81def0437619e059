"""The unchanged ``tritonclient[http]`` against a real server, synchronous and asynchronous."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.e2e.server import Server, running
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

ROWS = np.array(ONE_OF_EACH)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("triton") / "registry") as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2, "random_state": 0})
            client.post("/models/groups/fit", json={"X": TWO_GROUPS})
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def rows(*, binary: bool, dtype: str = "FP64") -> triton.InferInput:
    tensor = triton.InferInput("X", list(ROWS.shape), dtype)
    tensor.set_data_from_numpy(ROWS.astype(triton_type(dtype)), binary_data=binary)
    return tensor


def triton_type(dtype: str) -> type[np.floating]:
    return np.float64 if dtype == "FP64" else np.float32


def expected(server: Server) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    with server.client() as native:
        answer = native.post("/models/groups/predict_proba", json={"X": ONE_OF_EACH}).json()
    return np.array(answer["probabilities"])


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answer_is_binary", [True, False])
@pytest.mark.parametrize("is_binary", [True, False])
def test_it_infers(
    server: Server,
    client: triton.InferenceServerClient,
    is_binary: bool,  # a parameter of the test
    answer_is_binary: bool,
    compression: str | None,
) -> None:
    wanted = [
        triton.InferRequestedOutput(name, binary_data=answer_is_binary)
        for name in ("predict", "predict_proba", "score_samples")
    ]

    result = client.infer(
        "groups",
        [rows(binary=is_binary)],
        outputs=wanted,
        request_id="seven",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )

    responsibilities = result.as_numpy("predict_proba")
    assert responsibilities.tolist() == expected(server).tolist()
    assert result.as_numpy("predict").tolist() == responsibilities.argmax(axis=1).tolist()
    assert result.as_numpy("score_samples").shape == (2,)
    assert result.get_response()["id"] == "seven"


def test_it_infers_without_naming_outputs_in_single_precision_and_of_one_version(
    client: triton.InferenceServerClient,
) -> None:
    result = client.infer("groups", [rows(binary=True, dtype="FP32")], model_version="1")

    assert result.as_numpy("predict").dtype == np.int64
    assert result.as_numpy("predict_proba").shape == (2, 2)


def test_it_sees_the_server_and_its_models(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("groups")
    assert client.is_model_ready("groups", "1")
    assert not client.is_model_ready("groups", "9")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata()["name"] == "gmm-service"
    assert client.get_model_metadata("groups")["inputs"][0]["name"] == "X"
    assert client.get_inference_statistics("groups")["model_stats"][0]["name"] == "groups"
    assert client.get_inference_statistics()["model_stats"][0]["name"] == "groups"


def test_it_loads_and_unloads(client: triton.InferenceServerClient) -> None:
    client.unload_model("groups")
    assert not client.is_model_ready("groups")
    assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"

    client.load_model("groups")

    assert client.is_model_ready("groups")
    assert client.get_model_repository_index()[0]["state"] == "READY"


def test_it_tells_why_it_was_refused(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="There is no model 'none'") as refused:
        client.infer("none", [rows(binary=True)])

    assert refused.value.status() == "404"


def test_it_infers_asynchronously(server: Server) -> None:
    async def inferred() -> list[list[float]]:
        address = server.url.removeprefix("http://")
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_model_ready("groups")
            results = await asyncio.gather(
                *(
                    client.infer(
                        "groups",
                        [rows(binary=is_binary)],
                        request_compression_algorithm=compression,
                    )
                    for is_binary in (True, False)
                    for compression in (None, "gzip")
                )
            )
        return [result.as_numpy("predict_proba").tolist() for result in results]

    assert asyncio.run(inferred()) == [expected(server).tolist()] * 4
