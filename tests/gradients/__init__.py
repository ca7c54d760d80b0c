"""Gradients: that they are right, and that torch gets them by every way it asks."""
