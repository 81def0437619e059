"""What is negligible: components that are absent from a row, as far as a double can tell.

With more than a few features most responsibilities are far below the rounding of the sums that
they would be added to. They are taken as nothing, and the moments are summed over the rows that
count for a component alone.
"""

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import njit, types
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
    log_of_at_least_one,
    store_vector,
)

HAS_COMPRESSION = LANES > 4
"""Whether one instruction packs the lanes that count; such come with the wider vectors."""
_LARGEST_MAGNITUDE = 2.0**51


@njit(nogil=True, error_model="numpy", forceinline=True)
def least_that_counts(largest, negligible):
    """Return the log p(x, k) below which a component is taken as absent from a row.

    It is ``negligible`` below the largest, and lower still for rows far from every component: what
    they weigh in a scatter grows with their squared distance. It rises with ``largest``, so a
    component that is negligible beside any other is so beside the largest.
    """
    magnitude = min(abs(largest), _LARGEST_MAGNITUDE)
    return largest + negligible - log_of_at_least_one(1.0 + magnitude)


@intrinsic
def _append_rows_that_count(typing_context, resp, resp_offset, row, chosen, gammas, count):
    """Append those of a vector of rows with γ > 0; return the new count.

    What is behind them in ``chosen`` and ``gammas`` is overwritten.
    """

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        intp = context.get_value_type(types.intp)
        integers, truths = ir.VectorType(intp, LANES), ir.VectorType(ir.IntType(1), LANES)
        values, rows, targets = (
            array_data(context, builder, signature.args[i], args[i]) for i in (0, 3, 4)
        )
        gamma = load_vector(builder, values, builder.add(args[1], args[2]))
        is_chosen = builder.fcmp_ordered(">", gamma, ZERO)
        first = builder.insert_element(ir.Constant(integers, ir.Undefined), args[2], intp(0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        numbers = builder.add(
            builder.shuffle_vector(first, first, everywhere),
            ir.Constant(integers, list(range(LANES))),
        )

        def compressed(vector: Value, of_type: ir.VectorType, name: str) -> Value:
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(of_type, [of_type, truths, of_type]),
                f"llvm.experimental.vector.compress.v{LANES}{name}",
            )
            return builder.call(function, [vector, is_chosen, ir.Constant(of_type, ir.Undefined)])

        store_vector(builder, targets, args[5], compressed(gamma, VECTOR, "f64"))
        place = builder.bitcast(builder.gep(rows, [args[5]]), integers.as_pointer())
        stored = builder.store(compressed(numbers, integers, "i64"), place)
        stored.align = 8
        bits = builder.bitcast(is_chosen, ir.IntType(LANES))
        return builder.add(args[5], builder.zext(builder.ctpop(bits), intp))

    return (
        types.intp(resp, types.intp, types.intp, chosen, gammas, types.intp),
        codegen,
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def choose_rows_that_count(resp, resp_offset, n_rows, chosen, gammas):
    """Set chosen to the rows with γ > 0 and gammas to their γ; return how many, made even.

    An odd one out is followed by itself with a γ of 0. ``n_rows`` is a multiple of ``LANES``, and
    both arrays have room for so many more.
    """
    count = 0
    if HAS_COMPRESSION:
        for row in range(0, n_rows, LANES):
            count = _append_rows_that_count(resp, resp_offset, row, chosen, gammas, count)
    else:
        for row in range(n_rows):
            gamma = resp[resp_offset + row]
            chosen[count] = row
            gammas[count] = gamma
            count += gamma > 0.0
    if count % 2:
        chosen[count] = chosen[count - 1]
        gammas[count] = 0.0
        count += 1
    return count
