"""A model keeps so many versions; what goes is the oldest that nobody named."""

from collections.abc import Sequence

import pytest

from service.adapters.registry_memory import MemoryRegistry
from service.domain.retention import Retention
from service.settings import Settings
from tests.service.client import serving
from tests.service.rows import TWO_GROUPS
from tests.support.records import SMALL_MIXTURE, a_draft, a_model


@pytest.mark.parametrize(
    ("max_versions", "named", "kept"),
    [
        (0, [], [1, 2, 3, 4, 5]),
        (9, [], [1, 2, 3, 4, 5]),
        (2, [], [4, 5]),
        (1, [], [5]),
        (2, [1], [1, 5]),
        (2, [1, 2, 3], [1, 2, 3, 5]),
        (3, [4], [3, 4, 5]),
    ],
)
def test_the_oldest_unnamed_versions_go(
    max_versions: int, named: Sequence[int], kept: list[int]
) -> None:
    registry, model = MemoryRegistry(), a_model()
    registry.create_model(model)
    for _ in range(5):
        registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
    for number in named:
        registry.update_aliases(
            "iris",
            lambda book: book.with_alias(book.alias(f"a{number}").moved("set", number)),  # noqa: B023 - called at once
        )

    deleted = Retention(registry, max_versions).collect("iris")

    assert [version.number for version in registry.list_versions("iris")] == kept
    assert sorted([*deleted, *kept]) == [1, 2, 3, 4, 5]


def test_a_fit_collects_what_is_too_many_and_reuses_no_number() -> None:
    with serving(Settings(max_versions=2)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        client.put("/models/groups/aliases/champion", {"version": 1})
        made = [
            client.post("/models/groups/fit", {"X": TWO_GROUPS}).json()["version"] for _ in range(3)
        ]
        listed = client.get("/models/groups/versions").json()["versions"]

    assert made == [2, 3, 4]
    assert [version["version"] for version in listed] == [1, 4]
