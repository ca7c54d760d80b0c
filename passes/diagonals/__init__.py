"""Sums along diagonals, as sums of blocks."""
