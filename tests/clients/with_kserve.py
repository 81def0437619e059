"""Asks a running service through KServe's REST client, in that client's own environment.

``make tests`` makes the environment from ``kserve.lock``; ``test_kserve.py`` runs this in it.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main(url: str, model: str, rows: list[list[float]]) -> dict[str, object]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    async with client:
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, model),
            "unknown_ready": await client.is_model_ready(url, "none"),
            "json": await inferred(client, url, model, rows, is_binary=False),
            "binary": await inferred(client, url, model, rows, is_binary=True),
            "refusal": await refusal(client, url, rows),
        }


async def inferred(
    client: InferenceRESTClient, url: str, model: str, rows: list[list[float]], *, is_binary: bool
) -> list[list[float]]:
    answer = await client.infer(url, request_of(model, rows, is_binary=is_binary), model)
    responsibilities = answer.get_output_by_name("predict_proba").as_numpy()
    return responsibilities.tolist()


def request_of(model: str, rows: list[list[float]], *, is_binary: bool) -> InferRequest:
    X = np.array(rows)
    tensor = InferInput("X", list(X.shape), "FP64")
    tensor.set_data_from_numpy(X, binary_data=is_binary)
    wanted = [RequestedOutput("predict_proba", parameters={"binary_data": is_binary})]
    return InferRequest(model, [tensor], request_id="seven", request_outputs=wanted)


async def refusal(client: InferenceRESTClient, url: str, rows: list[list[float]]) -> str:
    try:
        await client.infer(url, request_of("none", rows, is_binary=False), "none")
    except httpx.HTTPStatusError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    url, model, rows = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(main(url, model, json.loads(rows)))))
