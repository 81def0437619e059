"""Doubles to the shortest text that reads back as the same, in one pass over an array.

The digits are those of Raffaele Giulietti, "The Schubfach way to render doubles" (2020), made into
text eight at a time. They are spelled as the rest of an answer is: 0.00001 and 1000000000000000.0,
but 1e-6 and 1e+16, null for what is not finite.
"""

from functools import cache

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from service.api.payloads.numerals.compiling import INLINED, OPTIONS, STAMP
from service.api.payloads.numerals.powers import HIGH, LAST_EXACT_POWER, LEAST_POWER, LOW
from service.api.payloads.numerals.words import (
    high_product,
    leading_zeros,
    load_byte,
    repeated,
    store_byte,
    store_word,
    word,
)

NUMBER_BYTES = 25
"""Of the longest number with its comma: -0.000012345678901234567."""
ROW_BYTES = 2
ROOM_BYTES = 32
"""Behind the last number: words are stored whole."""

_OPENING, _CLOSING, _COMMA, _POINT, _MINUS, _ZERO = b"[],.-0"

_0, _1, _2, _4, _5, _8, _10, _16, _32, _40, _56, _60, _63 = map(
    word, (0, 1, 2, 4, 5, 8, 10, 16, 32, 40, 56, 60, 63)
)
_TO_BYTES = word(3)
_SIGN_PLACE, _FRACTION_PLACE = word(63), word(52)
_FRACTION_MASK, _HIDDEN = word((1 << 52) - 1), word(1 << 52)
_EXPONENT_MASK = word(0x7FF)
_LEAST_BINARY_EXPONENT = -1074
_NOT_FINITE = 0x7FF

_LOG_SHIFT, _LOG_10_OF_2, _LOG_10_OF_4_THIRDS = 22, 1262611, 524031
"""⌊log₁₀ 2^q⌋ = ⌊1262611 q / 2²²⌋, and of ¾·2^q with the other taken off first."""
_POWER_SHIFT, _LOG_2_OF_10 = 19, 1741647

_TEN_WHOLES, _HALF_PART = word(10 << 60), word(1 << 63)
_NEAR = word(8)
"""In units of the last bit, which errors are smaller than."""

_LEAST_17_DIGITS = word(10**16)
_TEN_TO_8 = word(10**8)
_TEN_THOUSAND, _HUNDRED = word(10**4), word(100)
_BY_HUNDRED, _BY_HUNDRED_SHIFT, _HUNDREDS = word(10486), word(20), word(0x0000007F0000007F)
_BY_TEN, _BY_TEN_SHIFT, _TENS = word(103), word(10), word(0x000F000F000F000F)
_ZEROS = repeated(_ZERO)
_NULL = word(int.from_bytes(b"null", "little"))
_ZERO_POINT = word(int.from_bytes(b"0.000000", "little"))
_ONE, _ONE_POINT = word(0x3FF << 52), word(int.from_bytes(b"1.0", "little"))
"""A probability is often this one, and a power of two takes long otherwise."""
_MAX_DIGITS = 17
_LEAST_WHOLE, _GREATEST_WHOLE = -323, 309
"""Digits before the point of 5e-324, as if it were shifted there, and of the greatest double."""


def _exponents() -> NDArray[np.uint64]:
    """Return what stands behind the digits, its length in the last of eight bytes."""
    texts = [f"e{n_whole - 1:+d}" for n_whole in range(_LEAST_WHOLE, _GREATEST_WHOLE + 1)]
    words = [text.encode().ljust(7, b"\0") + bytes([len(text)]) for text in texts]
    return np.frombuffer(b"".join(words), dtype="<u8").astype(np.uint64)


_EXPONENTS = _exponents()
"""Of numbers by the digits before the point, from the least on."""
_LAST_FIXED, _FIRST_FIXED = 16, -5
"""A number 0.d₁d₂…·10^p is written without an exponent for −5 < p ≤ 16."""


@njit(**INLINED)
def _rounded_to_odd(high, low, factor):
    """Return the whole part of a product without its last bit, which tells whether more follows."""
    carried = high_product(low, factor)
    middle = high * factor + carried
    whole = high_product(high, factor) + np.uint64(middle < carried)
    return whole | np.uint64(middle > _1)


