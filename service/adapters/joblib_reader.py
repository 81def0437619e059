"""Read a dict of plain values and float arrays from the bytes of a joblib file, and run nothing.

A joblib file is a pickle in which the bytes of each array follow the object that describes it.
``joblib.load`` and any ``pickle.Unpickler`` call what the file names. This reader has no way to
call anything: it interprets the few opcodes that such a dict needs, compares the three global
names that ``joblib.dump`` writes with its own list, and refuses the rest. Nothing is allocated
that the file has not got the bytes for.

What the dict must hold is told in ``artifact``.
"""

import io
import math
import pickletools
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_OPCODES = 2_048
"""Far more than a dict of ten arrays needs; bounds the time that any file can take."""

MAX_DIMENSIONS = 3

ALIGNMENT_BYTES = 16
"""joblib pads in front of each array so that it begins at a multiple of this."""


class UnreadableFileError(Exception):
    """The bytes are not what ``joblib.dump`` makes of a dict of plain values and float arrays."""


class Token(Enum):
    """What stands on the stack for things that are never made."""

    WRAPPER_CLASS = auto()
    ARRAY_CLASS = auto()
    DTYPE_CLASS = auto()
    WRAPPER = auto()
    FLOAT64 = auto()
    MARK = auto()


Value: TypeAlias = (
    "bool | int | str | Token | NDArray[np.float64] | tuple[Value, ...] | dict[str, Value] | None"
)

ALLOWED_GLOBALS: Mapping[tuple[str, str], Token] = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): Token.WRAPPER_CLASS,
    ("numpy", "ndarray"): Token.ARRAY_CLASS,
    ("numpy", "dtype"): Token.DTYPE_CLASS,
}

HEADER = b"\x80\x04"
"""A pickle of protocol 4."""

