"""The event log of a search, as a page and as a live stream."""
