"""Trees to equations."""
