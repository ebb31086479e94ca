"""Sweeps that were run elsewhere, read from tables."""
