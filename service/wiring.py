"""The only builder: which adapters stand behind the ports, and what the settings mean to them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio import CapacityLimiter

from service.adapters.answer_store_sql import SqlAnswerStore
from service.adapters.audit_sql import SqlAuditTrail
from service.adapters.database import Database
from service.adapters.fit_spool import FITS, FitSpool
from service.adapters.job_store_sql import SqlJobStore
from service.adapters.mixture_cache import MixtureCache
from service.adapters.model_file import ModelFileError, bundle_of, model_file_of
from service.adapters.registry_check import Finding, findings
from service.adapters.registry_files import FileRegistry
from service.adapters.runner_process import ProcessRunner, WorkerLimits
from service.adapters.runner_read_only import ReadOnlyRunner
from service.adapters.scheduling import come_first
from service.api.holdings import Holdings
from service.api.payloads.spool import SpoolPlace
from service.api.services import ApiOptions, Services, Threads
from service.domain.aliases import Aliases
from service.domain.analysis import Analysis
from service.domain.catalogue import Catalogue
from service.domain.estimates import MachineCosts
from service.domain.fitting import Fitting
from service.domain.identifiers import is_legal_id
from service.domain.inference import Inference
from service.domain.picturing import Picturing
from service.domain.ports import AnswerStore, AuditTrail, JobRunner, JobStore, ModelRegistry
from service.domain.retention import Retention
from service.domain.served_models import ServedModels
from service.errors import InvalidInput
from service.extras import installed_analyst, installed_painter
from service.settings import Settings

MACHINE_COSTS = MachineCosts()


def build_services(settings: Settings) -> Services:
    """Build them for the process that serves, whose threads come before those of its fits.

    A registry that can't be written is served as it is; every change is refused.
    """
    come_first()
    registry = FileRegistry(settings.registry_dir, min_free_bytes=settings.min_free_bytes)
    is_read_only = registry.is_read_only()
    database = _database(settings, is_read_only=is_read_only)
    runner: JobRunner = ReadOnlyRunner() if is_read_only else _process_runner(settings)

    def close(timeout_seconds: float) -> None:
        runner.close(timeout_seconds)
        database.close()

    stores = Stores(
        jobs=SqlJobStore(database),
        answers=SqlAnswerStore(database),
        audit=_audit_trail(database, settings),
    )
    return assemble(settings, registry, stores, runner, close)


def _process_runner(settings: Settings) -> ProcessRunner:
    return ProcessRunner(
        processes=settings.fit_processes,
        queue_size=settings.fit_queue_size,
        spool=FitSpool(settings.registry_dir / FITS, min_free_bytes=settings.min_free_bytes),
        limits=WorkerLimits(
            threads=settings.fit_threads,
            memory_bytes=settings.fit_memory_bytes,
            max_seconds=settings.fit_max_seconds,
            checkpoint_seconds=settings.fit_checkpoint_seconds,
        ),
    )


@dataclass(frozen=True, slots=True)
class Stores:
    """What is remembered beside the registry."""

    jobs: JobStore
    answers: AnswerStore
    audit: AuditTrail


def assemble(
    settings: Settings,
    registry: ModelRegistry,
    stores: Stores,
    runner: JobRunner,
    close: Callable[[float], None],
) -> Services:
    """Put the domain on the given adapters."""
    limits = settings.limits
    cache = MixtureCache(registry.load_mixture, max_bytes=settings.mixture_cache_bytes)
    fitting = Fitting(
        registry,
        stores.jobs,
        runner,
        limits,
        retention=Retention(registry, settings.max_versions),
        costs=MACHINE_COSTS,
    )
    inference = Inference(registry, cache, limits=limits, default_model=settings.default_model)
    analysis = Analysis(installed_analyst)
    return Services(
        catalogue=Catalogue(registry, stores.jobs, fitting, limits),
        aliases=Aliases(registry),
        fitting=fitting,
        inference=inference,
        served=ServedModels(registry, inference),
        analysis=analysis,
        pictures=Picturing(analysis, installed_painter),
        answers=stores.answers,
        audit=stores.audit,
        options=ApiOptions(
            fit_wait_seconds=settings.fit_wait_seconds,
            max_wait_seconds=settings.max_wait_seconds,
            drain_seconds=settings.drain_seconds,
            max_body_bytes=settings.max_body_bytes,
            max_binary_body_bytes=settings.max_binary_body_bytes,
            max_stream_bytes=settings.max_stream_bytes,
            recovery_seconds=settings.recovery_seconds,
            preload_extras=settings.preload_extras,
            # The system's own where the registry can't be written, or is in memory as in tests.
            spool=SpoolPlace(_spool_dir(settings.registry_dir), settings.min_free_bytes),
        ),
        limits=limits,
        start=runner.start,
        close=close,
        threads=Threads(
            queue_size=settings.compute_queue_size, wait_seconds=settings.compute_wait_seconds
        ),
        streams=CapacityLimiter(settings.max_event_streams),
        holdings=Holdings(settings.max_held_body_bytes),
    )


def _spool_dir(registry_dir: Path) -> str | None:
    return str(registry_dir) if os.access(registry_dir, os.W_OK) else None


@dataclass(frozen=True, slots=True)
class Upkeep:
    """A registry by itself, and what looks after it."""

    registry: FileRegistry
    retention: Retention

    def check(self) -> Iterator[Finding]:
        return findings(self.registry)

    def export_model(self, model_id: str) -> bytes:
        return model_file_of(self.registry.export_model(model_id))


def open_upkeep(settings: Settings) -> Upkeep:
    """Open the registry that is there; none is made."""
    registry = FileRegistry(
        settings.registry_dir, min_free_bytes=settings.min_free_bytes, may_make=False
    )
    return Upkeep(registry, Retention(registry, settings.max_versions))


def import_model(settings: Settings, data: bytes, model_id: str | None) -> str:
    """Store the model of such a file, under another id if one is given; return its id.

    The registry is made if there is none; the file is checked first.
    """
    try:
        bundle = bundle_of(data)
    except ModelFileError as error:
        raise InvalidInput("model_file_invalid", str(error)) from error
    if model_id is not None and not is_legal_id(model_id):
        raise InvalidInput("invalid_parameter", "that can't be the id of a model")
    registry = FileRegistry(settings.registry_dir, min_free_bytes=settings.min_free_bytes)
    registry.import_model(bundle.as_new(model_id or bundle.record.id))
    return model_id or bundle.record.id


@contextmanager
def open_audit(settings: Settings) -> Iterator[AuditTrail]:
    """Open the audit trail of the service that has these settings."""
    registry = FileRegistry(settings.registry_dir, may_make=False)
    database = _database(settings, is_read_only=registry.is_read_only())
    try:
        yield _audit_trail(database, settings)
    finally:
        database.close()


def _database(settings: Settings, *, is_read_only: bool) -> Database:
    return Database.at(settings.database, settings.registry_dir, is_read_only=is_read_only)


def _audit_trail(database: Database, settings: Settings) -> SqlAuditTrail:
    return SqlAuditTrail(database, max_entries=settings.max_audit_entries)
