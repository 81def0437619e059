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
    are_whitened,
    n_features,
    block_rows,
):
    """Set out = constant − |Uᵀ(x − μ)|² for the rows of a block.

    ``columns`` holds the block by feature, ``factors`` the columns of U one after another, scaled.
    The means are μ, or Uᵀμ where they ``are_whitened``.
    """
    D, B = n_features.literal_value, block_rows.literal_value
    has_whitened_means = bool(are_whitened.literal_value)

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
                load_vector(builder, x, builder.add(row, ir.Constant(intp, i * B)))
                for i in range(D)
            ]
            if not has_whitened_means:
                deviations = [
                    builder.fsub(number, mean) for number, mean in zip(deviations, mu, strict=True)
                ]
            value = start
            for j in range(D):
                u_j = u[triangle_index(j, 0) : triangle_index(j + 1, 0)]
                if has_whitened_means:
                    y = multiply_add(builder, u_j[0], deviations[0], builder.fneg(mu[j]))
                else:
                    y = builder.fmul(u_j[0], deviations[0])
                for i in range(1, j + 1):
                    y = multiply_add(builder, u_j[i], deviations[i], y)
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
            are_whitened,
            n_features,
            block_rows,
        ),
        codegen,
    )


@intrinsic(prefer_literal=True)
def add_products(
    typing_context,
    columns,
    resp,
    scales,
    n_components,
    n_vectors,
    kept,
    totals,
    n_features,
    block_rows,
):
    """Add Σγ, Σγx and the lower triangle of Σγxxᵀ of all components, in a partial sum a lane.

    γ is ``resp`` times the ``scales`` of the rows, which are multiplied into what is the same for
    all components and ``kept`` by column. So few features that all their sums fit the registers.
    """
    D, B = n_features.literal_value, block_rows.literal_value

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        intp = context.get_value_type(types.intp)
        x, gamma, scale, z, sums = (
            array_data(context, builder, signature.args[i], args[i]) for i in (0, 1, 2, 5, 6)
        )
        n_sums = 1 + D + triangle_index(D, 0)
        offsets = [ir.Constant(intp, LANES * place) for place in range(n_sums)]

        def column(pointer: Value, row: Value, i: int) -> Value:
            return load_vector(builder, pointer, builder.add(row, ir.Constant(intp, i * B)))

        with cgutils.for_range(builder, args[4], intp=intp) as loop:
            row = builder.mul(loop.index, ir.Constant(intp, LANES))
            features = [column(x, row, i) for i in range(D)]
            products = [column(scale, row, 0)]
            products += [builder.fmul(products[0], feature) for feature in features]
            products += [
                builder.fmul(products[1 + i], features[j]) for i in range(D) for j in range(i + 1)
            ]
            for i, product in enumerate(products):
                store_vector(builder, z, builder.add(row, ir.Constant(intp, i * B)), product)
        with cgutils.for_range(builder, args[3], intp=intp) as components:
            of_one = builder.gep(
                sums, [builder.mul(components.index, ir.Constant(intp, n_sums * LANES))]
            )
            weights = builder.gep(gamma, [builder.mul(components.index, ir.Constant(intp, B))])
            registers = [cgutils.alloca_once(builder, VECTOR) for _ in offsets]
            for register, offset in zip(registers, offsets, strict=True):
                builder.store(load_vector(builder, of_one, offset), register)
            with cgutils.for_range(builder, args[4], intp=intp) as loop:
                row = builder.mul(loop.index, ir.Constant(intp, LANES))
                weight = column(weights, row, 0)
                for i, register in enumerate(registers):
                    total = multiply_add(builder, weight, column(z, row, i), builder.load(register))
                    builder.store(total, register)
            for register, offset in zip(registers, offsets, strict=True):
                store_vector(builder, of_one, offset, builder.load(register))
        return context.get_dummy_value()

    intp = types.intp
    return (
        types.void(columns, resp, scales, intp, intp, kept, totals, n_features, block_rows),
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
