"""Architectures: what searches found, as JSON, as text and as pictures."""
