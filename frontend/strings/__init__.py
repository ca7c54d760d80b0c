"""Einsum strings, and expressions over them."""
