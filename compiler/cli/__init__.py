"""Words of a command line."""
