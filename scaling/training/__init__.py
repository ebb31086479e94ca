"""The Transformer training loop: seven steps, exact at any decomposition of the batch."""
