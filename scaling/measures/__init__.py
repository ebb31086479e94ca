"""What is measured while a trial trains."""
