"""Task families: data, collation, head, loss sum and count, metrics."""