IGNORED = frozenset({"FRAME"})
LITERALS = frozenset({"BININT", "BININT1", "BININT2", "SHORT_BINUNICODE"})
CONSTANTS: Mapping[str, Value] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "MARK": Token.MARK,
}
TUPLE_LENGTHS: Mapping[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

FLOAT64_ARGUMENTS = ("f8", False, True)
LITTLE_ENDIAN_STATE = (3, "<", None, None, None, -1, -1, 0)
"""What ``numpy.dtype('<f8')`` pickles as."""


def read_joblib(data: bytes) -> dict[str, Value]:
    """Return the dict in the file; raise ``UnreadableFileError`` for anything else."""
    try:
        return _Reader(data).read()
    except ValueError as error:  # of pickletools: a truncated or unknown opcode
        raise UnreadableFileError("the file is not a pickle") from error


class _Reader:
    """A stack, a memo, and one method for each opcode that does something."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._stream = io.BytesIO(data)
        self._stack: list[Value] = []
        self._memo: list[Value] = []
        self._actions: Mapping[str, Callable[[], None]] = {
            "EMPTY_DICT": self._empty_dict,
            "MEMOIZE": self._memoize,
            "STACK_GLOBAL": self._global,
            "TUPLE": self._tuple,
            "NEWOBJ": self._new_object,
            "REDUCE": self._reduce,
            "BUILD": self._build,
            "SETITEM": self._set_item,
            "SETITEMS": self._set_items,
        }

    def read(self) -> dict[str, Value]:
        if self._stream.read(len(HEADER)) != HEADER:
            raise UnreadableFileError("the file is no pickle of protocol 4")
        # genops reads one opcode at a time, so array bytes can be taken from the stream between.
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
            if count >= MAX_OPCODES:
                raise UnreadableFileError("the file has too many opcodes")
            if opcode.name == "STOP":
                break
            self._perform(opcode.name, argument)
        return self._result()

    def _result(self) -> dict[str, Value]:
        if self._stream.tell() != len(self._data):
            raise UnreadableFileError("bytes follow the end of the pickle")
        match self._stack:
            case [dict() as result]:
                return result
        raise UnreadableFileError("the file holds something else than one dict")

    def _perform(self, name: str, argument: Value) -> None:
        if name in IGNORED:
            return
        if name in LITERALS:
            self._stack.append(argument)
        elif name in CONSTANTS:
            self._stack.append(CONSTANTS[name])
        elif name in TUPLE_LENGTHS:
            self._stack.append(self._pop_many(TUPLE_LENGTHS[name]))
        elif name == "BINGET":
            self._stack.append(self._recall(argument))
        elif name in self._actions:
            self._actions[name]()
        else:
            raise UnreadableFileError(f"opcode {name} is not allowed")

    def _pop(self) -> Value:
        if not self._stack:
            raise UnreadableFileError("the stack is empty")
        return self._stack.pop()

    def _pop_many(self, count: int) -> tuple[Value, ...]:
        return tuple(self._pop() for _ in range(count))[::-1]

    def _pop_to_mark(self) -> tuple[Value, ...]:
        items: list[Value] = []
        while (item := self._pop()) is not Token.MARK:
            items.append(item)
        return tuple(reversed(items))

    def _empty_dict(self) -> None:
        self._stack.append({})

    def _memoize(self) -> None:
        self._memo.append(self._top())

    def _recall(self, index: Value) -> Value:
        if not isinstance(index, int) or index >= len(self._memo):
            raise UnreadableFileError("an unknown memo is asked for")
        return self._memo[index]

    def _top(self) -> Value:
        if not self._stack:
            raise UnreadableFileError("the stack is empty")
        return self._stack[-1]

    def _global(self) -> None:
        match self._pop_many(2):
            case (str(module), str(name)) if (module, name) in ALLOWED_GLOBALS:
                self._stack.append(ALLOWED_GLOBALS[module, name])
            case _:
                raise UnreadableFileError("a global that is not allowed")

    def _tuple(self) -> None:
        self._stack.append(self._pop_to_mark())

    def _new_object(self) -> None:
        match self._pop_many(2):
            case (Token.WRAPPER_CLASS, ()):
                self._stack.append(Token.WRAPPER)
            case _:
                raise UnreadableFileError("an object that is not allowed")

    def _reduce(self) -> None:
        match self._pop_many(2):
            case (Token.DTYPE_CLASS, tuple(arguments)) if _is_same(arguments, FLOAT64_ARGUMENTS):
                self._stack.append(Token.FLOAT64)
            case _:
                raise UnreadableFileError("a call that is not allowed")

    def _build(self) -> None:
        match self._pop_many(2):
            case (Token.FLOAT64, tuple(state)) if _is_same(state, LITTLE_ENDIAN_STATE):
                self._stack.append(Token.FLOAT64)
            case (Token.WRAPPER, dict(state)):
                self._stack.append(self._array(_shape_of(state)))
            case _:
                raise UnreadableFileError("a state that is not allowed")

    def _set_item(self) -> None:
        self._fill(self._pop_many(2))

    def _set_items(self) -> None:
        self._fill(self._pop_to_mark())

    def _fill(self, items: tuple[Value, ...]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise UnreadableFileError("items for something else than a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) or key in target:
                raise UnreadableFileError("a key that is no text or comes twice")
            target[key] = value

    def _array(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        self._skip_padding()
        begin = self._stream.tell()
        count = math.prod(shape)  # of Python's integers, which don't overflow
        end = begin + count * np.dtype("<f8").itemsize
        if end > len(self._data):
            raise UnreadableFileError("an array is larger than the file")
        self._stream.seek(end)
        flat = np.frombuffer(self._data, dtype="<f8", count=count, offset=begin)
        return flat.reshape(shape).astype(np.float64)

    def _skip_padding(self) -> None:
        length = int.from_bytes(self._stream.read(1), "little")
        padding = self._stream.read(length)
        aligned = self._stream.tell() % ALIGNMENT_BYTES == 0
        if not (aligned and 1 <= length <= ALIGNMENT_BYTES and padding == b"\xff" * length):
            raise UnreadableFileError("wrong padding before an array")


def _shape_of(state: dict[str, Value]) -> tuple[int, ...]:
    match state:
        case {
            "subclass": Token.ARRAY_CLASS,
            "shape": tuple(shape),
            "order": "C",
            "dtype": Token.FLOAT64,
            "allow_mmap": bool(),
            "numpy_array_alignment_bytes": int(alignment),
        } if len(state) == 6 and alignment == ALIGNMENT_BYTES:
            return _checked_shape(shape)
    raise UnreadableFileError("an array that is no plain array of doubles")


def _checked_shape(shape: tuple[Value, ...]) -> tuple[int, ...]:
    lengths = tuple(length for length in shape if type(length) is int and length >= 1)
    if len(lengths) != len(shape) or not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise UnreadableFileError("an array of a wrong shape")
    return lengths


def _is_same(values: tuple[Value, ...], expected: tuple[Value, ...]) -> bool:
    """Compare with types, as 0 equals False; arrays, which don't compare to a bool, are unequal."""
    return len(values) == len(expected) and all(
        type(value) is type(other) and value == other
        for value, other in zip(values, expected, strict=True)
    )
