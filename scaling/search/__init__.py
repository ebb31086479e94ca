"""Which trial is next, and which is not worth finishing."""
