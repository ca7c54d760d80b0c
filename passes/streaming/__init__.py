"""Closure under movement."""
