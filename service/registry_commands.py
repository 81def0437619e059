"""``gmm-service registry …``: look after a registry, also beside a running service.

What is found goes to standard output as lines of JSON; the summary for people to standard error.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from service import wiring
from service.command_line import USAGE_ERROR, Overrides, RegistryDir, read_settings
from service.domain.ports import ModelRegistry
from service.errors import MODEL_CORRUPT, NotFound, ServiceError, Unavailable
from service.settings import Settings

FAULTS_FOUND = 1

registry = typer.Typer(help="Look after a registry.", no_args_is_help=True)

Keep = Annotated[
    int | None,
    typer.Option(min=1, help="Versions kept of a model [GMM_MAX_VERSIONS]; all without it."),
]
As = Annotated[str | None, typer.Option("--as", help="Another id for the model.")]


@registry.command("list")
def list_models(registry_dir: RegistryDir = None) -> None:
    """List models: versions, the latest one, aliases."""
    with _upkeep(registry_dir) as upkeep:
        for model_id in upkeep.registry.stored_models():
            try:
                _say(**_line_of(upkeep.registry, model_id))
            except NotFound:  # deleted meanwhile
                continue
            except ServiceError as error:
                _say(model=model_id, fault=error.code)


@registry.command()
def fsck(registry_dir: RegistryDir = None) -> None:
    """Check every stored byte against its digest; exit with 1 when something is damaged."""
    n_looked_at = n_faults = 0
    with _upkeep(registry_dir) as upkeep:
        for finding in upkeep.check():
            n_looked_at += 1
            if finding.fault is not None:
                n_faults += 1
                _say(model=finding.model_id, what=finding.what, fault=finding.fault)
    typer.echo(f"{n_looked_at} looked at, {n_faults} damaged", err=True)
    if n_faults:
        raise typer.Exit(FAULTS_FOUND)


@registry.command()
def gc(registry_dir: RegistryDir = None, keep: Keep = None) -> None:
    """Clear what a crash left; with a bound also delete the oldest versions that are too many."""
    with _upkeep(registry_dir, keep) as upkeep:  # opening a registry clears
        for record in upkeep.registry.list_models():
            try:
                deleted = upkeep.retention.collect(record.id)
            except NotFound:  # deleted meanwhile
                continue
            except Unavailable as error:
                if error.code != MODEL_CORRUPT:
                    raise
                _say(model=record.id, fault=error.code)
                continue
            if deleted:
                _say(model=record.id, deleted_versions=list(deleted))


@registry.command("export")
def export_model(model: str, file: Path, registry_dir: RegistryDir = None) -> None:
    """Write a model with its versions and aliases into one new file."""
    with _upkeep(registry_dir) as upkeep:
        content = upkeep.export_model(model)
        try:
            with file.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise _file_failed(file, error) from error
    _say(model=model, bytes=len(content), sha256=sha256(content).hexdigest())


@registry.command("import")
def import_model(file: Path, registry_dir: RegistryDir = None, name: As = None) -> None:
    """Check such a file and store its model in one step; nothing in it is run.

    The registry is made if there is none.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _file_failed(file, error) from error
    settings = _settings(registry_dir)
    with _refusals_told(settings):
        _say(model=wiring.import_model(settings, content, name))


def _line_of(models: ModelRegistry, model_id: str) -> dict[str, object]:
    latest = models.latest_version(models.get_model(model_id).id)
    return {
        "model": model_id,
        "versions": len(models.list_versions(model_id)),
        "latest_version": None if latest is None else latest.number,
        "aliases": dict(models.get_aliases(model_id).targets),
    }


def _file_failed(file: Path, error: OSError) -> typer.Exit:
    typer.echo(f"{file}: {error.strerror}", err=True)
    return typer.Exit(USAGE_ERROR)


@contextmanager
def _upkeep(registry_dir: Path | None, keep: int | None = None) -> Iterator[wiring.Upkeep]:
    settings = _settings(registry_dir, keep)
    with _refusals_told(settings):
        yield wiring.open_upkeep(settings)


def _settings(registry_dir: Path | None, keep: int | None = None) -> Settings:
    overrides: Overrides = {}
    if registry_dir is not None:
        overrides["registry_dir"] = registry_dir
    if keep is not None:
        overrides["max_versions"] = keep
    return read_settings(overrides)


@contextmanager
def _refusals_told(settings: Settings) -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        typer.echo(f"{settings.registry_dir}: {error.detail}", err=True)
        raise typer.Exit(USAGE_ERROR) from error


def _say(**facts: object) -> None:
    typer.echo(json.dumps(facts))
