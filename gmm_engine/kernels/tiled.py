"""Dense covariances over many features: matrix products in tiles whose sums stay in registers.

Whitening takes rows along the lanes, three vectors of them by a panel of as many features as a
vector has lanes; the scatter takes features along the lanes. Features are padded with zeros to
whole vectors. Tiles are emitted, for which products a triangle needs is known beforehand.
"""

from collections.abc import Callable, Sequence
from itertools import product

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
    multiply_add,
    spread_scalar,
    store_vector,
)

VECTORS = 3
"""Vectors at once, of rows or of features; by ``LANES`` others they make as many sums as the
registers hold beside what is multiplied: 12 of 16, or 24 of 32."""
ROWS_AT_ONCE = VECTORS * LANES
"""Rows that are whitened together; blocks are a multiple of it."""
_ENOUGH_CHAINS = 8
"""Sums side by side that hide the latency of a product."""


class Emitter:
    """Emits loads, stores and sums about one builder, with integers of the machine's width."""

    def __init__(self, context: BaseContext, builder: IRBuilder) -> None:
        self.builder = builder
        self.intp = context.get_value_type(types.intp)

    def integer(self, number: int) -> Value:
        return ir.Constant(self.intp, number)

    def place(self, base: Value, number: int) -> Value:
        return self.builder.add(base, self.integer(number))

    def scaled(self, value: Value, factor: int) -> Value:
        return self.builder.mul(value, self.integer(factor))

    def loop(self, count: Value):
        return cgutils.for_range(self.builder, count, intp=self.intp)

    def load(self, pointer: Value, offset: Value) -> Value:
        return load_vector(self.builder, pointer, offset)

    def store(self, pointer: Value, offset: Value, vector: Value) -> None:
        store_vector(self.builder, pointer, offset, vector)

    def spread(self, pointer: Value, offset: Value) -> Value:
        address = self.builder.gep(pointer, [offset], inbounds=True)
        return spread_scalar(self.builder, self.builder.load(address))

    def register(self, value: Value) -> Value:
        register = cgutils.alloca_once(self.builder, VECTOR)
        self.builder.store(value, register)
        return register

    def add_product(self, register: Value, a: Value, b: Value) -> None:
        total = multiply_add(self.builder, a, b, self.builder.load(register))
        self.builder.store(total, register)


def _projected_panel(
    emit: Emitter,
    n_vectors: int,
    n_rows: Value,
    factors: Value,
    deviations_of: Callable[[Value], Sequence[Value]],
    *,
    square_at: Value | None = None,
    starts: Sequence[Value] = (ZERO,) * LANES,
) -> list[list[Value]]:
    """Emit the sums Σ_i p_ij d_i of a panel of columns j; registers by column and vector.

    ``factors`` points to the panel, of which ``n_rows`` rows are multiplied as a whole. Behind
    them, of what is upper triangular, a square follows: its rows from the diagonal on.
    """
    sums = [[emit.register(start) for _ in range(n_vectors)] for start in starts]

    def add_row(i: Value, columns: Sequence[int]) -> None:
        deviations = deviations_of(i)
        base = emit.scaled(i, LANES)
        for column in columns:
            u = emit.spread(factors, emit.place(base, column))
            for register, deviation in zip(sums[column], deviations, strict=True):
                emit.add_product(register, u, deviation)

    with emit.loop(n_rows) as rows:
        add_row(rows.index, range(LANES))
    for row in range(LANES if square_at is not None else 0):
        add_row(emit.place(square_at, row), range(row, LANES))
    return sums


def _whitened_panel(
    emit: Emitter,
    n_vectors: int,
    panel: Value,
    factors: Value,
    deviations_of: Callable[[Value], Sequence[Value]],
    starts: Sequence[Value] = (ZERO,) * LANES,
) -> list[list[Value]]:
    """Emit the sums Σ_i u_ij d_i likewise, of U that is upper triangular."""
    square = emit.scaled(panel, LANES)
    return _projected_panel(
        emit, n_vectors, square, factors, deviations_of, square_at=square, starts=starts
    )


