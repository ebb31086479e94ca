"""Intervals, profiles and scatter: the statistics that the findings share."""
