"""Ray Tune and Optuna decide, Ray Train worker groups execute."""
