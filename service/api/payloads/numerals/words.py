"""Words of 64 bits for the compiled passes: in and out of text, and their products of 128 bits.

Numba has no such types or loads; these intrinsics emit LLVM's instructions for them. Numba makes a
double of a signed and an unsigned integer, so every constant beside a word is a word itself.

Text is named by its address: an array's references would be counted for every number, and its
indices could be negative.
"""

import numpy as np
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

_BYTE, _WORD, _DOUBLE_WORD = map(ir.IntType, (8, 64, 128))
VECTOR_BYTES = 32
_VECTOR, _MASK = ir.VectorType(_BYTE, VECTOR_BYTES), ir.IntType(VECTOR_BYTES)
_UNALIGNED = 1


def _pointer(builder: IRBuilder, address: Value, kind: ir.Type) -> Value:
    return builder.inttoptr(address, kind.as_pointer())


@intrinsic
def load_byte(typing_context, address):
    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return builder.zext(builder.load(_pointer(builder, args[0], _BYTE)), _WORD)

    return types.int64(types.intp), codegen


@intrinsic
def store_byte(typing_context, address, byte):
    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        builder.store(builder.trunc(args[1], _BYTE), _pointer(builder, args[0], _BYTE))
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen


@intrinsic
def load_word(typing_context, address):
    """Return the eight bytes from an address on, the first of them lowest."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return builder.load(_pointer(builder, args[0], _WORD), align=_UNALIGNED)

    return types.uint64(types.intp), codegen


@intrinsic
def store_word(typing_context, address, word):
    """Set the eight bytes from an address on, the first to the lowest of the word."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        builder.store(args[1], _pointer(builder, args[0], _WORD), align=_UNALIGNED)
        return context.get_dummy_value()

    return types.void(types.intp, types.uint64), codegen


@intrinsic
def not_digits(typing_context, address):
    """Return a bit for each of 32 bytes that is no digit, that of the first lowest."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        loaded = builder.load(_pointer(builder, args[0], _VECTOR), align=_UNALIGNED)
        zeros, nines = (ir.Constant(_VECTOR, [digit] * VECTOR_BYTES) for digit in (ord("0"), 9))
        are_none = builder.icmp_unsigned(">", builder.sub(loaded, zeros), nines)
        return builder.zext(builder.bitcast(are_none, _MASK), _WORD)

    return types.uint64(types.intp), codegen


@intrinsic
def bits_of(typing_context, number):
    """Return the bits of a double."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        return builder.bitcast(args[0], _WORD)

    return types.uint64(types.float64), codegen


@intrinsic
def high_product(typing_context, a, b):
    """Return the upper half of a·b; the lower one is what ``*`` gives."""

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        a, b = (builder.zext(factor, _DOUBLE_WORD) for factor in args)
        upper = builder.lshr(builder.mul(a, b), ir.Constant(_DOUBLE_WORD, 64))
        return builder.trunc(upper, _WORD)

    return types.uint64(types.uint64, types.uint64), codegen


def _counter(name: str):
    """Return the intrinsic that counts zero bits from one end, of a word that has others."""

    @intrinsic
    def count(typing_context, word):
        def codegen(
            context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
        ) -> Value:
            flag = ir.IntType(1)
            kind = ir.FunctionType(_WORD, [_WORD, flag])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.i64")
            return builder.call(function, [args[0], ir.Constant(flag, 1)])

        return types.uint64(types.uint64), codegen

    return count


leading_zeros, trailing_zeros = _counter("ctlz"), _counter("cttz")


def word(number: int) -> np.uint64:
    return np.uint64(number)


def repeated(byte: int) -> np.uint64:
    """Return a word of eight equal bytes."""
    return np.uint64(byte * 0x0101010101010101)
