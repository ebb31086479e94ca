"""The report of a study: figures, words and tables from the findings."""
