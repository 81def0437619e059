"""Diagonal covariances: scaled distances and moments, the sums kept in registers.

Rows lie along the lanes; three vectors of them, or four features, go side by side. With many
features moments are summed with these along the lanes, over the rows that count.
"""

from numba import njit

from gmm_engine.kernels.lanes import (
    LANES,
    add,
    fma,
    load,
    multiply,
    spread,
    spread_at,
    store,
    subtract,
)

ROWS_AT_ONCE = 3 * LANES
FEATURES_AT_ONCE = 4


@njit(nogil=True, error_model="numpy", forceinline=True)
def weigh(columns, means, scales, offset, n_features, constant, n_rows, block_rows, out, at):
    """Set out to constant − ½ Σ ((x − μ)·s)² for the rows of a block, stored by feature.

    ``n_rows`` is rounded up to a multiple of ``ROWS_AT_ONCE``.
    """
    minus_half = spread(-0.5)
    start = spread(constant)
    for row in range(0, n_rows, ROWS_AT_ONCE):
        sum_a = sum_b = sum_c = spread(0.0)
        for i in range(n_features):
            mean = spread_at(means, offset + i)
            scale = spread_at(scales, offset + i)
            x = i * block_rows + row
            a = multiply(subtract(load(columns, x), mean), scale)
            b = multiply(subtract(load(columns, x + LANES), mean), scale)
            c = multiply(subtract(load(columns, x + 2 * LANES), mean), scale)
            sum_a = fma(a, a, sum_a)
            sum_b = fma(b, b, sum_b)
            sum_c = fma(c, c, sum_c)
        store(out, at + row, fma(minus_half, sum_a, start))
        store(out, at + row + LANES, fma(minus_half, sum_b, start))
        store(out, at + row + 2 * LANES, fma(minus_half, sum_c, start))


@njit(nogil=True, error_model="numpy", forceinline=True)
def weigh_whitened(columns, means, offset, n_features, constant, n_rows, block_rows, out, at):
    """Do as ``weigh`` for scales of 1."""
    minus_half = spread(-0.5)
    start = spread(constant)
    for row in range(0, n_rows, ROWS_AT_ONCE):
        sum_a = sum_b = sum_c = spread(0.0)
        for i in range(n_features):
            mean = spread_at(means, offset + i)
            x = i * block_rows + row
            a = subtract(load(columns, x), mean)
            b = subtract(load(columns, x + LANES), mean)
            c = subtract(load(columns, x + 2 * LANES), mean)
            sum_a = fma(a, a, sum_a)
            sum_b = fma(b, b, sum_b)
            sum_c = fma(c, c, sum_c)
        store(out, at + row, fma(minus_half, sum_a, start))
        store(out, at + row + LANES, fma(minus_half, sum_b, start))
        store(out, at + row + 2 * LANES, fma(minus_half, sum_c, start))


@njit(nogil=True, error_model="numpy", forceinline=True)
def add_moments(
    columns,
    resp,
    resp_offset,
    means,
    means_offset,
    n_features,
    moments,
    moments_offset,
    scatter,
    scatter_offset,
    n_rows,
    block_rows,
):
    """Add Σγ, Σγd and Σγd², d = x − μ by feature, each in a partial sum a lane."""
    total = load(moments, moments_offset)
    for row in range(0, n_rows, LANES):
        total = add(load(resp, resp_offset + row), total)
    store(moments, moments_offset, total)
    i = 0
    while i + FEATURES_AT_ONCE <= n_features:
        _add_four_features(
            columns,
            i * block_rows,
            resp,
            resp_offset,
            means,
            means_offset + i,
            moments,
            moments_offset + (1 + i) * LANES,
            scatter,
            scatter_offset + i * LANES,
            n_rows,
            block_rows,
        )
        i += FEATURES_AT_ONCE
    while i < n_features:
        _add_one_feature(
            columns,
            i * block_rows,
            resp,
            resp_offset,
            means,
            means_offset + i,
            moments,
            moments_offset + (1 + i) * LANES,
            scatter,
            scatter_offset + i * LANES,
            n_rows,
        )
        i += 1


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_four_features(
    columns,
    begin,
    resp,
    resp_offset,
    means,
    mean_at,
    moments,
    first_at,
    scatter,
    second_at,
    n_rows,
    block_rows,
):
    mean_a, mean_b = spread_at(means, mean_at), spread_at(means, mean_at + 1)
    mean_c, mean_d = spread_at(means, mean_at + 2), spread_at(means, mean_at + 3)
    first_a, first_b = load(moments, first_at), load(moments, first_at + LANES)
    first_c, first_d = load(moments, first_at + 2 * LANES), load(moments, first_at + 3 * LANES)
    second_a, second_b = load(scatter, second_at), load(scatter, second_at + LANES)
    second_c = load(scatter, second_at + 2 * LANES)
    second_d = load(scatter, second_at + 3 * LANES)
    for row in range(0, n_rows, LANES):
        gamma = load(resp, resp_offset + row)
        x = begin + row
        deviation = subtract(load(columns, x), mean_a)
        weighted = multiply(gamma, deviation)
        first_a = add(weighted, first_a)
        second_a = fma(weighted, deviation, second_a)
        deviation = subtract(load(columns, x + block_rows), mean_b)
        weighted = multiply(gamma, deviation)
        first_b = add(weighted, first_b)
        second_b = fma(weighted, deviation, second_b)
        deviation = subtract(load(columns, x + 2 * block_rows), mean_c)
        weighted = multiply(gamma, deviation)
        first_c = add(weighted, first_c)
        second_c = fma(weighted, deviation, second_c)
        deviation = subtract(load(columns, x + 3 * block_rows), mean_d)
        weighted = multiply(gamma, deviation)
        first_d = add(weighted, first_d)
        second_d = fma(weighted, deviation, second_d)
    store(moments, first_at, first_a)
    store(moments, first_at + LANES, first_b)
    store(moments, first_at + 2 * LANES, first_c)
    store(moments, first_at + 3 * LANES, first_d)
    store(scatter, second_at, second_a)
    store(scatter, second_at + LANES, second_b)
    store(scatter, second_at + 2 * LANES, second_c)
    store(scatter, second_at + 3 * LANES, second_d)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_one_feature(
    columns,
    begin,
    resp,
    resp_offset,
    means,
    mean_at,
    moments,
    first_at,
    scatter,
    second_at,
    n_rows,
):
    mean = spread_at(means, mean_at)
    first, second = load(moments, first_at), load(scatter, second_at)
    for row in range(0, n_rows, LANES):
        deviation = subtract(load(columns, begin + row), mean)
        weighted = multiply(load(resp, resp_offset + row), deviation)
        first = add(weighted, first)
        second = fma(weighted, deviation, second)
    store(moments, first_at, first)
    store(scatter, second_at, second)


