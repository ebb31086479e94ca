"""Two studies on the same axes."""
