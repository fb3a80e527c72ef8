"""Specs worth starting from."""
