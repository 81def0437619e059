"""Products of all pairs of features, in whole vectors, and their sums by responsibilities.

Features lie along the lanes, in panels of a vector each. A product of two panels is as many vectors
as there are lanes, one of them turned lane by lane; of a panel with itself half of that suffices.
What is kept of a block is a few vectors of each row, so that they stay in the first cache while
the responsibilities of one component after another are multiplied by them.
"""

from collections.abc import Sequence

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import njit, types
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from gmm_engine.kernels.blocks import BLOCK_ROWS
from gmm_engine.kernels.lanes import LANES, REGISTERS, ZERO, add, array_data, load, store
from gmm_engine.kernels.tiled import Emitter

PANELS_WIDTH = 16
"""Features, with their padding, that it is done for: with more, fewer rows count."""
_PANELS = PANELS_WIDTH // LANES
_VECTORS_AT_ONCE = 4
_COMPONENTS_AT_ONCE = REGISTERS // 8
"""By so many vectors they make sums for half of the registers."""

_OF_A_PANEL = LANES // 2 + 1
_PAIRS = [
    (p, q, turn)
    for p in range(_PANELS)
    for q in range(p + 1)
    for turn in range(LANES if q < p else _OF_A_PANEL)
]
"""Of each vector of products the two panels, and by how many lanes the second is turned."""
_VECTORS: list[tuple[int, ...] | None] = [*((p,) for p in range(_PANELS)), *_PAIRS]
_VECTORS += [None] * (-len(_VECTORS) % _VECTORS_AT_ONCE)
"""The features themselves, their products, and zeros that fill up the last few."""
N_PRODUCTS = len(_VECTORS) * LANES
KEPT_PRODUCTS = _VECTORS_AT_ONCE * LANES * BLOCK_ROWS


@njit(nogil=True, error_model="numpy")
def product_place(i, j):
    """Return where the product of two features is, i ≥ j, behind the features themselves."""
    p, q, lane, turn = i // LANES, j // LANES, i % LANES, (j - i) % LANES
    if p == q and turn >= _OF_A_PANEL:
        lane, turn = j % LANES, LANES - turn
    before = p * (p - 1) // 2 * LANES + p * _OF_A_PANEL + q * LANES
    return (_PANELS + before + turn) * LANES + lane


@intrinsic(prefer_literal=True)
def _add_vectors(
    typing_context, rows, resp, n_components, n_rows, kept, totals, stride, block_rows
):
    """Add Σγx and Σγxxᵀ to the totals of all components, ``stride`` apart."""
    B = block_rows.literal_value

    def codegen(
        context: BaseContext, builder: IRBuilder, signature: Signature, args: list[Value]
    ) -> Value:
        emit = Emitter(context, builder)
        x, gamma, z, sums = (
            array_data(context, builder, signature.args[i], args[i]) for i in (0, 1, 4, 5)
        )
        n_components, n_rows, stride = args[2], args[3], args[6]
        offsets = [i * LANES for i in range(_VECTORS_AT_ONCE)]

        def make(vectors: Sequence[tuple[int, ...] | None]) -> None:
            with emit.loop(n_rows) as loop:
                source = emit.scaled(loop.index, PANELS_WIDTH)
                panels = [emit.load(x, emit.place(source, p * LANES)) for p in range(_PANELS)]
                target = emit.scaled(loop.index, _VECTORS_AT_ONCE * LANES)
                for vector, offset in zip(vectors, offsets, strict=True):
                    value = _vector(builder, panels, vector)
                    emit.store(z, emit.place(target, offset), value)

        def sum_up(first: Value, n_together: int, begin: int) -> None:
            def place_of(component: int, offset: int) -> Value:
                base = builder.mul(emit.place(first, component), stride)
                return emit.place(base, begin * LANES + offset)

            places = [(k, offset) for k in range(n_together) for offset in offsets]
            registers = {at: emit.register(emit.load(sums, place_of(*at))) for at in places}
            with emit.loop(n_rows) as loop:
                source = emit.scaled(loop.index, _VECTORS_AT_ONCE * LANES)
                values = {offset: emit.load(z, emit.place(source, offset)) for offset in offsets}
                for k in range(n_together):
                    row = builder.add(emit.scaled(emit.place(first, k), B), loop.index)
                    weight = emit.spread(gamma, row)
                    for offset, value in values.items():
                        emit.add_product(registers[k, offset], weight, value)
            for at, register in registers.items():
                emit.store(sums, place_of(*at), builder.load(register))

        n_groups = builder.sdiv(n_components, emit.integer(_COMPONENTS_AT_ONCE))
        n_grouped = emit.scaled(n_groups, _COMPONENTS_AT_ONCE)
        for begin in range(0, len(_VECTORS), _VECTORS_AT_ONCE):
            make(_VECTORS[begin : begin + _VECTORS_AT_ONCE])
            with emit.loop(n_groups) as groups:
                sum_up(emit.scaled(groups.index, _COMPONENTS_AT_ONCE), _COMPONENTS_AT_ONCE, begin)
            with emit.loop(builder.sub(n_components, n_grouped)) as others:
                sum_up(builder.add(n_grouped, others.index), 1, begin)
        return context.get_dummy_value()

    intp = types.intp
    return types.void(rows, resp, intp, intp, kept, totals, intp, block_rows), codegen


def _vector(builder: IRBuilder, panels: list[Value], vector: tuple[int, ...] | None) -> Value:
    if vector is None:
        return ZERO
    p, *others = vector
    if not others:
        return panels[p]
    q, turn = others
    lanes = ir.VectorType(ir.IntType(32), LANES)
    turned = ir.Constant(lanes, [(lane + turn) % LANES for lane in range(LANES)])
    return builder.fmul(panels[p], builder.shuffle_vector(panels[q], panels[q], turned))


@njit(nogil=True, error_model="numpy", forceinline=True)
def add_products(rows, resp, n_components, n_rows, kept, totals):
    """Add the sums of all components over rows of a block.

    Those of a component are Σγ, in a vector of partial sums, Σγx and Σγxxᵀ.
    """
    stride = LANES + N_PRODUCTS
    for k in range(n_components):
        total = load(totals, k * stride)
        for row in range(0, n_rows, LANES):
            total = add(total, load(resp, k * BLOCK_ROWS + row))
        store(totals, k * stride, total)
    _add_vectors(rows, resp, n_components, n_rows, kept, totals[LANES:], stride, BLOCK_ROWS)
