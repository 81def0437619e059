"""Vectors of doubles: operations on all lanes at once, for the compiled passes.

Numba has no vector type, and loops over a few features are too short for LLVM to vectorise well
by itself. These intrinsics emit LLVM vector instructions as wide as the machine's own: four
doubles, or eight. Sums are kept by lane, so their last bits depend on that width. Everything here
is inlined into the passes; nothing else uses it.
"""

import math

import numpy as np
from llvmlite import binding, ir
from llvmlite.ir import IRBuilder, Value
from numba import njit, types
from numba.core import cgutils, config
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray


def _host_lanes() -> int:
    """Return how many doubles the widest vectors hold of the processor that Numba compiles for."""
    features = config.CPU_FEATURES
    if features is None and config.CPU_NAME is None:
        features = binding.get_host_cpu_features().flatten()
    has_wide_vectors = {"+avx512f", "+avx512dq"} <= set((features or "").split(","))
    return 8 if has_wide_vectors else 4


LANES = _host_lanes()
"""Doubles in a vector."""
HAS_ESTIMATES = LANES == 8
"""Whether there are instructions that estimate 1/a and 1/√a, to 14 bits."""
REGISTERS = 16 if LANES == 4 else 32
"""Vectors that the processor holds."""

VECTOR = ir.VectorType(ir.DoubleType(), LANES)
ZERO = ir.Constant(VECTOR, [0.0] * LANES)
_UNDEFINED = ir.Constant(VECTOR, ir.Undefined)
_INT32 = ir.IntType(32)
_FIRST_EVERYWHERE = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
_ALIGNMENT = 8
"""What is asked for; tables that callers hand over are aligned to doubles only."""
_TINY = float(np.finfo(float).tiny)
_LINE = 8
"""Doubles in a line of the cache."""


class Lanes(types.Type):
    """Numba's type of a vector of doubles."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: object, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, VECTOR)


def array_data(
    context: BaseContext, builder: IRBuilder, array_type: types.Array, array: Value
) -> Value:
    """Return the pointer to an array's first element."""
    return context.make_array(array_type)(context, builder, array).data


def load_vector(builder: IRBuilder, pointer: Value, offset: Value) -> Value:
    address = builder.gep(pointer, [offset], inbounds=True)
    loaded = builder.load(builder.bitcast(address, VECTOR.as_pointer()))
    loaded.align = _ALIGNMENT
    return loaded


def store_vector(builder: IRBuilder, pointer: Value, offset: Value, vector: Value) -> None:
    address = builder.gep(pointer, [offset], inbounds=True)
    stored = builder.store(vector, builder.bitcast(address, VECTOR.as_pointer()))
    stored.align = _ALIGNMENT


