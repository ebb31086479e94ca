"""The optimizers: the table of all, and one file each that builds it."""
