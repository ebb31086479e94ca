"""Studies on a cluster whose machines come, go and are held by others."""
