"""Passes tile -> tile."""
