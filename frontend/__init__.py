"""From text to `einc.ein`: `parse` reads the three forms of the language, `elaborate` makes a program."""

from einc.frontend.elaborate import elaborate
from einc.frontend.parse import Text, form_of, parse

__all__ = ["Text", "elaborate", "form_of", "parse"]
