"""What every room may import: types, operations, places, errors, targets, facts."""
