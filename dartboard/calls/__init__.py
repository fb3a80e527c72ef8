"""What a client can be asked, by what it is about."""
