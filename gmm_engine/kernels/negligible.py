"""What is negligible: components that are absent from a row, as far as a double can tell.

With more than a few features most responsibilities are far below the rounding of the sums that
they would be added to. They are taken as nothing, and the moments are summed over the rows that
count for a component alone.
"""

from numba import njit

from gmm_engine.kernels.lanes import log_of_at_least_one

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


@njit(nogil=True, error_model="numpy", forceinline=True)
def choose_rows_that_count(resp, resp_offset, n_rows, chosen, gammas):
    """Set chosen to the rows with γ > 0 and gammas to their γ; return how many, made even.

    An odd one out is followed by itself with a γ of 0.
    """
    count = 0
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
