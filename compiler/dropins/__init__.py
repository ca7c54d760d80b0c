"""Attention as PyTorch calls it: programs in the language, chosen by the arguments of a call."""
