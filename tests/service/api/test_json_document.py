"""JSON bytes to a document: as strict as the plain parser with every check done by hand."""

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.api.payloads.json_document import MAX_DEPTH, JsonValue, parse_json
from service.errors import InvalidInput, MalformedRequest

keys = st.text(alphabet='abX:"\\{}[] é\n', max_size=4)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | keys
)
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)


class WithPairs(list[tuple[str, object]]):
    """An object as the text has it, equal keys and all."""


def has_equal_keys(value: object) -> bool:
    if isinstance(value, WithPairs):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(has_equal_keys(item) for _, item in value)
    return isinstance(value, list) and any(map(has_equal_keys, value))


def depth_of(value: JsonValue) -> int:
    match value:
        case dict():
            return 1 + max(map(depth_of, value.values()), default=0)
        case list():
            return 1 + max(map(depth_of, value), default=0)
    return 0


@given(documents, st.booleans())
def test_what_is_sound_is_read_as_the_standard_library_reads_it(
    document: JsonValue, ascii_only: bool
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)

    if depth_of(document) <= MAX_DEPTH:
        assert parse_json(text.encode()) == json.loads(text)


@given(documents, documents, keys)
@example(1, 2, ":")
@example([{}], {"a": {}}, '"')
def test_an_equal_key_is_seen_wherever_it_is(one: JsonValue, other: JsonValue, key: str) -> None:
    pairs = f"{json.dumps(key)}: {json.dumps(one)}, {json.dumps(key)} : {json.dumps(other)}"
    text = f'[{{"x": [{{{pairs}}}]}}]'
    assert has_equal_keys(json.loads(text, object_pairs_hook=WithPairs))

    with pytest.raises(MalformedRequest) as refused:
        parse_json(text.encode())
    assert refused.value.code in ("duplicate_key", "nesting_too_deep")


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"]":'])
def test_depth_is_counted_exactly(opening: str) -> None:
    closing = {"[": "]", "{": "}"}[opening[0]]

    def nested(depth: int) -> bytes:
        return (opening * depth + "0" + closing * depth).encode()

    parse_json(nested(MAX_DEPTH))
    with pytest.raises(MalformedRequest) as refused:
        parse_json(nested(MAX_DEPTH + 1))
    assert refused.value.code == "nesting_too_deep"


def test_brackets_in_strings_do_not_count() -> None:
    text = json.dumps({"a": "[" * 50, "b": "\\" * 3 + "{{" * 20})

    assert parse_json(text.encode()) == json.loads(text)


def test_numbers_beyond_a_double_are_pointed_at() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_json(b'{"a":[1,{"b":1e999}],"c":-1e999,"d":2}')

    assert [issue.pointer for issue in refused.value.issues] == ["#/a/1/b", "#/c"]


@pytest.mark.parametrize(
    "number",
    ["1e309", "-1E+400", "1.8e0308", "0.001e400", "9" * 310, "1" + "0" * 250 + ".5e99", "10e308"],
)
def test_a_number_beyond_a_double_is_pointed_at_whatever_its_spelling(number: str) -> None:
    others = f'"1e999",1e-999,1e308,{"1" * 300},0e999,-0.{"0" * 300}1e300,1e-{"9" * 400}'
    body = f'{{"1e999":[{others}],"a":[{others},{number}, {number}\n],"b":{number}}}'

    with pytest.raises(InvalidInput) as refused:
        parse_json(body.encode())

    assert [issue.pointer for issue in refused.value.issues] == ["#/a/7", "#/a/8", "#/b"]


@given(st.binary(max_size=40))
def test_no_bytes_break_it(body: bytes) -> None:
    with suppress(MalformedRequest, InvalidInput):
        parse_json(body)
