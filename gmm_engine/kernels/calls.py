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
def address_of(way: Way, D: int) -> int:
    """Return where the compiled E-step begins."""
    compiled = passes.expectation_pass(way, D).get_compile_result(passes.EXPECTATION_SIGNATURE)
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name))


@intrinsic
def weigh_rows(
    typing_context,
    address,
    doubles,
    floats,
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
    """Call the E-step at ``address``, as ``passes.expectation_pass`` compiles it."""
    called = passes.EXPECTATION_SIGNATURE

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        function = ir.FunctionType(
            context.get_value_type(called.return_type),
            [context.get_value_type(kind) for kind in called.args],
        )
        return builder.call(builder.inttoptr(args[0], function.as_pointer()), args[1:])

    return called.return_type(types.intp, *called.args), codegen
