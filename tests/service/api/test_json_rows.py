"""Rows read by the SIMD parser are those that the plain parser reads, or it reads none."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.payloads.json_format import CODEC, ROW_FIELDS, matrix
from service.api.payloads.json_rows import LEAST_BYTES, LONG_BYTES, NotRegular, regular_rows
from service.api.payloads.values import Expected
from service.errors import InvalidInput, MalformedRequest

EXTRA = Expected(frozenset({"sample_weight", "feature_names", "model"}))
PADDINGS = (b" " * LEAST_BYTES, b" " * LONG_BYTES)
"""So that a short text is long enough to be read fast, and to be read as a long one."""
paddings = st.sampled_from(PADDINGS)

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
row_lists = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=20
    )
)


@settings(deadline=None)
@given(
    rows=row_lists,
    name=st.sampled_from(ROW_FIELDS),
    indent=st.sampled_from([None, 1]),
    padding=paddings,
)
def test_regular_rows_are_the_same_numbers(
    rows: list[list[float]], name: str, indent: int | None, padding: bytes
) -> None:
    text = json.dumps({name: rows, "model": "m", "sample_weight": [1, 2.5]}, indent=indent)

    fields, X = regular_rows(text.encode() + padding, ROW_FIELDS)

    assert np.array_equal(X, matrix(json.loads(text)[name], "#"))
    assert fields == {name: None, "model": "m", "sample_weight": [1, 2.5]}


@pytest.mark.parametrize(
    "text",
    [
        b'{"X":[[1,2],[3]]}',
        b'{"X":[[1],[2,3]]}',
        b'{"X":[[1,2],[3],[4,5,6]]}',
        b'{"X":[[1,2],3]}',
        b'{"X":[[1,[2]]]}',
        b'{"X":[[1,true]]}',
        b'{"X":[[1,null]]}',
        b'{"X":[[1,"2"]]}',
        b'{"X":[[1,1e400]]}',
        b'{"X":[[1,NaN]]}',
        b'{"X":[[1,2]],"X":[[3,4]]}',
        b'{"X":[[1,2]],"\\u0058":[[3,4]]}',
        b'{"X":[[1,2]],"model":"a","model":"b"}',
        b'{"X":[[1,2]],"instances":[[3,4]]}',
        b'{"X":[[1,2]],"model":{"a":1}}',
        b'{"X":[[1,2]],"model":[[]]}',
        b'{"X":[[1,2]],"model":"\\ud800"}',
        b'{"X":[[1,2]],"model":"a,[b"}',
        b'{"X":[[1,2]],"sample_weight":[1,"a"]}',
        b'{"X":[]}',
        b'{"X":[[]]}',
        b'{"X":1}',
        b"[[1,2]]",
        b"{}",
        b'{"X":[[1,2]]',
        b'{"X":[[1,2]]}}',
        b'{"X":[[01,2]]}',
        b'{"X":[[1,\xff]]}',
    ],
)
@pytest.mark.parametrize("padding", PADDINGS, ids=["short", "long"])
def test_what_is_not_regular_is_left_to_the_plain_way(text: bytes, padding: bytes) -> None:
    with pytest.raises(NotRegular):
        regular_rows(padding + text, ROW_FIELDS)


@settings(deadline=None, max_examples=300)
@given(
    rows=row_lists,
    place=st.integers(0, 10_000),
    inserted=st.sampled_from(
        [b"", b",", b"[", b"]", b'"', b"1", b"-", b"{", b"}", b":", b"\\", b"e"]
    ),
    removed=st.integers(0, 2),
    padding=paddings,
)
def test_a_damaged_text_is_judged_as_without_the_fast_way(
    rows: list[list[float]], place: int, inserted: bytes, removed: int, padding: bytes
) -> None:
    whole = json.dumps({"X": rows, "model": "m"}).encode()
    at = place % len(whole)
    text = whole[:at] + inserted + whole[at + removed :] + padding

    assert outcome(text) == outcome(text.rstrip(b" "))


def outcome(text: bytes) -> object:
    """Tell what a text is decoded to; without the padding it is too short for the fast way."""
    try:
        payload = CODEC.decode(text, EXTRA)
    except (InvalidInput, MalformedRequest) as refusal:
        return refusal.code, refusal.issues
    return payload.table.X.tolist(), payload.model
