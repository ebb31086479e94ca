"""What the command line does beside running: plan, checks before a start, progress."""
