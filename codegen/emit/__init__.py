"""Text of Python that every generator writes."""
