"""Training of the user's own: a Python file that brings module, data, loss and metrics."""
