"""What a study file may say only together with something else."""
