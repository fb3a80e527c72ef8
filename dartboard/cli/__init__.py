"""The `dartboard` command."""

from dartboard.cli.app import main

__all__ = ["main"]
