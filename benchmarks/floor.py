"""The floor: an application that parses, scores with plain NumPy and writes, and knows no more.

Under uvicorn, as ``benchmarks.serving`` starts it. The mixture is read from the file that
``FLOOR_MODEL`` names.
"""

import os

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

MODEL = np.load(os.environ["FLOOR_MODEL"])
MEANS, FACTORS = MODEL["means"], MODEL["precisions_cholesky"]
K, D = MEANS.shape
SHIFTS = np.einsum("kd,kde->ke", MEANS, FACTORS)
SIDE_BY_SIDE = FACTORS.transpose(1, 0, 2).reshape(D, K * D)
LOG_DETS = np.log(np.diagonal(FACTORS, axis1=1, axis2=2)).sum(axis=1)
CONSTANTS = np.log(MODEL["weights"]) + LOG_DETS - 0.5 * D * np.log(2 * np.pi)


def predict_proba(X: NDArray[np.float64]) -> NDArray[np.float64]:
    whitened = (X @ SIDE_BY_SIDE).reshape(len(X), K, D) - SHIFTS
    joint = CONSTANTS - 0.5 * np.einsum("nkd,nkd->nk", whitened, whitened)
    resp = np.exp(joint - joint.max(axis=1, keepdims=True))
    return np.asarray(resp / resp.sum(axis=1, keepdims=True))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    body, is_whole = b"", False
    while not is_whole:
        message = await receive()
        body += message.get("body", b"")
        is_whole = not message.get("more_body", False)
    X = np.array(orjson.loads(body)["X"], dtype=np.float64)
    answer = {"model": "m", "version": 1, "probabilities": predict_proba(X)}
    content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    length = str(len(content)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
