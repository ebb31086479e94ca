"""Steps to a target, and the critical batch size by each definition."""
