"""Kernels as text, as `einc.tile.printer` writes them, into a schedule, or into an error where they are wrong."""
