"""A program tried out: on made-up operands, against its meaning, and against the clock."""
