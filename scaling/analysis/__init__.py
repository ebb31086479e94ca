"""What the trials of a study say: pure functions from rows to numbers with intervals."""
