"""Pure functions of batches, learning rates and schedules, a paper behind each."""
