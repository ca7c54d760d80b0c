"""Tiles executed by torch; emits nothing."""
