"""The loss surface over sizes: one valley whose bottom moves with the size."""
