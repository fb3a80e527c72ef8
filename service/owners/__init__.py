"""Owners: weights, quotas and teams."""
