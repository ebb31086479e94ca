"""The process that drives a study: from its checks to its report, and what it shows meanwhile."""
