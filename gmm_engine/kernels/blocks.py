"""How many rows are worked on together."""

BLOCK_ROWS = 96
"""Rows in a block; a multiple of what every way of weighing takes at once."""
GATHERED_ROWS = 4 * BLOCK_ROWS
"""Rows of which those are gathered that count for a component of many features."""
