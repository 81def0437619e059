"""Rows small enough to be read: two groups, around (1, 2) and (5, 6)."""

TWO_GROUPS = [
    [1.0, 2.0],
    [1.1, 2.2],
    [0.9, 2.1],
    [1.2, 1.8],
    [5.0, 6.0],
    [5.1, 6.3],
    [5.2, 5.9],
    [4.9, 6.1],
]
ONE_OF_EACH = [[1.0, 2.0], [5.0, 6.0]]
