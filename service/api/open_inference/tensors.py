"""Tensors of the protocol to rows and back: numbers in JSON, or raw bytes behind the JSON part."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TypeGuard

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.open_inference.schemas import Datatype
from service.api.payloads.json_document import (
    STAND_INS,
    JsonValue,
    parse_json,
    with_stand_ins,
)
from service.api.payloads.json_rows import STAND_IN, NotRegular, key_before_array, parse_apart
from service.api.payloads.numerals import write_numbers
from service.api.payloads.values import Body
from service.domain.data import Table
from service.domain.inference import FittedModel
from service.errors import InvalidInput, MalformedRequest, Unsupported

INPUT = "X"
KEY_OF_NUMBERS = key_before_array("data")
DATATYPES: Mapping[str, np.dtype[np.floating]] = {
    "FP64": np.dtype("<f8"),
    "FP32": np.dtype("<f4"),
}
"""Of the input, by the protocol's names; the first is the model's own."""

NUMBERS = frozenset({int, float})
"""Exact types: a bool is an int to ``isinstance``."""
MAX_ID_LENGTH = 256
MAX_OUTPUTS = 16
PART_NUMBERS = 50_000
"""Of one part of a large answer: about a megabyte, written in some three milliseconds."""
LARGE_ANSWER_NUMBERS = 200_000
"""An answer of more numbers than this is made and sent in parts."""
NOTHING_BEHIND = memoryview(b"")
NOT_OFFERED = frozenset({"classification", "shared_memory_region"})

Tensor = NDArray[np.float64] | NDArray[np.int64]
JsonObject = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Output:
    """One of the tensors that a mixture answers with."""

    datatype: Datatype
    answer: Callable[[FittedModel, Table], Tensor]
    is_by_component: bool = False


OUTPUTS: Mapping[str, Output] = {
    "predict": Output("INT64", FittedModel.predict),
    "predict_proba": Output("FP64", FittedModel.predict_proba, is_by_component=True),
    "score_samples": Output("FP64", FittedModel.score_samples),
}
DEFAULT_OUTPUTS = ("predict", "predict_proba")


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """What a request asks: rows, and the outputs to answer with."""

    X: NDArray[np.float64]
    """(n_samples, n_features); flat where a raw body names no shape."""
    outputs: Mapping[str, bool]
    """Whether it is wanted as bytes, by name."""
    id: str | None = None

    def table(self, n_features: int) -> Table:
        if self.X.ndim > 1:
            return Table(self.X)
        if not self.X.size or self.X.size % n_features:
            raise _invalid(f"a raw body holds rows of {n_features} FP64 numbers of 8 bytes each")
        return Table(self.X.reshape(-1, n_features))


def call_of(body: Body, json_length: int | None) -> InferenceCall:
    """Read a request; ``json_length`` is where its JSON part ends, None without binary parts."""
    if json_length is None:
        with suppress(NotRegular):
            return _call(*_with_numbers_apart(body))
        return _call(_parsed(bytes(body)))
    if json_length > len(body):
        raise MalformedRequest(
            "malformed_request",
            "Inference-Header-Content-Length is larger than the body that it is of",
        )
    view = memoryview(body)
    if json_length == 0:
        outputs = dict.fromkeys(DEFAULT_OUTPUTS, True)
        return InferenceCall(_from_bytes(view, DATATYPES["FP64"]), outputs)
    return _call(_parsed(bytes(view[:json_length])), binary=view[json_length:])


def answer_of(
    call: InferenceCall, model: str, version: int, tensors: Mapping[str, Tensor]
) -> tuple[bytes | Iterator[bytes], int | None]:
    """Return the answer and where its JSON part ends, None without binary parts."""
    head: dict[str, object] = {"model_name": model, "model_version": str(version)}
    if call.id is not None:
        head["id"] = call.id
    are_binary = any(call.outputs.values())
    is_large = sum(tensor.size for tensor in tensors.values()) > LARGE_ANSWER_NUMBERS
    if not are_binary:
        parts = _in_parts(head, tensors)
        return (parts if is_large else b"".join(parts)), None
    head["outputs"] = [
        _described(name, tensor) | _content(tensor, is_binary=call.outputs[name])
        for name, tensor in tensors.items()
    ]
    json_part = _dumps(head)
    binary = (_as_bytes(tensor) for name, tensor in tensors.items() if call.outputs[name])
    return b"".join([json_part, *binary]), len(json_part)


def _with_numbers_apart(body: Body) -> tuple[JsonObject, NDArray[np.float64]]:
    """Return a request and the numbers of its one input, read without an object for each."""
    document, numbers = parse_apart(body, KEY_OF_NUMBERS)
    match document:
        case {"inputs": [{"data": data, "shape": [int(n_rows), int(n_columns)]}]}:
            shapes = (n_rows, n_columns), (n_rows * n_columns,)
            if isinstance(document, dict) and data == STAND_IN and numbers.shape in shapes:
                return document, numbers
    raise NotRegular


def _parsed(body: bytes) -> JsonObject:
    try:
        document = parse_json(body)
    except InvalidInput as refusal:
        index = _index_beyond_doubles(with_stand_ins(body))
        raise (refusal if index is None else _invalid_at(refusal.detail, index)) from refusal
    if not isinstance(document, dict):
        raise _invalid("the request must be a JSON object")
    return document


def _index_beyond_doubles(document: JsonValue) -> tuple[int, int] | None:
    """Return where in the input the first number stands that has a stand-in."""
    match document:
        case {"inputs": [{"data": list(data), "shape": [_, int(n_columns)]}]}:
            for place, item in enumerate(data):
                row = item if isinstance(item, list) else [item]
                beyond = (column for column, value in enumerate(row) if value in STAND_INS)
                if (column := next(beyond, None)) is None:
                    continue
                if row is item:
                    return place, column
                return divmod(place, n_columns) if 1 <= n_columns <= len(data) else None
    return None


def _call(
    request: JsonObject,
    numbers: NDArray[np.float64] | None = None,
    binary: memoryview = NOTHING_BEHIND,
) -> InferenceCall:
    inputs = _objects(request, "inputs")
    if len(inputs) != 1 or inputs[0].get("name") != INPUT:
        raise _invalid(f"inputs must be the one tensor '{INPUT}'")
    X = _rows(inputs[0], numbers, binary)
    return InferenceCall(X, _outputs(request), _id(request))


def _rows(
    tensor: JsonObject, numbers: NDArray[np.float64] | None, binary: memoryview
) -> NDArray[np.float64]:
    shape = _shape(tensor)
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise _invalid(f"the datatype of '{INPUT}' is one of {', '.join(DATATYPES)}")
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if len(binary):
            raise _invalid("there are bytes behind the JSON part that belong to no input")
        X = _from_json(tensor.get("data"), shape) if numbers is None else numbers.reshape(shape)
        return _rounded(X, datatype)
    if type(size) is not int:
        raise _invalid("binary_data_size must be a whole number")
    if "data" in tensor:
        raise _invalid(f"'{INPUT}' has its numbers in data or as bytes, not both")
    dtype = DATATYPES[datatype]
    expected = shape[0] * shape[1] * dtype.itemsize
    if size != expected or len(binary) != expected:
        raise _invalid(f"'{INPUT}' of that shape and datatype has {expected} bytes, not these")
    return _from_bytes(binary, dtype).reshape(shape)


def _from_bytes(binary: memoryview, dtype: np.dtype[np.floating]) -> NDArray[np.float64]:
    if len(binary) % dtype.itemsize:
        raise _invalid(f"the bytes are no whole number of values of {dtype.itemsize} bytes")
    # What stands at an address that is no multiple of eight is copied: the engine reads in words.
    return np.require(np.frombuffer(binary, dtype), np.float64, ["ALIGNED"])


def _rounded(X: NDArray[np.float64], datatype: str) -> NDArray[np.float64]:
    """Return the values as the datatype has them, like those that come in its bytes."""
    dtype = DATATYPES[datatype]
    if dtype == X.dtype:
        return X
    with np.errstate(over="ignore"):
        rounded = X.astype(dtype).astype(np.float64)
    is_beyond = ~np.isfinite(rounded)
    if is_beyond.any():
        detail = f"the data of '{INPUT}' must be within the range of {datatype}; they are not"
        raise _invalid_at(detail, divmod(int(is_beyond.argmax()), X.shape[1]))
    return rounded


def _from_json(data: JsonValue, shape: tuple[int, int]) -> NDArray[np.float64]:
    n_rows, n_columns = shape
    if not isinstance(data, list):
        raise _invalid(f"the data of '{INPUT}' must be a list of numbers or of rows")
    if data and isinstance(data[0], list):
        if len(data) != n_rows or {_length(row) for row in data} != {n_columns}:
            raise _invalid(f"the data of '{INPUT}' are not {n_rows} rows of {n_columns} numbers")
        data = list(chain.from_iterable(row for row in data if isinstance(row, list)))
    if len(data) != n_rows * n_columns:
        raise _invalid(f"the data of '{INPUT}' are not {n_rows} × {n_columns} numbers")
    if not set(map(type, data)) <= NUMBERS:
        wrong = next(place for place, value in enumerate(data) if type(value) not in NUMBERS)
        detail = f"the data of '{INPUT}' must be numbers, nested at most as rows; they are not"
        raise _invalid_at(detail, divmod(wrong, n_columns))
    return np.array(data, dtype=np.float64).reshape(shape)


def _length(row: JsonValue) -> int:
    return len(row) if isinstance(row, list) else -1


def _shape(tensor: JsonObject) -> tuple[int, int]:
    match tensor.get("shape"):
        case [n_rows, n_columns] if _is_length(n_rows) and _is_length(n_columns):
            return n_rows, n_columns
    raise _invalid(f"the shape of '{INPUT}' must be [rows, features], both at least 1")


def _is_length(value: JsonValue) -> TypeGuard[int]:
    return type(value) is int and value > 0  # a bool is an int to isinstance


def _outputs(request: JsonObject) -> dict[str, bool]:
    are_binary = _is_set(_parameters(request), "binary_data_output")
    if request.get("outputs") in (None, []):
        return dict.fromkeys(DEFAULT_OUTPUTS, are_binary)
    wanted: dict[str, bool] = {}
    for output in _objects(request, "outputs"):
        name = output.get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            raise _invalid(f"an output is one of {', '.join(OUTPUTS)}")
        if name in wanted:
            raise _invalid(f"the output '{name}' is asked for twice")
        wanted[name] = _is_set(_parameters(output), "binary_data", default=are_binary)
    return wanted


def _objects(request: JsonObject, name: str) -> list[JsonObject]:
    entries = request.get(name)
    if not isinstance(entries, list) or len(entries) > MAX_OUTPUTS:
        raise _invalid(f"{name} must be a list of tensors")
    objects = [entry for entry in entries if isinstance(entry, dict)]
    if len(objects) != len(entries):
        raise _invalid(f"each of the {name} must be an object")
    return objects


def _parameters(owner: JsonObject) -> JsonObject:
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise _invalid("parameters must be an object")
    if not NOT_OFFERED.isdisjoint(parameters):
        raise Unsupported("not_supported", "classification and shared memory are not offered here")
    return parameters


def _is_set(parameters: JsonObject, name: str, *, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _invalid(f"{name} must be true or false")
    return value


def _id(request: JsonObject) -> str | None:
    request_id = request.get("id")
    if request_id is not None and not (
        isinstance(request_id, str) and len(request_id) <= MAX_ID_LENGTH
    ):
        raise _invalid(f"id must be a string of at most {MAX_ID_LENGTH} characters")
    return request_id


def _described(name: str, tensor: Tensor) -> dict[str, object]:
    return {"name": name, "shape": list(tensor.shape), "datatype": OUTPUTS[name].datatype}


def _content(tensor: Tensor, *, is_binary: bool) -> dict[str, object]:
    if is_binary:
        return {"parameters": {"binary_data_size": tensor.nbytes}}
    return {"data": np.ascontiguousarray(tensor).ravel()}


def _as_bytes(tensor: Tensor) -> memoryview:
    little_endian = tensor.dtype.newbyteorder("<")
    return np.ascontiguousarray(tensor, dtype=little_endian).data.cast("B")


def _in_parts(head: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    yield _dumps(head)[:-1] + b',"outputs":['
    for count, (name, tensor) in enumerate(tensors.items()):
        yield (b"," if count else b"") + _dumps(_described(name, tensor))[:-1] + b',"data":['
        yield from _numbers_in_parts(tensor)
        yield b"]}"
    yield b"]}"


def _numbers_in_parts(tensor: Tensor) -> Iterator[bytes]:
    flat = tensor.reshape(-1)
    for begin in range(0, len(flat), PART_NUMBERS):
        yield (b"," if begin else b"") + write_numbers(flat[begin : begin + PART_NUMBERS])[1:-1]


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _invalid(detail: str) -> InvalidInput:
    return InvalidInput("invalid_parameter", detail)


def _invalid_at(detail: str, index: tuple[int, int]) -> InvalidInput:
    return _invalid(f"{detail}, first at index {list(index)}")


def tensors_of(call: InferenceCall, fitted: FittedModel) -> dict[str, Tensor]:
    table = call.table(fitted.mixture.n_features)
    try:
        return {name: OUTPUTS[name].answer(fitted, table) for name in call.outputs}
    except InvalidInput as refusal:
        raise _with_index(refusal) from refusal


def _with_index(refusal: InvalidInput) -> InvalidInput:
    """Say in the sentence where a value is too large: a refusal here is nothing but a sentence."""
    match [issue.pointer.split("/")[2:] for issue in refusal.issues]:
        case [[row, column], *_] if refusal.code == "value_out_of_range":
            detail = f"{refusal.detail}; first at index [{row}, {column}]"
            return InvalidInput("value_out_of_range", detail)
    return refusal


def shapes_of(n_components: int) -> Sequence[tuple[str, Datatype, list[int]]]:
    """Return name, datatype and shape of what a mixture of so many components answers with."""
    return [
        (name, output.datatype, [-1, n_components] if output.is_by_component else [-1])
        for name, output in OUTPUTS.items()
    ]
