"""exp of a block's log-densities, a few vectors at a time.

The polynomial has more coefficients than the machine has registers to hold them. Each is loaded
once and used for several vectors that go through the same operations side by side.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

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

SMALLEST_EXPONENT = -708.0
"""exp of anything below leaves the normal numbers and is taken as 0."""

_LOG2_E = 1.0 / math.log(2.0)
# ln 2 in two parts: the first has 21 trailing zero bits, so that n·LN_2_HIGH is exact.
_LN_2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN_2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_ROUND_TO_INTEGER = 1.5 * 2.0**52
"""Added to a small number it leaves the nearest integer in the low bits."""
_EXPONENT_BIAS = 1023
_MANTISSA_BITS = 52

# (exp(r) − 1 − r)/r² for |r| ≤ ln(2)/2, interpolated at Chebyshev's points with mpmath; exp(r)
# comes out to 1.6e-17.
_COEFFICIENTS = tuple(
    map(
        float.fromhex,
        (
            "0x1.0000000000001p-1",
            "0x1.5555555555556p-3",
            "0x1.5555555553d63p-5",
            "0x1.11111111109b3p-7",
            "0x1.6c16c1788bd90p-10",
            "0x1.a01a01a7c41d5p-13",
            "0x1.a019b90d2ae7ap-16",
            "0x1.71de0dae63bb3p-19",
            "0x1.289185613a3d6p-22",
            "0x1.af38a9b0ec855p-26",
        ),
    )
)

_INTEGERS = ir.VectorType(ir.IntType(64), LANES)


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
    block_rows,
):
    """Turn log p(x, k) into exp(log p(x, k) − largest) ≤ 1, to 2 ulp, and sum it up by row.

    0 for NaN. Sparing, also what is below ``least`` becomes 0. ``n_vectors`` of rows are treated,
    rounded up to ``VECTORS_AT_ONCE``.
    """
    B, spares = block_rows.literal_value, bool(is_sparing.literal_value)

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
                results = _exp_of_nonpositive(
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
        types.void(joint, types.intp, types.intp, largest, sums, least, is_sparing, block_rows),
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

    x = n·ln 2 + r with |r| ≤ ln(2)/2; exp(r) = 1 + r + r²·q(r).
    """

    def all_of(operation, *operands):
        return [operation(*each) for each in zip(*operands, strict=True)]

    def fma(a, b, c):
        return all_of(lambda *each: multiply_add(builder, *each), a, b, c)

    def everywhere(number):
        return [ir.Constant(VECTOR, [number] * LANES)] * len(x)

    smallest = everywhere(SMALLEST_EXPONENT)
    in_range = all_of(lambda a, b: builder.fcmp_ordered(">", a, b), x, smallest)
    bounded = all_of(builder.select, in_range, x, smallest)
    shifted = fma(bounded, everywhere(_LOG2_E), everywhere(_ROUND_TO_INTEGER))
    n = all_of(builder.fsub, shifted, everywhere(_ROUND_TO_INTEGER))
    r = fma(n, everywhere(-_LN_2_HIGH), bounded)
    r = fma(n, everywhere(-_LN_2_LOW), r)
    r2 = all_of(builder.fmul, r, r)
    r4 = all_of(builder.fmul, r2, r2)
    low, second, third, fourth, high = (
        fma(r, everywhere(_COEFFICIENTS[i + 1]), everywhere(_COEFFICIENTS[i]))
        for i in range(0, 10, 2)
    )
    low = fma(second, r2, low)
    high = fma(high, r4, fma(fourth, r2, third))
    beyond_one = fma(fma(high, r4, low), r2, r)
    bits = [builder.bitcast(a, _INTEGERS) for a in shifted]
    shift = ir.Constant(_INTEGERS, [_MANTISSA_BITS] * LANES)
    bias = ir.Constant(_INTEGERS, [_EXPONENT_BIAS << _MANTISSA_BITS] * LANES)
    power = [builder.bitcast(builder.add(builder.shl(a, shift), bias), VECTOR) for a in bits]
    values = fma(power, beyond_one, power)
    return all_of(builder.select, in_range, values, [ZERO] * len(x))
