"""MLflow as a place that is told of runs: one parent run a study, one child run a trial."""
