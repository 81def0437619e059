"""The compiled E-step as other compiled code calls it: by its address, compiled once for all."""

from functools import cache

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from gmm_engine.kernels import passes
from gmm_engine.kernels.passes import Way


@cache
def address_of(way: Way, D: int, row_type: str) -> int:
    """Return where the compiled E-step of rows of a type, ``"d"`` or ``"f"``, begins."""
    signature = passes.EXPECTATION_SIGNATURES["df".index(row_type)]
    compiled = passes.expectation_pass(way, D).get_compile_result(signature)
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name))


@intrinsic
def weigh_rows(
    typing_context,
    address,
    X,
    weight,
    constants,
    negligible,
    means,
    width,
    factors,
    factor_stride,
    moments,
    scatter,
    scatter_stride,
):
    """Call the E-step at ``address``, as ``passes.expectation_pass`` compiles it for such rows."""
    called = next(each for each in passes.EXPECTATION_SIGNATURES if each.args[0].dtype == X.dtype)

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        function = ir.FunctionType(
            context.get_value_type(called.return_type),
            [context.get_value_type(kind) for kind in called.args],
        )
        return builder.call(builder.inttoptr(args[0], function.as_pointer()), args[1:])

    return called.return_type(types.intp, *called.args), codegen
