"""Rows that are read apart from their document are those that the plain parser reads, or none."""

import json
import re
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.api.payloads import json_format
from service.api.payloads.json_format import CODEC, KEY_OF_ROWS, ROW_FIELDS, matrix
from service.api.payloads.json_rows import STAND_IN, NotRegular, parse_apart
from service.api.payloads.values import Expected
from service.errors import InvalidInput, MalformedRequest

EXTRA = Expected(frozenset({"sample_weight", "feature_names", "model"}))

numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
row_lists = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=20
    )
)


@settings(deadline=None)
@given(rows=row_lists, name=st.sampled_from(ROW_FIELDS), indent=st.sampled_from([None, 1]))
def test_regular_rows_are_the_same_numbers(
    rows: list[list[float]], name: str, indent: int | None
) -> None:
    others = {"model": "m", "sample_weight": [1, 2.5]}
    text = json.dumps({"columns": ["a"], name: rows, **others}, indent=indent)

    document, X = parse_apart(text.encode(), KEY_OF_ROWS)

    assert np.array_equal(X, matrix(json.loads(text)[name], "#"))
    assert document == {"columns": ["a"], name: STAND_IN, **others}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_is_read_wherever_it_lies(kind: type[bytes | bytearray | memoryview]) -> None:
    payload = CODEC.decode(kind(b'{"X":[[1,2],[3,4]]}'), EXTRA)

    assert payload.table.X.tolist() == [[1, 2], [3, 4]]


IRREGULAR = [
    b'{"X":[[1,2],[3]]}',
    b'{"X":[[1],[2,3]]}',
    b'{"X":[[1,2],[3],[4,5,6]]}',
    b'{"X":[[1,2],3]}',
    b'{"X":[[1,2],[[3,4]]]}',
    b'{"X":[[1,[2]]]}',
    b'{"X":[[[1,2]]]}',
    b'{"X":[[1,true]]}',
    b'{"X":[[1,null]]}',
    b'{"X":[[1,"2"]]}',
    b'{"X":[[1,1e400]]}',
    b'{"X":[[1,NaN]]}',
    b'{"X":[[1,2],]}',
    b'{"X":[[1,2,]]}',
    b'{"X":[[,1,2]]}',
    b'{"X":[[1 2]]}',
    b'{"X":[[1,2][3,4]]}',
    b'{"X":[[1,2]]',
    b'{"X":[[1,2]',
    b'{"X":[[1,2',
    b'{"X":[[1,2]]}}',
    b'{"X":[[1,2]]} 1',
    b'{"X":[[1,\xff]]}',
    b'{"X":[[1,2]],"model":"\xff"}',
    b'{"X":[[1,2]],"X":[[3,4]]}',
    b'{"X":[[1,2]],"\\u0058":[[3,4]]}',
    b'{"X":[[1,2]],"model":"a","model":"b"}',
    b'{"X":[[1,2]],"model":"\\ud800"}',
    b'{"\\u0058":[[1,2]]}',
    b'{"X":[]}',
    b'{"X":[[]]}',
    b'{"X":[[],[]]}',
    b'{"X":1}',
    b'{"X":[1,2]}',
    b'{"X":{"X":[[1,2]]}}',
    b'{"model":{"X":[[1,2]]},"X":null}',
    b'{"X":null,"model":{"X":[[1,2]]}}',
    b'{"\\"X":[[1,2]],"X":null}',
    b'{"a"X":[[1,2]],"b":"c"}',
    b'{"model":"\\"X\\":[[1,2]]"}',
    b"[[1,2]]",
    b'["X",[[1,2]]]',
    b'[{"X":[[1,2]]}]',
    b'"X":[[1,2]]}',
    b"{}",
    b"",
]
NOT_NUMBERS = ["", "+1", "01", "-01", "00", ".5", "-.5", "5.", "1.e1", "1e", "1e+", "1e-", "-"]
NOT_NUMBERS += ["--1", "- 1", "1.2.3", "1e1.5", "0x10", "1_0", "Infinity", "-Infinity", "1f", "1,"]
REGULAR = [
    b'{"X":[[1,2]],"instances":[[3,4]]}',
    b'{"X":[[1,2]],"model":{"a":1}}',
    b'{"X":[[1,2]],"model":[[]]}',
    b'{"X":[[1,2]],"model":"a,[b"}',
    b'{"X":[[1,2]],"model":"\\"X\\":[["}',
    b'{"X":[[1,2]],"sample_weight":[1,"a"]}',
    b'{"X":[[1,2]],"other":1}',
    b' \t\r\n{ "X" \t: \r\n[ [ 1 \n,2\t] , \r[3, 4]\n] } ',
    b'{"model":"m","X":[[-0,-0.0,0e9,1E5,1e+05,1e-7]]}',
]


@pytest.mark.parametrize(
    "text",
    IRREGULAR + [b'{"X":[[1,%b]]}' % number.encode() for number in NOT_NUMBERS],
)
def test_what_is_not_regular_is_judged_by_the_plain_parser(text: bytes) -> None:
    with pytest.raises(NotRegular):
        json_format._with_rows_apart(text)

    assert outcome(text) == plain_outcome(text)


@pytest.mark.parametrize("text", REGULAR)
def test_a_document_with_regular_rows_is_judged_as_by_the_plain_parser(text: bytes) -> None:
    json_format._with_rows_apart(text)

    assert outcome(text) == plain_outcome(text)


def test_a_client_that_sends_the_stand_in_has_no_rows() -> None:
    assert plain_outcome(b'{"X":"0"}') == outcome(b'{"X":"%b"}' % STAND_IN.encode())


PIECES = (
    *(bytes([byte]) for byte in b',[]"1-+0{}:\\eE. .\t\nX\xff'),
    b'"X":[[1]],',
    b'"instances":[[1]]',
    b"null",
    b"],[",
    b"1e400",
    b"e-7",
    b'\\"X":[[1]]',
)


@settings(deadline=None, max_examples=1000)
@example(rows=[[1.0]], changes=[(2, b"\\", 0)])
@given(
    rows=row_lists,
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(PIECES), st.integers(0, 3)),
        min_size=1,
        max_size=3,
    ),
)
def test_a_damaged_text_is_judged_as_by_the_plain_parser(
    rows: list[list[float]], changes: list[tuple[int, bytes, int]]
) -> None:
    text = json.dumps({"model": "m", "X": rows, "sample_weight": [1] * len(rows)}).encode()
    for place, inserted, n_removed in changes:
        at = place % len(text)
        text = text[:at] + inserted + text[at + n_removed :]

    assert outcome(text) == plain_outcome(text)


def outcome(text: bytes) -> object:
    """Tell what a text is decoded to; doubles by their bits."""
    try:
        payload = CODEC.decode(text, EXTRA)
    except (InvalidInput, MalformedRequest) as refusal:
        return refusal.code, refusal.detail, refusal.issues
    weight = None if payload.sample_weight is None else payload.sample_weight.tolist()
    return payload.table.X.shape, payload.table.X.tobytes(), payload.model, weight


def plain_outcome(text: bytes) -> object:
    with patch.object(json_format, "KEY_OF_ROWS", re.compile(rb"(?!)")):
        return outcome(text)
