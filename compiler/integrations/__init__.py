"""Other libraries that call attention: what makes them call programs of the language."""
