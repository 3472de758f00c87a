"""Webhooks: the log, through its owner's View, posted to wherever the owner says."""