def spread_scalar(builder: IRBuilder, scalar: Value) -> Value:
    single = builder.insert_element(_UNDEFINED, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(single, _UNDEFINED, _FIRST_EVERYWHERE)


def multiply_add(builder: IRBuilder, a: Value, b: Value, c: Value) -> Value:
    """Return a·b + c, rounded once."""
    signature = ir.FunctionType(VECTOR, [VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{LANES}f64")
    return builder.call(function, [a, b, c])


@njit(nogil=True, error_model="numpy", forceinline=True)
def aligned(size: int) -> NDArray[np.float64]:
    """Return room for so many doubles that begins with a line of the cache.

    A vector of eight that lies across two lines takes twice as long to load.
    """
    whole = np.empty(size + _LINE)
    skipped = -(whole.ctypes.data // 8) % _LINE
    return whole[skipped : skipped + size]


@intrinsic
def load(typing_context, array, offset):
    """Return array[offset : offset + LANES] of a flat array."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        pointer = array_data(context, builder, signature.args[0], args[0])
        return load_vector(builder, pointer, args[1])

    return lanes(array, types.intp), codegen


@intrinsic
def load_doubles(typing_context, array, offset):
    """Return a vector from a place of an array of doubles or floats, counted from its first."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        pointer = array_data(context, builder, signature.args[0], args[0])
        return _load_doubles(builder, pointer, args[1])

    return lanes(array, types.intp), codegen


@intrinsic
def store(typing_context, array, offset, vector):
    """Set array[offset : offset + LANES] of a flat array."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        pointer = array_data(context, builder, signature.args[0], args[0])
        store_vector(builder, pointer, args[1], args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), codegen


@intrinsic
def turn_tile(typing_context, source, begin, stride, target, place, target_stride):
    """Copy a square of as many rows as lanes, and turn it: rows become columns.

    Rows of the source lie ``stride`` numbers apart, those of the target ``target_stride``. The
    source may hold floats.
    """

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        intp = context.get_value_type(types.intp)
        rows, out = (array_data(context, builder, signature.args[i], args[i]) for i in (0, 3))

        def at(first: Value, step: Value, row: int) -> Value:
            return builder.add(first, builder.mul(step, ir.Constant(intp, row)))

        vectors = [_load_doubles(builder, rows, at(args[1], args[2], i)) for i in range(LANES)]
        for row, vector in enumerate(_turned(builder, vectors)):
            store_vector(builder, out, at(args[4], args[5], row), vector)
        return context.get_dummy_value()

    return (
        types.void(source, types.intp, types.intp, target, types.intp, types.intp),
        codegen,
    )


@intrinsic
def take_rows_apart(
    typing_context, source, begin, n_tiles, target, place, target_stride, n_features
):
    """Copy rows by feature, as many at once as lanes; theirs are fewer, and one follows another."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        intp = context.get_value_type(types.intp)
        rows, out = (array_data(context, builder, signature.args[i], args[i]) for i in (0, 3))

        def copy_tile(tile: Value, D: int) -> None:
            first = builder.add(args[1], builder.mul(tile, ir.Constant(intp, D * LANES)))
            row = builder.add(args[4], builder.mul(tile, ir.Constant(intp, LANES)))
            vectors = [
                _load_doubles(builder, rows, builder.add(first, ir.Constant(intp, i * LANES)))
                for i in range(D)
            ]
            for i in range(D):
                offset = builder.mul(args[5], ir.Constant(intp, i))
                column = _picked(builder, vectors, [row * D + i for row in range(LANES)])
                store_vector(builder, out, builder.add(row, offset), column)

        done = builder.append_basic_block("apart")
        switch = builder.switch(args[6], done)
        for D in range(1, LANES):
            block = builder.append_basic_block(f"apart.{D}")
            switch.add_case(ir.Constant(intp, D), block)
            builder.position_at_end(block)
            with cgutils.for_range(builder, args[2], intp=intp) as tiles:
                copy_tile(tiles.index, D)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    intp = types.intp
    return types.void(source, intp, intp, target, intp, intp, intp), codegen


def _picked(builder: IRBuilder, vectors: list[Value], places: list[int]) -> Value:
    """Emit a vector of the numbers at these places of vectors that follow one another."""
    picked = vectors[0]
    for i, vector in enumerate(vectors[1:], 1):
        from_before = range(LANES) if i > 1 else places
        chosen = [
            LANES + place - i * LANES if place // LANES == i else before if place < i * LANES else 0
            for place, before in zip(places, from_before, strict=True)
        ]
        mask = ir.Constant(ir.VectorType(_INT32, LANES), chosen)
        picked = builder.shuffle_vector(picked, vector, mask)
    return picked


def _load_doubles(builder: IRBuilder, pointer: Value, offset: Value) -> Value:
    """Load a vector of doubles, also from floats."""
    element = pointer.type.pointee
    if element == ir.DoubleType():
        return load_vector(builder, pointer, offset)
    address = builder.gep(pointer, [offset], inbounds=True)
    floats = ir.VectorType(element, LANES)
    loaded = builder.load(builder.bitcast(address, floats.as_pointer()))
    loaded.align = _ALIGNMENT // 2
    return builder.fpext(loaded, VECTOR)


def _turned(builder: IRBuilder, rows: list[Value]) -> list[Value]:
    """Emit the columns of a square of vectors: by halves, which swap places, then by their own."""
    turned = list(rows)
    lanes_in_order = range(LANES)
    half = LANES // 2
    while half:
        low = [lane if not lane & half else LANES + lane - half for lane in lanes_in_order]
        high = [lane + half if not lane & half else LANES + lane for lane in lanes_in_order]
        for row in lanes_in_order:
            if row & half:
                continue
            a, b = turned[row], turned[row + half]
            turned[row], turned[row + half] = (
                builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, LANES), picked))
                for picked in (low, high)
            )
        half //= 2
    return turned


@intrinsic
def spread(typing_context, scalar):
    """Return a vector of one number."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return spread_scalar(builder, args[0])

    return lanes(types.float64), codegen


@intrinsic
def spread_at(typing_context, array, offset):
    """Return a vector of array[offset] of a flat array; the offset is not negative."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        pointer = array_data(context, builder, signature.args[0], args[0])
        return spread_scalar(builder, builder.load(builder.gep(pointer, [args[1]], inbounds=True)))

    return lanes(array, types.intp), codegen


@intrinsic
def fma(typing_context, a, b, c):
    """Return a·b + c, rounded once."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return multiply_add(builder, *args)

    return lanes(lanes, lanes, lanes), codegen


@intrinsic
def add(typing_context, a, b):
    """Return a + b."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return builder.fadd(*args)

    return lanes(lanes, lanes), codegen


@intrinsic
def subtract(typing_context, a, b):
    """Return a − b."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return builder.fsub(*args)

    return lanes(lanes, lanes), codegen


@intrinsic
def multiply(typing_context, a, b):
    """Return a·b."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return builder.fmul(*args)

    return lanes(lanes, lanes), codegen


@intrinsic
def square_root(typing_context, a):
    """Return √a to 1 ulp, for numbers that are not negative; 0 where they are not normal.

    The divider takes three times as long for eight lanes as two of Newton's steps from the
    processor's estimate of 1/√a and a correction of √a itself.
    """

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        (a,) = args
        if not HAS_ESTIMATES:
            name, kinds = f"llvm.sqrt.v{LANES}f64", [VECTOR]
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(VECTOR, kinds), name
            )
            return builder.call(function, [a])
        reciprocal = _estimated(builder, "rsqrt14", a)
        half, least = (ir.Constant(VECTOR, [number] * LANES) for number in (0.5, _TINY))
        minus_half_a = builder.fmul(builder.fneg(half), a)
        for _ in range(2):  # y ← y + y·(½ − ½a·y·y)
            short_of_half = multiply_add(
                builder, builder.fmul(minus_half_a, reciprocal), reciprocal, half
            )
            reciprocal = multiply_add(builder, reciprocal, short_of_half, reciprocal)
        root = builder.fmul(a, reciprocal)
        rest = multiply_add(builder, builder.fneg(root), root, a)
        root = multiply_add(builder, builder.fmul(half, reciprocal), rest, root)
        return builder.select(builder.fcmp_ordered(">=", a, least), root, ZERO)

    return lanes(lanes), codegen


