"""Numbers in JSON to doubles, correctly rounded, in one pass over the text.

Digits are taken eight at a time. Most numbers have few before and behind a point: their ends are
found together, and the quotient of two whole doubles is correctly rounded. Any other number w·10^q
is w times the first 64 bits of 10^q, or 128 where these leave open how it rounds; what even they
leave open is halfway between two doubles or next to it, and marked. This is the way of Daniel
Lemire, "Number Parsing at a Gigabyte per Second" (2021).
"""

from functools import cache

import numpy as np
from numba import njit, types

from service.api.payloads.numerals.compiling import INLINED, OPTIONS, STAMP
from service.api.payloads.numerals.powers import (
    HIGH,
    LAST_EXACT_POWER,
    LAST_SHORT_POWER,
    LEAST_POWER,
    LOW,
)
from service.api.payloads.numerals.words import (
    VECTOR_BYTES,
    bits_of,
    high_product,
    leading_zeros,
    load_byte,
    load_word,
    not_digits,
    repeated,
    store_word,
    trailing_zeros,
    word,
)

_NAN, _PLACE_BITS = word(0x7FF8), word(48)
UNDECIDED = _NAN << _PLACE_BITS
"""A NaN, with the place of the number in its lower bits: it is another's to round."""
PLACE_MASK = (word(1) << _PLACE_BITS) - word(1)

NOTHING = -1
"""In place of an end: the text is no regular array."""

_OPENING, _CLOSING, _COMMA, _POINT, _MINUS, _PLUS, _ZERO, _NINE = b"[],.-+09"
_EXPONENT, _LAST = b"e}"
_TAB, _NEWLINE, _RETURN, _SPACE = b"\t\n\r "
_LOWER_CASE = 0x20

_0, _1, _8, _10, _63, _64 = map(word, (0, 1, 8, 10, 63, 64))
_ALL_ONES = word(2**64 - 1)
_WORD_BYTES = 8
_MAX_DIGITS = 19
"""That a word holds for sure."""
_TENS = np.array([10**power for power in range(_MAX_DIGITS + 1)], dtype=np.uint64)
_EXACT_TENS = 10.0 ** np.arange(_WORD_BYTES + 1)
_LEAST_INEXACT = word(2**53)
_MAX_EXPONENT = word(100_000)
"""Beyond, it is all the same: a text of more zeros than this has other ways."""

_GREATEST_READ_POWER = 308
_INFINITY = word(0x7FF << 52)

_ZEROS, _BEYOND_NINE = repeated(_ZERO), repeated(0x76)
_LOWER_SEVEN, _HIGHEST = repeated(0x7F), repeated(0x80)
_PAIRS = word(0x000000FF000000FF)
_FIRST, _SECOND = word(100 + (1000000 << 32)), word(1 + (10000 << 32))
_16, _32 = word(16), word(32)
_TO_BYTES = word(3)

_POWER_SHIFT, _LOG_2_OF_10 = 16, 217706
"""⌊log₂ 10^q⌋ = ⌊217706 q / 2¹⁶⌋ for all q here."""
_BIAS, _FRACTION_BITS = 1023, word(52)
_LOWEST_NINE = word(0x1FF)


@njit(**INLINED)
def _first_digits(loaded):
    """Return how many of eight bytes are digits before the first that is none, and these digits."""
    digits = loaded ^ _ZEROS
    beyond = (((digits & _LOWER_SEVEN) + _BEYOND_NINE) | digits) & _HIGHEST
    if beyond == _0:
        return _8, digits
    count = trailing_zeros(beyond) >> _TO_BYTES
    if count == _0:
        return _0, _0
    return count, digits << (_64 - (count << _TO_BYTES))


@njit(**INLINED)
def _value(digits):
    """Return the number whose eight digits are the bytes, the first of them lowest."""
    pairs = digits * _10 + (digits >> _8)
    return ((pairs & _PAIRS) * _FIRST + ((pairs >> _16) & _PAIRS) * _SECOND) >> _32


@njit(**INLINED)
def _is_digit(at):
    return load_byte(at) >= _ZERO and load_byte(at) <= _NINE


@njit(**INLINED)
def _read_digits(at, end, value):
    """Append the digits from ``at`` on to a value; return it and where they end.

    A value of more than 19 digits is none.
    """
    while at + _WORD_BYTES <= end:
        count, digits = _first_digits(load_word(at))
        if count == _8:
            value = value * _TENS[8] + _value(digits)
            at += _WORD_BYTES
            continue
        if count != _0:
            value = value * _TENS[count] + _value(digits)
        return value, at + np.intp(count)
    while _is_digit(at):
        value = value * _10 + np.uint64(load_byte(at) - _ZERO)
        at += 1
    return value, at


