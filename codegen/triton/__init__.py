"""A tile kernel in Triton."""
