"""Emitted files loaded, interpreted, compiled ahead."""
