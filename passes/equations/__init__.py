"""Passes ein -> ein."""
