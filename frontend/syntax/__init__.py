"""Characters to trees."""
