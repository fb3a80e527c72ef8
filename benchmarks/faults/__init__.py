"""Kills processes of a whole deployment at random moments, and checks that nothing shows it."""
