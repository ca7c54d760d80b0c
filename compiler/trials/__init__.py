"""A program tried: made-up operands, its meaning beside it, the clock."""
