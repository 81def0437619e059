"""What can go wrong in the service, as facts with stable codes. No HTTP numbers here.

The class says the kind of failure, ``code`` the exact case; ``service.api.problems`` alone knows
which status a kind is answered with.

ServiceError
├── MalformedRequest       bytes that can't be read as what they claim to be
├── ModelUnnamed           the bare forms: no model was named, or two that disagree
├── Forbidden              who asks may not
├── NotFound               a model, a version, a job, an alias
├── Conflict               the state of the resource forbids it
├── PreconditionFailed     the client's copy is out of date
├── InvalidInput           well-formed but wrong; may name the places
├── BodyTooLarge
├── HeadTooLarge           the request line and headers
├── SlowRequest            its bytes did not come in in time
├── UnsupportedMediaType
│   └── UnsupportedEncoding   how a body is compressed
├── NotAcceptable
├── TooManyRequests        a bound of a queue or a rate is reached
├── Unavailable            draining, overloaded, read-only, a corrupt version
├── StorageFull
├── Unsupported            the service does not do it, or not as it is installed
└── InternalFailure        a fit broke by a fault of ours
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass

MAX_NAMED_ISSUES = 20
"""How many places one refusal names; the rest is cut so that an answer stays small."""


DRAINING_RETRY_SECONDS = 5
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a full disk says."""
MODEL_CORRUPT = "model_corrupt"
"""Of what is stored of a model, and fails its integrity check."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One wrong place in a request."""

    pointer: str
    """JSON pointer into the request as a URI fragment, such as ``#/X/3/1``."""
    code: str
    detail: str


class ServiceError(Exception):
    """Base of every refusal; never raised itself."""

    title = "Error"

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        issues: Sequence[Issue] = (),
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.issues = tuple(issues[:MAX_NAMED_ISSUES])
        self.retry_after_seconds = retry_after_seconds


class MalformedRequest(ServiceError):
    title = "Malformed request"


class ModelUnnamed(ServiceError):
    title = "Model not named"


class Forbidden(ServiceError):
    title = "Forbidden"


class NotFound(ServiceError):
    title = "Not found"

    @classmethod
    def model(cls, model_id: str) -> "NotFound":
        return cls("model_not_found", f"There is no model '{model_id}'.")

    @classmethod
    def version(cls, model_id: str, number: int) -> "NotFound":
        return cls("version_not_found", f"Model '{model_id}' has no version {number}.")

    @classmethod
    def job(cls, job_id: str) -> "NotFound":
        return cls("job_not_found", f"There is no job '{job_id}'.")

    @classmethod
    def alias(cls, model_id: str, alias: str) -> "NotFound":
        return cls("alias_not_found", f"Model '{model_id}' has no alias '{alias}'.")


class Conflict(ServiceError):
    title = "Conflict"

    @classmethod
    def model_exists(cls, model_id: str) -> "Conflict":
        return cls(
            "model_exists",
            f"A model '{model_id}' exists already; choose another id or update that one.",
        )

    @classmethod
    def model_not_fitted(cls, model_id: str) -> "Conflict":
        return cls(
            "model_not_fitted",
            f"Model '{model_id}' has no version yet; POST /models/{model_id}/fit with data first.",
        )

    @classmethod
    def fit_in_progress(cls, model_id: str) -> "Conflict":
        return cls(
            "fit_in_progress",
            f"Model '{model_id}' is being fitted; wait for that, or let this fit queue or "
            "supersede it by on_conflict.",
        )

    @classmethod
    def version_aliased(cls, model_id: str, number: int) -> "Conflict":
        return cls(
            "version_aliased",
            f"An alias of model '{model_id}' names version {number}; move or delete it first.",
        )


class PreconditionFailed(ServiceError):
    title = "Precondition failed"


class InvalidInput(ServiceError):
    title = "Invalid input"


class BodyTooLarge(ServiceError):
    title = "Body too large"


class HeadTooLarge(ServiceError):
    title = "Head too large"


class SlowRequest(ServiceError):
    title = "Request timeout"


class UnsupportedMediaType(ServiceError):
    title = "Unsupported media type"


class UnsupportedEncoding(UnsupportedMediaType):
    title = "Unsupported content encoding"

    def __init__(self, supported: Sequence[str]) -> None:
        super().__init__(
            "unsupported_encoding",
            f"A body here is compressed by {' or '.join(supported)}, by one of them, or not.",
        )
        self.supported = tuple(supported)


class NotAcceptable(ServiceError):
    title = "Not acceptable"


class TooManyRequests(ServiceError):
    title = "Too many requests"


class Unavailable(ServiceError):
    title = "Unavailable"

    @classmethod
    def draining(cls) -> "Unavailable":
        return cls(
            "draining",
            "The service is shutting down; try again shortly.",
            retry_after_seconds=DRAINING_RETRY_SECONDS,
        )

    @classmethod
    def model_corrupt(cls, model_id: str, number: int) -> "Unavailable":
        return cls(
            MODEL_CORRUPT,
            f"Version {number} of model '{model_id}' failed its integrity check and is not served; "
            "restore it from a backup or use another version.",
        )


class StorageFull(ServiceError):
    title = "Storage full"


class Unsupported(ServiceError):
    title = "Not supported"

    @classmethod
    def without(cls, extra: str) -> "Unsupported":
        return cls(
            "extra_not_installed",
            f"This takes the extra `{extra}`, which is not installed with this service: "
            f"pip install 'gmm-service[{extra}]' brings it.",
        )


class InternalFailure(ServiceError):
    title = "Internal error"
