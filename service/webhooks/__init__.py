"""Webhooks: addresses that are told of events, signed, until they answer."""
