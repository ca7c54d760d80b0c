"""Gradients: the program that a program's derivatives are."""