@intrinsic
def reciprocal(typing_context, a):
    """Return 1/a to 1 ulp, for numbers from 1 to 2**1000: likewise, by two of Newton's steps."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        (a,) = args
        one = ir.Constant(VECTOR, [1.0] * LANES)
        if not HAS_ESTIMATES:
            return builder.fdiv(one, a)
        value = _estimated(builder, "rcp14", a)
        for _ in range(2):  # y ← y + y·(1 − a·y)
            short_of_one = multiply_add(builder, builder.fneg(a), value, one)
            value = multiply_add(builder, value, short_of_one, value)
        return value

    return lanes(lanes), codegen


def _estimated(builder: IRBuilder, name: str, a: Value) -> Value:
    mask = ir.IntType(LANES)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(VECTOR, [VECTOR, VECTOR, mask]),
        f"llvm.x86.avx512.{name}.pd.512",
    )
    return builder.call(function, [a, ZERO, ir.Constant(mask, -1)])


@intrinsic
def _bits_as_double(typing_context, bits):
    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic
def _double_as_bits(typing_context, number):
    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


# ln 2 in two parts: the first has 21 trailing zero bits, so that n·LN_2_HIGH is exact.
_LN_2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN_2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_ROUND_TO_INTEGER = 1.5 * 2.0**52
"""Added to a small number it leaves the nearest integer in the low bits."""
_MANTISSA_BITS, _BIAS = 52, 1023
_BITS_OF_ROUND = int(np.float64(_ROUND_TO_INTEGER).view(np.int64))
_BITS_OF_ROOT_HALF = int(np.float64(math.sqrt(0.5)).view(np.int64))

(_L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9) = (1.0 / (2 * i + 1) for i in range(1, 10))


@njit(nogil=True, error_model="numpy", forceinline=True)
def without_powers(x):
    """Return m and n with x = m·2ⁿ and 1 ≤ m < 2, of a finite x ≥ 1."""
    bits = _double_as_bits(x)
    n = (bits >> _MANTISSA_BITS) - _BIAS
    return _bits_as_double(bits - (n << _MANTISSA_BITS)), n


# No reassociation here: the constants work only in the order written.
_AS_WRITTEN = {"contract"}


@njit(fastmath=_AS_WRITTEN, forceinline=True, error_model="numpy")
def log_of_at_least_one(x: float) -> float:
    """Return log(x) for finite x ≥ 1 to 2 ulp, without a branch.

    x = m·2ⁿ with √½ ≤ m < √2, log(m) = 2 artanh((m − 1)/(m + 1)) by its series.
    """
    bits = _double_as_bits(x)
    n_bits = (bits - _BITS_OF_ROOT_HALF) >> _MANTISSA_BITS
    m = _bits_as_double(bits - (n_bits << _MANTISSA_BITS))
    n = _bits_as_double(n_bits + _BITS_OF_ROUND) - _ROUND_TO_INTEGER
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    z2 = z * z
    low = (_L1 + _L2 * z) + z2 * (_L3 + _L4 * z)
    high = (_L5 + _L6 * z) + z2 * (_L7 + _L8 * z + _L9 * z2)
    return n * _LN_2_HIGH + (2.0 * s + (2.0 * s * z * (low + z2 * z2 * high) + n * _LN_2_LOW))