@njit(**INLINED)
def _read_first_digits(at, end):
    """Return the value of the first 19 digits that count, and how many digits follow them."""
    value, count = _0, 0
    while at < end and count < _MAX_DIGITS:
        if load_byte(at) != _POINT:
            value = value * _10 + np.uint64(load_byte(at) - _ZERO)
            count += value != _0
        at += 1
    n_left = 0
    for left in range(at, end):
        n_left += load_byte(left) != _POINT
    return value, n_left


@njit(**INLINED)
def _nearest(value, power):
    """Return the bits of the double nearest to value·10^power, infinity included, or UNDECIDED."""
    if value == _0 or power < LEAST_POWER:
        return _0
    if power > _GREATEST_READ_POWER:
        return _INFINITY
    zeros = leading_zeros(value)
    value <<= zeros
    place = power - LEAST_POWER
    high, low = high_product(value, HIGH[place]), value * HIGH[place]
    lowest, last_exact, is_open = _0, LAST_SHORT_POWER, False
    # What the power lacks adds less than the value to the lower half of the product.
    if (high & _LOWEST_NINE) == _LOWEST_NINE:
        middle, lowest = high_product(value, LOW[place]), value * LOW[place]
        low += middle
        high += np.uint64(low < middle)
        last_exact = LAST_EXACT_POWER
        is_open = (high & _LOWEST_NINE) == _LOWEST_NINE and low == _ALL_ONES
    is_exact = power >= 0 and power <= last_exact
    top = high >> _63
    exponent = (
        _BIAS + 63 + np.int64(top) - np.int64(zeros) + ((_LOG_2_OF_10 * power) >> _POWER_SHIFT)
    )
    to_half = np.int64(top) + 9  # bits behind the one that is worth half of the last kept
    if exponent < 1:
        to_half += 1 - exponent
        exponent = 1
        if to_half > 63:
            return _0
    shift = np.uint64(to_half)
    halves = high >> shift
    mantissa, half = halves >> _1, halves & _1
    if is_open and half == _0 and not is_exact:
        return UNDECIDED
    if is_exact and ((high & ((_1 << shift) - _1)) | low | lowest) == _0:
        half &= mantissa
    # Rounded up to a power of two the mantissa carries into the exponent, as it should.
    bits = (np.uint64(exponent - 1) << _FRACTION_BITS) + mantissa + half
    return min(bits, _INFINITY)


@njit(**INLINED)
def _skip_space(at):
    while load_byte(at) <= _SPACE and (
        load_byte(at) == _SPACE
        or load_byte(at) == _NEWLINE
        or load_byte(at) == _RETURN
        or load_byte(at) == _TAB
    ):
        at += 1
    return at


@njit(**INLINED)
def _read_any_number(at, end):
    """Return the same of a number of whatever length and form."""
    is_negative = load_byte(at) == _MINUS
    at += is_negative
    first = at
    if not _is_digit(first):
        return _0, NOTHING
    value, at = np.uint64(load_byte(first) - _ZERO), first + 1
    if _is_digit(at):
        if value == _0:
            return _0, NOTHING
        value, at = _read_digits(first, end, _0)
    n_digits = at - first
    is_whole = True
    power = 0
    if load_byte(at) == _POINT:
        is_whole = False
        point = at
        value, at = _read_digits(point + 1, end, value)
        power = point + 1 - at
        if power == 0:
            return _0, NOTHING
        n_digits -= power
    end_of_digits = at
    if load_byte(at) | _LOWER_CASE == _EXPONENT:
        is_whole = False
        at += 1
        is_small = load_byte(at) == _MINUS
        at += is_small or load_byte(at) == _PLUS
        begin = at
        exponent, at = _read_digits(begin, end, _0)
        if begin == at or at - begin > _MAX_DIGITS or exponent > _MAX_EXPONENT:
            return _0, NOTHING
        power += -np.int64(exponent) if is_small else np.int64(exponent)
    if n_digits <= _MAX_DIGITS:
        bits = _nearest(value, power)
    else:
        value, n_left = _read_first_digits(first, end_of_digits)
        power += n_left
        bits = _nearest(value, power)
        if n_left and bits != _nearest(value + _1, power):
            bits = UNDECIDED
    if bits >= _INFINITY:
        return bits, (at if bits == UNDECIDED else NOTHING)
    has_sign = is_negative and not (is_whole and value == _0)  # -0 is an integer, and 0
    return bits | (np.uint64(has_sign) << _63), at


@njit(**INLINED)
def _digits_behind_zeros(at, count):
    """Return the digits at ``at``, one to eight of them, as the last of eight."""
    return (load_word(at) ^ _ZEROS) << (_64 - (np.uint64(count) << _TO_BYTES))


