"""The command `scaling`, and its sub-commands."""
