"""What everyone may name: types, operations, places, errors, targets, facts."""
