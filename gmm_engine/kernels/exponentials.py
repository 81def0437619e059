"""exp of a block's log-densities, a few vectors at a time.

The polynomial has more coefficients than the machine has registers to hold them. Each is loaded
once and used for several vectors that go through the same operations side by side.
"""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from gmm_engine.kernels.lanes import (
    LANES,
    VECTOR,
    ZERO,
    array_data,
    load_vector,
    multiply_add,
    store_vector,
)

VECTORS_AT_ONCE = 3
"""A block holds a multiple of so many vectors."""

SMALLEST_EXPONENT, SMALLEST_BINARY_EXPONENT = -708.0, -1021.0
"""exp, or 2 to the power, of anything below leaves the normal numbers and is taken as 0."""

_ROUND_TO_INTEGER = 1.5 * 2.0**52
"""Added to a small number it leaves the nearest integer in the low bits."""
_MANTISSA_BITS = 52


@dataclass(frozen=True, slots=True)
class _Reduction:
    """How exp(x) is taken apart: 2^(n/m)·exp(r) with x = n·ln(2)/m + r and |r| ≤ ln(2)/2m."""

    table_bits: int
    """log₂ m. The powers 2^(j/m), 0 ≤ j < m, stay in two registers."""
    step_high: float
    """ln(2)/m in two parts: the first has 21 trailing zero bits, so that n times it is exact."""
    step_low: float
    coefficients: tuple[float, ...]
    """Of (exp(r) − 1 − r)/r², interpolated at Chebyshev's points with mpmath."""

    @property
    def steps_to_one(self) -> float:
        return 2.0**self.table_bits / math.log(2.0)

    @property
    def exponent_place(self) -> int:
        """Where the bits of n belong, so that those above the table's are the exponent's."""
        return _MANTISSA_BITS - self.table_bits

    def powers(self) -> list[int]:
        """Return the bits of 2^(j/m), less those that n itself leaves in the mantissa."""
        powers = [math.exp2(j / 2**self.table_bits) for j in range(2**self.table_bits)]
        bits = struct.unpack(f"<{len(powers)}q", struct.pack(f"<{len(powers)}d", *powers))
        return [power - (j << self.exponent_place) for j, power in enumerate(bits)]


_BY_POLYNOMIAL = _Reduction(  # to 1.6e-17
    table_bits=0,
    step_high=float.fromhex("0x1.62e42feep-1"),
    step_low=float.fromhex("0x1.a39ef35793c76p-33"),
    coefficients=(
        float.fromhex("0x1.0000000000001p-1"),
        float.fromhex("0x1.5555555555556p-3"),
        float.fromhex("0x1.5555555553d63p-5"),
        float.fromhex("0x1.11111111109b3p-7"),
        float.fromhex("0x1.6c16c1788bd90p-10"),
        float.fromhex("0x1.a01a01a7c41d5p-13"),
        float.fromhex("0x1.a019b90d2ae7ap-16"),
        float.fromhex("0x1.71de0dae63bb3p-19"),
        float.fromhex("0x1.289185613a3d6p-22"),
        float.fromhex("0x1.af38a9b0ec855p-26"),
    ),
)
_BY_TABLE = _Reduction(  # to 2.9e-17
    table_bits=4,
    step_high=float.fromhex("0x1.62e42feep-5"),
    step_low=float.fromhex("0x1.a39ef35793c76p-37"),
    coefficients=(
        float.fromhex("0x1.0000000000000p-1"),
        float.fromhex("0x1.55555554dd44dp-3"),
        float.fromhex("0x1.55555555194d2p-5"),
        float.fromhex("0x1.11120af701debp-7"),
        float.fromhex("0x1.6c17bb51f236dp-10"),
    ),
)
_REDUCTION = _BY_TABLE if LANES == 8 else _BY_POLYNOMIAL
"""Vectors of eight have an instruction that looks up 16 numbers in two registers."""

