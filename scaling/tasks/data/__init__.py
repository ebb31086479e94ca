"""From a source to encoded splits."""
