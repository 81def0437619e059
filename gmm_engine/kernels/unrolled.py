"""Dense covariances over few features: loops over the features unrolled, rows along the lanes.

Emitted for one number of features and one size of block, both literals. The inner loops have no
loop over features left: factors are spread once per component and block, and the sums stay in
registers while the rows go by.
"""

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from gmm_engine.kernels.lanes import (
    LANES,
    REGISTERS,
    VECTOR,
    array_data,
    load_vector,
    multiply_add,
    spread_scalar,
    store_vector,
)

MAX_SUMS_AT_ONCE = REGISTERS * 3 // 4
"""Sums that a loop over the rows keeps in registers; others are needed for what is multiplied."""


def triangle_index(row: int, column: int) -> int:
    """Return the place of an entry of a lower triangle stored row by row."""
    return row * (row + 1) // 2 + column


@intrinsic(prefer_literal=True)
def weigh(
    typing_context,
    columns,
    means,
    means_offset,
    factors,
    factors_offset,
    constant,
    out,
    out_offset,
    n_vectors,
    n_features,
    block_rows,
):
    """Set out = constant − |Uᵀ(x − μ)|² for the rows of a block.

    ``columns`` holds the block by feature, ``factors`` the columns of U one after another, scaled.
    """
    D, B = n_features.literal_value, block_rows.literal_value

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        intp = context.get_value_type(types.intp)
        x = array_data(context, builder, signature.args[0], args[0])
        mu = _spread_from(context, builder, signature, args, 1, D)
        u = _spread_from(context, builder, signature, args, 3, triangle_index(D, 0))
        start = spread_scalar(builder, args[5])
        target = builder.gep(array_data(context, builder, signature.args[6], args[6]), [args[7]])
        with cgutils.for_range(builder, args[8], intp=intp) as loop:
            row = builder.mul(loop.index, ir.Constant(intp, LANES))
            deviations = [
                builder.fsub(
                    load_vector(builder, x, builder.add(row, ir.Constant(intp, i * B))), mu[i]
                )
                for i in range(D)
            ]
            value = start
            for j in range(D):
                y = builder.fmul(u[triangle_index(j, 0)], deviations[0])
                for i in range(1, j + 1):
                    y = multiply_add(builder, u[triangle_index(j, i)], deviations[i], y)
                value = multiply_add(builder, builder.fneg(y), y, value)
            store_vector(builder, target, row, value)
        return context.get_dummy_value()

    return (
        types.void(
            columns,
            means,
            types.intp,
            factors,
            types.intp,
            types.float64,
            out,
            types.intp,
            types.intp,
            n_features,
            block_rows,
        ),
        codegen,
    )


