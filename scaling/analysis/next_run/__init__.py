"""What to run next, from what was measured."""
