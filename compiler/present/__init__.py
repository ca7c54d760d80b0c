"""That data on a terminal, as JSON, as a page."""
