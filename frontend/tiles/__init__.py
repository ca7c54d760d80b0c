"""Kernels as text, the way `einc.tile.printer` writes them, into a schedule; a wrong one ends in an error with its place."""