@njit(**INLINED)
def _shortest(fraction, biased):
    """Return digits and a power of ten of the shortest decimal that rounds to fraction·2^q.

    A double is x·10^p, with its neighbours one unit and up to ten away. A multiple of ten within
    half of that is it, or else the integer next to x. With 64 bits behind the point of x, no more
    is to know unless it lies at such a bound or between two integers; or is a power of two, which
    is nearer to the neighbour below.
    """
    mantissa, q = fraction, np.int64(_LEAST_BINARY_EXPONENT)
    if biased:
        mantissa |= _HIDDEN
        q += biased - 1
    power = (q * _LOG_10_OF_2) >> _LOG_SHIFT
    place = -power - LEAST_POWER
    shift = np.uint64(q + ((-power * _LOG_2_OF_10) >> _POWER_SHIFT) + 1)
    mantissa <<= shift
    carried = high_product(LOW[place], mantissa)
    part = HIGH[place] * mantissa + carried
    whole = high_product(HIGH[place], mantissa) + np.uint64(part < carried)
    half = HIGH[place] >> (_5 - shift)
    tens = whole // _10 * _10
    over_tens = ((whole - tens) << _60) | (part >> _4)
    to_tens = _TEN_WHOLES - over_tens
    is_open = (
        (over_tens - half + _NEAR <= _2 * _NEAR)
        | (to_tens - half + _NEAR <= _2 * _NEAR)
        | (part - _HALF_PART + _NEAR <= _2 * _NEAR)
        | (fraction == _0)
    )
    if is_open:
        return _shortest_of_all(fraction, biased)
    rounded = whole + (part >> _63)
    rounded = tens if over_tens < half else rounded
    return (tens + _10 if to_tens < half else rounded), power


@njit(nogil=True, error_model="numpy")
def _shortest_of_all(fraction, biased):
    """Return the same for all doubles, from products that are as good as exact."""
    is_regular = fraction != _0 or biased <= 1
    if biased:
        mantissa = fraction | _HIDDEN
        q = biased - 1 + _LEAST_BINARY_EXPONENT
    else:
        mantissa, q = fraction, _LEAST_BINARY_EXPONENT
    quarters = mantissa << _2
    is_odd = mantissa & _1  # bounds belong to numbers with an even mantissa
    power = (q * _LOG_10_OF_2 - (0 if is_regular else _LOG_10_OF_4_THIRDS)) >> _LOG_SHIFT
    place = -power - LEAST_POWER
    high, low = HIGH[place], LOW[place]
    if not (power <= 0 and power >= -LAST_EXACT_POWER):  # take the power rounded up
        low += _1
        high += np.uint64(low == _0)
    shift = np.uint64(q + ((-power * _LOG_2_OF_10) >> _POWER_SHIFT) + 1)
    scaled = _rounded_to_odd(high, low, quarters << shift)
    below = quarters - (_2 if is_regular else _1)
    lower = _rounded_to_odd(high, low, below << shift) + is_odd
    upper = _rounded_to_odd(high, low, (quarters + _2) << shift) - is_odd

    digits = scaled >> _2
    tens = digits // _10 * _10
    is_below_tens = lower <= (tens << _2)
    is_above_tens = (tens << _2) + _40 <= upper
    is_below = lower <= (digits << _2)
    is_above = (digits << _2) + _4 <= upper
    middle = (digits << _2) + _2
    is_nearer_above = scaled + (digits & _1) > middle  # of two as near the even one
    # What lies in between and has one digit less; or else the one that lies there, or the nearer.
    rounded = digits + np.uint64(is_above if is_below != is_above else is_nearer_above)
    rounded_tens = tens + (_10 if is_above_tens else _0)
    return (rounded_tens if is_below_tens != is_above_tens else rounded), power


@njit(**INLINED)
def _eight_digits(value):
    """Return a word whose bytes are the digits of a value below 10⁸, the first of them lowest."""
    upper = value // _TEN_THOUSAND
    fours = upper | ((value - upper * _TEN_THOUSAND) << _32)
    hundreds = ((fours * _BY_HUNDRED) >> _BY_HUNDRED_SHIFT) & _HUNDREDS
    twos = hundreds | ((fours - hundreds * _HUNDRED) << _16)
    tens = ((twos * _BY_TEN) >> _BY_TEN_SHIFT) & _TENS
    return tens | ((twos - tens * _10) << _8)


@njit(**INLINED)
def _last_digit(word_of_digits):
    """Return how many of eight digits there are up to the last that is not zero."""
    return 8 - np.int64(leading_zeros(word_of_digits) >> _TO_BYTES)


@njit(**INLINED)
def _store_digits(at, first, second, third):
    store_byte(at, _ZERO + first)
    store_word(at + 1, second | _ZEROS)
    store_word(at + 9, third | _ZEROS)


