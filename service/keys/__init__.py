"""Keys: what lets programs in."""
