"""Files and texts of the outside: written whole, read within bounds, shown without secrets."""
