"""How a report is laid out: templates, assets, Markdown."""
