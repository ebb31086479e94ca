"""The loss as one smooth function of rate, batch and whatever else was searched."""