@intrinsic(prefer_literal=True)
def add_moments(
    typing_context,
    columns,
    resp,
    resp_offset,
    scales,
    means,
    means_offset,
    moments,
    moments_offset,
    scatter,
    scatter_offset,
    n_vectors,
    deviations,
    n_features,
    block_rows,
):
    """Add Σγ, Σγd and the lower triangle of Σγddᵀ, d = x − μ, each in a partial sum a lane.

    γ is ``resp`` times the ``scales`` of the rows. Where not all sums fit the registers, the d of a
    block are kept in ``deviations``, and γ in ``resp``, for one run of sums after another.
    """
    D, B = n_features.literal_value, block_rows.literal_value

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        intp = context.get_value_type(types.intp)
        gamma, first, second = (
            builder.gep(array_data(context, builder, signature.args[i], args[i]), [args[i + 1]])
            for i in (1, 6, 8)
        )
        x, scale, d = (array_data(context, builder, signature.args[i], args[i]) for i in (0, 3, 11))
        mu = _spread_from(context, builder, signature, args, 4, D)
        groups = _feature_groups(D)
        is_in_one_run = len(groups) == 1

        def column(pointer: Value, row: Value, i: int) -> Value:
            return load_vector(builder, pointer, builder.add(row, ir.Constant(intp, i * B)))

        def computed_weight(row: Value) -> Value:
            return builder.fmul(column(gamma, row, 0), column(scale, row, 0))

        def computed_deviation(row: Value, i: int) -> Value:
            return builder.fsub(column(x, row, i), mu[i])

        def kept_weight(row: Value) -> Value:
            return column(gamma, row, 0)

        def kept_deviation(row: Value, i: int) -> Value:
            return column(d, row, i)

        weight_of = computed_weight if is_in_one_run else kept_weight
        deviation_of = computed_deviation if is_in_one_run else kept_deviation
        if not is_in_one_run:
            with cgutils.for_range(builder, args[10], intp=intp) as loop:
                row = builder.mul(loop.index, ir.Constant(intp, LANES))
                store_vector(builder, gamma, row, computed_weight(row))
                for i in range(D):
                    place = builder.add(row, ir.Constant(intp, i * B))
                    store_vector(builder, d, place, computed_deviation(row, i))
        for features in groups:
            sums = {(i, j): (second, triangle_index(i, j)) for i in features for j in range(i + 1)}
            sums |= {(i, None): (first, 1 + i) for i in features}
            if 0 in features:
                sums[None, None] = (first, 0)
            registers = {key: cgutils.alloca_once(builder, VECTOR) for key in sums}
            for key, (pointer, place) in sums.items():
                offset = ir.Constant(intp, LANES * place)
                builder.store(load_vector(builder, pointer, offset), registers[key])
            with cgutils.for_range(builder, args[10], intp=intp) as loop:
                row = builder.mul(loop.index, ir.Constant(intp, LANES))
                weight = weight_of(row)
                if 0 in features:
                    _accumulate(builder, registers[None, None], weight)
                deviations = [deviation_of(row, i) for i in range(features[-1] + 1)]
                weighted = {i: builder.fmul(weight, deviations[i]) for i in features}
                for i in features:
                    _accumulate(builder, registers[i, None], weighted[i])
                for j, deviation in enumerate(deviations):
                    for i in features:
                        if j > i:
                            continue
                        register = registers[i, j]
                        total = builder.load(register)
                        builder.store(
                            multiply_add(builder, weighted[i], deviation, total), register
                        )
            for key, (pointer, place) in sums.items():
                offset = ir.Constant(intp, LANES * place)
                store_vector(builder, pointer, offset, builder.load(registers[key]))
        return context.get_dummy_value()

    return (
        types.void(
            columns,
            resp,
            types.intp,
            scales,
            means,
            types.intp,
            moments,
            types.intp,
            scatter,
            types.intp,
            types.intp,
            deviations,
            n_features,
            block_rows,
        ),
        codegen,
    )


def _feature_groups(n_features: int) -> list[range]:
    """Cut the rows of the triangle into runs whose sums fit the registers."""
    groups, begin = [], 0
    while begin < n_features:
        end, n_sums = begin + 1, begin + 2
        while end < n_features and n_sums + end + 2 <= MAX_SUMS_AT_ONCE:
            n_sums += end + 2
            end += 1
        groups.append(range(begin, end))
        begin = end
    return groups


def _accumulate(builder: IRBuilder, register: Value, vector: Value) -> None:
    builder.store(builder.fadd(builder.load(register), vector), register)


def _spread_from(
    context: BaseContext,
    builder: IRBuilder,
    signature: Signature,
    args: list[Value],
    position: int,
    count: int,
) -> list[Value]:
    """Spread ``count`` numbers of the array argument at ``position``, from its offset on."""
    intp = context.get_value_type(types.intp)
    data = array_data(context, builder, signature.args[position], args[position])
    base = builder.gep(data, [args[position + 1]])
    return [
        spread_scalar(builder, builder.load(builder.gep(base, [ir.Constant(intp, i)])))
        for i in range(count)
    ]
