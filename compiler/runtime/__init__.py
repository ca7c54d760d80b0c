"""Tensors in, tensors out: where and by what a program runs."""
