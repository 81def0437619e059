"""What a registry refuses beyond what is missing, and what a failing disk becomes."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import MODEL_CORRUPT, NO_SPACE, PreconditionFailed, StorageFull, Unavailable

NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
RETRY_AFTER_SECONDS = 30
READ_ONLY = "registry_read_only"


def revision_mismatch(model_id: str) -> PreconditionFailed:
    return PreconditionFailed(
        "revision_mismatch",
        f"Model '{model_id}' was changed meanwhile; read it again and repeat the change.",
    )


def storage_full() -> StorageFull:
    return StorageFull(
        "storage_full",
        "The registry has no room for this; delete versions or models, or enlarge its disk.",
    )


def reserve_touched(n_bytes: int, min_free_bytes: int, free_bytes: int) -> StorageFull:
    """Return the refusal of what needs so many bytes; 0 where that is not known yet."""
    needed = f"{n_bytes} bytes are needed, " if n_bytes else ""
    return StorageFull(
        "storage_full",
        f"The registry has no room for this: {needed}{min_free_bytes} bytes of its disk are kept "
        f"free (GMM_MIN_FREE_BYTES), and {free_bytes} are free; delete versions or models, or "
        "enlarge the disk.",
    )


def artifact_too_large(n_bytes: int, max_bytes: int) -> StorageFull:
    return StorageFull(
        "storage_full",
        f"The parameters take {n_bytes} bytes and a version may have {max_bytes}; "
        "use fewer components or another covariance_type.",
    )


def record_corrupt(model_id: str) -> Unavailable:
    return Unavailable(
        MODEL_CORRUPT,
        f"The stored record of model '{model_id}' failed its integrity check; "
        "restore it from a backup or delete the model.",
    )


def registry_read_only() -> Unavailable:
    return Unavailable(
        READ_ONLY,
        "The registry can't be written at present; what is stored is still served.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def storage_failed() -> Unavailable:
    return Unavailable(
        "storage_failed",
        "The registry's storage failed; the service's log says how.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def no_registry() -> Unavailable:
    return Unavailable(
        "registry_missing",
        "There is no registry there; `gmm-service serve` and `gmm-service registry import` make "
        "one.",
    )


def registry_not_makeable() -> Unavailable:
    return Unavailable(
        "registry_missing",
        "There is no registry there, and none can be made: the directory can't be written.",
    )


def database_not_writable() -> Unavailable:
    return Unavailable(
        "database_read_only",
        "The file of the database can't be written, although the registry can.",
    )


def unknown_format(found: str) -> Unavailable:
    return Unavailable(
        "registry_format_unknown",
        f"The registry directory has the format '{found}', which this release does not know; "
        "start a release that does, or name another directory.",
    )


@contextmanager
def reading() -> Iterator[None]:
    """Turn what a disk answers to a read into a refusal."""
    try:
        yield
    except OSError as error:
        raise storage_failed() from error


@contextmanager
def making(not_makeable: Unavailable) -> Iterator[None]:
    """Turn what a disk answers at a start, when nothing is served yet, into a refusal."""
    with writing():
        try:
            yield
        except OSError as error:
            if error.errno in NOT_WRITABLE:
                raise not_makeable from error
            raise


@contextmanager
def writing() -> Iterator[None]:
    """Turn what a disk answers to a change into a refusal."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise storage_full() from error
        if error.errno in NOT_WRITABLE:
            raise registry_read_only() from error
        raise storage_failed() from error
