"""A story as one page that needs nothing else: pictures, derivations and figures."""

from __future__ import annotations

import html

from einc.explain import Story
from einc.report import report


def page(s: Story) -> str:
    """The page."""
    return f"<!doctype html><title>{html.escape(s.name)}</title><pre>{html.escape(report(s))}</pre>\n"
