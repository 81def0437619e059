"""An alias remembers what it named, and the way back."""

from collections.abc import Sequence
from typing import Literal

import pytest

from service.domain.records import MAX_ALIAS_CHANGES, AliasBook, AliasRecord

Step = tuple[Literal["set", "rollback", "delete"], int | None]


def after(*steps: Step) -> AliasRecord:
    alias = AliasRecord("champion")
    for action, version in steps:
        alias = alias.moved(action, version)
    return alias


@pytest.mark.parametrize(
    ("steps", "earlier"),
    [
        ([], []),
        ([("set", 1)], []),
        ([("set", 1), ("set", 2), ("set", 3)], [2, 1]),
        ([("set", 1), ("set", 2), ("set", 3), ("rollback", 2)], [1]),
        ([("set", 1), ("set", 2), ("set", 3), ("rollback", 2), ("rollback", 1)], []),
        ([("set", 1), ("set", 2), ("set", 3), ("rollback", 1)], []),
        ([("set", 1), ("set", 2), ("rollback", 1), ("set", 3)], [1]),
        ([("set", 1), ("set", 2), ("set", 1)], [2]),
        ([("set", 1), ("set", 2), ("set", 1), ("set", 3)], [1, 2]),
        ([("set", 1), ("delete", None)], [1]),
        ([("set", 1), ("delete", None), ("rollback", 1)], []),
        ([("set", 1), ("delete", None), ("set", 2)], [1]),
        ([("rollback", 4), ("set", 5)], [4]),
    ],
    ids=str,
)
def test_a_rollback_may_lead_to_what_was_named_before(
    steps: Sequence[Step], earlier: list[int]
) -> None:
    assert list(after(*steps).earlier_versions()) == earlier


def test_a_history_forgets_its_oldest_changes() -> None:
    alias = after(*[("set", number) for number in range(MAX_ALIAS_CHANGES + 5)])
    assert len(alias.history) == MAX_ALIAS_CHANGES
    assert (alias.history[0].version, alias.version) == (5, MAX_ALIAS_CHANGES + 4)


def test_a_book_tells_what_is_named_now() -> None:
    book = AliasBook().with_alias(after(("set", 1), ("set", 2)))
    assert book.targets == {"champion": 2}
    assert book.with_alias(book.alias("champion").moved("delete", None)).targets == {}