_POWERS = tuple(2.0 ** (j / 16) for j in range(16))
_BINARY_COEFFICIENTS = (  # to 2.9e-17
    float.fromhex("0x1.62e42fefa39ebp-1"),
    float.fromhex("0x1.ebfbdff830eb4p-3"),
    float.fromhex("0x1.c6b08d62f5e70p-5"),
    float.fromhex("0x1.3b2ac53057331p-7"),
    float.fromhex("0x1.5d7a510a65329p-10"),
    float.fromhex("0x1.49182b11a8828p-13"),
)
"""Of (2^r − 1)/r for 0 ≤ r < 1/16, likewise."""
_ROUND_TO_SIXTEENTH = 1.5 * 2.0**48
_DOWNWARD, _LEFT_OF_SIXTEENTH, _AS_USUAL = (ir.Constant(ir.IntType(32), n) for n in (9, 0x49, 4))
"""How instructions of vectors of eight round: downward; to sixteenths downward, of which they
return the rest; and as all others do."""

_INTEGERS = ir.VectorType(ir.IntType(64), LANES)
_LANES_THAT_COUNT = ir.IntType(LANES)


@intrinsic(prefer_literal=True)
def find_largest(typing_context, joint, n_components, n_vectors, largest, block_rows):
    """Set largest to max_k log p(x, k) by row; a NaN is passed over.

    ``n_vectors`` of rows are treated, rounded up to ``VECTORS_AT_ONCE``.
    """
    B = block_rows.literal_value

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        values, tops = (array_data(context, builder, signature.args[i], args[i]) for i in (0, 3))
        with _groups_of_vectors(context, builder, args[2]) as places:
            registers = [cgutils.alloca_once(builder, VECTOR) for _ in places]
            for register in registers:
                builder.store(ir.Constant(VECTOR, [-math.inf] * LANES), register)
            with _components(context, builder, args[1], B) as base:
                for register, place in zip(registers, places, strict=True):
                    value = load_vector(builder, values, builder.add(base, place))
                    top = builder.load(register)
                    is_larger = builder.fcmp_ordered(">", value, top)
                    builder.store(builder.select(is_larger, value, top), register)
            for register, place in zip(registers, places, strict=True):
                store_vector(builder, tops, place, builder.load(register))
        return context.get_dummy_value()

    return types.void(joint, types.intp, types.intp, largest, block_rows), codegen


@intrinsic(prefer_literal=True)
def exponentiate(
    typing_context,
    joint,
    n_components,
    n_vectors,
    largest,
    sums,
    least,
    is_sparing,
    is_binary,
    block_rows,
):
    """Turn log p(x, k) into p(x, k) / exp(largest) ≤ 1, to 2 ulp, and sum it up by row.

    Binary, logarithms are those to base 2. 0 for NaN. Sparing, also what is below ``least``
    becomes 0. ``n_vectors`` of rows are treated, rounded up to ``VECTORS_AT_ONCE``.
    """
    B, spares = block_rows.literal_value, bool(is_sparing.literal_value)
    power_of = _exp2_of_nonpositive if is_binary.literal_value else _exp_of_nonpositive

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        values, tops, totals, floors = (
            array_data(context, builder, signature.args[i], args[i]) for i in (0, 3, 4, 5)
        )
        with _groups_of_vectors(context, builder, args[2]) as places:
            top = [load_vector(builder, tops, place) for place in places]
            floor = [load_vector(builder, floors, place) for place in places] if spares else []
            registers = [cgutils.alloca_once(builder, VECTOR) for _ in places]
            for register in registers:
                builder.store(ZERO, register)
            with _components(context, builder, args[1], B) as base:
                targets = [builder.add(base, place) for place in places]
                log_p = [load_vector(builder, values, target) for target in targets]
                results = power_of(
                    builder, [builder.fsub(a, b) for a, b in zip(log_p, top, strict=True)]
                )
                if spares:
                    results = [
                        builder.select(builder.fcmp_ordered(">=", a, least_one), result, ZERO)
                        for a, least_one, result in zip(log_p, floor, results, strict=True)
                    ]
                for register, target, result in zip(registers, targets, results, strict=True):
                    store_vector(builder, values, target, result)
                    builder.store(builder.fadd(builder.load(register), result), register)
            for register, place in zip(registers, places, strict=True):
                store_vector(builder, totals, place, builder.load(register))
        return context.get_dummy_value()

    return (
        types.void(
            joint,
            types.intp,
            types.intp,
            largest,
            sums,
            least,
            is_sparing,
            is_binary,
            block_rows,
        ),
        codegen,
    )


