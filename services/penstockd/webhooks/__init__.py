"""Webhooks post changes of the log, seen through the owner's View, to the owner's URL."""
