"""Held-out loss minus training loss, and what it goes with."""