@contextmanager
def _groups_of_vectors(
    context: BaseContext, builder: IRBuilder, n_vectors: Value
) -> Iterator[list[Value]]:
    """Loop over the rows by groups; yields the places of a group's vectors."""
    intp = context.get_value_type(types.intp)
    rounded_up = builder.add(n_vectors, ir.Constant(intp, VECTORS_AT_ONCE - 1))
    n_groups = builder.sdiv(rounded_up, ir.Constant(intp, VECTORS_AT_ONCE))
    with cgutils.for_range(builder, n_groups, intp=intp) as groups:
        first = builder.mul(groups.index, ir.Constant(intp, LANES * VECTORS_AT_ONCE))
        yield [builder.add(first, ir.Constant(intp, LANES * i)) for i in range(VECTORS_AT_ONCE)]


@contextmanager
def _components(
    context: BaseContext, builder: IRBuilder, n_components: Value, block_rows: int
) -> Iterator[Value]:
    """Loop over the components; yields the place of the first row's number."""
    intp = context.get_value_type(types.intp)
    with cgutils.for_range(builder, n_components, intp=intp) as components:
        yield builder.mul(components.index, ir.Constant(intp, block_rows))


def _exp_of_nonpositive(builder: IRBuilder, x: list[Value]) -> list[Value]:
    """Emit exp of vectors of numbers ≤ 0, one operation for all of them after another.

    exp(r) = 1 + r + r²·q(r). What is out of range comes out as anything and is then taken as 0.
    """
    fma, everywhere = _fma_of(builder), _everywhere(len(x))
    shifted = fma(x, everywhere(_REDUCTION.steps_to_one), everywhere(_ROUND_TO_INTEGER))
    n = _all_of(builder.fsub, shifted, everywhere(_ROUND_TO_INTEGER))
    r = fma(n, everywhere(-_REDUCTION.step_high), x)
    r = fma(n, everywhere(-_REDUCTION.step_low), r)
    return _composed(builder, x, SMALLEST_EXPONENT, shifted, r)


def _composed(
    builder: IRBuilder, x: list[Value], smallest: float, shifted: list[Value], r: list[Value]
) -> list[Value]:
    """Emit 2^(n/m)·exp(r), given n in the low bits; 0 where x is not above the smallest."""
    fma, everywhere = _fma_of(builder), _everywhere(len(x))
    r2 = _all_of(builder.fmul, r, r)
    constants = [everywhere(coefficient) for coefficient in _REDUCTION.coefficients]
    q, *others = [
        fma(r, constants[i + 1], constants[i]) if i + 1 < len(constants) else constants[i]
        for i in reversed(range(0, len(constants), 2))
    ]
    for pair in others:
        q = fma(q, r2, pair)
    beyond_one = fma(q, r2, r)
    power = [_power_of_two(builder, builder.bitcast(each, _INTEGERS)) for each in shifted]
    values = fma(power, beyond_one, power)
    return _all_of(builder.select, _are_above(builder, x, smallest), values, everywhere(0.0))


