"""The cells of a study and the recipes of its trials."""
