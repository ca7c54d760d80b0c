"""einc as torch sees it: traced, transformed, stored, and called again."""