@njit(**INLINED)
def _move_digits(at, n_whole, first, second, third):
    """Store what follows the first ``n_whole`` of 17 digits behind the byte at ``at``."""
    low = np.uint64(first) | (second << _8)
    middle, high = (second >> _56) | (third << _8), third >> _56
    while n_whole >= 8:
        low, middle, high = middle, high, _0
        n_whole -= 8
    dropped = np.uint64(n_whole) << _TO_BYTES
    kept = _63 - dropped
    low = (low >> dropped) | ((middle << _1) << kept)
    middle = (middle >> dropped) | ((high << _1) << kept)
    store_word(at + 1, low | _ZEROS)
    store_word(at + 9, middle | _ZEROS)


@njit(**INLINED)
def _write_double(at, bits):
    """Write the double of these bits; return where its text ends."""
    if bits == _ONE:
        store_word(at, _ONE_POINT)
        return at + 3
    biased = np.int64((bits >> _FRACTION_PLACE) & _EXPONENT_MASK)
    fraction = bits & _FRACTION_MASK
    if biased == _NOT_FINITE:
        store_word(at, _NULL)
        return at + 4
    store_byte(at, _MINUS)
    at += np.int64(bits >> _SIGN_PLACE)
    if biased == 0 and fraction == _0:
        store_word(at, _ZERO_POINT)
        return at + 3
    digits, power = _shortest(fraction, biased)
    is_short = digits < _LEAST_17_DIGITS
    digits *= _10 if is_short else _1
    power -= is_short
    while digits < _LEAST_17_DIGITS:  # of a subnormal
        digits *= _10
        power -= 1
    upper = digits // _TEN_TO_8
    first = np.int64(upper // _TEN_TO_8)
    second = _eight_digits(upper - np.uint64(first) * _TEN_TO_8)
    third = _eight_digits(digits - upper * _TEN_TO_8)
    if third != _0:
        n_digits = 9 + _last_digit(third)
    elif second != _0:
        n_digits = 1 + _last_digit(second)
    else:
        n_digits = 1
    n_whole = power + _MAX_DIGITS
    if n_whole > 0 and n_whole <= _LAST_FIXED:
        _store_digits(at, first, second, third)
        _move_digits(at + n_whole, n_whole, first, second, third)
        store_byte(at + n_whole, _POINT)
        return at + max(n_whole + 2, n_digits + 1)
    if n_whole > _FIRST_FIXED and n_whole <= 0:
        store_word(at, _ZERO_POINT)
        at += 2 - n_whole
        _store_digits(at, first, second, third)
        return at + n_digits
    _store_digits(at + 1, first, second, third)
    store_byte(at, load_byte(at + 1))
    at += 1
    if n_digits > 1:
        store_byte(at, _POINT)
        at += n_digits
    exponent = _EXPONENTS[n_whole - _LEAST_WHOLE]
    store_word(at, exponent)
    return at + np.int64(exponent >> _56)


@njit(**INLINED)
def _write_integer(at, bits):
    """Write the signed integer of these bits; return where its text ends."""
    value = bits
    if bits >> _SIGN_PLACE != _0:
        value = _0 - bits
        store_byte(at, _MINUS)
        at += 1
    n_digits, beyond = 1, _10
    while n_digits < 19 and value >= beyond:
        n_digits += 1
        beyond *= _10
    for digit in range(at + n_digits - 1, at - 1, -1):
        rest = value // _10
        store_byte(digit, np.int64(value - rest * _10) + _ZERO)
        value = rest
    return at + n_digits


@cache
def writing_pass():
    """Return the compiled pass that writes numbers, given as bits, as JSON; it returns the length.

    ``width`` numbers are a row; with 0 of them the array is flat.
    """
    stamp = STAMP
    signature = types.intp(
        types.Array(types.uint64, 1, "C", readonly=True),
        types.intp,
        types.boolean,
        types.uint8[::1],
    )

    @njit(signature, **OPTIONS)
    def write(bits, width, are_integers, text):
        begin = text.ctypes.data
        store_byte(begin, _OPENING)
        at = begin + 1 + 0 * stamp
        left = 0
        for count in range(len(bits)):
            if width and left == 0:
                store_byte(at, _OPENING)
                at += 1
                left = width
            number = bits[count]
            at = _write_integer(at, number) if are_integers else _write_double(at, number)
            left -= 1
            if width and left == 0:
                store_byte(at, _CLOSING)
                at += 1
            store_byte(at, _COMMA)
            at += 1
        at -= len(bits) > 0
        store_byte(at, _CLOSING)
        return at + 1 - begin

    return write