def _exp2_of_nonpositive(builder: IRBuilder, x: list[Value]) -> list[Value]:
    """Emit 2^x likewise: taken apart, x loses no digit.

    Vectors of eight have instructions for that: 2^x = 2^n·(1 + r·p(r))·2^(j/16), where r is what
    x is above n + j/16. Others take exp(r·ln 2).
    """
    fma, everywhere = _fma_of(builder), _everywhere(len(x))
    if LANES < 8:
        # Not by adding and taking away again, as above: sums may be regrouped, and nothing is left.
        n = [_rounded(builder, one) for one in x]
        shifted = _all_of(builder.fadd, n, everywhere(_ROUND_TO_INTEGER))
        rest = _all_of(builder.fsub, x, n)
        r = _all_of(builder.fmul, rest, everywhere(math.log(2.0)))
        return _composed(builder, x, SMALLEST_BINARY_EXPONENT, shifted, r)
    all_lanes = ir.Constant(_LANES_THAT_COUNT, -1)
    low, high = (ir.Constant(VECTOR, _POWERS[i : i + LANES]) for i in (0, LANES))

    def power(one: Value, p: Value, r: Value, is_above: Value) -> Value:
        shifted = _wide(builder, "add.pd", one, magic, _DOWNWARD)
        root = _wide(builder, "vpermi2var.pd", low, builder.bitcast(shifted, _INTEGERS), high)
        value = multiply_add(builder, builder.fmul(p, r), root, root)
        counted = builder.bitcast(is_above, _LANES_THAT_COUNT)
        return _wide(builder, "mask.scalef.pd", value, one, ZERO, counted, _AS_USUAL)

    (magic,) = _everywhere(1)(_ROUND_TO_SIXTEENTH)
    r = [
        _wide(builder, "mask.reduce.pd", one, _LEFT_OF_SIXTEENTH, ZERO, all_lanes, _AS_USUAL)
        for one in x
    ]
    p, *others = [everywhere(coefficient) for coefficient in reversed(_BINARY_COEFFICIENTS)]
    for coefficient in others:
        p = fma(p, r, coefficient)
    return _all_of(power, x, p, r, _are_above(builder, x, SMALLEST_BINARY_EXPONENT))


def _rounded(builder: IRBuilder, x: Value) -> Value:
    kind = ir.FunctionType(VECTOR, [VECTOR])
    name = f"llvm.rint.v{LANES}f64"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [x])


def _wide(builder: IRBuilder, name: str, *operands: Value) -> Value:
    """Emit an instruction of vectors of eight, by LLVM's name for it."""
    kind = ir.FunctionType(VECTOR, [operand.type for operand in operands])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.avx512.{name}.512")
    return builder.call(function, operands)


def _all_of(operation: Callable[..., Value], *operands: list[Value]) -> list[Value]:
    return [operation(*each) for each in zip(*operands, strict=True)]


def _fma_of(builder: IRBuilder) -> Callable[..., list[Value]]:
    def fma(a: list[Value], b: list[Value], c: list[Value]) -> list[Value]:
        return _all_of(lambda *each: multiply_add(builder, *each), a, b, c)

    return fma


def _everywhere(count: int) -> Callable[[float], list[Value]]:
    return lambda number: [ir.Constant(VECTOR, [number] * LANES)] * count


def _are_above(builder: IRBuilder, x: list[Value], least: float) -> list[Value]:
    (bound,) = _everywhere(1)(least)
    return [builder.fcmp_ordered(">", one, bound) for one in x]


def _power_of_two(builder: IRBuilder, n: Value) -> Value:
    """Emit 2^(n/m), of integers in the low bits."""
    place = ir.Constant(_INTEGERS, [_REDUCTION.exponent_place] * LANES)
    bits = builder.add(builder.shl(n, place), _looked_up(builder, _REDUCTION.powers(), n))
    return builder.bitcast(bits, VECTOR)


def _looked_up(builder: IRBuilder, table: list[int], places: Value) -> Value:
    """Emit table[places mod its length], of one number or two vectors of them."""
    if len(table) == 1:
        return ir.Constant(_INTEGERS, table * LANES)
    lookup = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(_INTEGERS, [_INTEGERS] * 3),
        "llvm.x86.avx512.vpermi2var.q.512",
    )
    low, high = (ir.Constant(_INTEGERS, table[i : i + LANES]) for i in (0, LANES))
    return builder.call(lookup, [low, places, high])