@njit(**INLINED)
def _read_number(at, end):
    """Return the bits of the double at ``at`` and where its text ends, or NOTHING."""
    if at + VECTOR_BYTES <= end:
        is_negative = np.uint64(load_byte(at) == _MINUS)
        marks = not_digits(at) & ~is_negative
        behind = marks & (marks - _1)
        point, length = np.int64(trailing_zeros(marks)), np.int64(trailing_zeros(behind))
        first = at + np.int64(is_negative)
        n_whole, n_places = at + point - first, length - point - 1
        is_short = (
            behind != _0
            and (n_whole >= 1) & (n_whole <= _WORD_BYTES)
            and (n_places >= 1) & (n_places <= _WORD_BYTES)
            and load_byte(at + point) == _POINT
            and load_byte(at + length) | _LOWER_CASE != _EXPONENT
            and not (n_whole > 1) & (load_byte(first) == _ZERO)
        )
        if is_short:
            whole = _digits_behind_zeros(first, n_whole)
            places = _digits_behind_zeros(at + point + 1, n_places)
            if n_whole + n_places <= _WORD_BYTES:
                value = _value((whole >> (np.uint64(n_places) << _TO_BYTES)) | places)
            else:
                value = _value(whole) * _TENS[n_places] + _value(places)
            if value < _LEAST_INEXACT:
                quotient = np.float64(np.int64(value)) / _EXACT_TENS[n_places]
                return bits_of(quotient) | (is_negative << _63), at + length
    return _read_any_number(at, end)


@njit(**INLINED)
def _end_of_text(text):
    """Return the length of the text if every search in it ends at its last byte, or NOTHING."""
    last = len(text) - 1
    while last >= 0 and text[last] <= _SPACE:
        last -= 1
    return last + 1 if last >= 0 and text[last] == _LAST else NOTHING


@njit(**INLINED)
def _count_commas(text):
    count = 0
    for place in range(len(text)):  # from 0: indices that may be negative are read one by one
        count += text[place] == _COMMA
    return count


@njit(**INLINED)
def _read_row(at, end, bits, base):
    """Fill ``bits`` with the numbers up to the closing bracket.

    Return how many there are, where their text ends, or NOTHING, and how many are undecided.
    """
    count, n_undecided = 0, 0
    while True:
        first = _skip_space(at)
        number, at = _read_number(first, end)
        if at == NOTHING:
            return 0, NOTHING, 0
        if number == UNDECIDED:
            number |= np.uint64(first - base)
            n_undecided += 1
        store_word(bits + _WORD_BYTES * count, number)
        count += 1
        at = _skip_space(at)
        if load_byte(at) == _CLOSING:
            return count, at + 1, n_undecided
        if load_byte(at) != _COMMA:
            return 0, NOTHING, 0
        at += 1


@njit(**INLINED)
def _read_rows(at, end, bits, base):
    """Fill ``bits`` row by row; return how many there are, in a row, the end, and undecided."""
    count, width, n_undecided = 0, 0, 0
    while load_byte(at) == _OPENING:
        n_read, at, n_open = _read_row(at + 1, end, bits + _WORD_BYTES * count, base)
        if width == 0:
            width = n_read
        if at == NOTHING or n_read != width:
            break
        count += n_read
        n_undecided += n_open
        at = _skip_space(at)
        if load_byte(at) == _CLOSING:
            return count, width, at + 1, n_undecided
        if load_byte(at) != _COMMA:
            break
        at = _skip_space(at + 1)
    return 0, 0, NOTHING, 0


@cache
def reading_pass():
    """Return the compiled pass over a text with an array that begins at a place.

    It returns the bits of the numbers and what they lie in, how many there are in a row (0 in a
    flat array), where the array ends, and how many are undecided. The end is NOTHING unless all are
    numbers, in rows of one length or in no rows, and the text ends with a curly bracket.
    """
    stamp = STAMP
    signature = types.Tuple((types.uint64[::1], types.intp, types.intp, types.intp, types.intp))(
        types.Array(types.uint8, 1, "C", readonly=True), types.intp
    )

    @njit(signature, **OPTIONS)
    def read(text, begin):
        if _end_of_text(text) == NOTHING or text[begin] != _OPENING:
            return np.empty(0, dtype=np.uint64), 0, 0, NOTHING, 0 * stamp
        numbers = np.empty(_count_commas(text) + 1, dtype=np.uint64)
        bits, base = numbers.ctypes.data, text.ctypes.data
        end = base + len(text)
        at = _skip_space(base + begin + 1)
        if load_byte(at) == _OPENING:
            count, width, at, n_undecided = _read_rows(at, end, bits, base)
        else:
            width = 0
            count, at, n_undecided = _read_row(at, end, bits, base)
        return numbers, count, width, NOTHING if at == NOTHING else at - base, n_undecided

    return read
