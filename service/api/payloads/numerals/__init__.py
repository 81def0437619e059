"""Arrays of numbers in JSON, read and written by compiled passes that hold no lock.

What is read is correctly rounded, what is written the shortest text that reads back as the same.
"""

import math
import re

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.payloads.numerals.reading import NOTHING, PLACE_MASK, reading_pass
from service.api.payloads.numerals.writing import NUMBER_BYTES, ROOM_BYTES, ROW_BYTES, writing_pass

FEW_NUMBERS = 1024
"""Fewer are written by orjson, in the same spelling: sooner than a compiled pass is called."""
NUMBER = re.compile(rb"[-+.0-9eE]+")


def warm_up() -> None:
    """Compile both passes, or load them from Numba's cache on disk: no request should."""
    reading_pass()
    writing_pass()


def read_numbers(
    text: bytes | bytearray | memoryview, begin: int
) -> tuple[NDArray[np.float64], int] | None:
    """Return the array of numbers at a place, flat or of rows, and where its text ends.

    None unless all are finite numbers, in rows of one length or in none, and the last character of
    the text is a closing curly bracket.
    """
    bits, count, width, end, n_undecided = reading_pass()(np.frombuffer(text, np.uint8), begin)
    if end == NOTHING:
        return None
    numbers: NDArray[np.float64] = bits[:count].view(np.float64)
    if n_undecided:
        for index in np.flatnonzero(np.isnan(numbers)):
            numbers[index] = _rounded(text, int(bits[index] & PLACE_MASK))
            if math.isinf(numbers[index]):
                return None
    return (numbers.reshape(-1, width) if width else numbers), end


def _rounded(text: bytes | bytearray | memoryview, begin: int) -> float:
    number = NUMBER.match(text, begin)
    return float(number.group()) if number else math.inf


def write_numbers(array: NDArray[np.float64] | NDArray[np.int64]) -> bytes | memoryview:
    """Return the JSON of an array; null stands for what is not finite."""
    numbers = np.ascontiguousarray(array)
    if numbers.size < FEW_NUMBERS:
        return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
    if numbers.ndim > 2:
        return b"[" + b",".join(map(write_numbers, numbers)) + b"]"
    n_rows, width = numbers.shape if numbers.ndim > 1 else (0, 0)
    text = np.empty(NUMBER_BYTES * numbers.size + ROW_BYTES * n_rows + ROOM_BYTES, dtype=np.uint8)
    bits = numbers.reshape(-1).view(np.uint64)
    end = writing_pass()(bits, width, array.dtype == np.int64, text)
    return text[:end].data
