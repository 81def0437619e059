"""What the arrays of a fit take, before it is begun.

The terms follow from how a search goes about its rows and its mixtures; how many numbers there are
of each was fitted to what 500 fits of all kinds took.
"""

import math

from gmm_engine.acceleration import most_remembered
from gmm_engine.costs import Work, expected_work
from gmm_engine.covariances import COVARIANCE_FAMILIES
from gmm_engine.em import AT_ONCE, MOST_AT_ONCE
from gmm_engine.fitting import FINAL_RUNS, FINAL_STEPS, FitOptions, n_start_rows
from gmm_engine.initialization import INITIALIZERS
from gmm_engine.kernels.ranges import row_ranges
from gmm_engine.samples import BLOCK_ROWS

BYTES_PER_NUMBER = 8
COPIES_OF_PART, COPIES_OF_BLOCK = 1.5, 1.8
"""Of the rows that starts are sought on, where these are a part of all or brought to another scale;
of the rows that are looked at together."""
NUMBERS_OF_A_ROW, NUMBERS_OF_A_START_ROW, RESPONSIBILITIES = 0.6, 1.4, 2.0
"""Weights, labels and distances of each row, and tables of responsibilities where there are any."""
TABLES_REMEMBERED, TABLES_AHEAD, TABLES_OF_A_STEP = 3.5, 2.0, 12.0
"""Arrays of the size of the parameters, for each mixture that is remembered to accelerate, that is
taken ahead, or that is being made."""
TABLES_IN_A_CALL = 2.0
"""Beside these for each step while steps are taken ahead."""
VECTORS_OF_A_STEP, LEAST_ACCELERATED = 4.0, 8
"""While several remembered steps are mixed, which runs of more steps than that do."""
NUMBERS_OF_COMPONENT, NUMBERS_OF_MIXTURE = 15, 130
"""The rest of a mixture, its objects included."""


def memory_bytes(
    options: FitOptions, n_rows: int, n_features: int, work: Work | None = None
) -> int:
    """Return what the arrays of a fit take at their most, the rows included.

    The most promising of the starts that are tried keep mixtures until the best is chosen, and a
    long run is accelerated: ``work`` tells how many there are; typical work if it is left out.
    """
    work = work or expected_work(options, n_rows, n_features)
    numbers = _of_rows(options, n_rows, n_features) + _of_mixtures(options, n_features, work)
    return round(BYTES_PER_NUMBER * numbers)


def _of_rows(options: FitOptions, n_rows: int, n_features: int) -> float:
    K, D = options.n_components, n_features
    part_rows, block_rows = min(n_rows, n_start_rows(options, D)), min(n_rows, BLOCK_ROWS)
    has_copies = part_rows < n_rows or options.init_params == "auto"
    has_table = options.init_params == "random"
    return (
        n_rows * (D + NUMBERS_OF_A_ROW)
        + part_rows * (NUMBERS_OF_A_START_ROW + COPIES_OF_PART * D * has_copies)
        + block_rows * (COPIES_OF_BLOCK * D + RESPONSIBILITIES * K * has_table)
        + D**2
    )


def _of_mixtures(options: FitOptions, n_features: int, work: Work) -> float:
    K, D = options.n_components, n_features
    family = COVARIANCE_FAMILIES[options.covariance_type]
    n_parameters = math.prod(family.shape(K, D)) + K * D
    ranges = row_ranges(work.part_rows, K, D, is_dense=family.has_correlations)
    n_runs = max(work.starts, 1)
    n_kept_runs = min(n_runs / options.n_init, FINAL_RUNS + 1)  # the finalists, and one on trial
    once = 0.0
    if math.prod(family.shape(K, D)) > MOST_AT_ONCE:  # runs aside keep no more than parameters
        n_remembered = most_remembered(n_parameters) if work.steps > LEAST_ACCELERATED else 0
        return (n_kept_runs + TABLES_OF_A_STEP + n_remembered) * n_parameters
    if options.tol > 0.0:
        steps_of_run = (work.part_steps + work.steps) // n_runs
        n_remembered = most_remembered(n_parameters)
        n_kept, tables = min(n_remembered + 1, steps_of_run), TABLES_REMEMBERED
        is_tried = len(INITIALIZERS[options.init_params]) > 1
        if is_tried and len(ranges) > 1 and steps_of_run < FINAL_STEPS - n_remembered:
            n_kept = 1  # plain steps alone, one by one
        if work.steps > LEAST_ACCELERATED * options.n_init:
            once = VECTORS_OF_A_STEP * n_remembered * n_parameters
    elif len(ranges) == 1 and n_parameters <= MOST_AT_ONCE:
        n_kept, tables = AT_ONCE, TABLES_AHEAD
        once = TABLES_IN_A_CALL * AT_ONCE * n_parameters
    else:
        n_kept, tables = 1, TABLES_OF_A_STEP
    of_mixture = tables * n_parameters + NUMBERS_OF_COMPONENT * K + NUMBERS_OF_MIXTURE
    return n_kept_runs * n_kept * of_mixture + once
