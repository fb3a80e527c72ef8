"""Searches: submit, find, cancel."""
