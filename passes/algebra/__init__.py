"""Laws of scalar expressions."""
