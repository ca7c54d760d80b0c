"""Sums whose terms data sends to their places."""
