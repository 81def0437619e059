"""The cache of loaded mixtures: what it saves and what it lets go."""

from dataclasses import replace

import pytest

from gmm_engine import Mixture
from service.adapters.mixture_cache import MixtureCache
from service.adapters.registry_memory import MemoryRegistry
from service.domain.records import VersionRecord
from tests.support.records import a_draft, a_mixture, a_model


@pytest.fixture
def versions() -> list[VersionRecord]:
    """Three versions, each said to take 100 bytes."""
    registry = MemoryRegistry()
    model, mixture = a_model(), a_mixture()
    registry.create_model(model)
    committed = [registry.commit_version(a_draft(model, mixture), mixture) for _ in range(3)]
    return [
        replace(version, artifact_bytes=100, artifact_digest=f"digest-{version.number}")
        for version in committed
    ]


class Loads:
    """Loads mixtures and counts how often."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, version: VersionRecord) -> Mixture:
        self.numbers.append(version.number)
        return a_mixture()


def test_a_version_is_loaded_once(versions: list[VersionRecord]) -> None:
    loads = Loads()
    cache = MixtureCache(loads, max_bytes=1000)

    assert cache.load_mixture(versions[0]) is cache.load_mixture(versions[0])
    assert loads.numbers == [1]


def test_the_least_recently_used_makes_room(versions: list[VersionRecord]) -> None:
    loads = Loads()
    cache = MixtureCache(loads, max_bytes=200)

    for number in (1, 2, 1, 3, 1, 2):
        cache.load_mixture(versions[number - 1])

    assert loads.numbers == [1, 2, 3, 2]


def test_what_is_larger_than_the_cache_is_not_kept(versions: list[VersionRecord]) -> None:
    loads = Loads()
    cache = MixtureCache(loads, max_bytes=99)

    cache.load_mixture(versions[0])
    cache.load_mixture(versions[0])

    assert loads.numbers == [1, 1]
