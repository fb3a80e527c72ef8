"""Alive, and ready for work."""