@njit(nogil=True, error_model="numpy", forceinline=True)
def add_moments_of_rows(
    rows, means, means_offset, chosen, gammas, n_features, n_rows, first, scatter, scatter_offset
):
    """Set first to Σγd and add Σγd² to a scatter, for chosen rows; features lie along the lanes.

    Many features are read where a row keeps them side by side, and of rows that hardly belong to
    the component none is read. ``n_features`` is a multiple of ``LANES``.
    """
    i = 0
    while i + FEATURES_AT_ONCE * LANES <= n_features:
        _add_wide_stripe(
            rows,
            means,
            means_offset,
            chosen,
            gammas,
            n_features,
            n_rows,
            first,
            scatter,
            scatter_offset,
            i,
        )
        i += FEATURES_AT_ONCE * LANES
    while i < n_features:
        _add_narrow_stripe(
            rows,
            means,
            means_offset,
            chosen,
            gammas,
            n_features,
            n_rows,
            first,
            scatter,
            scatter_offset,
            i,
        )
        i += LANES


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_wide_stripe(
    rows, means, means_offset, chosen, gammas, n_features, n_rows, first, scatter, scatter_offset, i
):
    mean_a, mean_b = load(means, means_offset + i), load(means, means_offset + i + LANES)
    mean_c = load(means, means_offset + i + 2 * LANES)
    mean_d = load(means, means_offset + i + 3 * LANES)
    first_a = first_b = first_c = first_d = spread(0.0)
    at = scatter_offset + i
    second_a, second_b = load(scatter, at), load(scatter, at + LANES)
    second_c, second_d = load(scatter, at + 2 * LANES), load(scatter, at + 3 * LANES)
    for row in range(n_rows):
        source = chosen[row] * n_features + i
        gamma = spread_at(gammas, row)
        deviation = subtract(load(rows, source), mean_a)
        weighted = multiply(gamma, deviation)
        first_a = add(weighted, first_a)
        second_a = fma(weighted, deviation, second_a)
        deviation = subtract(load(rows, source + LANES), mean_b)
        weighted = multiply(gamma, deviation)
        first_b = add(weighted, first_b)
        second_b = fma(weighted, deviation, second_b)
        deviation = subtract(load(rows, source + 2 * LANES), mean_c)
        weighted = multiply(gamma, deviation)
        first_c = add(weighted, first_c)
        second_c = fma(weighted, deviation, second_c)
        deviation = subtract(load(rows, source + 3 * LANES), mean_d)
        weighted = multiply(gamma, deviation)
        first_d = add(weighted, first_d)
        second_d = fma(weighted, deviation, second_d)
    store(first, i, first_a)
    store(first, i + LANES, first_b)
    store(first, i + 2 * LANES, first_c)
    store(first, i + 3 * LANES, first_d)
    store(scatter, at, second_a)
    store(scatter, at + LANES, second_b)
    store(scatter, at + 2 * LANES, second_c)
    store(scatter, at + 3 * LANES, second_d)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_narrow_stripe(
    rows, means, means_offset, chosen, gammas, n_features, n_rows, first, scatter, scatter_offset, i
):
    mean = load(means, means_offset + i)
    total = spread(0.0)
    second = load(scatter, scatter_offset + i)
    for row in range(n_rows):
        deviation = subtract(load(rows, chosen[row] * n_features + i), mean)
        weighted = multiply(spread_at(gammas, row), deviation)
        total = add(weighted, total)
        second = fma(weighted, deviation, second)
    store(first, i, total)
    store(scatter, scatter_offset + i, second)
