"""Trainings from scratch: submit, find, cancel."""
