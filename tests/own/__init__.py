"""Training of the user's own."""
