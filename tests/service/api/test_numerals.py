"""Numbers as text: what Python reads, and what orjson and ``repr`` write, bit for bit."""

import json
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import event
from numpy.typing import NDArray

from service.api.payloads import numerals
from service.api.payloads.numerals import FEW_NUMBERS, read_numbers, write_numbers
from service.api.payloads.numerals.powers import GREATEST_POWER, HIGH, LEAST_POWER, LOW

GREATEST = 1.7976931348623157e308
N_RANDOM = 1_000_000


def read(texts: list[str]) -> NDArray[np.float64]:
    read = read_numbers(b'{"X":[' + ",".join(texts).encode() + b"]}", 5)
    assert read is not None, "not read"
    return read[0]


def written(array: NDArray[np.float64] | NDArray[np.int64]) -> bytes:
    """Return what is written of many numbers, by the compiled pass."""
    assert array.size >= FEW_NUMBERS
    return bytes(write_numbers(array))


def as_orjson(array: NDArray[np.float64] | NDArray[np.int64]) -> bytes:
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)


def assert_same_bits(found: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    differ = np.flatnonzero(found.view(np.uint64) != expected.view(np.uint64))
    assert not len(differ), [(found[i].hex(), expected[i].hex()) for i in differ[:5]]


def assert_reads_as_python_does(texts: list[str]) -> None:
    assert_same_bits(read(texts), np.array([float(text) for text in texts]))


def hard_doubles() -> NDArray[np.float64]:
    """Return borders: powers of two and of ten, whole numbers, each with neighbours."""
    exact = [2.0**q for q in range(-1074, 1024)] + [float(f"1e{q}") for q in range(-323, 309)]
    exact += [
        0.0,
        GREATEST,
        2.0**53,
        9007199254740993.0,
        1e16,
        1e15,
        1e-5,
        1e-4,
        123456789012345680,
    ]
    near = np.array(exact + list(map(float, range(1000))))
    with np.errstate(over="ignore"):
        around = [near, np.nextafter(near, np.inf), np.nextafter(near, 0)]
    doubles: NDArray[np.float64] = np.concatenate([*around, *(-each for each in around)])
    return doubles[np.isfinite(doubles)]


def doubles_of_all_kinds(n: int) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, n, dtype=np.uint64).view(np.float64)
    yield bits[np.isfinite(bits)]
    yield rng.normal(size=n)
    for decimals in (1, 3, 6, 10, 15):
        yield (rng.normal(size=n // 8) * 10.0 ** rng.integers(0, 6, n // 8)).round(decimals)
    yield rng.integers(-(2**62), 2**62, n // 8).astype(np.float64)
    yield rng.integers(0, 2**52, n // 8, dtype=np.uint64).view(np.float64)  # subnormal
    yield np.exp(-np.abs(rng.normal(size=n // 8)) * 200)
    yield hard_doubles()


DOUBLES = list(doubles_of_all_kinds(N_RANDOM))


@pytest.mark.parametrize("doubles", DOUBLES)
def test_doubles_are_written_as_orjson_writes_them(doubles: NDArray[np.float64]) -> None:
    assert written(doubles) == as_orjson(doubles)


@pytest.mark.parametrize("doubles", DOUBLES)
def test_written_doubles_read_back_as_the_same(doubles: NDArray[np.float64]) -> None:
    read = read_numbers(b"%b}" % written(doubles), 0)

    assert read is not None
    assert_same_bits(read[0], doubles)


def test_written_doubles_are_as_short_as_repr() -> None:
    doubles = np.concatenate([DOUBLES[0][:100_000], hard_doubles()])
    texts = written(doubles)[1:-1].decode().split(",")

    digits = [text.partition("e")[0].replace(".", "").strip("-0") for text in texts]
    shortest = [repr(x).partition("e")[0].replace(".", "").strip("-0") for x in doubles.tolist()]
    assert digits == shortest


def test_what_is_not_finite_is_null() -> None:
    doubles = np.resize([1.0, np.nan, np.inf, -np.inf], 2 * FEW_NUMBERS)

    assert written(doubles) == as_orjson(doubles)


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("n_rows", [1, 100, 1000])
def test_rows_are_written_as_orjson_writes_them(n_rows: int, width: int) -> None:
    X = np.random.default_rng(0).normal(size=(n_rows, width))

    assert bytes(write_numbers(X)) == as_orjson(X)
    assert bytes(write_numbers(X.T)) == as_orjson(X.T)
    assert bytes(write_numbers(X[n_rows // 2 :])) == as_orjson(X[n_rows // 2 :])
    assert bytes(write_numbers(X[:, 0])) == as_orjson(X[:, 0])


def test_integers_are_written_as_orjson_writes_them() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 63, 100_000)
    integers = rng.integers(-(2**63), 2**63 - 1, 100_000) >> lengths
    tens = [10**power + d for power in range(19) for d in (-1, 0, 1)]
    ends = np.array([*tens, *(-each for each in tens), -(2**63), 2**63 - 1])

    for each in (integers, np.resize(ends, 2000), np.resize(ends, (500, 3))):
        assert written(each) == as_orjson(each)


@pytest.mark.parametrize("n_digits", [17, 18, 19, 20, 21, 25, 40])
def test_numbers_of_many_digits_are_rounded_as_python_rounds(n_digits: int) -> None:
    rng = np.random.default_rng(n_digits)
    wholes = ["".join(map(str, row)) for row in rng.integers(0, 10, (20_000, n_digits))]
    powers = rng.integers(-330 - n_digits, 300 - n_digits, 20_000)

    powered = [f"{1 + int(w[0])}{w[1:]}e{power}" for w, power in zip(wholes, powers, strict=True)]
    assert_reads_as_python_does(powered)
    assert_reads_as_python_does([f"{whole[0]}.{whole[1:]}" for whole in wholes])
    assert_reads_as_python_does([f"0.000{whole}" for whole in wholes])


def test_few_digits_times_every_power_of_ten_are_rounded_as_python_rounds() -> None:
    wholes = np.random.default_rng(0).integers(1, 10**7, 650 * 40).tolist()
    wholes += [1, 2, 5, 9, 2**53 - 1, 2**53 + 1] * 650

    assert_reads_as_python_does(
        [f"{whole}e{place % 650 - 342}" for place, whole in enumerate(wholes) if place % 650 < 635]
    )


@pytest.mark.parametrize("printed", ["%.16g", "%.17g", "%.18e", "%.3f", "%.0f", "%.25g", "%r"])
def test_doubles_are_read_however_they_are_printed(printed: str) -> None:
    doubles = np.concatenate([DOUBLES[0][:20_000], DOUBLES[1][:20_000], DOUBLES[3][:20_000]])
    doubles = np.concatenate([doubles, hard_doubles()])

    texts = [printed % double for double in doubles[np.abs(doubles) < 1e308].tolist()]

    as_python = np.array([float(text) for text in texts])
    as_python[[text == "-0" for text in texts]] = 0.0  # as of integers
    assert_same_bits(read(texts), as_python)


def halfway(double: float) -> Fraction:
    return (Fraction(double) + Fraction(float(np.nextafter(double, np.inf)))) / 2


def decimal_text(number: Fraction, more: str = "") -> str:
    """Return all digits of a number whose denominator is a power of two, and more behind them."""
    n_twos = number.denominator.bit_length() - 1
    return f"{number.numerator * 5**n_twos}{more}e-{n_twos + len(more)}"


def test_numbers_halfway_between_doubles_go_to_the_even_one_and_a_little_more_goes_up() -> None:
    rng = np.random.default_rng(0)
    magnitudes = np.abs(DOUBLES[0][:3000])
    doubles = [*magnitudes[magnitudes < GREATEST].tolist(), 0.0, 2.0**53, 5e-324, 2.0**-1022]
    doubles += rng.integers(2**53, 2**63, 1000).astype(float).tolist()

    numbers = list(map(halfway, doubles))

    for more in ("", "0000", "0001"):
        assert_reads_as_python_does([decimal_text(number, more) for number in numbers])
    assert_reads_as_python_does([decimal_text(number - Fraction(1, 2**1100)) for number in numbers])


def test_halfway_cases_that_fit_in_a_word_are_even() -> None:
    odd = [2**53 + 1, 2**53 + 3, 2**54 + 2, 2**54 + 6, 2**60 + 2**7, 2**60 + 3 * 2**7]

    texts = list(chain.from_iterable((f"{n}", f"{n}.0", f"{n}0e-1", f"{n}.000") for n in odd))

    assert_reads_as_python_does(texts)


def test_the_least_and_the_greatest_numbers_are_read() -> None:
    least = ["5e-324", "4.9e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "1e-400"]
    normal = ["2.2250738585072011e-308", "2.2250738585072014e-308", "0." + "0" * 400 + "1"]
    greatest = ["1.7976931348623157e308", "1.7976931348623158e308", "9" * 308]
    none = ["0e400", "0.0e-999", "-0.0", "-0e1", "1e-99999"]
    long = ["1" + "0" * 300 + "e-300", "0." + "0" * 300 + "1e300"]

    assert_reads_as_python_does([*least, *normal, *greatest, *none, *long])


@pytest.mark.parametrize("text", ["1e309", "1.7976931348623159e308", "9" * 310, "1e999999999999"])
def test_what_is_beyond_doubles_is_not_read(text: str) -> None:
    assert read_numbers(b'{"X":[[1,%b]]}' % text.encode(), 5) is None


@pytest.mark.parametrize("n_whole", range(1, 11))
@pytest.mark.parametrize("n_places", range(1, 11))
def test_numbers_of_few_digits_are_rounded_correctly(n_whole: int, n_places: int) -> None:
    digits = np.random.default_rng(n_whole * n_places).integers(0, 10, (300, n_whole + n_places))
    digits[:, 0] |= n_whole > 1  # no zero before others
    digits[:3] = [[9], [1], [0]]
    digits[2, 0] = n_whole > 1
    texts = ["".join(map(str, row)) for row in digits.tolist()]
    numbers = [f"{text[:n_whole]}.{text[n_whole:]}" for text in texts]

    assert_reads_as_python_does([f"{sign}{each}" for each in numbers for sign in ("", "-")])


@pytest.mark.parametrize("beyond", range(-3, 4))
def test_numbers_about_the_last_exact_integer_are_rounded_correctly(beyond: int) -> None:
    digits = str(2**53 + beyond)
    assert_reads_as_python_does([f"{digits[:8]}.{digits[8:]}"] * 8)


def test_an_integer_zero_has_no_sign() -> None:
    assert_same_bits(read(["-0", "0"]), np.array([0.0, 0.0]))


@settings(deadline=None, max_examples=500)
@given(
    st.text("0123456789", min_size=1, max_size=30),
    st.none() | st.text("0123456789", max_size=30),
    st.sampled_from(["", "e", "E", "e+", "e-"]),
    st.text("0123456789", max_size=4),
    st.tuples(st.sampled_from(["", "-", "+"]), st.sampled_from(["", " " * 40])),
)
def test_the_grammar_is_that_of_json(
    whole: str, fraction: str | None, mark: str, exponent: str, around: tuple[str, str]
) -> None:
    sign, space = around
    text = f"{sign}{whole}" + ("" if fraction is None else f".{fraction}") + mark + exponent

    found = read_numbers(f"[{text}{space}]}}".encode(), 0)

    try:
        expected = json.loads(text, parse_int=float)
    except ValueError:
        expected = np.inf
    if np.isinf(expected):
        assert found is None
    else:
        assert found is not None
        assert (found[0][0], found[1]) == (expected, len(text + space) + 2)


def test_powers_of_ten_are_cut_off_behind_128_bits() -> None:
    for power in range(LEAST_POWER, GREATEST_POWER + 1):
        place = power - LEAST_POWER
        bits = (int(HIGH[place]) << 64) + int(LOW[place])
        unit = Fraction(10) ** power / bits
        assert 2**127 <= bits < 2**128
        exponent = (217706 * power >> 16) - 127
        assert Fraction(2) ** exponent <= unit < Fraction(2) ** exponent * Fraction(bits + 1, bits)


def test_nothing_is_compiled_after_warming_up() -> None:
    numerals.warm_up()
    X = np.arange(2.0 * FEW_NUMBERS).reshape(-1, 2)
    fixed = X.copy()
    fixed.setflags(write=False)

    with event.install_recorder("numba:compile") as compiled:
        for array in (X, fixed, X[:, 0], X.T, X.astype(np.int64)):
            text = bytes(write_numbers(array)) + b"}"
            for kind in (bytes, bytearray, memoryview):
                assert read_numbers(kind(text), 0) is not None

    assert compiled.buffer == []


def test_other_threads_go_on_while_numbers_are_read_and_written() -> None:
    X = np.random.default_rng(0).normal(size=(300_000, 8))
    text = b"%b}" % written(X)
    n_turns = {"reading": 0, "writing": 0}
    under_way = ["reading"]

    def take_turns() -> None:
        while under_way:
            n_turns[under_way[0]] += 1
            time.sleep(0.0005)

    other = threading.Thread(target=take_turns)
    other.start()
    read_numbers(text, 0)
    under_way[0] = "writing"
    write_numbers(X)
    under_way.clear()
    other.join()

    assert min(n_turns.values()) > 10  # of some 50 milliseconds each
