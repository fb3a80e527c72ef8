"""Trials: one run of a search for each seed."""
