"""Kernels as text, the way `einc.tile.printer` writes them, into a schedule; a wrong one into an error."""
