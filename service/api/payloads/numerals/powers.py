"""Powers of ten: 10^q = (high·2⁶⁴ + low + rest)·2^(⌊log₂ 10^q⌋ − 127) with 0 ≤ rest < 1."""

import numpy as np
from numpy.typing import NDArray

LEAST_POWER, GREATEST_POWER = -342, 324
"""Below, no number of 19 digits is a double; the greatest one is what writing 5e-324 needs."""
LAST_EXACT_POWER, LAST_SHORT_POWER = 55, 27
"""10^q for q from 0 on has no rest up to the one, and low is zero up to the other."""

_BITS = 128


def _leading_bits(power: int) -> int:
    """Return the first 128 bits of 10^power; 2^s with s whole does not change them."""
    if power >= 0:
        five: int = 5**power
        excess = five.bit_length() - _BITS
        return five >> excess if excess >= 0 else five << -excess
    five = 5**-power
    return (1 << (five.bit_length() + _BITS - 1)) // five


def _halves() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    bits = [_leading_bits(power) for power in range(LEAST_POWER, GREATEST_POWER + 1)]
    low = (1 << 64) - 1
    return (
        np.array([each >> 64 for each in bits], dtype=np.uint64),
        np.array([each & low for each in bits], dtype=np.uint64),
    )


HIGH, LOW = _halves()
"""By power, from ``LEAST_POWER`` on."""
