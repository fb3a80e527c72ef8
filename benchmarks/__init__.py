"""Every figure that the docs quote, each from one command."""
