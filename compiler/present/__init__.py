"""What is known of a program on a terminal, as JSON, as a page."""
