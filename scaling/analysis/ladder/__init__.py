"""Runs of several sizes: what they say of a size that was not run, and how well they say it."""
