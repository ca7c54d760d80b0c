"""Plans -> tile."""
