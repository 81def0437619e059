"""How many rows are worked on together."""

BLOCK_ROWS = 96
"""Rows in a block; a multiple of what every way of weighing takes at once."""
