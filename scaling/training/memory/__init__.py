"""What a trial takes of a worker's memory, before it runs and when it is too much."""
