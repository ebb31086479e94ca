"""Models by transformers, and what must hold of them before they are trained."""
