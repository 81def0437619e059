"""Dense covariances over many features: matrix products in tiles that stay in registers.

Twelve vectors of sums at a time, in both directions: whitening takes 12 rows by 4 features,
the scatter 4 by 12 features. Features are padded with zeros to a multiple of 4.
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
"""Rows that ``squared_lengths`` takes together; blocks are a multiple of it."""
FEATURES_AT_ONCE = 4 * LANES
"""Features that ``weigh_deviations`` takes together: whole lines of the cache."""


@njit(nogil=True, error_model="numpy", forceinline=True)
def subtract_mean(columns, means, means_offset, n_features, n_rows, block_rows, deviations):
    """Set deviations to x − μ, by groups of rows and by feature in a group.

    A group with all its features is read again and again for one panel after another: it is
    stored without gaps, so that it stays in the first cache with the factors. ``n_rows`` is a
    multiple of 4.
    """
    for group in range(0, n_rows, ROWS_AT_ONCE):
        n_vectors = min(ROWS_AT_ONCE, n_rows - group) // LANES
        for i in range(n_features):
            mean = spread_at(means, means_offset + i)
            source = i * block_rows + group
            target = group * n_features + i * ROWS_AT_ONCE
            for vector in range(n_vectors):
                x = load(columns, source + vector * LANES)
                store(deviations, target + vector * LANES, subtract(x, mean))


@njit(nogil=True, error_model="numpy", forceinline=True)
def whiten(deviations, factors, n_features, n_rows, block_rows, whitened):
    """Set whitened to Uᵀd by feature, for rows whose deviations are as ``subtract_mean`` sets them.

    ``factors`` begins with U as ``squared_lengths`` reads it. ``n_rows`` is rounded up to a
    multiple of 12.
    """
    for row in range(0, n_rows, ROWS_AT_ONCE):
        for j in range(n_features):
            panel, column = j // LANES, j % LANES
            base = panel * n_features * LANES + column
            a = b = c = spread(0.0)
            for i in range(j + 1):  # U is upper triangular
                at = row * n_features + i * ROWS_AT_ONCE
                u = spread_at(factors, base + LANES * i)
                a = fma(u, load(deviations, at), a)
                b = fma(u, load(deviations, at + LANES), b)
                c = fma(u, load(deviations, at + 2 * LANES), c)
            store(whitened, j * block_rows + row, a)
            store(whitened, j * block_rows + row + LANES, b)
            store(whitened, j * block_rows + row + 2 * LANES, c)


@njit(nogil=True, error_model="numpy", forceinline=True)
def squared_lengths(deviations, factors, factors_offset, n_features, n_rows, out):
    """Set out to |Uᵀd|² for rows whose deviations d are stored as ``subtract_mean`` does.

    ``factors`` holds U in panels of four columns: panel, row, column in the panel.
    """
    row = 0
    while row + ROWS_AT_ONCE <= n_rows:
        _lengths_of_three_vectors(deviations, factors, factors_offset, n_features, row, out)
        row += ROWS_AT_ONCE
    if row + 2 * LANES <= n_rows:
        _lengths_of_two_vectors(deviations, factors, factors_offset, n_features, row, out)
    elif row < n_rows:
        _lengths_of_one_vector(deviations, factors, factors_offset, n_features, row, out)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _lengths_of_three_vectors(deviations, factors, factors_offset, n_features, row, out):
    zero = spread(0.0)
    sum_a = zero
    sum_b = zero
    sum_c = zero
    for panel in range(n_features // LANES):
        a0 = a1 = a2 = a3 = zero
        b0 = b1 = b2 = b3 = zero
        c0 = c1 = c2 = c3 = zero
        base = factors_offset + panel * n_features * LANES
        for i in range(LANES * (panel + 1)):  # U is upper triangular
            at = row * n_features + i * ROWS_AT_ONCE
            a = load(deviations, at)
            b = load(deviations, at + LANES)
            c = load(deviations, at + 2 * LANES)
            u = spread_at(factors, base + LANES * i)
            a0 = fma(u, a, a0)
            b0 = fma(u, b, b0)
            c0 = fma(u, c, c0)
            u = spread_at(factors, base + LANES * i + 1)
            a1 = fma(u, a, a1)
            b1 = fma(u, b, b1)
            c1 = fma(u, c, c1)
            u = spread_at(factors, base + LANES * i + 2)
            a2 = fma(u, a, a2)
            b2 = fma(u, b, b2)
            c2 = fma(u, c, c2)
            u = spread_at(factors, base + LANES * i + 3)
            a3 = fma(u, a, a3)
            b3 = fma(u, b, b3)
            c3 = fma(u, c, c3)
        sum_a = fma(a0, a0, fma(a1, a1, fma(a2, a2, fma(a3, a3, sum_a))))
        sum_b = fma(b0, b0, fma(b1, b1, fma(b2, b2, fma(b3, b3, sum_b))))
        sum_c = fma(c0, c0, fma(c1, c1, fma(c2, c2, fma(c3, c3, sum_c))))
    store(out, row, sum_a)
    store(out, row + LANES, sum_b)
    store(out, row + 2 * LANES, sum_c)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _lengths_of_two_vectors(deviations, factors, factors_offset, n_features, row, out):
    zero = spread(0.0)
    sum_a = zero
    sum_b = zero
    for panel in range(n_features // LANES):
        a0 = a1 = a2 = a3 = zero
        b0 = b1 = b2 = b3 = zero
        base = factors_offset + panel * n_features * LANES
        for i in range(LANES * (panel + 1)):  # U is upper triangular
            at = row * n_features + i * ROWS_AT_ONCE
            a = load(deviations, at)
            b = load(deviations, at + LANES)
            u = spread_at(factors, base + LANES * i)
            a0 = fma(u, a, a0)
            b0 = fma(u, b, b0)
            u = spread_at(factors, base + LANES * i + 1)
            a1 = fma(u, a, a1)
            b1 = fma(u, b, b1)
            u = spread_at(factors, base + LANES * i + 2)
            a2 = fma(u, a, a2)
            b2 = fma(u, b, b2)
            u = spread_at(factors, base + LANES * i + 3)
            a3 = fma(u, a, a3)
            b3 = fma(u, b, b3)
        sum_a = fma(a0, a0, fma(a1, a1, fma(a2, a2, fma(a3, a3, sum_a))))
        sum_b = fma(b0, b0, fma(b1, b1, fma(b2, b2, fma(b3, b3, sum_b))))
    store(out, row, sum_a)
    store(out, row + LANES, sum_b)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _lengths_of_one_vector(deviations, factors, factors_offset, n_features, row, out):
    zero = spread(0.0)
    sum_a = zero
    for panel in range(n_features // LANES):
        a0 = a1 = a2 = a3 = zero
        base = factors_offset + panel * n_features * LANES
        for i in range(LANES * (panel + 1)):  # U is upper triangular
            at = row * n_features + i * ROWS_AT_ONCE
            a = load(deviations, at)
            u = spread_at(factors, base + LANES * i)
            a0 = fma(u, a, a0)
            u = spread_at(factors, base + LANES * i + 1)
            a1 = fma(u, a, a1)
            u = spread_at(factors, base + LANES * i + 2)
            a2 = fma(u, a, a2)
            u = spread_at(factors, base + LANES * i + 3)
            a3 = fma(u, a, a3)
        sum_a = fma(a0, a0, fma(a1, a1, fma(a2, a2, fma(a3, a3, sum_a))))
    store(out, row, sum_a)


@njit(nogil=True, error_model="numpy", forceinline=True)
def weigh_deviations(
    rows, means, means_offset, chosen, gammas, n_features, n_rows, plain, weighted, sums
):
    """Set plain to x − μ, weighted to γ·(x − μ), of chosen rows, and sums to Σγ·(x − μ)."""
    i = 0
    while i + FEATURES_AT_ONCE <= n_features:
        _weigh_wide_stripe(
            rows,
            means,
            means_offset,
            chosen,
            gammas,
            n_features,
            n_rows,
            plain,
            weighted,
            sums,
            i,
        )
        i += FEATURES_AT_ONCE
    while i < n_features:
        _weigh_narrow_stripe(
            rows,
            means,
            means_offset,
            chosen,
            gammas,
            n_features,
            n_rows,
            plain,
            weighted,
            sums,
            i,
        )
        i += LANES


@njit(nogil=True, error_model="numpy", forceinline=True)
def _weigh_wide_stripe(
    rows, means, means_offset, chosen, gammas, n_features, n_rows, plain, weighted, sums, i
):
    zero = spread(0.0)
    mean_a = load(means, means_offset + i)
    mean_b = load(means, means_offset + i + LANES)
    mean_c = load(means, means_offset + i + 2 * LANES)
    mean_d = load(means, means_offset + i + 3 * LANES)
    sum_a = sum_b = sum_c = sum_d = zero
    for row in range(n_rows):
        at = row * n_features + i
        source = chosen[row] * n_features + i
        gamma = spread_at(gammas, row)
        deviation = subtract(load(rows, source), mean_a)
        product = multiply(gamma, deviation)
        store(plain, at, deviation)
        store(weighted, at, product)
        sum_a = add(product, sum_a)
        deviation = subtract(load(rows, source + LANES), mean_b)
        product = multiply(gamma, deviation)
        store(plain, at + LANES, deviation)
        store(weighted, at + LANES, product)
        sum_b = add(product, sum_b)
        deviation = subtract(load(rows, source + 2 * LANES), mean_c)
        product = multiply(gamma, deviation)
        store(plain, at + 2 * LANES, deviation)
        store(weighted, at + 2 * LANES, product)
        sum_c = add(product, sum_c)
        deviation = subtract(load(rows, source + 3 * LANES), mean_d)
        product = multiply(gamma, deviation)
        store(plain, at + 3 * LANES, deviation)
        store(weighted, at + 3 * LANES, product)
        sum_d = add(product, sum_d)
    store(sums, i, sum_a)
    store(sums, i + LANES, sum_b)
    store(sums, i + 2 * LANES, sum_c)
    store(sums, i + 3 * LANES, sum_d)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _weigh_narrow_stripe(
    rows, means, means_offset, chosen, gammas, n_features, n_rows, plain, weighted, sums, i
):
    mean = load(means, means_offset + i)
    total = spread(0.0)
    for row in range(n_rows):
        at = row * n_features + i
        deviation = subtract(load(rows, chosen[row] * n_features + i), mean)
        product = multiply(spread_at(gammas, row), deviation)
        store(plain, at, deviation)
        store(weighted, at, product)
        total = add(product, total)
    store(sums, i, total)


@njit(nogil=True, error_model="numpy", forceinline=True)
def add_scatter(plain, weighted, n_features, n_rows, scatter, scatter_offset):
    """Add weightedᵀ·plain to the lower triangle of a scatter, in tiles along its diagonal."""
    for i in range(0, n_features, LANES):
        j = 0
        end = i + LANES
        while j + 3 * LANES <= end:
            _add_wide_tile(plain, weighted, n_features, n_rows, scatter, scatter_offset, i, j)
            j += 3 * LANES
        if j + 2 * LANES <= end:
            _add_middle_tile(plain, weighted, n_features, n_rows, scatter, scatter_offset, i, j)
            j += 2 * LANES
        if j < end:
            _add_narrow_tile(plain, weighted, n_features, n_rows, scatter, scatter_offset, i, j)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_wide_tile(plain, weighted, n_features, n_rows, scatter, scatter_offset, i, j):
    row_0 = scatter_offset + i * n_features + j
    row_1 = row_0 + n_features
    row_2 = row_1 + n_features
    row_3 = row_2 + n_features
    a0, a1, a2 = (
        load(scatter, row_0),
        load(scatter, row_0 + LANES),
        load(scatter, row_0 + 2 * LANES),
    )
    b0, b1, b2 = (
        load(scatter, row_1),
        load(scatter, row_1 + LANES),
        load(scatter, row_1 + 2 * LANES),
    )
    c0, c1, c2 = (
        load(scatter, row_2),
        load(scatter, row_2 + LANES),
        load(scatter, row_2 + 2 * LANES),
    )
    d0, d1, d2 = (
        load(scatter, row_3),
        load(scatter, row_3 + LANES),
        load(scatter, row_3 + 2 * LANES),
    )
    for row in range(n_rows):
        at = row * n_features
        x = load(plain, at + j)
        y = load(plain, at + j + LANES)
        z = load(plain, at + j + 2 * LANES)
        w = spread_at(weighted, at + i)
        a0 = fma(w, x, a0)
        a1 = fma(w, y, a1)
        a2 = fma(w, z, a2)
        w = spread_at(weighted, at + i + 1)
        b0 = fma(w, x, b0)
        b1 = fma(w, y, b1)
        b2 = fma(w, z, b2)
        w = spread_at(weighted, at + i + 2)
        c0 = fma(w, x, c0)
        c1 = fma(w, y, c1)
        c2 = fma(w, z, c2)
        w = spread_at(weighted, at + i + 3)
        d0 = fma(w, x, d0)
        d1 = fma(w, y, d1)
        d2 = fma(w, z, d2)
    store(scatter, row_0, a0)
    store(scatter, row_0 + LANES, a1)
    store(scatter, row_0 + 2 * LANES, a2)
    store(scatter, row_1, b0)
    store(scatter, row_1 + LANES, b1)
    store(scatter, row_1 + 2 * LANES, b2)
    store(scatter, row_2, c0)
    store(scatter, row_2 + LANES, c1)
    store(scatter, row_2 + 2 * LANES, c2)
    store(scatter, row_3, d0)
    store(scatter, row_3 + LANES, d1)
    store(scatter, row_3 + 2 * LANES, d2)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_middle_tile(plain, weighted, n_features, n_rows, scatter, scatter_offset, i, j):
    row_0 = scatter_offset + i * n_features + j
    row_1 = row_0 + n_features
    row_2 = row_1 + n_features
    row_3 = row_2 + n_features
    a0, a1 = load(scatter, row_0), load(scatter, row_0 + LANES)
    b0, b1 = load(scatter, row_1), load(scatter, row_1 + LANES)
    c0, c1 = load(scatter, row_2), load(scatter, row_2 + LANES)
    d0, d1 = load(scatter, row_3), load(scatter, row_3 + LANES)
    for row in range(n_rows):
        at = row * n_features
        x = load(plain, at + j)
        y = load(plain, at + j + LANES)
        w = spread_at(weighted, at + i)
        a0 = fma(w, x, a0)
        a1 = fma(w, y, a1)
        w = spread_at(weighted, at + i + 1)
        b0 = fma(w, x, b0)
        b1 = fma(w, y, b1)
        w = spread_at(weighted, at + i + 2)
        c0 = fma(w, x, c0)
        c1 = fma(w, y, c1)
        w = spread_at(weighted, at + i + 3)
        d0 = fma(w, x, d0)
        d1 = fma(w, y, d1)
    store(scatter, row_0, a0)
    store(scatter, row_0 + LANES, a1)
    store(scatter, row_1, b0)
    store(scatter, row_1 + LANES, b1)
    store(scatter, row_2, c0)
    store(scatter, row_2 + LANES, c1)
    store(scatter, row_3, d0)
    store(scatter, row_3 + LANES, d1)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_narrow_tile(plain, weighted, n_features, n_rows, scatter, scatter_offset, i, j):
    row_0 = scatter_offset + i * n_features + j
    row_1 = row_0 + n_features
    row_2 = row_1 + n_features
    row_3 = row_2 + n_features
    a, b = load(scatter, row_0), load(scatter, row_1)
    c, d = load(scatter, row_2), load(scatter, row_3)
    zero = spread(0.0)
    a_odd = b_odd = c_odd = d_odd = zero  # two chains a sum, to hide the latency of one
    for row in range(0, n_rows, 2):
        at = row * n_features
        x = load(plain, at + j)
        a = fma(spread_at(weighted, at + i), x, a)
        b = fma(spread_at(weighted, at + i + 1), x, b)
        c = fma(spread_at(weighted, at + i + 2), x, c)
        d = fma(spread_at(weighted, at + i + 3), x, d)
        at += n_features
        x = load(plain, at + j)
        a_odd = fma(spread_at(weighted, at + i), x, a_odd)
        b_odd = fma(spread_at(weighted, at + i + 1), x, b_odd)
        c_odd = fma(spread_at(weighted, at + i + 2), x, c_odd)
        d_odd = fma(spread_at(weighted, at + i + 3), x, d_odd)
    store(scatter, row_0, add(a, a_odd))
    store(scatter, row_1, add(b, b_odd))
    store(scatter, row_2, add(c, c_odd))
    store(scatter, row_3, add(d, d_odd))
