"""From text to `einc.ein`: `parse` takes the three forms of the language, `elaborate` gives what one means."""

from einc.frontend.elaborate import elaborate
from einc.frontend.parse import Text, parse

__all__ = ["Text", "elaborate", "parse"]