@intrinsic(prefer_literal=True)
def _squared_lengths_of_vectors(
    typing_context,
    columns,
    row,
    block_rows,
    means,
    means_offset,
    factors,
    factors_offset,
    n_features,
    constant,
    deviations,
    out,
    out_offset,
    are_whitened,
    n_vectors,
):
    """Set out = constant − ½ |Uᵀ(x − μ)|² for vectors of rows that begin at ``row``.

    Of the panels of columns of U the last comes first: it needs all deviations, and leaves them
    for the others. Where the means ``are_whitened``, Uᵀμ, there are none.
    """
    V, B = n_vectors.literal_value, block_rows.literal_value
    has_whitened_means = bool(are_whitened.literal_value)

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        emit = Emitter(context, builder)
        x, mu, u, kept, target = (
            array_data(context, builder, signature.args[i], args[i]) for i in (0, 3, 5, 9, 10)
        )
        row, mu_at, u_at, width, target_at = (args[i] for i in (1, 4, 6, 7, 11))
        stride = emit.scaled(width, LANES)
        totals = [emit.register(ZERO) for _ in range(V)]

        def numbers(i: Value) -> list[Value]:
            source = builder.add(row, emit.scaled(i, B))
            return [emit.load(x, emit.place(source, vector * LANES)) for vector in range(V)]

        def subtracted(i: Value) -> list[Value]:
            mean = emit.spread(mu, builder.add(mu_at, i))
            deviations = []
            for vector, number in enumerate(numbers(i)):
                deviation = builder.fsub(number, mean)
                emit.store(
                    kept, emit.place(emit.scaled(i, ROWS_AT_ONCE), vector * LANES), deviation
                )
                deviations.append(deviation)
            return deviations

        def read(i: Value) -> list[Value]:
            begin = emit.scaled(i, ROWS_AT_ONCE)
            return [emit.load(kept, emit.place(begin, vector * LANES)) for vector in range(V)]

        def add_panel(panel: Value, deviations_of: Callable[[Value], Sequence[Value]]) -> None:
            begin = builder.gep(u, [builder.add(u_at, builder.mul(panel, stride))])
            means_begin = builder.add(mu_at, emit.scaled(panel, LANES))
            starts = [
                builder.fneg(emit.spread(mu, emit.place(means_begin, column)))
                if has_whitened_means
                else ZERO
                for column in range(LANES)
            ]
            columns = _whitened_panel(emit, V, panel, begin, deviations_of, starts)
            for vector, total in enumerate(totals):
                halves = columns[: LANES // 2], columns[LANES // 2 :]  # two chains, for latency
                sums = [emit.register(ZERO) for _ in halves]
                for half, register in zip(halves, sums, strict=True):
                    for column in half:
                        y = builder.load(column[vector])
                        emit.add_product(register, y, y)
                length = builder.fadd(*(builder.load(register) for register in sums))
                builder.store(builder.fadd(builder.load(total), length), total)

        last = builder.sub(builder.sdiv(width, emit.integer(LANES)), emit.integer(1))
        add_panel(last, numbers if has_whitened_means else subtracted)
        with emit.loop(last) as panels:
            add_panel(panels.index, numbers if has_whitened_means else read)
        start = spread_scalar(builder, args[8])
        minus_half = ir.Constant(VECTOR, [-0.5] * LANES)
        for vector, total in enumerate(totals):
            value = multiply_add(builder, minus_half, builder.load(total), start)
            place = emit.place(builder.add(target_at, row), vector * LANES)
            emit.store(target, place, value)
        return context.get_dummy_value()

    return (
        types.void(
            columns,
            types.intp,
            block_rows,
            means,
            types.intp,
            factors,
            types.intp,
            types.intp,
            types.float64,
            deviations,
            out,
            types.intp,
            are_whitened,
            n_vectors,
        ),
        codegen,
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def weigh(
    columns,
    means,
    means_offset,
    factors,
    factors_offset,
    n_features,
    constant,
    n_rows,
    block_rows,
    deviations,
    out,
    out_offset,
):
    """Set out = constant − ½ |Uᵀ(x − μ)|² for the rows of a block, stored by feature.

    ``factors`` holds U in panels of columns: panel, row, column in the panel. ``deviations`` is
    room for those of ``ROWS_AT_ONCE`` rows, which stay in the first cache with the factors.
    """
    row = 0
    while row + ROWS_AT_ONCE <= n_rows:
        _squared_lengths_of_vectors(
            columns,
            row,
            block_rows,
            means,
            means_offset,
            factors,
            factors_offset,
            n_features,
            constant,
            deviations,
            out,
            out_offset,
            False,
            VECTORS,
        )
        row += ROWS_AT_ONCE
    while row < n_rows:
        _squared_lengths_of_vectors(
            columns,
            row,
            block_rows,
            means,
            means_offset,
            factors,
            factors_offset,
            n_features,
            constant,
            deviations,
            out,
            out_offset,
            False,
            1,
        )
        row += LANES


@njit(nogil=True, error_model="numpy", forceinline=True)
def weigh_by_whitened_means(
    columns,
    whitened_means,
    means_offset,
    factors,
    factors_offset,
    n_features,
    constant,
    n_rows,
    block_rows,
    deviations,
    out,
    out_offset,
):
    """Set out likewise, given Uᵀμ; ``n_rows`` is a multiple of ``ROWS_AT_ONCE``."""
    for row in range(0, n_rows, ROWS_AT_ONCE):
        _squared_lengths_of_vectors(
            columns,
            row,
            block_rows,
            whitened_means,
            means_offset,
            factors,
            factors_offset,
            n_features,
            constant,
            deviations,
            out,
            out_offset,
            True,
            VECTORS,
        )


@intrinsic(prefer_literal=True)
def _project_vectors(
    typing_context,
    columns,
    row,
    block_rows,
    factors,
    factors_offset,
    n_features,
    n_panels,
    is_triangular,
    projected,
):
    """Set projected to Pᵀ(x − c) by feature for ``ROWS_AT_ONCE`` rows that begin at ``row``."""
    B, has_square = block_rows.literal_value, is_triangular.literal_value

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        emit = Emitter(context, builder)
        x, p, target = (array_data(context, builder, signature.args[i], args[i]) for i in (0, 3, 8))
        row, p_at, width, n_panels = (args[i] for i in (1, 4, 5, 6))
        stride = emit.scaled(width, LANES)
        center_at = builder.add(p_at, builder.mul(n_panels, stride))

        def subtracted(i: Value) -> list[Value]:
            mean = emit.spread(p, builder.add(center_at, i))
            source = builder.add(row, emit.scaled(i, B))
            return [
                builder.fsub(emit.load(x, emit.place(source, vector * LANES)), mean)
                for vector in range(VECTORS)
            ]

        with emit.loop(n_panels) as panels:
            begin = builder.gep(p, [builder.add(p_at, builder.mul(panels.index, stride))])
            if has_square:
                sums = _whitened_panel(emit, VECTORS, panels.index, begin, subtracted)
            else:
                sums = _projected_panel(emit, VECTORS, width, begin, subtracted)
            first = builder.add(row, emit.scaled(panels.index, LANES * B))
            for column, vector in product(range(LANES), range(VECTORS)):
                place = emit.place(first, column * B + vector * LANES)
                emit.store(target, place, builder.load(sums[column][vector]))
        return context.get_dummy_value()

    return (
        types.void(
            columns,
            types.intp,
            block_rows,
            factors,
            types.intp,
            types.intp,
            types.intp,
            is_triangular,
            projected,
        ),
        codegen,
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def project(
    columns,
    factors,
    factors_offset,
    n_features,
    n_panels,
    is_triangular,
    n_rows,
    block_rows,
    projected,
):
    """Set projected to Pᵀ(x − c) by feature.

    ``factors`` holds P in panels of columns as ``weigh`` reads U, and behind it the centre c.
    ``n_rows`` is rounded up to a multiple of ``ROWS_AT_ONCE``.
    """
    for row in range(0, n_rows, ROWS_AT_ONCE):
        _project_vectors(
            columns,
            row,
            block_rows,
            factors,
            factors_offset,
            n_features,
            n_panels,
            is_triangular,
            projected,
        )


@intrinsic(prefer_literal=True)
def _scale_stripe(
    typing_context,
    rows,
    means,
    means_offset,
    chosen,
    roots,
    begin,
    n_features,
    n_rows,
    scaled,
    sums,
    i,
    n_vectors,
):
    V = n_vectors.literal_value

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        emit = Emitter(context, builder)
        x, mu, picked, root_of, target, totals = (
            array_data(context, builder, signature.args[k], args[k]) for k in (0, 1, 3, 4, 8, 9)
        )
        begin, width, first = args[5], args[6], args[10]
        mean_at = builder.add(args[2], first)
        offsets = [vector * LANES for vector in range(V)]
        mean = [emit.load(mu, emit.place(mean_at, offset)) for offset in offsets]
        registers = [emit.register(ZERO) for _ in offsets]
        with emit.loop(args[7]) as loop:
            source_at = builder.add(begin, loop.index)
            row = builder.load(builder.gep(picked, [source_at]))
            source = builder.add(builder.mul(row, width), first)
            place = builder.add(builder.mul(loop.index, width), first)
            root = emit.spread(root_of, source_at)
            for offset, register, center in zip(offsets, registers, mean, strict=True):
                deviation = builder.fsub(emit.load(x, emit.place(source, offset)), center)
                value = builder.fmul(root, deviation)
                emit.store(target, emit.place(place, offset), value)
                emit.add_product(register, root, value)
        for offset, register in zip(offsets, registers, strict=True):
            emit.store(totals, emit.place(first, offset), builder.load(register))
        return context.get_dummy_value()

    return (
        types.void(
            rows,
            means,
            types.intp,
            chosen,
            roots,
            types.intp,
            types.intp,
            types.intp,
            scaled,
            sums,
            types.intp,
            n_vectors,
        ),
        codegen,
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def scale_deviations(
    rows, means, means_offset, chosen, roots, begin, n_features, n_rows, scaled, sums
):
    """Set scaled to √γ·(x − μ) of ``n_rows`` chosen ones from ``begin`` on; sums to Σγ·(x − μ)."""
    i = 0
    while i + 4 * LANES <= n_features:
        _scale_stripe(
            rows, means, means_offset, chosen, roots, begin, n_features, n_rows, scaled, sums, i, 4
        )
        i += 4 * LANES
    while i + 2 * LANES <= n_features:
        _scale_stripe(
            rows, means, means_offset, chosen, roots, begin, n_features, n_rows, scaled, sums, i, 2
        )
        i += 2 * LANES
    if i < n_features:
        _scale_stripe(
            rows, means, means_offset, chosen, roots, begin, n_features, n_rows, scaled, sums, i, 1
        )


def _tile(places: Sequence[tuple[int, int]], *, subtracts: bool = False):
    """Make what adds to a tile of a matrix, or subtracts: Σ_m left[m, i + r]·right[m, j + v].

    ``places`` are (r, v), a feature and a vector of them; m goes from ``begin`` to ``end``, an even
    number of rows. All three matrices have rows of ``stride`` numbers.
    """
    n_chains = max(1, _ENOUGH_CHAINS // len(places))
    offsets = [vector * LANES for vector in range(max(vector for _, vector in places) + 1)]

    @intrinsic
    def add_tile(typing_context, left, right, stride, begin, end, target, target_offset, i, j):
        def codegen(
            context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
        ) -> Value:
            emit = Emitter(context, builder)
            spread_from, loaded_from, totals = (
                array_data(context, builder, signature.args[k], args[k]) for k in (0, 1, 5)
            )
            width, begin, end, i, j = (args[k] for k in (2, 3, 4, 7, 8))

            def place_of(r: int, vector: int) -> Value:
                row = builder.add(args[6], builder.mul(emit.place(i, r), width))
                return emit.place(builder.add(row, j), vector * LANES)

            sums = {place: emit.register(emit.load(totals, place_of(*place))) for place in places}
            chains = [sums] + [
                {place: emit.register(ZERO) for place in places} for _ in range(n_chains - 1)
            ]
            n_steps = builder.sdiv(builder.sub(end, begin), emit.integer(n_chains))
            with emit.loop(n_steps) as steps:
                first = builder.add(begin, emit.scaled(steps.index, n_chains))
                for step, chain in enumerate(chains):
                    row = builder.mul(emit.place(first, step), width)
                    along = [
                        emit.load(loaded_from, emit.place(builder.add(row, j), offset))
                        for offset in offsets
                    ]
                    for r in dict.fromkeys(r for r, _ in places):
                        value = emit.spread(spread_from, emit.place(builder.add(row, i), r))
                        if subtracts:
                            value = builder.fneg(value)
                        for vector in (v for other, v in places if other == r):
                            emit.add_product(chain[r, vector], value, along[vector])
            for place in places:
                total = builder.load(sums[place])
                for chain in chains[1:]:
                    total = builder.fadd(total, builder.load(chain[place]))
                emit.store(totals, place_of(*place), total)
            return context.get_dummy_value()

        matrix, intp = left, types.intp
        return (
            types.void(matrix, right, intp, intp, intp, target, intp, intp, intp),
            codegen,
        )

    return add_tile


def _rectangle(n_vectors: int) -> list[tuple[int, int]]:
    return list(product(range(LANES), range(n_vectors)))


_add_tile = _tile(_rectangle(VECTORS))
_add_last = _tile(_rectangle(1))
_add_corner = _tile([(r, vector) for r in range(2 * LANES) for vector in range(r // LANES + 1)])
"""Two tiles on the diagonal and the one between: as many sums as in a whole tile."""
_subtract_tile = _tile(_rectangle(VECTORS), subtracts=True)
_subtract_narrow_tile = _tile(_rectangle(1), subtracts=True)


@njit(nogil=True, error_model="numpy", forceinline=True)
def add_scatter(scaled, n_features, n_rows, scatter, offset):
    """Add scaledᵀ·scaled to the lower triangle of a scatter; ``n_rows`` is even.

    Each row of tiles ends in one or two that are not part of a whole tile: with those of the next
    row they make a corner.
    """
    D = n_features
    for i in range(0, D, LANES):
        end = i + LANES
        j = 0
        while j + VECTORS * LANES <= end:
            _add_tile(scaled, scaled, D, 0, n_rows, scatter, offset, i, j)
            j += VECTORS * LANES
        if j + LANES == end:
            if end < D:
                _add_corner(scaled, scaled, D, 0, n_rows, scatter, offset, i, j)
            else:
                _add_last(scaled, scaled, D, 0, n_rows, scatter, offset, i, j)


@njit(nogil=True, error_model="numpy")
def subtract_products(left, right, width, begin, panel, is_triangular, target):
    """Subtract Σ_m left[m, i]·right[m, j] from the rows of a panel i, for the columns j behind it.

    m goes from ``begin`` to the panel; or, where ``right`` is triangular, from behind the panel to
    the last row that is not zero in the columns. All are flat matrices of ``width``² numbers.
    """
    j = panel
    while j < width:
        n_columns = VECTORS * LANES if j + VECTORS * LANES <= width else LANES
        first = panel + LANES if is_triangular else begin
        last = min(j + n_columns, width) if is_triangular else panel
        if n_columns > LANES:
            _subtract_tile(left, right, width, first, last, target, 0, panel, j)
        else:
            _subtract_narrow_tile(left, right, width, first, last, target, 0, panel, j)
        j += n_columns
