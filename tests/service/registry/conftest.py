"""A file registry with one model and one version, for the tests of this folder."""

from pathlib import Path

import pytest

from service.adapters.registry_files import FileRegistry
from service.domain.records import ModelRecord, VersionRecord
from tests.support.records import SMALL_MIXTURE, a_draft, a_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(path: Path) -> FileRegistry:
    return FileRegistry(path)


@pytest.fixture
def model(registry: FileRegistry) -> ModelRecord:
    record = a_model()
    registry.create_model(record)
    return record


@pytest.fixture
def version(registry: FileRegistry, model: ModelRecord) -> VersionRecord:
    draft = a_draft(model, SMALL_MIXTURE, log_likelihood_history=())
    return registry.commit_version(draft, SMALL_MIXTURE)
