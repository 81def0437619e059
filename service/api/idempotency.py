"""``Idempotency-Key``: a request that is sent again changes nothing and is answered as before.

What a handler *returns* is kept and answered again. What it *raises* is not: a refusal left
nothing behind, and after a failure of ours the next request under the key finds, by the claim's
token, what was made already.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated

import numpy as np
from fastapi import Depends, Header, Request, Response

from service.api.payloads.values import DataPayload
from service.api.schemas import Body
from service.api.services import Services, services_of
from service.domain.records import new_uid
from service.domain.request_keys import Claim, KeptAnswer, RequestKey
from service.errors import InternalFailure, InvalidInput, Issue, ServiceError, Unavailable

PRINTABLE = r"^[\x20-\x7e]+$"
REPLAYED = {"Idempotency-Replayed": "true"}
NOT_KEPT = frozenset({"content-length"})

IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255,
        pattern=PRINTABLE,
        description="Sent again within 24 hours with the same payload, the request does nothing "
        "and its first answer comes again.",
    ),
]
Act = Callable[[str], Awaitable[Response]]
"""Does what is asked for; what it makes is named after the token it is given."""


class OnceOnly:
    """Does what a request asks for once, however often it comes under its key."""

    def __init__(self, services: Services, key: RequestKey | None) -> None:
        self._services = services
        self._key = key

    async def has_come_before(self) -> bool:
        """Tell whether there may be an answer under the key already, whatever is there now."""
        if self._key is None:
            return False
        return await self._services.threads.look_up(self._services.answers.knows, self._key)

    async def answer(self, fingerprint: Callable[[], str], act: Act) -> Response:
        """Answer by ``act``, or as the first request under the key was answered.

        ``fingerprint`` tells this payload from any other; it is called in another thread.
        """
        if self._key is None:
            return await act(new_uid())
        claimed = await self._services.threads.begin(self._claimed, self._key, fingerprint)
        if isinstance(claimed, KeptAnswer):
            return Response(claimed.body, claimed.status, {**claimed.headers, **REPLAYED})
        return await self._first_answer(claimed, act)

    def _claimed(self, key: RequestKey, fingerprint: Callable[[], str]) -> Claim | KeptAnswer:
        return self._services.answers.claim(key, fingerprint(), new_uid())

    async def _first_answer(self, claim: Claim, act: Act) -> Response:
        answers, threads = self._services.answers, self._services.threads
        try:
            response = await act(claim.token)
        except Exception as error:
            give_back = answers.forget if _is_refusal(error) else answers.abandon
            await threads.look_up(give_back, claim)
            raise
        await threads.look_up(answers.keep, claim, _kept(response))
        return response


async def once_only(request: Request, idempotency_key: IdempotencyKey = None) -> OnceOnly:
    if len(set(request.headers.getlist("idempotency-key"))) > 1:
        raise _several_keys()
    scope = f"{request.method} {request.url.path}"
    key = None if idempotency_key is None else RequestKey(scope, idempotency_key)
    return OnceOnly(services_of(request), key)


Once = Annotated[OnceOnly, Depends(once_only)]


def fingerprint_of_body(body: Body) -> str:
    return hashlib.sha256(body.model_dump_json(exclude_unset=True).encode()).hexdigest()


def fingerprint_of_data(payload: DataPayload, *conditions: object) -> str:
    """Return a digest of the rows, whatever format they came in, and of what they are to do.

    The format of the answer is among the conditions: what is kept is in that of the first one.
    """
    table = payload.table
    names = None if table.feature_names is None else tuple(table.feature_names)
    digest = hashlib.sha256(repr((table.X.shape, names, conditions)).encode())
    digest.update(np.ascontiguousarray(table.X).data)
    if payload.sample_weight is not None:
        digest.update(np.ascontiguousarray(payload.sample_weight).data)
    return digest.hexdigest()


def _several_keys() -> InvalidInput:
    detail = "Idempotency-Key may be given once"
    return InvalidInput(
        "invalid_parameter",
        detail,
        issues=[Issue("#/header/idempotency-key", "repeated_parameter", detail)],
    )


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, ServiceError) and not isinstance(error, Unavailable | InternalFailure)


def _kept(response: Response) -> KeptAnswer:
    headers = {name: text for name, text in response.headers.items() if name not in NOT_KEPT}
    return KeptAnswer(response.status_code, headers, bytes(response.body))
