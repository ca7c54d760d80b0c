"""Tensors in, tensors out: where a program runs, and on which backend."""
