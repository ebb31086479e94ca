"""How the best learning rate moves with the batch, and what a rule costs."""
